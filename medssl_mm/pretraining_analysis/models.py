"""Models of pretraining checkpoints, and the images that they are compared on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.datasets.sampler import EpochIndex
from medssl_mm.engine.checkpoints import require_finite
from medssl_mm.engine.config_text import parse_config_text
from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    calibrate_batch_norm,
    calibration_batches,
)
from medssl_mm.engine.observing import even_batches, held_out_dataset
from medssl_mm.engine.pretrained import find_state_dict, read_checkpoint
from medssl_mm.errors import UserError
from medssl_mm.registry import FUNCTIONS, MODELS


def build_pretraining(checkpoint: str | Path | None, config: Config) -> Any:
    """Build the algorithm of a checkpoint, with its weights.

    Args:
        checkpoint: File of a pretraining; None: random weights.
        config: Where the model is from if the file holds no config.

    Raises:
        UserError: The file is no such checkpoint, damaged, or of another model.
    """
    if checkpoint is None:
        model = _build(config)
        model.init_weights()
        return model
    content = read_checkpoint(checkpoint)
    meta = meta_of(content)
    if meta.get('cfg'):
        try:
            config = Config(parse_config_text(meta['cfg']))
        except ValueError as error:
            raise UserError(f'{checkpoint}: {error}') from error
    model = _build(config)
    load_pretraining(model, content, checkpoint)
    return model


def load_pretraining(model: nn.Module, content: object, checkpoint: str | Path) -> None:
    """Fill an algorithm with all weights of a checkpoint.

    Args:
        model: Of its config.
        content: What the file holds.
        checkpoint: Its name.

    Raises:
        UserError: The weights are not finite, or of another model.
    """
    weights = find_state_dict(content, str(checkpoint))
    require_finite(weights, str(checkpoint), model.state_dict())
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f'{checkpoint} is not of the model in its config: {error}'
        ) from error


def meta_of(content: object) -> Mapping[str, Any]:
    """What a checkpoint says of itself; nothing where it is plain weights."""
    return (content.get('meta') or {}) if isinstance(content, Mapping) else {}


def _build(config: Config) -> Any:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model: Any = MODELS.build(config.model)
    return model


def calibrate_pretraining(model: Any, config: Config, batch_size: int) -> None:
    """Set the running statistics of a random backbone from training images.

    Args:
        model: Its normalisation is changed.
        config: Names the training images.
        batch_size: Images in each of 20 batches.
    """
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = held_out_dataset(config.train_dataloader.dataset, None)
        batches = calibration_batches(
            dataset, batch_size, 20, collate_fn=_collate_of(config)
        )
        calibrate_batch_norm(model, model.backbone, batches)


def held_out_views(
    config: Config, subset: str | None, samples: int, batch_size: int, views: int = 1
) -> tuple[int, list[list]]:
    """Batches of held-out images as the pretraining sees them, view by view.

    Args:
        config: Of a pretraining.
        subset: Of the split of its data; None: that of the config.
        samples: Images, evenly spread, at most as many as there are.
        batch_size: Images in a batch.
        views: How many views of each image; the first ones of the first epochs.

    Returns:
        tuple: Number of images, and a list of batches for each view.
    """
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = held_out_dataset(config.train_dataloader.dataset, subset)
    count = min(samples, len(dataset))
    collate = _collate_of(config)
    indices: list[Callable[[int], int]] = [int]
    indices += [_in_epoch(dataset, epoch) for epoch in range(1, views)]
    return count, [
        list(even_batches(dataset, count, batch_size, collate, index))
        for index in indices
    ]


def _collate_of(config: Config) -> Callable:
    with DefaultScope.overwrite_default_scope(config.default_scope):
        collate: Any = FUNCTIONS.get(config.train_dataloader.collate_fn.type)
    return collate


def _in_epoch(dataset: Any, epoch: int) -> Callable[[int], EpochIndex]:
    seed = getattr(dataset, 'seed', 0)
    return lambda number: EpochIndex(number, epoch, seed)
