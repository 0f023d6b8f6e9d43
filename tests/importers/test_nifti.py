"""NIfTI folders: pairing, orientation, scale factors, damage."""

import gzip

import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.nifti import (
    Abdomen1KImporter,
    BTCVImporter,
    NIfTIImporter,
    read_nifti,
)
from medssl_mm.store.orientation import to_source_axes
from tests.conftest import make_ct, write_nifti


def test_default_folders(tiny_nifti):
    cases = NIfTIImporter().discover(tiny_nifti(), classes='liver,kidney')
    assert [c.case_id for c in cases] == ['case1', 'case2', 'case3']
    assert all(c.label.endswith(f'labels/{c.case_id}.nii.gz') for c in cases)


def test_nnunet_folders(tiny_nifti):
    folder = tiny_nifti(2, 'imagesTr/scan{}_0000.nii.gz', 'labelsTr/scan{}.nii.gz')
    (folder / 'dataset.json').write_text(
        '{"labels": {"background": 0, "liver": 1, "kidney": 2}}'
    )
    importer = NIfTIImporter()
    cases = importer.discover(folder)
    assert [c.case_id for c in cases] == ['scan1', 'scan2']
    assert cases[0].label.endswith('labelsTr/scan1.nii.gz')
    assert importer.classes == ('background', 'liver', 'kidney')


@pytest.mark.parametrize(
    'image_name, label_name, image_glob, label_glob',
    [
        (
            'img/img000{}.nii.gz',
            'label/label000{}.nii.gz',
            'img/img*.nii.gz',
            'label/label*.nii.gz',
        ),
        ('p{}/ct.nii.gz', 'p{}/seg.nii.gz', '*/ct.nii.gz', '*/seg.nii.gz'),
        ('a/b/{}/ct.nii', 'a/b/{}/seg.nii', '**/ct.nii', '**/seg.nii'),
        ('img/s0{}.nii', 'seg/s0{}.nii', 'img/s[0-9]?.nii', 'seg/s[0-9]?.nii'),
    ],
)
def test_pairs_by_wildcard(tiny_nifti, image_name, label_name, image_glob, label_glob):
    folder = tiny_nifti(3, image_name, label_name)
    cases = NIfTIImporter().discover(
        folder, images=image_glob, labels=label_glob, classes='a,b'
    )
    assert len(cases) == 3
    for number, case in enumerate(cases, 1):
        assert case.image == str(folder / image_name.format(number))
        assert case.label == str(folder / label_name.format(number))


def test_labels_may_be_missing(tiny_nifti):
    folder = tiny_nifti()
    (folder / 'labels' / 'case2.nii.gz').unlink()
    (folder / 'labels' / 'case1.nii.gz').rename(folder / 'labels' / 'case9.nii.gz')
    importer = NIfTIImporter()
    cases = importer.discover(folder, classes='a,b')
    assert [c.label is None for c in cases] == [True, True, False]
    assert 'case9.nii.gz has no image' in importer.notes[0]


def test_patient_pattern(tiny_nifti):
    cases = NIfTIImporter().discover(
        tiny_nifti(label_name=None), patient_pattern=r'case(\d)'
    )
    assert [c.patient_id for c in cases] == ['1', '2', '3']


