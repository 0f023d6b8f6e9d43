"""Files are grouped to series; what cannot be read is told."""

import numpy as np
import pydicom
import pytest

from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import group_series
from tests.importers.dicom_files import make_slice, stored_values, write_series


def test_two_patients_under_one_uid_are_two_series(tmp_path):
    for name in ('a', 'b'):
        write_series(tmp_path / name, PatientID=name)
    series, skipped = group_series(tmp_path)
    assert [(s.person, len(s.files)) for s in series] == [('a', 5), ('b', 5)]
    assert not skipped


def test_files_without_preamble_are_read(tmp_path):
    stored = write_series(tmp_path)
    for path in sorted(tmp_path.iterdir())[:2]:
        path.write_bytes(path.read_bytes()[132:])
    dataset = pydicom.dcmread(sorted(tmp_path.iterdir())[2])
    del dataset.file_meta  # and one without any meta information
    dataset.save_as(sorted(tmp_path.iterdir())[2], implicit_vr=True, little_endian=True)
    (tmp_path / 'notes.txt').write_text('nothing')
    (series,), skipped = group_series(tmp_path)
    assert len(series.files) == 5 and skipped == {'no DICOM file': 1}
    array, _, _ = read_series(series.files)
    np.testing.assert_array_equal(array.transpose(2, 1, 0), stored.astype(int) - 1024)


def _bare(path):
    """The data set of a file without its meta information."""
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path.read_bytes()


@pytest.mark.parametrize(
    'form',
    [
        lambda path: bytes(132) + path.read_bytes()[132:],
        lambda path: bytes(128) + path.read_bytes()[132:],
        lambda path: b'\xff' * 128 + _bare(path),
        lambda path: bytes(132) + _bare(path),
    ],
)
def test_a_preamble_without_its_mark_is_passed_over(tmp_path, form):
    stored = write_series(tmp_path)
    for path in sorted(tmp_path.iterdir())[:2]:
        path.write_bytes(form(path))
    (tmp_path / 'zeros').write_bytes(bytes(400))
    (series,), skipped = group_series(tmp_path)
    assert len(series.files) == 5 and skipped == {'no DICOM file': 1}
    array, _, _ = read_series(series.files)
    np.testing.assert_array_equal(array.transpose(2, 1, 0), stored.astype(int) - 1024)


@pytest.mark.parametrize('kept', [0, 100, 200, 500])
def test_a_file_cut_in_its_header_belongs_to_the_series(tmp_path, kept):
    write_series(tmp_path)
    path = tmp_path / 'image4'
    path.write_bytes(path.read_bytes()[:kept])
    (tmp_path / 'notes.txt').write_text('nothing')
    (series,), skipped = group_series(tmp_path)
    assert series.unread == (str(path),) and len(series.files) == 4
    assert sum(skipped.values()) == 2


def test_a_cut_file_that_tells_its_series_belongs_to_that(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / str(number), series=f'1.2.{number}')
    path = tmp_path / '1' / 'image4'
    content = path.read_bytes()
    end = content.index(b'\x28\x00\x10\x00US')  # Rows
    (tmp_path / '2' / 'other').write_bytes(content[:end])
    series, skipped = group_series(tmp_path)
    assert [len(s.unread) for s in series] == [1, 0]
    assert skipped == {'damaged header': 1}


def test_objects_without_an_image_are_no_slices(tmp_path):
    write_series(tmp_path)
    raw = make_slice(stored_values(1)[0], (0, 0, 0))
    raw.SOPClassUID = raw.file_meta.MediaStorageSOPClassUID = (
        '1.2.840.10008.5.1.4.1.1.66'
    )
    del raw.Rows, raw.Columns, raw.PixelData
    raw.save_as(tmp_path / 'raw', enforce_file_format=True)
    (series,), skipped = group_series(tmp_path)
    assert skipped == {'CT object without an image': 1} and series.unread == ()


def test_corners_are_those_of_the_volume(tmp_path):
    write_series(tmp_path, step=(0, 0.9, 3.0))
    (series,), _ = group_series(tmp_path)
    array, affine, _ = read_series(series.files)
    assert series.shape == array.shape
    ends = np.stack(np.meshgrid(*([0, n - 1] for n in array.shape)), -1).reshape(-1, 3)
    expected = ends @ affine[:3, :3].T + affine[:3, 3]
    found = series.corners()
    np.testing.assert_allclose(
        found[np.lexsort(found.T.round(3))], expected[np.lexsort(expected.T.round(3))]
    )
