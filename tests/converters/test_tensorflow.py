"""Checkpoints of TensorFlow: read, checked, refused."""

import numpy as np
import pytest

from medssl_mm.converters.tensorflow import bundle_name, crc32c, read_bundle
from medssl_mm.errors import UserError
from tests.converters.originals import write_bundle

# Files are read and copied.
pytestmark = pytest.mark.exact

ARRAYS = {
    f'scope/variable_{number}': np.random.default_rng(number)
    .normal(size=(number % 3 + 1, 3))
    .astype(np.float32)
    for number in range(150)
} | {'step': np.array(2**40, np.int64), 'scope/big': np.ones((300, 300), np.float32)}


@pytest.fixture
def name(tmp_path):
    return write_bundle(tmp_path / 'model.ckpt-7', ARRAYS)


def slow_crc32c(data):
    """Bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize('size', [0, 1, 9, 255, 256, 511, 512, 5000, 20001])
def test_checksum(size):
    data = np.random.default_rng(size).bytes(size)
    assert crc32c(data) == slow_crc32c(data)


def test_checksum_of_the_standard():
    assert crc32c(b'123456789') == 0xE3069283  # RFC 3720 and its tables
    assert crc32c(bytes(32)) == 0x8A9136AA


def test_all_tensors(name):
    found = read_bundle(name)
    assert sorted(found) == sorted(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def test_every_way_to_name_it(name):
    for path in (
        name,
        f'{name}.index',
        f'{name}.data-00001-of-00002',
        name.parent,
    ):
        assert bundle_name(path) == name
    assert bundle_name(name.parent / 'other') is None
    write_bundle(name.parent / 'second', {'a': np.zeros(1, np.float32)})
    assert bundle_name(name.parent) is None


@pytest.mark.parametrize('file', ['.index', '.data-00000-of-00002'])
@pytest.mark.parametrize('share', [0, 0.5, 0.999])
def test_truncated(name, file, share):
    path = name.with_name(name.name + file)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match='truncated or changed.*fetch it again') as got:
        read_bundle(name)
    assert str(name) in str(got.value)


@pytest.mark.parametrize('file', ['.index', '.data-00000-of-00002'])
def test_changed(name, file):
    path = name.with_name(name.name + file)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match='truncated or changed.*checksum of'):
        read_bundle(name)


def test_a_part_is_absent(name):
    name.with_name(f'{name.name}.data-00001-of-00002').unlink()
    with pytest.raises(UserError, match='data-00001.*all files of a checkpoint'):
        read_bundle(name)
