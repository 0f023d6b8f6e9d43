"""What else a checkpoint of a pretraining says: its config, its decorrelation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from medssl_mm.engine.config_text import parse_config_text
from medssl_mm.errors import UserError

from .decorrelation import MOMENTS, prefixes_of


def config_of(
    checkpoint: Any, path: str | Path, config: str | Path | None = None
) -> Mapping[str, Any]:
    """Return the config of a pretraining.

    Args:
        checkpoint (Any): What the file holds.
        path (str | Path): The file, for the message.
        config (str | Path, optional): File of the config. Defaults to None:
            the text that is saved in the checkpoint, read without running it.

    Raises:
        UserError: There is none, or it is no plain one.
    """
    if config:
        from medssl_mm.engine import launch

        return launch.load_config(str(config))
    meta = checkpoint.get('meta', {}) if isinstance(checkpoint, Mapping) else {}
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not text:
        raise UserError(f'{path} holds no config; give --config')
    try:
        return parse_config_text(text)
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error


def trained_transform(
    settings: Mapping[str, Any] | None,
    state_dict: Mapping[str, Tensor],
    encoder: str | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Weight and bias of the decorrelation of a checkpoint, if it has one.

    Args:
        settings (Mapping, optional): ``model.decorrelation`` of its config.
        state_dict (Mapping[str, Tensor]): Tensors of the checkpoint.
        encoder (str, optional): As for
            :func:`medssl_mm.converters.export_backbone`. Defaults to None.

    Raises:
        UserError: The config is not that of the checkpoint, or the
            decorrelation is not the last thing that an image passes.
    """
    from medssl_mm.registry import MODELS

    prefix = prefixes_of(state_dict, encoder)[1]
    own = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    # Of a slow copy without one, necks of loss terms have that prefix.
    if MOMENTS not in own:
        return None
    if not settings:
        raise UserError(
            'the config has no model.decorrelation, but the '
            'checkpoint holds one; give its own --config'
        )
    settings = dict(settings)
    # It may have been left to the algorithm.
    settings.setdefault('num_channels', own['running_mean'].numel())
    head = MODELS.build(settings).eval()
    try:
        head.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f'model.decorrelation of the config is not that of the checkpoint: {error}'
        ) from error
    if head.on_projection:
        raise UserError(
            'the decorrelation is that of the projection, of which nothing stays '
            'downstream; choose "drop"'
        )
    if head.stage is not None and any(
        f'.layer{head.stage + 1}.' in name for name in state_dict
    ):
        raise UserError(
            f'the decorrelation stands after stage {head.stage}, within the backbone: '
            'no part of a plain network can take it in; choose "drop"'
        )
    return head.dense_transform()
