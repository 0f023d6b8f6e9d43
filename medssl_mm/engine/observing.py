"""What monitors and probes share: they look at a model and change nothing."""

import copy
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from medssl_mm.backbones import Backbone, encoder_features
from medssl_mm.engine.checkpoints import random_state, set_random_state
from medssl_mm.errors import UserError
from medssl_mm.loaders import first_of_views
from medssl_mm.registry import DATASETS


@contextmanager
def own_randomness(seed: int = 0) -> Iterator[None]:
    """Seed the global generators, and put them back afterwards.

    Samples whose transforms draw from them are then the same at any time.

    Args:
        seed (int): Defaults to 0.
    """
    before = random_state()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        yield
    finally:
        set_random_state(before)


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the hosts from logging every part that they build or initialise."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(level)


def seed_of(*numbers: int) -> int:
    """Make one seed of several numbers, at least 0 each."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def inner_model(runner: Runner) -> nn.Module:
    """Return the model of a runner without what wraps it for several processes."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def held_out_dataset(
    training: Mapping, subset: str | None = 'val', dataset: Mapping | None = None
) -> Any:
    """Build the data set of a monitor.

    Args:
        training (dict): Config of the training data set.
        subset (str | None): Subset put in place of that of ``training``;
            None keeps it. Defaults to 'val'.
        dataset (dict, optional): Config to use instead. Defaults to None.
    """
    settings = copy.deepcopy(dict(training if dataset is None else dataset))
    if dataset is None and subset is not None:
        settings['subset'] = subset
    return DATASETS.build(settings)


def even_batches(
    dataset: Any,
    count: int,
    batch_size: int,
    collate_fn: Callable,
    index: Callable[[int], int] = int,
) -> DataLoader:
    """Return a loader of ``count`` samples, evenly spread, in this process.

    Args:
        dataset (Dataset): The data set.
        count (int): Number of samples.
        batch_size (int): Samples in a batch.
        collate_fn (callable): Joins samples.
        index (callable): Makes what the data set is asked with of the number of a
            sample, such as an EpochIndex. Defaults to the number itself.
    """
    numbers = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    order = [index(number) for number in numbers.tolist()]
    return DataLoader(
        dataset,
        batch_sampler=[
            order[start : start + batch_size] for start in range(0, count, batch_size)
        ],
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(0),
    )


def first_view(model: Any, batch: dict) -> Tensor:
    """Return the images of the first view as the backbone takes them.

    Args:
        model (nn.Module): Has a ``data_preprocessor``.
        batch (dict): A collated batch of the training data.
    """
    data = model.data_preprocessor(batch, False)
    # mmselfsup returns (inputs, data_samples), the other hosts a dict.
    inputs = data['inputs'] if isinstance(data, dict) else data[0]
    images = first_of_views(inputs)
    return model.lay_out(images) if hasattr(model, 'lay_out') else images


def prepared_images(model: nn.Module, images: Tensor) -> Tensor:
    """Return images as the backbone takes them, each of them one view.

    Args:
        model (nn.Module): Has a ``data_preprocessor``.
        images (Tensor): As a pipeline packs them.

    Shape: ``(N, C, H, W)``, kept.
    """
    samples = torch.arange(len(images))  # the hosts' preprocessors want some
    return first_view(model, dict(inputs=[images], data_samples=samples))


def evaluated_backbone(model: nn.Module, encoder: str | None = None) -> nn.Module:
    """Return the backbone of the encoder that an algorithm is evaluated by.

    Args:
        model (nn.Module): An algorithm of this package, or of a host: then its
            own ``backbone``.
        encoder (str, optional): 'online' or 'target' instead. Defaults to None.

    Raises:
        UserError: When it has no such encoder.
    """
    encoders = getattr(model, 'encoders', None) or {'online': model}
    name = encoder or getattr(model, 'evaluated', 'online')
    if name not in encoders:
        raise UserError(
            f'{type(model).__name__} has no encoder {name!r}, but '
            f'{", ".join(map(repr, encoders))}; set encoder to one of them'
        )
    return encoders[name].backbone


@torch.no_grad()
def pooled_features(model: nn.Module, backbone: Backbone, images: Tensor) -> Tensor:
    """Return the means over all positions of the backbone's last map.

    Args:
        model (nn.Module): Has a ``data_preprocessor``.
        backbone (Backbone): Of an encoder of it.
        images (Tensor): As a pipeline packs them.

    Shape: ``(N, C, H, W)`` to ``(N, D)``, float32, without gradient.
    """
    place = backbone.names[backbone.last]
    taps = {place: backbone.taps()[place]}
    return backbone.pooled(prepared_images(model, images), taps)[place]


def model_features(model: Any, batch: Any) -> dict[str, Tensor]:
    """Return the features of a batch, of its first view, by place.

    Args:
        model (nn.Module): Has ``backbone``, ``neck``, ``data_preprocessor``
            and maybe ``decorrelation``.
        batch (dict): A collated batch of the training data.
    """
    decorrelation = getattr(model, 'decorrelation', None)
    if getattr(decorrelation, 'inside_backbone', False):
        decorrelation = None
    return encoder_features(
        model.backbone, model.neck, first_view(model, batch), decorrelation
    )
