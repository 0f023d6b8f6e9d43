"""One label file belongs to one series."""

import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import group_series
from medssl_mm.importers.series_labels import match_labels
from tests.importers.dicom_files import (
    files_of,
    make_segmentation,
    stored_values,
    write_series,
)


@pytest.fixture
def folder(tmp_path):
    """Two series that share a name; the second has five slices, the first four."""
    write_series(tmp_path / 'src' / 'a', stored_values(4), series='1.1')
    write_series(tmp_path / 'src' / 'b', stored_values(5), series='1.2')
    (tmp_path / 'labels').mkdir()
    return tmp_path


def match(folder, labels=None):
    series, _ = group_series(folder / 'src')
    by_id = {f'case{index}': item for index, item in enumerate(series)}
    names = {case_id: ('CT', item.uid) for case_id, item in by_id.items()}
    return match_labels(by_id, names, str(labels or folder / 'labels'))


def save_label(path, source, turn=False):
    array, affine, _ = read_series(files_of(source))
    image = nibabel.Nifti1Image((array > 0).astype(np.uint8), affine)
    if turn:
        image = image.as_reoriented(np.array([[1, 1], [0, -1], [2, -1]]))
    nibabel.save(image, path)


@pytest.mark.parametrize('turn', [False, True])
@pytest.mark.parametrize('name, case_id', [('a', 'case0'), ('b', 'case1')])
def test_of_several_series_of_a_name_the_grid_decides(folder, name, case_id, turn):
    label = folder / 'labels' / 'CT.nii.gz'
    save_label(label, folder / 'src' / name, turn)
    found = match(folder)
    assert found.volumes == {case_id: str(label)}
    assert found.notes == [
        f'label CT.nii.gz fits 2 series by its name; it was given to {case_id}, the '
        'only one on its grid'
    ]


def test_what_the_grid_does_not_tell_is_refused_with_the_case_ids(folder):
    write_series(folder / 'src' / 'a', stored_values(5), series='1.1')
    save_label(folder / 'labels' / 'CT.nii.gz', folder / 'src' / 'b')
    with pytest.raises(UserError, match=r'case0 and case1; 2 .*e\.g\. case0\.nii\.gz'):
        match(folder)


def test_a_label_on_no_grid_of_its_name_is_refused(folder):
    write_series(folder / 'other', stored_values(7))
    save_label(folder / 'labels' / 'CT.nii.gz', folder / 'other')
    with pytest.raises(UserError, match='case0 and case1; 0 of them have its grid'):
        match(folder)


def test_the_case_id_is_the_last_word(folder):
    """Whether it lies on the grid is judged when both are read."""
    save_label(folder / 'labels' / 'case0.nii.gz', folder / 'src' / 'b')
    save_label(folder / 'labels' / '1.2.nii.gz', folder / 'src' / 'b')
    save_label(folder / 'labels' / 'stray.nii.gz', folder / 'src' / 'b')
    found = match(folder)
    assert found.volumes == {
        'case0': str(folder / 'labels' / 'case0.nii.gz'),
        'case1': str(folder / 'labels' / '1.2.nii.gz'),
    }
    assert found.notes == [
        '1 label file(s) belong to no series and are not used, e.g. stray.nii.gz'
    ]


def test_two_labels_of_a_series_are_refused(folder):
    for name in ('case1', '1.2'):
        save_label(folder / 'labels' / f'{name}.nii.gz', folder / 'src' / 'b')
    with pytest.raises(UserError, match='2 label files fit series case1'):
        match(folder)


def test_one_file_belongs_to_one_series(folder):
    label = folder / 'labels' / 'mask.nii.gz'
    save_label(label, folder / 'src' / 'b')
    with pytest.raises(UserError, match='one label file for 2 series.*case0'):
        match(folder, label)
    for path in (folder / 'src' / 'a').iterdir():
        path.unlink()
    assert match(folder, label).volumes == {'case0': str(label)}


def test_segmentations_belong_to_the_images_that_they_name(tmp_path):
    """Two patients whose de-identification left one series UID."""
    pytest.importorskip('highdicom')
    mask = np.zeros((5, 12, 10), np.uint8)
    mask[1, 3:6, 3:6] = 1
    (tmp_path / 'labels').mkdir()
    for name in ('p1', 'p2'):
        write_series(tmp_path / 'src' / name, PatientID=name)
        made = make_segmentation(tmp_path / 'src' / name, mask, ['liver'])
        made.save_as(tmp_path / 'labels' / f'x-{name}')
    found = match(tmp_path)
    assert {k: v[-2:] for k, v in found.segmentations.items()} == {
        'case0': 'p1',
        'case1': 'p2',
    }
    del made.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    made.save_as(tmp_path / 'labels' / 'x-p2')
    assert match(tmp_path).segmentations['case1'].endswith('p2')  # by the patient
    made.PatientID = 'anonymous'
    made.save_as(tmp_path / 'labels' / 'x-p2')
    with pytest.raises(UserError, match='x-p2 fits the series case0 and case1'):
        match(tmp_path)