def test_messages_of_discover(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    with pytest.raises(UserError, match='no class names; give --classes'):
        NIfTIImporter().discover(folder)
    with pytest.raises(UserError, match="match e.g. 'case1'.*none"):
        NIfTIImporter().discover(
            folder, images='images/*.nii.gz', labels='masks/*.nii.gz'
        )
    with pytest.raises(UserError, match='--labels needs --images'):
        NIfTIImporter().discover(folder, labels='masks/*.nii.gz')
    with pytest.raises(UserError, match="'img/.*' matches nothing"):
        NIfTIImporter().discover(folder, images='img/*.nii.gz')
    with pytest.raises(UserError, match='must be relative'):
        NIfTIImporter().discover(folder, images=f'{folder}/*.nii.gz')


def test_canonical_and_back(tmp_path):
    image, label = make_ct(0)
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ [[0, 0, 5.0, 1], [-2, 0, 0, 2], [0, 3.0, 0, 3], [0, 0, 0, 1]]
    write_nifti(tmp_path / 'images/a.nii.gz', image, affine)
    write_nifti(tmp_path / 'labels/a.nii.gz', label, affine)
    importer = NIfTIImporter()
    (case,) = importer.discover(tmp_path, classes='liver,kidney')
    loaded = importer.load(case)
    assert loaded.problems == []
    assert loaded.source_orientation == 'PSR'
    assert loaded.spacing == pytest.approx((3, 2, 5))
    np.testing.assert_array_equal(
        to_source_axes(loaded.image, loaded.source_affine), image
    )
    np.testing.assert_array_equal(
        to_source_axes(loaded.label, loaded.source_affine), label
    )


def test_label_in_other_axis_order_on_the_same_grid(tmp_path):
    image, label = make_ct(0)
    image, label = image.T, label.T
    affine = np.diag([1.5, 1.25, 5, 1])
    write_nifti(tmp_path / 'images/a.nii.gz', image, affine)
    flipped = affine @ np.array(
        [[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    )
    write_nifti(tmp_path / 'labels/a.nii.gz', label[::-1], flipped)
    importer = NIfTIImporter()
    (case,) = importer.discover(tmp_path, classes='liver,kidney')
    loaded = importer.load(case)
    assert loaded.problems == []
    np.testing.assert_array_equal(to_source_axes(loaded.label, affine), label)


def test_label_on_another_grid(tmp_path):
    image, label = make_ct(0)
    write_nifti(tmp_path / 'images/a.nii.gz', image.T, np.diag([1, 1, 5, 1]))
    write_nifti(tmp_path / 'labels/a.nii.gz', label.T, np.diag([1, 1, 4, 1]))
    importer = NIfTIImporter()
    (case,) = importer.discover(tmp_path, classes='liver,kidney')
    assert [p.code for p in importer.load(case).problems] == ['spacing-mismatch']


def test_scale_factors(tmp_path):
    stored = np.arange(8 * 9 * 3, dtype=np.int16).reshape(8, 9, 3)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    path = tmp_path / 'a.nii'
    nibabel.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = np.array([2.0, -1024.0], '<f4').tobytes()
    path.write_bytes(raw)
    array, _, _ = read_nifti(path)
    np.testing.assert_array_equal(array, 2.0 * stored - 1024)
    raw[112:120] = np.array([0.0, 5.0], '<f4').tobytes()  # 0 = no scaling
    path.write_bytes(raw)
    array, _, _ = read_nifti(path)
    assert array.dtype == np.int16
    np.testing.assert_array_equal(array, stored)


def test_nifti2_and_trailing_axis(tmp_path):
    array = np.arange(8 * 9 * 3, dtype=np.int16).reshape(8, 9, 3, 1)
    path = tmp_path / 'a.nii.gz'
    nibabel.save(nibabel.Nifti2Image(array, np.diag([1, 2, 3, 1])), path)
    found, affine, problems = read_nifti(path)
    np.testing.assert_array_equal(found, array[..., 0])
    np.testing.assert_array_equal(affine, np.diag([1, 2, 3, 1]))
    assert problems == []


def _truncate(raw):
    return raw[: len(raw) // 2]


def _cut_the_checksum(raw):
    return raw[:-6]


def _flip_bits(raw):
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 0x55]) + raw[middle + 1 :]


@pytest.mark.parametrize(
    'damage',
    [
        _truncate,
        _cut_the_checksum,
        _flip_bits,
        lambda raw: b'',
        lambda raw: b'hello',
        lambda raw: gzip.compress(b'x' * 400),
        lambda raw: gzip.compress(gzip.decompress(raw)[:-100]),
    ],
)
def test_damaged_files(tmp_path, damage):
    path = write_nifti(tmp_path / 'a.nii.gz', make_ct(0)[0].T)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CaseError, match='a.nii.gz cannot be read') as error:
        read_nifti(path)
    assert error.value.code == 'unreadable'


@pytest.mark.parametrize(
    'array, code, message',
    [
        (np.zeros((8, 8, 3, 5), np.int16), '4d-image', 'one file per volume'),
        (np.zeros((8, 8), np.int16), 'not-a-volume', 'third axis'),
        (np.zeros((8, 8, 3), np.complex64), 'not-a-volume', 'colour or complex'),
    ],
)
def test_not_a_volume(tmp_path, array, code, message):
    path = write_nifti(tmp_path / 'a.nii.gz', array)
    with pytest.raises(CaseError, match=message) as error:
        read_nifti(path)
    assert error.value.code == code
    with pytest.raises(CaseError, match='does not exist'):
        read_nifti(tmp_path / 'b.nii')


def test_header_without_orientation(tmp_path):
    image = nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), None)
    image.header.set_qform(None, 0)
    image.header.set_sform(None, 0)
    nibabel.save(image, tmp_path / 'a.nii')
    assert [p.code for p in read_nifti(tmp_path / 'a.nii')[2]] == ['no-orientation']
    image = nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.eye(4))
    image.set_qform(np.diag([-1, 1, 1, 1]), 1)
    nibabel.save(image, tmp_path / 'b.nii')
    assert [p.code for p in read_nifti(tmp_path / 'b.nii')[2]] == ['qform-sform']


