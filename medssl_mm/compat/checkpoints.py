"""Checkpoints read without running code that they hold."""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from medssl_mm.errors import InstallError, UserError

__all__ = ['load_checkpoint']


def load_checkpoint(
    file: str | Path | IO[bytes],
    map_location: Any = None,
    weights_only: bool | None = None,
    mmap: bool = False,
) -> Any:
    """Read a checkpoint without running code from the file.

    Besides tensors and plain containers only numpy arrays and mmengine's
    ``HistoryBuffer`` are accepted: checkpoints of the OpenMMLab packages hold
    those.

    Args:
        file (str | Path | IO[bytes]): What to read.
        map_location (optional): As in ``torch.load``. Defaults to None.
        weights_only (bool, optional): False trusts the file fully; None and
            True do not. Defaults to None.
        mmap (bool): Read tensors when they are used. Defaults to False.

    Raises:
        UserError: The file holds other objects, or is damaged.
    """
    import torch

    if str(file).endswith('.safetensors'):
        return _read_safetensors(str(file))
    if weights_only is False:
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(
                file, map_location=map_location, weights_only=True, mmap=mmap
            )
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        what = f' ({found[1]})' if found else ''
        raise UserError(
            f'{file}: not a checkpoint that can be read safely: it is '
            f'damaged or holds Python objects other than tensors{what}. If '
            'you trust its origin, write its weights to a new file once: '
            "python -c \"import torch; c = torch.load('OLD', map_location="
            "'cpu', weights_only=False); torch.save({'state_dict': "
            "c.get('state_dict', c)}, 'NEW')\""
        ) from error
    except (UserError, OSError):
        raise
    except Exception as error:
        # torch meets a truncated or foreign file with almost any error.
        raise UserError(
            f'{file}: cannot be read as a checkpoint '
            f'({str(error) or type(error).__name__}); the file is '
            'truncated or not one that torch.save wrote'
        ) from error


def _read_safetensors(file: str) -> Any:
    try:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file
    except ImportError as error:
        raise InstallError(
            f'{file} needs safetensors; install medssl_mm[models]'
        ) from error
    try:
        # With an attribute, as a dict of tensors has no place for it.
        tensors: Any = OrderedDict(load_file(file))
        with safe_open(file, 'pt') as opened:
            tensors.provenance = (opened.metadata() or {}).get('provenance')
        return tensors
    except (SafetensorError, OSError) as error:
        raise UserError(
            f'{file}: cannot be read as safetensors ({error}); the file is truncated '
            'or of another kind'
        ) from error


def _safe_globals() -> list[Callable | tuple[Callable, str]]:
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    core: Any = getattr(np, '_core', None) or np.core
    kinds = ['float16', 'float32', 'float64', 'int32', 'int64', 'uint8']
    return [
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        (core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
        *(type(np.dtype(kind)) for kind in [*kinds, 'bool', 'uint32']),
        HistoryBuffer,
        (_history_method, 'builtins.getattr'),
        (_history_method, '__builtin__.getattr'),
    ]


def _history_method(owner: object, name: str) -> Any:
    """Stand in for ``getattr`` in a pickled ``HistoryBuffer``."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise UserError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}, which '
        'is not allowed'
    )
