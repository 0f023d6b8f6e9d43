"""Checkpoints of TensorFlow, read without TensorFlow.

A checkpoint is ``NAME.index``, a sorted table of names with the place of each
tensor, and ``NAME.data-00000-of-0000N`` with their bytes. The table has the
format of LevelDB; its entries are protocol buffers (``BundleEntryProto`` of
`tensor_bundle.proto <https://github.com/tensorflow/tensorflow/blob/master/
tensorflow/core/protobuf/tensor_bundle.proto>`_).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
# Numbers of tensorflow/core/framework/types.proto.
_TYPES = {1: '<f4', 2: '<f8', 3: '<i4', 4: 'u1', 6: 'i1', 9: '<i8', 10: '?', 19: '<f2'}


class _Damaged(Exception):
    """Bytes are not what the format says."""


def bundle_name(path: str | Path) -> Path | None:
    """Find the checkpoint that a path means.

    Args:
        path (str | Path): Its name without an ending, one of its files, or a
            folder with one checkpoint.

    Returns:
        Path | None: ``NAME``, without ``.index``; None if there is none.
    """
    path = Path(path)
    if path.is_dir():
        found = list(path.glob('*.index'))
        return found[0].with_suffix('') if len(found) == 1 else None
    name = path.name.partition('.data-')[0].removesuffix('.index')
    path = path.with_name(name)
    return path if Path(f'{path}.index').is_file() else None


def read_bundle(name: str | Path) -> dict[str, np.ndarray | None]:
    """Read all tensors of numbers of a checkpoint and check their sums.

    Args:
        name (str | Path): See :func:`bundle_name`.

    Returns:
        dict[str, np.ndarray | None]: By name; None of texts, which are not read.

    Raises:
        UserError: A file is absent, truncated or changed, or the checkpoint is
            of a kind that is not read (compressed table, partitioned
            variables, big-endian).
    """
    index = Path(f'{name}.index')
    try:
        entries = dict(_table(index.read_bytes()))
        header = _fields(entries.pop(b''))
        shards = header.get(1, [1])[0]
        if header.get(2, [0])[0]:
            raise UserError(f'{index}: big-endian checkpoints are not read')
        tensors = {
            key.decode(): _tensor(Path(name), key.decode(), _fields(entry), shards)
            for key, entry in entries.items()
        }
    except OSError as error:
        raise UserError(
            f'cannot read {error.filename}: {error.strerror}; all files of a '
            'checkpoint of TensorFlow are needed: NAME.index and NAME.data-*'
        ) from None
    except (_Damaged, KeyError, IndexError, ValueError, struct.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f'{index}: this checkpoint of TensorFlow is truncated or changed '
            f'({error or type(error).__name__}); fetch it again'
        ) from None
    return tensors


def crc32c(data: bytes) -> int:
    """Checksum of bytes by the polynomial of Castagnoli.

    The bytes are cut into lanes that are worked on side by side; a zero byte
    more is a linear map of the 32 bits, by which the lanes are put together.
    """
    lanes = max(1, min(4096, len(data) // 256))
    length = len(data) // lanes
    values = np.frombuffer(data, np.uint8, lanes * length).reshape(lanes, length)
    sums = np.zeros(lanes, np.uint32)
    sums[0] = 0xFFFFFFFF
    for column in np.ascontiguousarray(values.T):
        sums = _TABLE[(sums ^ column) & 0xFF] ^ (sums >> 8)
    # The map of one lane's length, from that of one byte by squaring.
    total, power, size = int(sums[0]), _BYTE, length
    if lanes > 1:
        shift = [1 << bit for bit in range(32)]
        while size:
            if size & 1:
                shift = [_apply(power, column) for column in shift]
            power = [_apply(power, column) for column in power]
            size >>= 1
        for value in sums[1:]:
            total = _apply(shift, total) ^ int(value)
    for byte in data[lanes * length :]:
        total = int(_TABLE[(total ^ byte) & 0xFF]) ^ (total >> 8)
    return total ^ 0xFFFFFFFF


def masked(checksum: int) -> int:
    """Change a checksum as LevelDB does before it writes one down."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _make_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(0x82F63B78), np.uint32(0)) ^ (table >> 1)
    return table


_TABLE = _make_table()
# What a zero byte makes of each single bit.
_BYTE = [int(_TABLE[(1 << bit) & 0xFF]) ^ ((1 << bit) >> 8) for bit in range(32)]


def _apply(columns: list[int], value: int) -> int:
    result = 0
    for column in columns:
        if value & 1:
            result ^= column
        value >>= 1
    return result


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a table, in their order."""
    if len(data) < _FOOTER or struct.unpack('<Q', data[-8:])[0] != _MAGIC:
        raise _Damaged('it does not end as a table does')
    footer, place = data[-_FOOTER:], 0
    for _ in range(2):  # of the meta index, which is empty
        _, place = _varint(footer, place)
    offset, place = _varint(footer, place)
    size, _ = _varint(footer, place)
    for _, handle in _block(data, offset, size):
        start, place = _varint(handle, 0)
        yield from _block(data, start, _varint(handle, place)[0])


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    content = data[offset : offset + size + 1]
    stated = struct.unpack('<I', data[offset + size + 1 : offset + size + 5])[0]
    if masked(crc32c(content)) != stated:
        raise _Damaged('the checksum of its table differs')
    if content[-1]:
        raise UserError('the table of this checkpoint is compressed: not read')
    restarts = struct.unpack('<I', content[-5:-1])[0]
    end, place, key = len(content) - 5 - 4 * restarts, 0, b''
    while place < end:
        shared, place = _varint(content, place)
        added, place = _varint(content, place)
        length, place = _varint(content, place)
        key = key[:shared] + content[place : place + added]
        place += added
        yield key, content[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7


def _fields(data: bytes) -> dict[int, list]:
    """Values of a protocol buffer by the number of their field."""
    fields: dict[int, list] = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, place = _varint(data, place)
        elif kind == 2:
            size, place = _varint(data, place)
            value, place = data[place : place + size], place + size
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value = int.from_bytes(data[place : place + size], 'little')
            place += size
        else:
            raise _Damaged(f'unknown kind {kind} of a field')
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _tensor(
    name: Path, key: str, entry: dict[int, list], shards: int
) -> np.ndarray | None:
    """One tensor; None when it holds no numbers."""
    kind = entry[1][0]
    if kind not in _TYPES:
        return None
    if 7 in entry:
        raise UserError(f'{name}.index: {key} is in several parts: not read')
    dims = [_fields(dim) for dim in _fields(entry.get(2, [b''])[0]).get(2, [])]
    shape = [dim.get(1, [0])[0] for dim in dims]
    shard, offset, size = (entry.get(field, [0])[0] for field in (3, 4, 5))
    path = Path(f'{name}.data-{shard:05d}-of-{shards:05d}')
    with open(path, 'rb') as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) < size:
        raise _Damaged(f'{path.name} ends within {key}')
    if masked(crc32c(data)) != entry[6][0]:
        raise _Damaged(f'the checksum of {key} differs')
    return np.frombuffer(data, _TYPES[kind]).reshape(shape)