def test_abdomen1k_layout(tiny_nifti):
    folder = tiny_nifti(
        2, 'AbdomenCT-1K-ImagePart1/Case_0000{}_0000.nii.gz', 'Mask/Case_0000{}.nii.gz'
    )
    (folder / 'Mask' / 'Case_00002.nii.gz').unlink()
    cases = Abdomen1KImporter().discover(folder)
    assert [c.case_id for c in cases] == ['Case_00001', 'Case_00002']
    assert cases[0].label.endswith('Mask/Case_00001.nii.gz')
    assert cases[1].label is None
    part = folder / 'AbdomenCT-1K-ImagePart2'
    part.mkdir()
    (part / 'Case_00001_0000.nii.gz').write_bytes(b'')
    with pytest.raises(UserError, match='ImagePart1.*ImagePart2.*00001'):
        Abdomen1KImporter().discover(folder)


def _btcv_infos(numbers):
    from types import SimpleNamespace

    return [
        SimpleNamespace(
            case_id=f'case{n:04d}', patient_id=f'case{n:04d}', labelled=n <= 40
        )
        for n in numbers
    ]


def test_btcv_protocols():
    importer = BTCVImporter()
    numbers = [*range(1, 11), *range(21, 41), *range(61, 81)]
    splits = {s.protocol: s for s in importer.splits(_btcv_infos(numbers))}
    one = splits['btcv-18-12']
    assert one['test'] == tuple(
        f'case{n:04d}' for n in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
    )
    assert len(one['train']) == 18
    other = splits['btcv-24-6']
    assert other['test'] == tuple(f'case{n:04d}' for n in range(35, 41))
    assert len(other['train']) == 24
    for split in splits.values():
        assert split['pretrain'] == split['train']
        assert not set(split['train']) & set(split['test'])
    assert importer.notes == []


def test_btcv_says_what_is_missing():
    importer = BTCVImporter()
    splits = importer.splits(_btcv_infos([1, 5, 6, 7, 35]))
    assert [len(s['train']) for s in splits] == [3, 4]
    assert '25 of its 30 labelled cases are missing' in importer.notes[0]


@pytest.mark.parametrize(
    'names',
    [
        ('img/img000{}.nii.gz', 'label/label000{}.nii.gz'),
        ('imagesTr/img000{}.nii.gz', 'labelsTr/label000{}.nii.gz'),
        (
            'RawData/Training/img/img000{}.nii.gz',
            'RawData/Training/label/label000{}.nii.gz',
        ),
    ],
)
def test_btcv_layouts(tiny_nifti, names):
    cases = BTCVImporter().discover(tiny_nifti(2, *names))
    assert [c.case_id for c in cases] == ['case0001', 'case0002']
    assert all(c.label for c in cases)


def test_real_ct_and_labels(realdata):
    folder = realdata / 'totalsegmentator_tests'
    importer = NIfTIImporter()
    (case,) = importer.discover(
        folder,
        images='example_ct_sm.nii.gz',
        labels='example_seg.nii.gz',
        classes=','.join(f'c{i}' for i in range(1, 118)),
    )
    loaded = importer.load(case)
    assert loaded.problems == []
    assert loaded.spacing == pytest.approx((3, 3, 3))
    liver = loaded.image[loaded.label == 5]
    assert 20 < np.median(liver) < 80
    # Liver on the patient's right is on the picture's left; spine is below.
    centre = np.argwhere(loaded.label == 5).mean(0)
    spleen = np.argwhere(loaded.label == 1).mean(0)
    vertebra = np.argwhere(loaded.label == 31).mean(0)
    assert centre[2] < spleen[2] and vertebra[1] > centre[1]
    source = nibabel.load(folder / 'example_ct_sm.nii.gz')
    np.testing.assert_array_equal(
        to_source_axes(loaded.image, loaded.source_affine), np.asarray(source.dataobj)
    )
