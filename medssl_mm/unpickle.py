"""Pickles of arrays, read without running what else a pickle may hold."""

from __future__ import annotations

import pickle
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


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays, numbers, texts and containers of them, and no class else."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse whatever is no part of an array."""
        if (module, name) not in _ALLOWED:
            raise _ForeignClass(f'{module}.{name}')
        return super().find_class(module, name)


class _ForeignClass(Exception):
    """A pickle names a class that no array needs."""


def load_arrays(path: str | Path) -> Any:
    """Read a pickle of arrays and of plain Python values.

    A pickle can run any program while it is read; one that names anything but
    NumPy's arrays is refused before that. Byte strings of Python 2 become texts.

    Args:
        path (str | Path): The file.

    Raises:
        UserError: Missing, damaged, or with a foreign class.
    """
    try:
        with open(path, 'rb') as file:
            content = _ArrayUnpickler(file, encoding='latin1').load()
    except _ForeignClass as error:
        raise UserError(
            f'{path} holds the class {error}, which could run a program; expected '
            'arrays and plain values only. Do not open it otherwise: fetch the file '
            'anew from where it is published.'
        ) from None
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
