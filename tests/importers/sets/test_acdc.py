import h5py
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.sets.acdc import ACDCImporter
from medssl_mm.store import CaseInfo
from medssl_mm.store.splits import check_no_leak


def volume(depth=3, rows=12, columns=10, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.random((depth, rows, columns), dtype=np.float32),
        rng.integers(0, 4, (depth, rows, columns)).astype(np.uint8),
    )


def save(path, image, label=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, 'w') as file:
        file['image'] = image
        if label is not None:
            file['label'] = label


def save_slices(src, case, image, label, skip=()):
    for index in range(len(image)):
        if index + 1 not in skip:
            save(
                src / 'slices' / f'{case}_slice_{index + 1}.h5',
                image[index],
                label[index],
            )


def test_slices_are_put_together_by_number(tmp_path):
    # Eleven slices: sorting names would put 10 and 11 before 2.
    image, label = volume(11)
    save_slices(tmp_path, 'patient003_frame01', image, label)
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    assert (case.case_id, case.patient_id) == ('patient003_frame01', 'patient003')
    loaded = importer.load(case)
    np.testing.assert_array_equal(loaded.image, image)
    np.testing.assert_array_equal(loaded.label, label)
    assert loaded.image.dtype == np.float32
    assert loaded.spacing is None and loaded.affine is None
    images, labels = importer.source_files(case)
    assert len(images) == 11 and images == labels


def test_frames_of_a_patient_are_two_cases_of_one_patient(tmp_path):
    image, label = volume()
    for frame in ('01', '02'):
        save(tmp_path / 'volumes' / f'patient007_frame{frame}.h5', image, label)
    importer = ACDCImporter()
    cases = importer.discover(tmp_path).cases
    assert [case.patient_id for case in cases] == ['patient007'] * 2
    np.testing.assert_array_equal(importer.load(cases[1]).image, image)


def test_volume_goes_before_its_slices(tmp_path):
    image, label = volume()
    save_slices(tmp_path, 'patient001_frame01', image, label)
    save(tmp_path / 'patient001_frame01.h5', image + 1, label)
    importer = ACDCImporter()
    found = importer.discover(tmp_path)
    (case,) = found.cases
    np.testing.assert_array_equal(importer.load(case).image, image + 1)
    assert 'patient001_frame01' in found.notes[0]


@pytest.mark.parametrize('lost', [1, 3])
def test_a_missing_slice_number_is_named(tmp_path, lost):
    image, label = volume(5)
    save_slices(tmp_path, 'patient003_frame01', image, label, skip=(lost,))
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(
        CaseError,
        match=rf'slice number\(s\) {lost} missing '
        'between 1 and 5',
    ) as caught:
        importer.load(case)
    assert caught.value.code == 'missing-slices'


def test_slices_of_two_sizes_are_refused(tmp_path):
    image, label = volume()
    save_slices(tmp_path, 'patient003_frame01', image, label)
    other = volume(1, 12, 14)
    save(
        tmp_path / 'slices' / 'patient003_frame01_slice_4.h5', other[0][0], other[1][0]
    )
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(
        CaseError,
        match='12x10 float32: 3 slice.*12x14 float32: 1 slice.*'
        'patient003_frame01_slice_4.h5',
    ):
        importer.load(case)


def test_slices_without_label_are_marked(tmp_path):
    image, label = volume()
    save_slices(tmp_path, 'patient003_frame01', image, label)
    save(tmp_path / 'slices' / 'patient003_frame01_slice_2.h5', image[1])
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    loaded = importer.load(case)
    assert loaded.labelled_slices == (0, 2)
    np.testing.assert_array_equal(loaded.label[2], label[2])


@pytest.mark.parametrize(
    'make, code, text',
    [
        (lambda path: path.write_bytes(b'no hdf5'), 'unreadable', 'copy it again'),
        (lambda path: save(path, volume()[0][0]), 'not-a-volume', 'expected 3'),
        (
            lambda path: save(path, volume()[0], volume(4)[1]),
            'shape-mismatch',
            r'\(3, 12, 10\), label \(4, 12, 10\)',
        ),
    ],
)
def test_bad_files_are_named(tmp_path, make, code, text):
    path = tmp_path / 'patient001_frame01.h5'
    make(path)
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(CaseError, match=text) as caught:
        importer.load(case)
    assert caught.value.code == code and path.name in str(caught.value)


