"""What features are computed with: a network, its preprocessing, its weights."""

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from medssl_mm.backbones import Backbone, backbone_of, require_parts
from medssl_mm.encoders import (
    Preprocessing,
    PretrainedEncoder,
    fill_encoder,
    parse_source,
    seen_by,
    weights_digest,
)
from medssl_mm.engine.observing import own_randomness
from medssl_mm.engine.pretrained import PretrainedBackbone, load_pretrained_backbone
from medssl_mm.engine.seen import seen_in_file
from medssl_mm.engine.taps import ALLOW
from medssl_mm.errors import UserError
from medssl_mm.functional.features import device_of
from medssl_mm.provenance import Seen
from medssl_mm.registry import FUNCTIONS, MODELS, build_of
from medssl_mm.schema import checked

from .images import ImageSubsets, describe_data, describe_pictures
from .pictures import collate_inputs, stack_pictures
from .subsets import Subset
from .weights import Weights


class Encoder(ABC):
    """Makes features of the images of a data set.

    Args:
        weights (Weights): Name and source.
        images (ImageSubsets): Of the config.
        note (Callable): Called with messages.
    """

    def __init__(
        self, weights: Weights, images: ImageSubsets, note: Callable[[str], None]
    ) -> None:
        self.weights = weights
        self.images = images
        self.note = note

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """File, or folder, with the weights; None for random ones."""

    @property
    def digest(self) -> str:
        """Of the file with the weights; 'random:SEED' of random ones."""
        return weights_digest(self.path) or f'random:{self.weights.seed}'

    @property
    @abstractmethod
    def seen(self) -> Seen:
        """What the weights have seen, see :mod:`medssl_mm.provenance`."""

    @abstractmethod
    def describe(self) -> dict:
        """What features depend on besides images and weights."""

    @abstractmethod
    def describe_images(self, subset: Subset) -> dict:
        """What they depend on of the images."""

    @abstractmethod
    def dataset(self, subset: Subset) -> Any:
        """Gives samples that ``collate`` joins."""

    @property
    @abstractmethod
    def collate(self) -> Callable[[Sequence[Mapping]], dict]:
        """Joins samples to a batch, as the model's data preprocessor takes it."""

    @abstractmethod
    def build(self) -> Any:
        """Make a module with ``data_preprocessor`` and ``backbone``."""

    @abstractmethod
    def view(self, model: Any) -> Backbone:
        """The network of that module as a sequence of places."""


class ConfigEncoder(Encoder):
    """Network, data preprocessor and pipeline of the classification config."""

    @property
    def path(self) -> Path | None:
        """As it was given."""
        return self.weights.path

    @functools.cached_property
    def seen(self) -> Seen:
        """As the file says."""
        return Seen() if self.path is None else seen_in_file(self.path)

    def describe(self) -> dict:
        """Network and data preprocessor."""
        model = self._settings()
        backbone = dict(model['backbone'])
        backbone.pop('init_cfg', None)
        return dict(backbone=backbone, data_preprocessor=model.get('data_preprocessor'))

    def describe_images(self, subset: Subset) -> dict:
        """With their pipeline."""
        return describe_data(subset)

    def dataset(self, subset: Subset) -> Any:
        """As the config has it."""
        return subset.dataset

    @property
    def collate(self) -> Callable[[Sequence[Mapping]], dict]:
        """As the test loader does."""
        settings = self.images.loader('test').get('collate_fn') or {}
        with DefaultScope.overwrite_default_scope(self._scope):
            collate: Any = FUNCTIONS.get(settings.get('type', 'pseudo_collate'))
        return functools.partial(collate_inputs, collate)

    @property
    def _scope(self) -> str:
        return self.images.config.get('default_scope', 'mmpretrain')

    def _settings(self) -> dict:
        config = self.images.config
        model = copy.deepcopy(config.get('model') or {})
        if 'backbone' not in model:
            raise UserError(
                f'{config.filename} has no model.backbone; use a classification '
                'config, or name an encoder: NAME=ENCODER'
            )
        shared = config.get('data_preprocessor')
        if shared is not None:
            model.setdefault('data_preprocessor', copy.deepcopy(shared))
        return model

    def build(self) -> Any:
        """The classifier of the config, with the weights in its backbone."""
        weights = self.weights
        require_parts(self._settings()['backbone'], self.images.config.filename)
        with (
            DefaultScope.overwrite_default_scope(self._scope),
            own_randomness(weights.seed),
        ):
            model = build_of(MODELS, self._settings(), self.images.config.filename)
            if weights.path is None:
                # Random features need their residual branches.
                model.backbone.zero_init_residual = False
                torch.manual_seed(weights.seed)
                PretrainedBackbone()(model.backbone)
        if weights.path is not None:
            report = load_pretrained_backbone(
                model.backbone,
                weights.path,
                allow_other_dilation=bool(self.images.config.get(ALLOW)),
            )
            if report.encoder:
                self.note(
                    f'{weights.name}: the {report.encoder} encoder of {weights.path}, '
                    'which holds two'
                )
        return model

    def view(self, model: Any) -> Backbone:
        """By its parts."""
        return backbone_of(model.backbone)


class NamedEncoder(Encoder):
    """A pretrained encoder, with its own preprocessing of plain pictures."""

    @functools.cached_property
    def _source(self) -> Any:
        source = parse_source(self.weights.encoder or '')
        changes = dict(self.weights.preprocessing)
        if not changes:
            return source
        known = source.settings.preprocessing.model_dump()
        changed = checked(Preprocessing, {**known, **changes}, self.weights.name)
        settings = source.settings.model_copy(update=dict(preprocessing=changed))
        return replace(source, settings=settings)

    @property
    def path(self) -> Path | None:
        """As it was given, or found."""
        return self._source.path

    @functools.cached_property
    def seen(self) -> Seen:
        """As file or export say; of published weights it is not known."""
        return seen_by(self._source)

    def describe(self) -> dict:
        """Network, preprocessing and how the file is read."""
        settings = self._source.settings
        return dict(
            backbone=settings.backbone,
            preprocessing=settings.preprocessing.model_dump(),
            converter=settings.converter,
        )

    def describe_images(self, subset: Subset) -> dict:
        """Without any pipeline."""
        return describe_pictures(subset)

    def dataset(self, subset: Subset) -> Any:
        """Resized pictures."""
        return self.images.pictures(subset, self._source.settings.preprocessing)

    @property
    def collate(self) -> Callable[[Sequence[Mapping]], dict]:
        """Stacks them."""
        return stack_pictures

    def build(self) -> '_Prepared':
        """The encoder with the part of its preprocessing that batches go through."""
        return _Prepared(fill_encoder(self._source, self.weights.seed))

    def view(self, model: '_Prepared') -> Backbone:
        """As the encoder sees it."""
        return model.encoder.places


class _Prepared(nn.Module):
    """An encoder in the place of a classifier."""

    def __init__(self, encoder: PretrainedEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @property
    def backbone(self) -> nn.Module:
        return self.encoder.backbone

    def data_preprocessor(self, batch: dict, training: bool) -> dict[str, Tensor]:
        pixels = batch['inputs'].to(device_of(self.encoder)).float() / 255
        return dict(inputs=self.encoder.preprocessing.normalise(pixels))
