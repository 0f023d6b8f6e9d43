"""NIfTI folders: pairing, classes, orientation."""

import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.sets.nifti import NIfTIImporter
from medssl_mm.store.orientation import to_source_axes
from tests.conftest import make_ct, write_nifti


def test_default_folders(tiny_nifti):
    cases = NIfTIImporter(classes='liver,kidney').discover(tiny_nifti()).cases
    assert [c.case_id for c in cases] == ['case1', 'case2', 'case3']
    assert all(c.label.endswith(f'labels/{c.case_id}.nii.gz') for c in cases)


def test_nnunet_folders(tiny_nifti):
    folder = tiny_nifti(2, 'imagesTr/scan{}_0000.nii.gz', 'labelsTr/scan{}.nii.gz')
    (folder / 'dataset.json').write_text(
        '{"labels": {"background": 0, "liver": 1, "kidney": 2}}'
    )
    importer = NIfTIImporter()
    found = importer.discover(folder)
    cases = found.cases
    assert [c.case_id for c in cases] == ['scan1', 'scan2']
    assert cases[0].label.endswith('labelsTr/scan1.nii.gz')
    assert found.classes == ('background', 'liver', 'kidney')


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
    cases = (
        NIfTIImporter(images=image_glob, labels=label_glob, classes='a,b')
        .discover(folder)
        .cases
    )
    assert len(cases) == 3
    for number, case in enumerate(cases, 1):
        assert case.image == str(folder / image_name.format(number))
        assert case.label == str(folder / label_name.format(number))


def test_labels_may_be_missing(tiny_nifti):
    folder = tiny_nifti()
    (folder / 'labels' / 'case2.nii.gz').unlink()
    (folder / 'labels' / 'case1.nii.gz').rename(folder / 'labels' / 'case9.nii.gz')
    importer = NIfTIImporter(classes='a,b')
    found = importer.discover(folder)
    cases = found.cases
    assert [c.label is None for c in cases] == [True, True, False]
    assert '1 label(s) without an image' in found.notes[0]
    assert 'case9.nii.gz' in found.notes[0]


def test_patient_pattern(tiny_nifti):
    cases = (
        NIfTIImporter(patient_pattern=r'case(\d)')
        .discover(tiny_nifti(label_name=None))
        .cases
    )
    assert [c.patient_id for c in cases] == ['1', '2', '3']


def test_messages_of_discover(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    with pytest.raises(UserError, match='no class names; give --classes'):
        NIfTIImporter().discover(folder)
    with pytest.raises(UserError, match="match e.g. 'case1'.*none"):
        NIfTIImporter(images='images/*.nii.gz', labels='masks/*.nii.gz').discover(
            folder
        )
    with pytest.raises(UserError, match='--labels needs --images'):
        NIfTIImporter(labels='masks/*.nii.gz').discover(folder)
    with pytest.raises(UserError, match="'img/.*' matches nothing"):
        NIfTIImporter(images='img/*.nii.gz').discover(folder)
    with pytest.raises(UserError, match='must be relative'):
        NIfTIImporter(images=f'{folder}/*.nii.gz').discover(folder)


def test_canonical_and_back(tmp_path):
    image, label = make_ct(0)
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ [[0, 0, 5.0, 1], [-2, 0, 0, 2], [0, 3.0, 0, 3], [0, 0, 0, 1]]
    write_nifti(tmp_path / 'images/a.nii.gz', image, affine)
    write_nifti(tmp_path / 'labels/a.nii.gz', label, affine)
    importer = NIfTIImporter(classes='liver,kidney')
    (case,) = importer.discover(tmp_path).cases
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
    importer = NIfTIImporter(classes='liver,kidney')
    (case,) = importer.discover(tmp_path).cases
    loaded = importer.load(case)
    assert loaded.problems == []
    np.testing.assert_array_equal(to_source_axes(loaded.label, affine), label)


def test_label_on_another_grid(tmp_path):
    image, label = make_ct(0)
    write_nifti(tmp_path / 'images/a.nii.gz', image.T, np.diag([1, 1, 5, 1]))
    write_nifti(tmp_path / 'labels/a.nii.gz', label.T, np.diag([1, 1, 4, 1]))
    importer = NIfTIImporter(classes='liver,kidney')
    (case,) = importer.discover(tmp_path).cases
    assert [p.code for p in importer.load(case).problems] == ['spacing-mismatch']


def test_real_ct_and_labels(realdata):
    folder = realdata / 'totalsegmentator_tests'
    importer = NIfTIImporter(
        images='example_ct_sm.nii.gz',
        labels='example_seg.nii.gz',
        classes=','.join(f'c{i}' for i in range(1, 118)),
    )
    (case,) = importer.discover(folder).cases
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