def test_truncated_file_is_named(tmp_path):
    path = tmp_path / 'patient001_frame01.h5'
    save(path, *volume(20, 40, 40))
    path.write_bytes(path.read_bytes()[:20000])
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(CaseError, match='not a readable HDF5 file'):
        importer.load(case)


def test_file_without_image_lists_its_keys(tmp_path):
    with h5py.File(tmp_path / 'patient001_frame01.h5', 'w') as file:
        file['data'] = np.zeros(3)
    importer = ACDCImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(CaseError, match=r"found \['data'\]"):
        importer.load(case)


def test_nothing_found_shows_the_layout(tmp_path):
    save(tmp_path / 'scan.h5', volume()[0])
    with pytest.raises(UserError, match='1 other .h5 file.*Expected layout'):
        ACDCImporter().discover(tmp_path)


def info_of(case, labelled=True):
    known = dict.fromkeys(CaseInfo.__dataclass_fields__)
    known.update(
        case_id=case.case_id,
        patient_id=case.patient_id,
        shape=(3, 12, 10),
        labelled=labelled,
    )
    made = object.__new__(CaseInfo)
    for name, value in known.items():
        object.__setattr__(made, name, value)
    return made


def make_lists(src, **patients):
    for subset, numbers in patients.items():
        (src / f'original_{subset}.list').write_text(
            ''.join(f'patient{n:03d}_frame{f:02d}\n' for n in numbers for f in (1, 2))
        )


def test_split_follows_the_lists(tmp_path):
    for number in range(1, 8):
        for frame in (1, 2):
            save(
                tmp_path / f'patient{number:03d}_frame{frame:02d}.h5',
                *volume(seed=number),
            )
    make_lists(tmp_path, train=[1, 2, 3, 40], val=[5], test=[6, 7])
    importer = ACDCImporter()
    found = importer.discover(tmp_path)
    cases = [info_of(case) for case in found.cases]
    (split,), _ = importer.splits(found, cases)
    assert split.protocol == 'acdc-3'
    patients = {
        name: sorted({case.split('_')[0][-1] for case in members})
        for name, members in split.subsets.items()
    }
    assert patients == dict(
        train=['1', '2', '3'], val=['5'], test=['6', '7'], pretrain=['1', '2', '3', '5']
    )
    assert len(split['test']) == 4
    check_no_leak(split, {case.case_id: case.patient_id for case in cases})


def test_no_lists_no_split(tmp_path):
    save(tmp_path / 'patient001_frame01.h5', *volume())
    importer = ACDCImporter()
    found = importer.discover(tmp_path)
    splits, notes = importer.splits(found, [info_of(case) for case in found.cases])
    assert splits == []
    assert 'original_train.list' in notes[-1]


def test_a_strange_list_is_named(tmp_path):
    save(tmp_path / 'patient001_frame01.h5', *volume())
    (tmp_path / 'train.list').write_text('patient001_frame01\nsomebody\n')
    with pytest.raises(UserError, match="train.list, entry 2.*'somebody'"):
        ACDCImporter().discover(tmp_path)


def test_published_files(realdata):
    importer = ACDCImporter()
    found = importer.discover(realdata / 'acdc_h5')
    cases = found.cases
    assert len(cases) == 100
    assert len({case.patient_id for case in cases}) == 50
    case = next(case for case in cases if case.case_id == 'patient003_frame02')
    loaded = importer.load(case)
    assert loaded.image.shape == loaded.label.shape == (10, 256, 256)
    assert set(np.unique(loaded.label)) == {0, 1, 2, 3}
    (split,), notes = importer.splits(found, [info_of(case) for case in cases])
    assert not notes
    assert split.protocol == 'acdc-20'
    assert {name: len(members) for name, members in split.subsets.items()} == {
        'train': 40,
        'val': 20,
        'test': 40,
        'pretrain': 60,
    }
