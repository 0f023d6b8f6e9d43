"""The families of networks that the hosts build."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from .base import STEM, Backbone, Tap


class ResNetBackbone(Backbone):
    """ResNets of all hosts and of torchvision: ``layer1``, ``layer2``, ...

    The stem's map is the one before max-pooling, if there is any.
    """

    family = 'ResNet'
    own_start = False
    depths: dict[tuple[tuple[int, ...], bool], int] = {
        ((2, 2, 2, 2), False): 18,
        ((3, 4, 6, 3), False): 34,
        ((3, 4, 6, 3), True): 50,
        ((3, 4, 23, 3), True): 101,
        ((3, 8, 36, 3), True): 152,
    }

    #: Types whose config states the channels.
    types = (
        'ResNet',
        'ResNetV1c',
        'ResNetV1d',
        'ResNet_CIFAR',
        'ResNetSmallStem',
        'DilatedResNet',
    )

    @classmethod
    def stated_channels(cls, settings: Mapping) -> dict[int, int]:
        """Of the stem and the stages, each twice as wide as the one before."""
        if str(settings.get('type')).rpartition('.')[2] not in cls.types:
            return {}
        basic = settings.get('depth') in (18, 34)
        width = settings.get('base_channels', 64)
        width *= settings.get('expansion') or (1 if basic else 4)
        count = settings.get('num_stages', 4)
        stages = {stage: width * 2 ** (stage - 1) for stage in range(1, count + 1)}
        return {0: settings.get('stem_channels', 64), **stages}

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there is a ``layer1``."""
        return isinstance(getattr(network, 'layer1', None), nn.Module)

    @classmethod
    def describe(cls, names: Iterable[str]) -> str:
        """For instance 'ResNet-50'."""
        names = set(names)
        counts = _counts(names, r'layer(\d)\.(\d+)\.')
        if not counts or not any(name.startswith('layer') for name in names):
            return ''
        blocks = tuple(counts.get(str(stage), 0) for stage in range(1, 5))
        bottleneck = 'layer1.0.conv3.weight' in names
        depth = cls.depths.get((blocks, bottleneck))
        kind = 'bottleneck' if bottleneck else 'basic'
        text = (
            f'ResNet-{depth}'
            if depth
            else f'a ResNet of {"+".join(map(str, blocks))} {kind} blocks'
        )
        if 'stem.0.weight' in names:
            text += ' with a deep stem (ResNetV1c)'
        return text

    def taps(self) -> dict[str, Tap]:
        """Stem and residual stages."""
        stages = self._stages()
        after = getattr(self.network, 'maxpool', stages['stage1'])
        return {
            STEM: Tap(after, entering=True),
            **{name: Tap(stage) for name, stage in stages.items()},
        }

    def block_taps(self) -> dict[str, Tap]:
        """The residual blocks."""
        return _children(self._stages())

    def _stages(self) -> dict[str, nn.Module]:
        parts = {
            f'stage{number}': getattr(self.network, f'layer{number}', None)
            for number in range(1, 10)
        }
        return {name: part for name, part in parts.items() if part is not None}


class DenseNetBackbone(Backbone):
    """DenseNet of mmpretrain.

    The map of a stage is the one before its transition, the last one that
    after the final normalisation and ReLU.
    """

    family = 'DenseNet'
    own_start = False

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there are stages and transitions."""
        return _has_lists(network, 'stages', 'transitions')

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """For instance 'DenseNet-121'."""
        layers = _joined(_counts(names, r'stages\.(\d+)\.block\.(\d+)\.'))
        known = {
            '6+12+24+16': '121',
            '6+12+32+32': '169',
            '6+12+48+32': '201',
            '6+12+36+24': '161',
        }
        if layers in known:
            return f'DenseNet-{known[layers]}'
        return f'a DenseNet of {layers} layers' if layers else ''

    def taps(self) -> dict[str, Tap]:
        """Stem and dense blocks."""
        taps = {STEM: Tap(self.network.stem), **_stages(self.network.stages)}
        taps[list(taps)[-1]] = Tap(self.network.transitions[-1])
        return taps


class ConvNeXtBackbone(Backbone):
    """ConvNeXt of mmpretrain; its last map is normalised."""

    family = 'ConvNeXt'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there are stages and layers that reduce between them."""
        return _has_lists(network, 'stages', 'downsample_layers')

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """For instance 'a ConvNeXt of 3+3+9+3 blocks'."""
        blocks = _joined(_counts(names, r'stages\.(\d+)\.(\d+)\.depthwise_conv'))
        return f'a ConvNeXt of {blocks} blocks' if blocks else ''

    def taps(self) -> dict[str, Tap]:
        """Stem and stages."""
        network = self.network
        taps = {STEM: Tap(network.downsample_layers[0]), **_stages(network.stages)}
        norm = getattr(network, f'norm{len(network.stages) - 1}', None)
        # Made for an output only, and by default for the mean over its cells.
        taps[list(taps)[-1]] = Tap(network.stages[-1], then=norm)
        return taps

    def block_taps(self) -> dict[str, Tap]:
        """The blocks."""
        return _children(
            {f'stage{i}': stage for i, stage in enumerate(self.network.stages, 1)}
        )


