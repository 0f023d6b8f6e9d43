"""NIfTI files: scale factors, headers, damage."""

import gzip
import os
import tracemalloc

import nibabel
import numpy as np
import pytest

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers import to_canonical
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


def save(path, sform, qform, shape=(8, 9, 3), codes=(1, 1)):
    image = nibabel.Nifti1Image(np.zeros(shape, np.int16), None)
    image.header.set_qform(qform, codes[1])
    image.header.set_sform(sform, codes[0])
    nibabel.save(image, path)
    return path


def test_forms_that_differ_are_told_with_their_corners_in_mm(tmp_path):
    one, other = np.diag([2.0, 2, 4, 1]), np.diag([2.0, 2, 4, 1])
    other[:3, 3] = 0, 0, 30
    path = save(tmp_path / 'a.nii', one, other)
    _, affine, (problem,) = read_nifti(path)
    np.testing.assert_allclose(affine, one)
    assert problem.code == 'qform-sform' and '30 mm apart' in problem.message
    assert 'from (0, 0, 0) to (14, 16, 8) mm by the sform' in problem.message
    assert 'from (0, 0, 30) to (14, 16, 38) mm by the qform' in problem.message
    other[2, 3] = 0.1  # a twentieth of an edge is rounding
    assert read_nifti(save(tmp_path / 'b.nii', one, other))[2] == []


def test_corners_are_in_mm_whatever_the_unit(tmp_path):
    one, other = np.diag([2e3, 2e3, 4e3, 1]), np.diag([2e3, 2e3, 4e3, 1])
    other[2, 3] = 3e4
    image = nibabel.load(save(tmp_path / 'a.nii', one, other))
    image.header.set_xyzt_units('micron')
    nibabel.save(image, tmp_path / 'b.nii')
    problems = {p.code: p.message for p in read_nifti(tmp_path / 'b.nii')[2]}
    assert set(problems) == {'qform-sform', 'spacing-units'}
    assert 'to (14, 16, 8) mm by the sform' in problems['qform-sform']


def test_pixdim_against_the_sform(tmp_path):
    path = save(tmp_path / 'a.nii', np.diag([2.0, 2, 4, 1]), None, codes=(1, 0))
    content = bytearray(path.read_bytes())
    content[80:92] = np.array([2, 2, 5], np.float32).tobytes()
    path.write_bytes(content)
    _, affine, (problem,) = read_nifti(path)
    np.testing.assert_allclose(affine, np.diag([2.0, 2, 4, 1]))
    assert problem.code == 'pixdim-sform'
    assert 'pixdim says voxels of 2, 2, 5 mm, the sform 2, 2, 4 mm' in problem.message
    assert '14, 16, 10 or 14, 16, 8 mm' in problem.message


@pytest.mark.parametrize('size', [0, -0.7, np.nan])
def test_a_voxel_size_that_is_none_is_told(tmp_path, size):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([0.7, 1, 2, 1]))
    image.set_sform(None, 0)
    image.set_qform(image.affine, 1)
    path = tmp_path / 'a.nii'
    nibabel.save(image, path)
    assert read_nifti(path)[2] == []
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(size).tobytes()  # pixdim[1]
    path.write_bytes(content)
    if np.isnan(size):
        with pytest.raises(CaseError) as caught:
            to_canonical(path, *read_nifti(path))
        assert caught.value.code == 'affine'
        return
    _, affine, (problem,) = read_nifti(path)
    assert problem.code == 'spacing-unusual' and f'{size:g}, 1, 2;' in problem.message
    np.testing.assert_allclose(np.abs(affine[0, 0]), abs(size) or 1, rtol=1e-6)


def test_a_form_that_is_none(tmp_path):
    good = np.diag([2.0, 2, 4, 1])
    path = save(tmp_path / 'a.nii', np.zeros((4, 4)), good)
    _, affine, problems = read_nifti(path)
    np.testing.assert_allclose(affine, good)
    assert [p.code for p in problems] == ['qform-sform']
    content = bytearray(save(tmp_path / 'b.nii', good, good).read_bytes())
    content[256:268] = np.array([1, 1, 1], np.float32).tobytes()  # no quaternion
    (tmp_path / 'b.nii').write_bytes(content)
    _, affine, problems = read_nifti(tmp_path / 'b.nii')
    np.testing.assert_allclose(affine, good)
    assert [p.code for p in problems] == ['qform-sform']


def claiming(tmp_path, shape, dtype=np.float64, name='a.nii'):
    """A header that claims more voxels than follow it."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header['vox_offset'], header['magic'] = 352, b'n+1'
    path = tmp_path / name
    content = header.binaryblock + bytes(4 + 1000)
    path.write_bytes(gzip.compress(content) if name.endswith('gz') else content)
    return path


@pytest.mark.parametrize('name', ['a.nii', 'a.nii.gz'])
def test_claims_are_checked_before_memory_is_taken(tmp_path, name):
    path = claiming(tmp_path, (2000, 2000, 1000), name=name)
    tracemalloc.start()
    with pytest.raises(CaseError, match=r'\(2000, 2000, 1000\).* 29.8 GiB .*4.0 GiB'):
        read_nifti(path)
    with pytest.raises(CaseError, match='400000000 bytes in all; the file holds'):
        read_nifti(claiming(tmp_path, (500, 500, 200), name=name))
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = write_nifti(tmp_path / 'a.nii.gz', make_ct(0)[0].T)
    bomb = gzip.compress(gzip.decompress(path.read_bytes()) + bytes(200_000_000))
    path.write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(CaseError, match='unpacked it holds more than') as error:
        read_nifti(path)
    assert error.value.code == 'too-large'
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()


def test_members_and_what_follows_them(tmp_path):
    """Several gzip members are one file; zeros behind them are padding."""
    path = write_nifti(tmp_path / 'a.nii.gz', make_ct(0)[0].T)
    expected = read_nifti(path)[0]
    content = gzip.decompress(path.read_bytes())
    parts = [content[:700], content[700:5000], content[5000:] + bytes(300)]
    path.write_bytes(b''.join(map(gzip.compress, parts)) + bytes(512))
    np.testing.assert_array_equal(read_nifti(path)[0], expected)
    (tmp_path / 'b.nii').write_bytes(path.read_bytes())
    np.testing.assert_array_equal(read_nifti(tmp_path / 'b.nii')[0], expected)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / 'a.nii')
    with pytest.raises(CaseError, match='no regular file'):
        read_nifti(tmp_path / 'a.nii')
