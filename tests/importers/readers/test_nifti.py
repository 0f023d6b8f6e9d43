"""NIfTI files: scale factors, headers, damage."""

import gzip

import nibabel
import numpy as np
import pytest

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.nifti import read_nifti
from tests.conftest import make_ct, write_nifti


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


@pytest.mark.parametrize(
    'units, factor', [('meter', 1000), ('micron', 0.001), ('mm', 1), ('unknown', 1)]
)
def test_lengths_become_millimetres(tmp_path, units, factor):
    image = nibabel.Nifti1Image(np.zeros((8, 8, 3), np.int16), np.diag([1, 2, 3, 1]))
    image.header.set_xyzt_units(units, 'sec')
    nibabel.save(image, tmp_path / 'a.nii')
    _, affine, problems = read_nifti(tmp_path / 'a.nii')
    np.testing.assert_allclose(affine, np.diag([factor, 2 * factor, 3 * factor, 1]))
    assert [p.code for p in problems] == ['spacing-units'] * (factor != 1)
