"""What goes into a checkpoint file, and which file to resume from."""

import random
import re
import zipfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from medssl_mm import compat, files
from medssl_mm.errors import UserError
from medssl_mm.functional import distributed

# Read back by ``weights_only=True`` as they are.
_PLAIN = (
    *(bool, int, float, complex, str, bytes),
    *(torch.Size, torch.dtype, torch.device),
)
# Written by a training that was told to end, at any iteration; the next checkpoint
# of its epochs or iterations takes its place.
INTERRUPTED = 'interrupted.pth'
#: What to do about a training that has diverged.
ADVICE = (
    'Lower the learning rate or lengthen its warm-up, clip the gradients '
    '(optim_wrapper.clip_grad), or train without --amp; checkpoints saved earlier are '
    'untouched'
)
_STEP_FILE = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def to_plain(value: Any, path: str = 'checkpoint') -> Any:
    """Reduce a nest of containers to what ``weights_only=True`` reads back.

    Tensors stay, numpy values become Python numbers or tensors, mappings
    become dicts, a ``HistoryBuffer`` becomes a dict of two tensors.

    Args:
        value (object): The nest.
        path (str): Where it stands, for the message. Defaults to
            'checkpoint'.

    Raises:
        TypeError: Something else is in the nest; the message says where.
    """
    if value is None or type(value) in _PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, HistoryBuffer):
        logs, counts = value.data
        return dict(
            log_history=torch.as_tensor(logs, dtype=torch.float64),
            count_history=torch.as_tensor(counts, dtype=torch.float64),
            max_length=value.max_length,
        )
    if isinstance(value, np.ndarray) and value.dtype.kind in 'biuf':
        return torch.tensor(value)
    if isinstance(value, (bool, int, float, str, np.generic)):
        # Subclasses (numpy scalars, enums, str types) by their plain value.
        plain = value.item() if isinstance(value, np.generic) else value
        for kind in (bool, int, float, str):
            if isinstance(plain, kind):
                return kind(plain)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {
            to_plain(key, f'{path} key'): to_plain(item, f'{path}[{key!r}]')
            for key, item in value.items()
        }
    if isinstance(value, (list, deque)):
        return [to_plain(v, f'{path}[{i}]') for i, v in enumerate(value)]
    if isinstance(value, tuple):
        return tuple(to_plain(v, f'{path}[{i}]') for i, v in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return {to_plain(v, f'{path} item') for v in value}
    raise TypeError(
        f'{path} is a {type(value).__module__}.{type(value).__qualname__}, '
        'which a checkpoint cannot hold safely; store tensors, numbers, '
        'strings, lists or dicts instead'
    )


def plain_checkpoint(checkpoint: dict[str, Any]) -> list[str]:
    """Reduce the checkpoint of a Runner in place, as ``to_plain`` does.

    Log information that cannot be reduced is left out: it does not influence
    training. Anything else that cannot be reduced is an error.

    Returns:
        list[str]: Names of the log information left out.
    """
    dropped = []
    info = checkpoint.get('message_hub', {}).get('runtime_info', {})
    for key in list(info):
        try:
            info[key] = to_plain(info[key])
        except TypeError:
            del info[key]
            dropped.append(key)
    for key in list(checkpoint):
        checkpoint[key] = to_plain(checkpoint[key], f'checkpoint[{key!r}]')
    return dropped


def restore_history(checkpoint: dict[str, Any]) -> None:
    """Turn the log scalars of a loaded checkpoint back, in place."""
    scalars = checkpoint.get('message_hub', {}).get('log_scalars', {})
    for key, value in scalars.items():
        if isinstance(value, dict) and 'log_history' in value:
            scalars[key] = HistoryBuffer(
                value['log_history'].cpu().numpy(),
                value['count_history'].cpu().numpy(),
                value['max_length'],
            )


def random_state() -> dict[str, Any]:
    """Return the states of all random generators, as plain types."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    state = dict(
        python=random.getstate(),
        numpy=(
            name,
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put the random generators into a state that ``random_state`` gave."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


def claim_folder(folder: str | Path) -> ExitStack:
    """Be the only training in a work directory, all ranks together.

    Left-overs of checkpoints that a killed run was writing are deleted.

    Returns:
        ExitStack: To be closed when the training has ended.

    Raises:
        UserError: Another training is there; on every rank.
    """
    claimed: ExitStack | UserError = ExitStack()
    if distributed.is_main_process():
        try:
            claimed = files.claim(folder)
            for path in Path(folder).glob('.*.pth.tmp'):
                path.unlink(missing_ok=True)
        except UserError as error:
            claimed = error
    refused = claimed if isinstance(claimed, UserError) else None
    refused = distributed.gather_objects(refused)[0]
    if refused is not None:
        raise refused
    assert isinstance(claimed, ExitStack), 'raised above'
    return claimed


def damage_of(path: str | Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None.

    Checks the whole content against the checksums in the file, and that it
    loads: those do not cover the directory of the file.

    Args:
        path (str | Path): File written by ``torch.save``, or ``.safetensors``.
    """
    path = Path(path)
    if not path.is_file():
        return 'is not there'
    is_archive = path.suffix != '.safetensors' and not _is_legacy(path)
    try:
        if is_archive:
            with zipfile.ZipFile(path) as archive:
                member = archive.testzip()
            if member:
                return f'is damaged (checksum of {member})'
    except Exception as error:  # whatever a flipped bit provokes
        return f'is truncated or not a checkpoint ({error or type(error).__name__})'
    try:
        content = compat.load_checkpoint(path, map_location='cpu', mmap=is_archive)
    except Exception as error:
        return f'does not load ({str(error).removeprefix(f"{path}: ")})'
    if not isinstance(content, Mapping):
        return f'holds no named weights, but a {type(content).__name__}'
    return None


def _is_legacy(path: Path) -> bool:
    # Of torch < 1.6: no zip file.
    with open(path, 'rb') as file:
        return file.read(2) == b'\x80\x02'


def ruined_weights(
    tensors: Mapping[str, Any], target: Mapping[str, torch.Tensor] | None = None
) -> list[str]:
    """List the weights that are infinite or not a number.

    Args:
        tensors (Mapping): By name; what is no tensor is left alone.
        target (Mapping[str, Tensor], optional): Tensors of the network: what is
            infinite there may be so. Defaults to None.

    Returns:
        list[str]: Of each its name and how many of its values.
    """
    ruined = []
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        bad = int(value.numel() - value.isfinite().sum())
        own = target.get(name) if target else None
        if bad and (own is None or bool(own.isfinite().all())):
            ruined.append(f'{name} ({bad} of {value.numel()} values)')
    return ruined


def require_finite(
    tensors: Mapping[str, Any],
    source: str,
    target: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Refuse weights that are infinite or not a number.

    A network with such weights calculates without an error, and predicts
    nothing but background.

    Args:
        tensors (Mapping): By name; what is no tensor is left alone.
        source (str): Where they are from, for the message.
        target (Mapping[str, Tensor], optional): Tensors of the network that gets
            them: what is infinite there may be so. Defaults to None.

    Raises:
        UserError: How many, and of the first which share of its values.
    """
    ruined = ruined_weights(tensors, target)
    if ruined:
        raise UserError(
            f'{source} holds {len(ruined)} weights that are infinite or not a '
            f'number, such as {ruined[0]}: the training has '
            'diverged, or the file is damaged; use an earlier checkpoint, or fetch '
            'the file again'
        )


def resume_candidates(folder: str | Path) -> list[Path]:
    """List the checkpoints of a run, the one to resume from first.

    First the one that ``last_checkpoint`` names, then the earlier ones from
    the latest on. Files of higher steps are left-overs of another run in the
    same folder and come last.

    Args:
        folder (str | Path): Work directory of the run.
    """
    folder = Path(folder)
    steps = {}
    for path in folder.glob('*.pth'):
        match = _STEP_FILE.fullmatch(path.name)
        if match:
            steps[path] = int(match[1])
    ordered = sorted(steps, key=lambda path: steps[path], reverse=True)
    named = files.last_checkpoint(folder)
    if named == folder / INTERRUPTED:
        # Written after all others of its run.
        ordered.insert(0, named)
    elif named in steps:
        newest = steps[named]
        ordered.sort(key=lambda path: steps[path] > newest)
    return ordered


def find_intact(
    folder: str | Path,
    warn: Callable[[str], None],
    target: Mapping[str, torch.Tensor] | None = None,
) -> str | None:
    """Return the newest intact checkpoint of a run; None if it has none.

    Args:
        folder (str | Path): Work directory of the run.
        warn (Callable): Takes the message about a file that is skipped.
        target (Mapping[str, Tensor], optional): Tensors of the network: what is
            infinite there may be so. Defaults to None.

    Raises:
        UserError: There are checkpoints, and all of them are damaged or hold
            weights that are not finite.
    """
    candidates = resume_candidates(folder)
    damages = []
    for path in candidates:
        damage = damage_of(path) or _ruin_of(path, target)
        if damage is None:
            return str(path)
        damages.append(f'{path} {damage}')
        warn(f'{path} {damage}; trying the checkpoint before it')
    if damages:
        raise UserError(
            f'no checkpoint in {folder} can be resumed: '
            + '; '.join(damages)
            + '. Start without --resume, or give another file: --resume PATH'
        )
    return None


def _ruin_of(path: Path, target: Mapping[str, torch.Tensor] | None) -> str | None:
    content = compat.load_checkpoint(
        path, map_location='cpu', mmap=not _is_legacy(path)
    )
    weights = content.get('state_dict', content)
    ruined = ruined_weights(weights, target) if isinstance(weights, Mapping) else []
    if not ruined:
        return None
    return (
        f'holds {len(ruined)} weights that are infinite or not a number, such as '
        f'{ruined[0]}'
    )
