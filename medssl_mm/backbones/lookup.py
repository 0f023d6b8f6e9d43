"""Which family a network belongs to, and features of any of them."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from medssl_mm.errors import UserError

from .base import Backbone
from .handmade import HandmadeBackbone
from .hosts import (
    ConvNeXtBackbone,
    DenseNetBackbone,
    EfficientNetBackbone,
    ResNetBackbone,
    VisionTransformerBackbone,
)
from .timm import TimmPyramidBackbone, TimmTransformerBackbone

#: The first one that fits a network is taken.
FAMILIES: tuple[type[Backbone], ...] = (
    ResNetBackbone,
    DenseNetBackbone,
    ConvNeXtBackbone,
    EfficientNetBackbone,
    VisionTransformerBackbone,
    HandmadeBackbone,
    TimmPyramidBackbone,
    TimmTransformerBackbone,
)


def find_family(network: nn.Module) -> type[Backbone] | None:
    """Return the family that a network belongs to, None if to no known one."""
    return next((family for family in FAMILIES if family.fits(network)), None)


def backbone_of(network: nn.Module) -> Backbone:
    """View a network as a backbone.

    Args:
        network (nn.Module): As a host builds it.

    Raises:
        UserError: When it is of no known family; lists those that are.
    """
    family = find_family(network)
    if family is not None:
        return family(network)
    name = type(network).__name__
    if hasattr(network, 'timm_model'):
        inner = type(network.timm_model).__name__
        raise UserError(
            f'{name} of {inner} returns no maps; set features_only=True in '
            'model.backbone (timm must support that for the network), or choose '
            'a plain Vision Transformer'
        )
    known = ', '.join(family.family for family in FAMILIES[:-2])
    raise UserError(
        f'{name} cannot be used as model.backbone here: its stages are not known. '
        f'Known are {known}, and the networks of timm through '
        'mmpretrain.TIMMBackbone with features_only=True or a Vision Transformer'
    )


def stated_channels(settings: Mapping) -> dict[int, int]:
    """Channels of all places that a network's config states, without building it.

    Args:
        settings (Mapping): Config of a network.

    Returns:
        dict[int, int]: By the number of the place; empty when it must be built.
    """
    return next((found for f in FAMILIES if (found := f.stated_channels(settings))), {})


def describe_weights(names: Iterable[str]) -> str:
    """Name the architecture that a set of parameter names belongs to.

    Args:
        names (Iterable[str]): Names without prefix.

    Returns:
        str: For instance 'ResNet-50'; empty when it is of no known family.
    """
    names = set(names)
    return next((text for f in FAMILIES if (text := f.describe(names))), '')


def encoder_features(
    network: nn.Module,
    neck: nn.Module,
    images: Tensor,
    decorrelation: Any = None,
) -> dict[str, Tensor]:
    """Features at all places of a contrastive encoder.

    All stages (or blocks) by name, ``decorrelated`` (the map, or the projection,
    after the decorrelation, if there is one), ``pooled`` (the mean over the positions
    of the map that the neck gets) and ``projection``.

    Args:
        network (nn.Module): The backbone.
        neck (nn.Module): Takes ``[map]`` and returns ``[embeddings]``.
        images (Tensor): As the backbone takes them.
        decorrelation (nn.Module, optional): Has the number of its ``stage``,
            None for the last one; ``on_projection`` when it follows the neck.
            Defaults to None.

    Shape: images ``(N, C, H, W)`` -> maps ``(N, C', H', W')``, pooled and
        projection ``(N, D)``.
    """
    backbone = backbone_of(network)
    maps = backbone.maps(images, (n for n in backbone.names if n))
    features = {backbone.names[number]: level for number, level in maps.items()}
    last = maps[backbone.last]
    after_neck = getattr(decorrelation, 'on_projection', False)
    if decorrelation is not None and not after_neck:
        stage = backbone.last if decorrelation.stage is None else decorrelation.stage
        if stage in maps:
            features['decorrelated'] = decorrelation(maps[stage])
            if stage == backbone.last:
                last = features['decorrelated']
    features['pooled'] = last.mean(dim=(2, 3))
    features['projection'] = neck([last])[0]
    if after_neck:
        features['decorrelated'] = decorrelation(features['projection'])
    return features
