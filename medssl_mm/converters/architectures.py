"""Networks that weights are converted for, with the names that all go through.

Those of torchvision, of EfficientNet-Lite those of timm, of the CIFAR ResNets
those of :class:`medssl_mm.models.backbones.CifarResNet`. Classifiers are no
part of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from medssl_mm.backbones import require_timm


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return getattr(torchvision.models, name)()


def _timm(name: str) -> nn.Module:
    require_timm(name)
    import timm

    return timm.create_model(name)


def _cifar(depth: int) -> nn.Module:
    from medssl_mm.models.backbones import CifarResNet

    return CifarResNet(depth)


@dataclass(frozen=True)
class Architecture:
    """One network.

    Args:
        family (str): Whose name rules hold.
        build (Callable): Makes the network.
        length (int): Channels of its last map.
        backbone (dict): Config of it in the hosts.
        twins (dict): Its name in libraries without configs.
        head (str): Start of the classifier's names. Defaults to ''.
        stem (str): The tensor whose input channels and kernel may differ.
            Defaults to 'conv1.weight'.
    """

    family: str
    build: Callable[[], nn.Module]
    length: int
    backbone: dict[str, Any]
    twins: dict[str, str] = field(default_factory=dict)
    head: str = ''
    stem: str = 'conv1.weight'

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor by name, without the classifier."""
        with torch.device('meta'):
            state = self.build().state_dict()
        return {
            name: tuple(value.shape)
            for name, value in state.items()
            if not self.head or not name.startswith(self.head)
        }


def _resnet(depth: int) -> Architecture:
    name = f'resnet{depth}'
    return Architecture(
        'resnet',
        lambda: _torchvision(name),
        512 if depth < 50 else 2048,
        dict(type='mmpretrain.ResNet', depth=depth),
        dict(torchvision=name, timm=name),
        'fc.',
    )


def _densenet(depth: int, length: int) -> Architecture:
    name = f'densenet{depth}'
    return Architecture(
        'densenet',
        lambda: _torchvision(name),
        length,
        dict(type='mmpretrain.DenseNet', arch=str(depth)),
        dict(torchvision=name, timm=name),
        'classifier.',
        'features.conv0.weight',
    )


def _lite(number: int) -> Architecture:
    name = f'efficientnet_lite{number}'
    return Architecture(
        'efficientnet-lite',
        lambda: _timm(f'tf_{name}'),
        1280,
        # The batch normalisation of TensorFlow's networks has another epsilon.
        dict(type='mmpretrain.TIMMBackbone', model_name=name, bn_eps=1e-3),
        dict(timm=f'tf_{name}'),
        'classifier.',
        'conv_stem.weight',
    )


def _cifar_resnet(depth: int) -> Architecture:
    return Architecture(
        'cifar-resnet',
        lambda: _cifar(depth),
        64,
        dict(type='medssl_mm.CifarResNet', depth=depth),
    )


ARCHITECTURES: dict[str, Architecture] = {
    **{f'resnet{depth}': _resnet(depth) for depth in (18, 34, 50, 101, 152)},
    **{
        f'densenet{depth}': _densenet(depth, length)
        for depth, length in ((121, 1024), (161, 2208), (169, 1664), (201, 1920))
    },
    **{f'efficientnet-lite{number}': _lite(number) for number in range(3)},
    **{f'cifar-resnet{depth}': _cifar_resnet(depth) for depth in (20, 32, 44, 56, 110)},
}
