"""Pickles of arrays, read without running what else a pickle may hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError

# What NumPy of any version needs to make an array or a number.
_ALLOWED = {
    ('_codecs', 'encode'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    *(
        (f'{core}.multiarray', name)
        for core in ('numpy.core', 'numpy._core')
        for name in ('_reconstruct', 'scalar')
    ),
    *((f'{core}.numeric', '_frombuffer') for core in ('numpy.core', 'numpy._core')),
}


class Record:
    """Stands for an object of a class that is neither imported nor run.

    Args:
        *arguments: What the pickle hands to the class.
    """

    #: Names of the arguments where the pickle states them.
    fields: tuple[str, ...] = ()

    def __new__(cls, *arguments: Any, **_: Any) -> Record:
        """Keep the arguments."""
        record = super().__new__(cls)
        record.arguments = arguments
        record.items = {}
        return record

    def __init__(self, *_: Any, **__: Any) -> None:
        self.arguments: tuple
        self.items: dict

    def __setstate__(self, state: Any) -> None:
        """Leave the state out."""

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def append(self, value: Any) -> None:
        """Leave a member out."""


def _named_tuple(name: str, fields: tuple[str, ...], *_: Any) -> type[Record]:
    return type(str(name), (Record,), dict(fields=tuple(fields)))


def _array(make: Callable, arguments: tuple, state: tuple, *_: Any) -> Any:
    # What makes it was found by find_class as well.
    array = make(*arguments)
    array.__setstate__(state)
    return array


#: How dill writes what pickle writes otherwise.
_DILL = {
    '_create_namedtuple': _named_tuple,
    '_create_array': _array,
    '_load_type': lambda *_: Record,
}


class ArrayUnpickler(pickle.Unpickler):
    """Knows arrays, numbers, texts and containers of them, and no class else."""

    #: Further classes and functions that are harmless, by module and name.
    allowed: frozenset[tuple[str, str]] = frozenset()
    #: Names, or packages, of what becomes a :class:`Record`.
    records: tuple[str, ...] = ()

    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is no part of an array."""
        if (module, name) in _ALLOWED or (module, name) in self.allowed:
            return super().find_class(module, name)
        full = f'{module}.{name}'
        if any(full == known or full.startswith(f'{known}.') for known in self.records):
            if module.partition('.')[0] == 'dill' and name in _DILL:
                return _DILL[name]
            return type(name, (Record,), {})
        raise ForeignClass(full)


class ForeignClass(Exception):
    """A pickle names a class that no array needs."""


def foreign_class(path: str | Path, error: ForeignClass) -> UserError:
    """Say that a file is not read because of a class in it."""
    return UserError(
        f'{path} holds the class {error}, which could run a program; expected '
        'arrays and plain values only. Do not open it otherwise: fetch the file '
        'anew from where it is published.'
    )


def load_arrays(path: str | Path, records: tuple[str, ...] = ()) -> Any:
    """Read a pickle of arrays and of plain Python values.

    A pickle can run any program while it is read; one that names anything but
    NumPy's arrays is refused before that. Byte strings of Python 2 become texts.

    Args:
        path (str | Path): The file.
        records (tuple[str, ...]): Packages whose objects become a
            :class:`Record`, without being imported. Defaults to ().

    Raises:
        UserError: Missing, damaged, or with a foreign class.
    """
    unpickler = type('_Unpickler', (ArrayUnpickler,), dict(records=records))
    try:
        with open(path, 'rb') as file:
            content = unpickler(file, encoding='latin1').load()
    except ForeignClass as error:
        raise foreign_class(path, error) from None
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from None
    except Exception as error:  # whatever a broken pickle provokes
        raise UserError(
            f'{path} is damaged or no pickle ({type(error).__name__}: {error}); fetch '
            'it again'
        ) from None
    if isinstance(content, dict):
        return {
            key.decode('latin1') if isinstance(key, bytes) else key: value
            for key, value in content.items()
        }
    return content
