"""Claims of every format are checked before memory is given to them."""

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
import zlib

import cv2
import h5py
import numpy as np
import pytest
from PIL import Image

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers import read_volume
from medssl_mm.importers.readers.budget import GZIP, inflate, read_content, unzip
from medssl_mm.importers.readers.hdf5 import read_hdf5
from medssl_mm.importers.readers.npz import SUBSETS, read_archive
from medssl_mm.importers.readers.picture import read_picture
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.nifti import NIfTIImporter


@pytest.fixture(autouse=True)
def little_memory():
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e8


def png(width, height, data=b'', depth=8, colour=0):
    def chunk(kind, content):
        body = kind + content
        return (
            struct.pack('>I', len(content)) + body + struct.pack('>I', zlib.crc32(body))
        )

    head = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(data)
    parts = (chunk(b'IHDR', head), chunk(b'IDAT', packed), chunk(b'IEND', b''))
    return b'\x89PNG\r\n\x1a\n' + b''.join(parts)


def written(path, content):
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    'content, code, words',
    [
        (png(60_000, 60_000), 'too-large', '60000 x 60000 pixels.*3600 million'),
        (png(16_000, 16_000), 'unreadable', '256000000 bytes in all; the file holds'),
    ],
)
def test_pictures_that_claim_too_much(tmp_path, content, code, words):
    with pytest.raises(CaseError, match=words) as error:
        read_picture(written(tmp_path / 'a.png', content))
    assert error.value.code == code


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_other_pictures_that_claim_too_much(tmp_path, kind):
    buffer = io.BytesIO()
    Image.new('L', (8, 8)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    if kind == 'JPEG':
        place = content.index(b'\xff\xc0') + 5
        content[place : place + 4] = struct.pack('>HH', 60_000, 60_000)
    else:
        for tag in (256, 257):
            place = content.index(struct.pack('<HHI', tag, 4, 1)) + 8
            content[place : place + 4] = struct.pack('<I', 60_000)
    with pytest.raises(CaseError, match='a picture may have') as error:
        read_picture(written(tmp_path / f'a.{kind}', bytes(content)))
    assert error.value.code == 'too-large'


def test_what_follows_the_end_of_a_picture_does_not_count(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30), np.uint8)
    for kind in ('png', 'jpg'):
        content = cv2.imencode(f'.{kind}', pixels)[1].tobytes()
        expected, _ = read_picture(written(tmp_path / f'a.{kind}', content))
        for rest in (b'\r\n', bytes(5000), b'x' * 70_000):
            path = written(tmp_path / f'b.{kind}', content + rest)
            np.testing.assert_array_equal(read_picture(path)[0], expected)
        for cut in (len(content) // 2, len(content) - 8):
            with pytest.raises(CaseError, match='truncated'):
                read_picture(written(tmp_path / f'c.{kind}', content[:cut]))


def test_the_preview_of_a_jpeg_file_is_not_its_end(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    content = cv2.imencode('.jpg', pixels)[1].tobytes()
    small = cv2.imencode('.jpg', pixels[:8, :8])[1].tobytes()
    segment = b'\xff\xe1' + struct.pack('>H', len(small) + 2) + small
    whole = content[:2] + segment + content[2:]
    assert read_picture(written(tmp_path / 'a.jpg', whole))[0].shape == (64, 64)
    with pytest.raises(CaseError, match='truncated'):
        read_picture(written(tmp_path / 'b.jpg', whole[: len(whole) // 2]))


def test_hdf5_that_stores_nothing(tmp_path):
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file.create_dataset('image', (1 << 10, 1 << 11, 1 << 11), np.int16, chunks=True)
    with pytest.raises(CaseError, match='8.0 GiB in all; one file may take'):
        read_hdf5(str(tmp_path / 'a.h5'), 3)
    with h5py.File(tmp_path / 'b.h5', 'w') as file:
        file.create_dataset('image', (512, 512, 512), np.int16, chunks=True)
    with pytest.raises(CaseError, match='268435456 bytes in all; the file holds 0'):
        read_hdf5(str(tmp_path / 'b.h5'), 3)
    values = np.arange(60).reshape(3, 4, 5)
    with h5py.File(tmp_path / 'c.h5', 'w') as file:
        file.create_dataset('image', data=values, compression='gzip')
        file.create_group('label')
    image, label = read_hdf5(str(tmp_path / 'c.h5'), 3)
    np.testing.assert_array_equal(image, values)
    assert label is None


def test_archives_whose_arrays_claim_too_much(tmp_path):
    path = tmp_path / 'a.npz'
    arrays = {f'{s}_images': np.zeros((2, 8, 8), np.uint8) for s in SUBSETS}
    arrays |= {f'{s}_labels': np.zeros((2, 1), np.uint8) for s in SUBSETS}
    np.savez_compressed(path, **arrays)
    assert set(read_archive(str(path))) == set(arrays)
    header = io.BytesIO()
    claim = dict(shape=(40_000, 224, 224, 3), descr='|u1', fortran_order=False)
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path, 'w') as archive:
        for name in arrays:
            archive.writestr(f'{name}.npy', header.getvalue() + b'0')
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match=r'train_images.npy.* \(40000, 224, 224, 3\)'):
        read_archive(str(path))


@pytest.mark.parametrize('size', ['4000 4000 1000', '600 600 600'])
def test_metaimages_that_claim_too_much(tmp_path, size):
    pytest.importorskip('SimpleITK')
    packed = zlib.compress(bytes(1000))
    head = (
        f'ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_SHORT\n'
        f'CompressedData = True\nCompressedDataSize = {len(packed)}\n'
        'ElementSpacing = 1 1 1\nElementDataFile = LOCAL\n'
    )
    words = '29.8 GiB' if size.startswith('4') else '1000 of 432000000 bytes'
    with pytest.raises(CaseError, match=words):
        read_volume(written(tmp_path / 'a.mha', head.encode() + packed))


def test_a_bomb_in_a_metaimage_is_not_unpacked(tmp_path):
    pytest.importorskip('SimpleITK')
    packer = zlib.compressobj()
    parts = [packer.compress(bytes(1_000_000)) for _ in range(300)]
    packed = b''.join([*parts, packer.flush()])
    head = (
        'ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_UCHAR\n'
        f'CompressedData = True\nCompressedDataSize = {len(packed)}\n'
        'ElementSpacing = 1 1 1\nElementDataFile = LOCAL\n'
    )
    with pytest.raises(CaseError, match='more than the 512 bytes'):
        read_volume(written(tmp_path / 'a.mha', head.encode() + packed))


def test_parts_are_those_of_the_whole():
    content = bytes(range(256)) * 5000
    packed = gzip.compress(content[:700_000]) + gzip.compress(content[700_000:])
    assert unzip('x', packed, len(content)) == content
    assert b''.join(inflate('x', packed, len(content), GZIP, 1000)) == content
    with pytest.raises(EOFError, match='1280000 of 1280001'):
        unzip('x', packed, len(content) + 1)


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / 'images').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(OSError, match='no regular file'):
        read_content(tmp_path / 'pipe')
    # A link to a pipe is no file of a data set: told, never opened.
    (tmp_path / 'images' / 'a.nii.gz').symlink_to(tmp_path / 'pipe')
    with pytest.raises(UserError, match='no cases for'):
        import_dataset(NIfTIImporter(), tmp_path, tmp_path / 'store')
