"""Encoders that are ready for use."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from medssl_mm.backbones import (
    Backbone,
    TimmNetworkBackbone,
    backbone_of,
    find_family,
    require_parts,
)
from medssl_mm.engine.observing import own_randomness, quietly
from medssl_mm.engine.pretrained import PretrainedBackbone, load_pretrained_backbone
from medssl_mm.errors import UserError, similar
from medssl_mm.provenance import KEY, Seen
from medssl_mm.registry import MODELS, build_of

from .preprocessing import Preprocessing
from .seen import seen_by
from .settings import (
    EncoderSettings,
    EncoderSource,
    exported,
    parse_source,
    require_intact,
)

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)


class PretrainedEncoder(nn.Module):
    """A frozen network with the preprocessing that its weights want.

    Args:
        settings (EncoderSettings): What it is.
        backbone (nn.Module): The network, as its host builds it.
    """

    def __init__(self, settings: EncoderSettings, backbone: nn.Module) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = backbone

    @property
    def preprocessing(self) -> Preprocessing:
        """What turns a picture into what the encoder takes."""
        return self.settings.preprocessing

    @cached_property
    def places(self) -> Backbone:
        """The network as a sequence of places, see :mod:`medssl_mm.backbones`."""
        return places_of(self.backbone)

    @property
    def provenance(self) -> Seen:
        """What the weights have seen, see :mod:`medssl_mm.provenance`."""
        return getattr(self.backbone, KEY, None) or Seen()

    @property
    def digest(self) -> str:
        """SHA-256 of all weights and running statistics, by name."""
        content = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            content.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
            plain = tensor.detach().cpu().contiguous().flatten()
            content.update(plain.view(torch.uint8).numpy())
        return content.hexdigest()

    def forward(self, images: Tensor) -> Tensor:
        """Features: the mean over all positions of the last map.

        Shape: ``(N, C, h, w)`` -> ``(N, embedding_length)``.
        """
        return self.maps(images).mean(dim=(2, 3))

    def maps(self, images: Tensor, place: str | None = None) -> Tensor:
        """The map at a place.

        Args:
            images (Tensor): Prepared by :attr:`preprocessing`.
            place (str, optional): 'stem', 'stage1', ... Defaults to None: the
                last one, after its normalisation and ReLU.

        Shape: ``(N, C, h, w)`` -> ``(N, C', h', w')``.

        Raises:
            UserError: The network has no such place.
        """
        numbers = self.places.numbers
        if place is not None and place not in numbers:
            raise UserError(
                f'{self.settings.name} has no place {place!r}{similar(place, numbers)}'
            )
        number = self.places.last if place is None else numbers[place]
        return self.places.maps(images, [number])[number]


def places_of(network: nn.Module) -> Backbone:
    """The view of an encoder's network; whole networks of timm are allowed.

    Args:
        network (nn.Module): As its host builds it.
    """
    if find_family(network) is None and TimmNetworkBackbone.fits(network):
        return TimmNetworkBackbone(network)
    return backbone_of(network)


def load_encoder(source: str | Path, seed: int = 0) -> PretrainedEncoder:
    """Make an encoder: in evaluation mode, frozen, on the CPU.

    Args:
        source (str | Path): ``NAME`` of ``configs/encoders`` (its file is
            found in the folders of ``MEDSSL_WEIGHTS`` or ``data/weights``),
            ``NAME:PATH``, ``random:NAME``, or a folder that
            ``tools/export.py`` wrote.
        seed (int): Of random weights. Defaults to 0.

    Raises:
        UserError: No such encoder or file, or weights that do not fit.

    Example:
        >>> encoder = load_encoder('random:resnet18')
        >>> features = encoder(encoder.preprocessing(picture)[None])
    """
    return fill_encoder(parse_source(source), seed)


def fill_encoder(source: EncoderSource, seed: int = 0) -> PretrainedEncoder:
    """Build an encoder and give it its weights; see :func:`load_encoder`."""
    settings, path = source.settings, source.path
    if source.published and path is not None:
        require_intact(settings, path)
    backbone = build_backbone(settings.backbone, settings.name, seed, path is None)
    encoder = PretrainedEncoder(settings, backbone)
    if path is not None:
        _fill(encoder.backbone, settings, path, seen_by(source))
    found = encoder.places.channels[encoder.places.last]
    if found != settings.embedding_length:
        raise UserError(
            f'{settings.name} gives {found} numbers, its embedding_length says '
            f'{settings.embedding_length}; correct the description'
        )
    return encoder.requires_grad_(False).eval()


def build_backbone(
    config: Mapping[str, Any], label: str, seed: int = 0, random: bool = False
) -> nn.Module:
    """Build the network of an encoder.

    Args:
        config (Mapping): Of a registered network.
        label (str): Name of the encoder, for the message.
        seed (int): Of random weights. Defaults to 0.
        random (bool): Whether random weights are to be used as they are.
            Defaults to False.

    Raises:
        InstallError: It is a network of timm, which is not installed.
    """
    require_parts(config, f'the encoder {label}')
    config = copy.deepcopy(dict(config))
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        own_randomness(seed),
        quietly(),
    ):
        backbone = build_of(MODELS, config, f'encoder {label}')
        if random:
            _start_randomly(backbone, seed)
    return backbone


def _start_randomly(backbone: Any, seed: int) -> None:
    torch.manual_seed(seed)
    backbone.zero_init_residual = False
    if not hasattr(backbone, 'timm_model'):  # these have begun as timm has it
        PretrainedBackbone()(backbone)
    # Random features need their residual branches.
    for part in backbone.modules():
        if isinstance(part, _NORMS) and part.affine and not part.weight.any():
            nn.init.ones_(part.weight)


def _fill(
    backbone: nn.Module, settings: EncoderSettings, path: Path, seen: Seen
) -> None:
    checkpoint: Any = path
    folded: dict[str, Tensor] = {}
    if path.is_dir():
        checkpoint = exported().read_weights(path)
        folded = {
            name.rpartition('.')[2]: checkpoint.pop(name)
            for name in list(checkpoint)
            if name.startswith(f'{exported().CONV}.')
        }
    elif settings.converter is not None:
        # Gives the tensors in names that a host, timm or torchvision has.
        read = import_module('medssl_mm.converters').read_weights
        checkpoint = read(settings.converter, path, settings.backbone)
    load_pretrained_backbone(backbone, checkpoint, source=str(path), seen=seen)
    if folded:
        exported().add_decorrelation(backbone, **folded)
