"""Mosaics give the volume of their slices."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from nibabel.nicom import dicomwrappers

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import group_series
from tests.importers.dicom_files import files_of, make_slice, stored_values

KIND = ['ORIGINAL', 'PRIMARY', 'M', 'ND', 'MOSAIC']


def write_mosaic(path, slices, count=True, **changes):
    """Five slices of 12 x 10 pixels in a picture of 3 x 3 tiles."""
    picture = np.zeros((36, 30), np.uint16)
    for index, pixels in enumerate(slices):
        row, column = divmod(index, 3)
        picture[12 * row : 12 * row + 12, 10 * column : 10 * column + 10] = pixels
    # The corner of a picture of that size with the slice in its middle.
    corner = np.array([-40, -60, 100.0]) - (0.7 * 10, 0.8 * 12, 0)
    usual = dict(RescaleSlope=1, RescaleIntercept=0, ImageType=KIND)
    made = make_slice(picture, corner, Modality='MR', **{**usual, **changes})
    if count:
        block = made.private_block(0x0019, 'SIEMENS MR HEADER', create=True)
        block.add_new(0x0A, 'US', len(slices))
    path.parent.mkdir(exist_ok=True)
    made.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize('kind', [KIND, KIND[:-1]])
def test_tiles_are_slices_in_their_places(tmp_path, kind):
    stored = stored_values()
    write_mosaic(tmp_path / 'm', stored, SpacingBetweenSlices=3, ImageType=kind)
    array, affine, problems = read_series(files_of(tmp_path))
    np.testing.assert_array_equal(array.transpose(2, 1, 0), stored)
    np.testing.assert_allclose(
        affine,
        [[-0.7, 0, 0, 40], [0, -0.8, 0, 60], [0, 0, 3, 100], [0, 0, 0, 1]],
        atol=1e-9,
    )
    (problem,) = problems
    assert problem.code == 'mosaic' and 'direction' in problem.message


def test_a_mosaic_of_every_time_is_a_volume(tmp_path):
    for number in (1, 2, 3):
        write_mosaic(
            tmp_path / str(number), stored_values(seed=number), AcquisitionNumber=number
        )
    series, _ = group_series(tmp_path)
    assert [s.part for s in series] == [f'acquisition-{n}' for n in (1, 2, 3)]


@pytest.mark.parametrize(
    'changes, text',
    [(dict(count=False), 'unknown number'), (dict(Rows=35), '35 x 30 pixels and 5')],
)
def test_what_cannot_be_cut_is_refused(tmp_path, changes, text):
    write_mosaic(tmp_path / 'm', stored_values(), **changes)
    with pytest.raises(CaseError, match=f'MOSAIC.*{text}.*dcm2niix') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'mosaic'


def test_without_a_distance_it_is_refused(tmp_path):
    write_mosaic(tmp_path / 'm', stored_values())
    with pytest.raises(CaseError, match='SpacingBetweenSlices and SliceThickness'):
        read_series(files_of(tmp_path))
    write_mosaic(tmp_path / 'm', stored_values(), SliceThickness=4)
    _, affine, problems = read_series(files_of(tmp_path))
    assert affine[2, 2] == 4 and 'SpacingBetweenSlices' in problems[1].message


@pytest.mark.parametrize('name', ['siemens_dwi_0', 'siemens_dwi_1000'])
def test_a_mosaic_of_a_scanner_is_as_nibabel_has_it(tmp_path, name):
    shipped = Path(nibabel.__file__).parent / 'nicom' / 'tests' / 'data'
    source = shipped / f'{name}.dcm.gz'
    if not source.is_file():
        pytest.skip('nibabel is installed without its test data')
    path = tmp_path / 'image.dcm'
    path.write_bytes(gzip.decompress(source.read_bytes()))
    array, affine, problems = read_series([str(path)])
    other = dicomwrappers.wrapper_from_data(pydicom.dcmread(path))
    assert array.shape == (128, 128, 48) and problems == []
    # nibabel has rows before columns, and the world of DICOM.
    np.testing.assert_array_equal(array, other.get_data().transpose(1, 0, 2))
    turned = np.diag([-1.0, -1, 1, 1]) @ other.affine
    np.testing.assert_allclose(affine, turned[:, [1, 0, 2, 3]], atol=1e-5)