class EfficientNetBackbone(Backbone):
    """EfficientNet of mmpretrain; its last stage is the final convolution."""

    family = 'EfficientNet'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there are layers made from ``layer_setting``."""
        return _has_lists(network, 'layers') and hasattr(network, 'layer_setting')

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """For instance 'an EfficientNet of 1+2+2+6+5 blocks'."""
        blocks = _joined(_counts(names, r'layers\.(\d+)\.(\d+)\.\w*conv'))
        return f'an EfficientNet of {blocks} blocks' if blocks else ''

    def taps(self) -> dict[str, Tap]:
        """Stem, stages and the final convolution."""
        stem, *stages = self.network.layers
        return {STEM: Tap(stem), **_stages(stages)}

    def block_taps(self) -> dict[str, Tap]:
        """The blocks, without the final convolution."""
        return _children(
            {f'stage{i}': s for i, s in enumerate(list(self.network.layers)[1:-1], 1)}
        )


class VisionTransformerBackbone(Backbone):
    """Plain Vision Transformers of mmpretrain, mmselfsup and mmseg.

    Places are the blocks, the last one after the final normalisation. A map
    is made of the patch tokens; class and distillation tokens, which the
    patches attend to, are no part of it.
    """

    family = 'Vision Transformer'

    @staticmethod
    def fits(network: nn.Module) -> bool:
        """Whether there are patches, positions and layers."""
        return _has_lists(network, 'layers') and all(
            hasattr(network, name) for name in ('patch_embed', 'pos_embed')
        )

    @staticmethod
    def describe(names: Iterable[str]) -> str:
        """For instance 'a Vision Transformer of 12 blocks'."""
        blocks = _counts(names, r'()layers\.(\d+)\.attn').get('')
        return f'a Vision Transformer of {blocks} blocks' if blocks else ''

    def taps(self) -> dict[str, Tap]:
        """The tokens that the first block gets, and the blocks."""
        layers, norm = self.network.layers, None
        if getattr(self.network, 'final_norm', False):
            norm = getattr(self.network, 'ln1', None) or self.network.norm1
        taps = {
            STEM: Tap(layers[0], entering=True),
            **{f'block{number}': Tap(layer) for number, layer in enumerate(layers, 1)},
        }
        if norm is not None:
            taps[f'block{len(layers)}'] = Tap(norm)
        return taps

    def block_taps(self) -> dict[str, Tap]:
        """The places themselves."""
        return {name: tap for name, tap in self.taps().items() if name != STEM}

    def helpers(self) -> dict[str, nn.Module]:
        """The patches: they tell the size of the map."""
        return dict(patches=self.network.patch_embed)

    def as_map(self, found: Any, helped: Mapping[str, Any]) -> Tensor:
        """Lay the patch tokens out.

        Shape: ``(N, tokens, C)`` -> ``(N, C, H, W)``.
        """
        extra = getattr(self.network, 'num_extra_tokens', None)
        if extra is None:
            extra = int(getattr(self.network, 'with_cls_token', True))
        return found[:, extra:].mT.unflatten(2, helped['patches'][1])

    def image_size(self) -> tuple[int, int]:
        """The size that the positions are made for."""
        return pair(self.network.img_size)


def pair(size: int | Iterable[int]) -> tuple[int, int]:
    """Height and width from one number or two."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _stages(modules: Iterable[nn.Module]) -> dict[str, Tap]:
    return {f'stage{number}': Tap(module) for number, module in enumerate(modules, 1)}


def _children(stages: Mapping[str, nn.Module]) -> dict[str, Tap]:
    return {
        f'{stage}.{number}': Tap(block)
        for stage, module in stages.items()
        for number, block in module.named_children()
    }


def _has_lists(network: nn.Module, *names: str) -> bool:
    return all(isinstance(getattr(network, n, None), nn.ModuleList) for n in names)


def _counts(names: Iterable[str], pattern: str) -> dict[str, int]:
    """Highest index plus one (second group) for each first group."""
    counts: dict[str, int] = {}
    for name in names:
        match = re.match(pattern, name)
        if match:
            counts[match[1]] = max(counts.get(match[1], 0), int(match[2]) + 1)
    return counts


def _joined(counts: Mapping[str, int]) -> str:
    return '+'.join(str(counts[key]) for key in sorted(counts, key=int))
