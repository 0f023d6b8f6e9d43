"""ResNets of smaller strides that stay the network of their weights."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from medssl_mm.backbones import set_output_stride
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

#: Strides and dilations of the stages by the stride of the last one.
_STAGES: dict[int, dict[str, Any]] = {
    8: dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    16: dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    32: {},
}


# Called as a config calls it: the network is one of the host's own classes, so
# that a segmentation needs no other host.
@MODELS.register_module()
def DilatedResNet(
    output_stride: int = 32,
    network: str = 'ResNet',
    legacy_dilation: bool = False,
    **kwargs: Any,
) -> nn.Module:
    """Build a host's ResNet whose last stages are dilated instead of strided.

    At the positions that the network of strides has it computes the same. Of
    the hosts' own ``strides`` and ``dilations`` this does not hold: the second
    convolution of their basic blocks is never dilated (ResNet-18 and 34), and
    ``contract_dilation=True``, which the first block of a stage needs, is
    known to mmseg alone. Names in the state dict are those of the host.

    Args:
        output_stride (int): Pixels of the image per cell of the last map.
            Defaults to 32: no dilation.
        network (str): Type of the network, in the scope of the config:
            'ResNet', 'ResNetV1c', 'ResNetV1d', 'medssl_mm.ResNetSmallStem' ...
            Defaults to 'ResNet'.
        legacy_dilation (bool): Dilate as releases up to 0.1 did, by
            ``strides``, ``dilations`` and, in mmseg, ``contract_dilation`` of
            the host: another function of the weights; for checkpoints and
            results of before. Defaults to False.
        **kwargs: Other arguments of the network.

    Raises:
        UserError: Strides or dilations are given, or no stage has that stride.
    """
    given = [n for n in ('strides', 'dilations', 'contract_dilation') if n in kwargs]
    if given:
        raise UserError(
            f'DilatedResNet takes output_stride={output_stride} instead of '
            f'{", ".join(given)}: leave {"it" if len(given) == 1 else "them"} out'
        )
    if legacy_dilation:
        return MODELS.build(
            dict(type=network, **_legacy(network, output_stride), **kwargs)
        )
    made = MODELS.build(dict(type=network, **kwargs))
    set_output_stride(made, output_stride)
    return made


def _legacy(network: str, output_stride: int) -> Mapping[str, Any]:
    if output_stride not in _STAGES:
        raise UserError(
            f'legacy_dilation has output_stride {", ".join(map(str, _STAGES))}, '
            f'got {output_stride}'
        )
    with MODELS.switch_scope_and_registry(None) as registry:
        kind: Any = registry.get(network)
    contracts = 'contract_dilation' in inspect.signature(kind).parameters
    return dict(
        _STAGES[output_stride], **dict(contract_dilation=True) if contracts else {}
    )
