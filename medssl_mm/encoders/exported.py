"""Folders that hold one encoder: weights, what it is, and how to use it.

``model.safetensors``, ``config.json`` and, for people, ``README.md``;
``model.pth`` as well where a host is to read the weights.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import InstallError, UserError
from medssl_mm.files import whole_file, write_json, write_whole
from medssl_mm.importers.run import file_digest
from medssl_mm.provenance import KEY, Seen, seen_of
from medssl_mm.schema import checked

from .settings import EncoderSettings

FORMAT = 1
WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
CONV = 'decorrelation_conv'


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of an export.

    Raises:
        UserError: It is absent or damaged, or of another format.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError:
        raise UserError(
            f'{folder} is no export of an encoder: it has no {CONFIG}; write one with '
            'tools/export.py'
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is damaged ({error}); export it again') from None
    own = content.get('medssl_mm') if isinstance(content, dict) else None
    if not isinstance(own, dict) or own.get('format') != FORMAT:
        raise UserError(
            f'{path}: expected an export of format {FORMAT} of this package, found '
            f'{own.get("format") if isinstance(own, dict) else "none"}; export it '
            'again with tools/export.py'
        )
    return own


def read_settings(folder: Path) -> EncoderSettings:
    """Read what the encoder of an export is.

    Raises:
        UserError: See :func:`read_config`.
    """
    content = read_config(folder).get('encoder')
    return checked(EncoderSettings, content, folder / CONFIG)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of an export, by the names of the backbone.

    A folded decorrelation is ``decorrelation_conv.weight`` and ``.bias``.

    Raises:
        UserError: They are absent, or not those that were written.
    """
    from medssl_mm.converters import names_for_hosts

    config, path = read_config(folder), folder / WEIGHTS
    if not path.is_file():
        raise UserError(f'{folder} has no {WEIGHTS}; export it again')
    if file_digest([str(path)]) != config.get('sha256'):
        raise UserError(
            f'{path} is not the file that was exported with {CONFIG} (its SHA-256 '
            'differs): truncated or changed; export it again'
        )
    tensors = safetensors().load_file(path)
    if config['target'] in ('mmpretrain', 'mmseg'):
        return {
            name.removeprefix('backbone.').replace(f'{CONV}.conv.', f'{CONV}.'): value
            for name, value in tensors.items()
        }
    head = config['plain'].get('head')
    folded = {
        f'{CONV}.{name.rpartition(".")[2]}': tensors.pop(name)
        for name in list(tensors)
        if head and name.startswith(f'{head}.')
    }
    if folded:
        folded[f'{CONV}.weight'] = folded[f'{CONV}.weight'][:, :, None, None]
    return {**names_for_hosts(tensors), **folded}


def read_seen(folder: Path) -> Seen:
    """Read what the weights of an export have seen, see :mod:`medssl_mm.provenance`.

    Raises:
        UserError: See :func:`read_config`.
    """
    return seen_of(read_config(folder), folder.name)


def add_decorrelation(network: Any, weight: Tensor, bias: Tensor) -> None:
    """Make a backbone decorrelate the map of its last place.

    Args:
        network (nn.Module): The backbone.
        weight (Tensor): Of a 1x1 convolution.
        bias (Tensor): Of it.

    Shape: weight ``(C, C, 1, 1)``, bias ``(C,)``.

    Raises:
        UserError: The network has a normalisation after that map.
    """
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    conv.load_state_dict(dict(weight=weight, bias=bias))
    places = backbone_of(network)
    tap = places.taps()[places.names[places.last]]
    if tap.entering or tap.index is not None or tap.then is not None:
        raise UserError(
            f'the last map of {type(network).__name__} takes no convolution behind it; '
            'choose --decorrelation drop'
        )
    last = tap.module
    # A hook, so that the parts of the network keep their names.
    last.register_forward_hook(partial(_decorrelated, conv))
    network.add_module(CONV, conv.eval())


def _decorrelated(conv: nn.Module, _: Any, __: Any, level: Tensor) -> Tensor:
    return conv(level)


def safetensors() -> Any:
    """The module that reads and writes weights.

    Raises:
        InstallError: It is not installed.
    """
    try:
        import safetensors.torch as module
    except ImportError:
        raise InstallError(
            'exports need safetensors; install medssl_mm[models]'
        ) from None
    return module


def write_folder(
    folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], card: str
) -> None:
    """Write an export; ``config.json`` is last, so that half of one is none.

    Args:
        folder (Path): Must not exist, or be empty.
        tensors (dict[str, Tensor]): By the names of the target.
        config (dict): ``medssl_mm`` is ours; other keys are those of the
            target.
        card (str): Text of the README.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f'{folder} is not empty; choose another --out')
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in tensors.items()}
    own = config['medssl_mm']
    with whole_file(folder / WEIGHTS) as temporary:
        metadata = dict(format='pt', **{KEY: json.dumps(own[KEY])})
        safetensors().save_file(tensors, temporary, metadata=metadata)
    own.update(format=FORMAT, sha256=file_digest([str(folder / WEIGHTS)]))
    if own['target'] in ('mmpretrain', 'mmseg'):
        with whole_file(folder / 'model.pth') as temporary:
            torch.save({'state_dict': tensors, KEY: own[KEY]}, temporary)
    write_whole(folder / CARD, card)
    write_json(folder / CONFIG, config)
