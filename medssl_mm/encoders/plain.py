"""The same network without this package: in torchvision, timm, or a host."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from pydantic import PositiveInt, StrictStr
from torch import Tensor, nn

from medssl_mm.backbones import require_timm
from medssl_mm.converters import (
    ARCHITECTURES,
    Converted,
    convert_named,
    named_for,
    neck_settings,
)
from medssl_mm.converters.decorrelation import FOLDED, NECK
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS, build_of
from medssl_mm.schema import Entry

from .encoder import PretrainedEncoder, build_backbone, places_of

HOSTS = ('mmpretrain', 'mmseg')


class Plain(Entry):
    """How a library builds the network that exported weights fill.

    Args:
        library (str): 'torchvision', 'timm', 'mmpretrain' or 'mmseg'.
        name (str): Of the network there; of a host the type of its backbone.
        arguments (dict): Of its constructor.
        stem (dict, optional): Arguments of the first convolution, where it is
            another one. Defaults to None.
        no_pooling (bool): Whether the max-pooling of the stem is left out.
        head (str): The classifier, which is left out. Defaults to ''.
        linear (int, optional): Inputs and outputs of a linear layer in its
            place, which decorrelates the features; of a host of the 1x1
            convolution that is its neck. Defaults to None.
        compared (bool): Whether its network was built and gave the same.
            Defaults to True.
    """

    library: StrictStr
    name: StrictStr
    arguments: dict[str, Any] = {}
    stem: dict[str, Any] | None = None
    no_pooling: bool = False
    head: StrictStr = ''
    linear: PositiveInt | None = None
    compared: bool = True

    @property
    def backbone(self) -> dict[str, Any]:
        """Of a host: the config of its backbone."""
        return dict(type=self.name, **self.arguments)

    @property
    def neck(self) -> dict[str, Any] | None:
        """Of a host: the config of what decorrelates the last map, if anything."""
        return neck_settings(self.linear, 'model.pth') if self.linear else None

    def build(self) -> nn.Module:
        """Make the network, with random weights; of a host backbone and neck."""
        network: Any
        if self.library in HOSTS:
            return _HostNetwork(self)
        if self.library == 'timm':
            network = _timm().create_model(
                self.name, num_classes=self.linear or 0, **self.arguments
            )
        else:
            import torchvision

            network = getattr(torchvision.models, self.name)(**self.arguments)
            head: nn.Module = nn.Identity()
            if self.linear:
                head = nn.Linear(self.linear, self.linear)
            setattr(network, self.head, head)
        if self.stem:
            network.conv1 = nn.Conv2d(**self.stem)
        if self.no_pooling:
            network.maxpool = nn.Identity()
        return network.eval()

    def code(self) -> str:
        """The same as :meth:`build`, as Python text that needs this package not."""
        arguments = [f'{key}={value!r}' for key, value in self.arguments.items()]
        lines = ['from safetensors.torch import load_file']
        if self.library == 'timm':
            call = [repr(self.name), f'num_classes={self.linear or 0}', *arguments]
            lines += ['import timm', f'model = timm.create_model({", ".join(call)})']
        else:
            lines += [
                'import torchvision',
                f'model = torchvision.models.{self.name}({", ".join(arguments)})',
            ]
            head = f'Linear({self.linear}, {self.linear})' if self.linear else ''
            lines.append(f'model.{self.head} = torch.nn.{head or "Identity()"}')
        if self.stem:
            stem = ', '.join(f'{key}={value!r}' for key, value in self.stem.items())
            lines.append(f'model.conv1 = torch.nn.Conv2d({stem})')
        if self.no_pooling:
            lines.append('model.maxpool = torch.nn.Identity()')
        lines += [
            "model.load_state_dict(load_file('model.safetensors'))",
            'model.eval()',
        ]
        return '\n'.join(['import torch', *lines])


class _HostNetwork(nn.Module):
    """Backbone and neck by their configs, with the names that their weights have.

    Args:
        plain (Plain): Of a host.
    """

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self.backbone = build_backbone(plain.backbone, plain.name)
        self.decorrelation_conv: Any = None
        if plain.neck:
            self.decorrelation_conv = build_of(MODELS, plain.neck, 'its neck')
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """The last map. Shape: ``(N, C, h, w)`` -> ``(N, C', h', w')``."""
        if self.decorrelation_conv is not None:
            # As a host does, which takes the last of what is returned.
            return self.decorrelation_conv(self.backbone(images))[-1]
        places = places_of(self.backbone)
        return places.maps(images, [places.last])[places.last]


def plain_network(
    encoder: PretrainedEncoder, target: str
) -> tuple[Plain, dict[str, Tensor]]:
    """Find the network of a target that computes what an encoder does.

    Args:
        encoder (PretrainedEncoder): In evaluation mode.
        target (str): 'torchvision', 'timm', 'mmpretrain' or 'mmseg'.

    Returns:
        tuple[Plain, dict[str, Tensor]]: The network, and all of its tensors.

    Raises:
        UserError: The target has none; says what can be done.
    """
    settings = dict(encoder.settings.backbone)
    state = dict(encoder.backbone.state_dict())
    folded = {
        name.rpartition('.')[2]: state.pop(name)
        for name in list(state)
        if name.startswith(NECK)
    }
    if target in HOSTS:
        tensors = {f'backbone.{name}': value for name, value in state.items()}
        tensors.update({f'{FOLDED}{name}': value for name, value in folded.items()})
        linear = len(folded['bias']) if folded else None
        return _in_host(encoder, settings, target, linear, tensors), tensors
    if hasattr(encoder.backbone, 'timm_model'):
        plain, tensors = _of_timm(encoder, settings, state, target)
    else:
        plain, tensors = _of_host(encoder, state, folded, target)
    _check_equal(encoder, plain, tensors)
    return plain, tensors


def _in_host(
    encoder: PretrainedEncoder,
    settings: dict[str, Any],
    target: str,
    linear: int | None,
    tensors: Mapping[str, Tensor],
) -> Plain:
    """The backbone of a host that computes the same, its own class where one does."""
    kind = settings.pop('type')
    plain = Plain(library=target, name=kind, arguments=settings, linear=linear)
    if importlib.util.find_spec(target) is None:
        return plain.model_copy(update=dict(compared=False))
    if target == 'mmseg' and kind.rpartition('.')[2] == 'ResNet':
        # Most arguments are those of its own class; what remains, such as a rate
        # that acts in training alone, or another stem, the comparison judges.
        own = inspect.signature(import_module('mmseg.models').ResNet).parameters
        arguments = {name: v for name, v in settings.items() if name in own}
        native = plain.model_copy(update=dict(name='mmseg.ResNet', arguments=arguments))
        try:
            _check_equal(encoder, native, tensors)
        except UserError:
            pass  # mmseg builds the network of mmpretrain as well
        else:
            return native
    _check_equal(encoder, plain, tensors)
    return plain


def _of_timm(
    encoder: PretrainedEncoder, settings: dict, state: Mapping[str, Tensor], target: str
) -> tuple[Plain, dict[str, Tensor]]:
    name = settings['model_name']
    if target != 'timm' or settings.get('features_only'):
        raise UserError(
            f'{encoder.settings.name} is {name} of timm'
            f'{", as a pyramid" if settings.get("features_only") else ""}: {target} '
            'has no such network; export it --to '
            + ('mmpretrain' if settings.get('features_only') else 'timm')
        )
    left_out = ('type', 'model_name', 'features_only', 'pretrained', 'checkpoint_path')
    arguments = {k: v for k, v in settings.items() if k not in left_out}
    if 'in_channels' in arguments:
        arguments['in_chans'] = arguments.pop('in_channels')
    tensors = {name.removeprefix('timm_model.'): v for name, v in state.items()}
    return Plain(library='timm', name=name, arguments=arguments), tensors


def _of_host(
    encoder: PretrainedEncoder,
    state: Mapping[str, Tensor],
    folded: Mapping[str, Tensor],
    target: str,
) -> tuple[Plain, dict[str, Tensor]]:
    named = {f'backbone.{name}': value for name, value in state.items()}
    named.update({f'{FOLDED}{name}': value for name, value in folded.items()})
    converted: Converted = convert_named(named, f'{encoder.settings.name}')
    architecture = ARCHITECTURES[converted.architecture]
    tensors = named_for(converted, target)
    more: dict[str, Any] = {}
    network: Any = encoder.backbone
    first = getattr(network, 'conv1', None)
    if architecture.family == 'resnet' and first is not None:
        kind = (first.in_channels, first.kernel_size, first.stride)
        if kind != (3, (7, 7), (2, 2)):
            more['stem'] = dict(
                in_channels=first.in_channels,
                out_channels=first.out_channels,
                kernel_size=first.kernel_size[0],
                stride=first.stride[0],
                padding=first.padding[0],
                bias=False,
            )
        pool = getattr(network, 'maxpool', None)
        more['no_pooling'] = pool is None or isinstance(pool, nn.Identity)
    plain = Plain(
        library=target,
        name=architecture.twins[target],
        head=architecture.head.rstrip('.'),
        linear=architecture.length if folded else None,
        **more,
    )
    return plain, tensors


def _check_equal(
    encoder: PretrainedEncoder, plain: Plain, tensors: Mapping[str, Tensor]
) -> None:
    """Compare the features of a few pictures: names are not all of a network."""
    name, wanted = encoder.settings.name, f'{plain.name} of {plain.library}'
    preprocessing = encoder.preprocessing
    size = preprocessing.size
    noise = torch.Generator().manual_seed(0)
    images = torch.rand(2, encoder.places.in_channels, size, size, generator=noise)
    advice = 'export it --to mmpretrain, whose network is the same'
    if plain.library in HOSTS:
        advice = 'export it --to torchvision or timm'
        if plain.linear:
            advice += ', or choose --decorrelation drop'
    try:
        network = plain.build()
        network.load_state_dict(dict(tensors))
        with torch.inference_mode():
            found = network(images)
            # Of a host the last map, which its heads take.
            expected = (
                encoder.maps(images) if plain.library in HOSTS else encoder(images)
            )
    except (RuntimeError, TypeError, ValueError, KeyError, AssertionError) as error:
        raise UserError(f'{name} does not fit {wanted} ({error}); {advice}') from error
    if found.shape != expected.shape or not torch.allclose(
        found, expected, rtol=1e-3, atol=1e-4
    ):
        raise UserError(
            f'{wanted} computes something else with the weights of {name}, '
            f'since its backbone is {json.dumps(encoder.settings.backbone)}; {advice}'
        )


def _timm() -> Any:
    require_timm('a network of timm')
    import timm

    return timm
