"""Decorrelation on the way to a downstream network: dropped or folded.

A trained decorrelation is an affine map of the channels, ``y = A x + b``, and
so can become part of a convolution before or after it. Dropping it is an
option as well: a linear decoder can learn A itself.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.backbones import TARGET, choose_encoder, target_prefix
from medssl_mm.legacy.iter_norm import replace_iter_norm

BACKBONE = 'backbone.'
DECORRELATION = 'decorrelation.'
# In the slow copy: backbone, neck, decorrelation.
SLOW_BACKBONE, SLOW_DECORRELATION = 'module.0.', 'module.2.'
NECK = 'decorrelation_conv.'
FOLDED = f'{NECK}conv.'
# What a decorrelation holds, and no other part of an encoder.
MOMENTS = 'running_covariance'


def fold_into_following(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return the convolution that equals ``conv(weight x + bias)``.

    Args:
        conv (nn.Conv2d): Without padding, since the bias would be missing
            there, and without groups.
        weight (Tensor): Of the map before it, (out, in).
        bias (Tensor): Of the map before it.

    Shape: weight ``(C, C')``, bias ``(C,)`` with C the input channels.

    Raises:
        ValueError: The convolution cannot take the map in.
    """
    sides = () if isinstance(conv.padding, str) else conv.padding
    padded = any(sides) or (conv.padding == 'same' and conv.kernel_size != (1, 1))
    if padded:
        raise ValueError(
            f'a convolution of kernel {conv.kernel_size} with padding '
            f'{conv.padding} cannot take in a map with a bias: the border '
            'would differ; put a 1x1 convolution in between.'
        )
    _check(conv, weight, bias, conv.in_channels, 'input')
    kernel = conv.weight.detach().to(weight.dtype)
    shift = torch.einsum('oikl,i->o', kernel, bias)
    kernel = torch.einsum('oikl,ij->ojkl', kernel, weight)
    return _replaced(conv, kernel, shift + _bias_of(conv, weight.dtype))


def fold_into_preceding(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return the convolution that equals ``weight conv(x) + bias``.

    Args:
        conv (nn.Conv2d): Without groups; nothing may stand between the two.
        weight (Tensor): Of the map after it, (out, in).
        bias (Tensor): Of the map after it.

    Shape: weight ``(C', C)``, bias ``(C',)`` with C the output channels.

    Raises:
        ValueError: The convolution cannot take the map in.
    """
    _check(conv, weight.T, bias, conv.out_channels, 'output')
    kernel = conv.weight.detach().to(weight.dtype)
    kernel = torch.einsum('po,oikl->pikl', weight, kernel)
    shift = weight @ _bias_of(conv, weight.dtype) + bias
    return _replaced(conv, kernel, shift)


def batch_norm_transform(norm: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of the map that batch normalisation does in evaluation.

    To fold a decorrelation through a normalisation into the convolution that
    follows it.

    Args:
        norm (nn.BatchNorm2d): With running statistics.

    Shape: returns ``(C, C)``, diagonal, and ``(C,)``.
    """
    scale = (norm.running_var + norm.eps).rsqrt()
    shift = -norm.running_mean * scale
    if norm.affine:
        scale = scale * norm.weight.detach()
        shift = shift * norm.weight.detach() + norm.bias.detach()
    return torch.diag(scale), shift


def export_backbone(
    state_dict: Mapping[str, Tensor],
    decorrelation: str = 'drop',
    transform: tuple[Tensor, Tensor] | None = None,
    encoder: str | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """Keep what a downstream network needs of a pretraining checkpoint.

    'drop' keeps the backbone only. 'fold' keeps the decorrelation as well: as
    a 1x1 convolution named ``decorrelation_conv``, or, where an iterative
    normalisation stands inside the backbone (see
    :mod:`medssl_mm.legacy.iter_norm`), within the convolution before it, so
    that an ordinary ResNet computes the same. Of such a normalisation 'drop'
    keeps scale and shift; the batch normalisation in its place has running
    statistics of 0 and 1, which must be estimated anew
    (``medssl_mm.CalibrateBatchNormHook``).

    Args:
        state_dict (Mapping[str, Tensor]): Tensors of the checkpoint.
        decorrelation (str): 'drop' or 'fold'. Defaults to 'drop'.
        transform (tuple[Tensor, Tensor], optional): Weight and bias of
            ``DecorrelationHead.dense_transform``, for 'fold', of the same
            encoder. Defaults to None.
        encoder (str, optional): 'online' or 'target', see
            :func:`medssl_mm.backbones.choose_encoder`. Defaults to None.

    Returns:
        tuple[dict[str, Tensor], list[str]]: Tensors of the new checkpoint,
        and what was done, in words.

    Raises:
        ValueError: There is no backbone, or nothing to fold.
    """
    if decorrelation not in ('drop', 'fold'):
        raise ValueError(
            f'decorrelation must be "drop" or "fold", got {decorrelation!r}.'
        )
    backbone, head = prefixes_of(state_dict, encoder)
    found = _backbone_of(state_dict, backbone)
    legacy = [
        name.removesuffix('.running_wm')
        for name in found
        if name.endswith('.running_wm')
    ]
    notes = [f'backbone: {len(found)} tensors']
    if target_prefix(state_dict):
        chosen = 'online' if backbone == BACKBONE else f'{TARGET} ({backbone}*)'
        notes.append(f'encoder: {chosen}; the checkpoint holds both')
    for norm in legacy:
        notes.append(replace_iter_norm(found, norm, decorrelation))
    has_head = f'{head}{MOMENTS}' in state_dict
    if decorrelation == 'fold' and not legacy:
        if not has_head:
            raise ValueError(
                'the checkpoint holds no decorrelation to fold; choose "drop".'
            )
        if transform is None:
            raise ValueError(
                'folding takes transform=head.dense_transform() of the '
                'DecorrelationHead with the weights of the checkpoint.'
            )
        found.update(_as_convolution(*transform))
        notes.append(
            f'decorrelation: folded into {FOLDED}weight and bias, a 1x1 '
            'convolution after the backbone'
        )
    elif has_head:
        notes.append('decorrelation: dropped')
    return found, notes


def neck_settings(channels: int, checkpoint: str) -> dict[str, Any]:
    """Config of the neck of a host that takes a folded decorrelation.

    Args:
        channels (int): Of the last map.
        checkpoint (str): File with its weights.
    """
    weights = dict(type='Pretrained', checkpoint=checkpoint, prefix=NECK)
    return dict(
        type='medssl_mm.DecorrelationConv', num_channels=channels, init_cfg=weights
    )


def prefixes_of(
    state_dict: Mapping[str, Tensor], encoder: str | None = None
) -> tuple[str, str]:
    """What stands before the names of a backbone and of its decorrelation.

    Args:
        state_dict (Mapping[str, Tensor]): Tensors of a pretraining
            checkpoint.
        encoder (str, optional): As for :func:`export_backbone`. Defaults to
            None.

    Raises:
        UserError: There is no such encoder.
    """
    if choose_encoder(state_dict, encoder, 'the checkpoint') != TARGET:
        return BACKBONE, DECORRELATION
    backbone = target_prefix(state_dict)
    return backbone, backbone.removesuffix(SLOW_BACKBONE) + SLOW_DECORRELATION


def _backbone_of(state_dict: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    found = {
        BACKBONE + name.removeprefix(prefix): value.detach().cpu()
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if not found:
        first = ', '.join(list(state_dict)[:3]) or 'none'
        raise ValueError(
            f'no name starts with "{prefix}" (found {first}, ...): this is '
            'no pretraining checkpoint of this package.'
        )
    return found


def _as_convolution(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A map of the channels as a 1x1 convolution, by name.

    Shape: ``(C, C)`` and ``(C,)`` -> ``(C, C, 1, 1)`` and ``(C,)``.
    """
    weight = weight.detach().cpu()[:, :, None, None].contiguous()
    return {f'{FOLDED}weight': weight, f'{FOLDED}bias': bias.detach().cpu()}


def _check(
    conv: nn.Conv2d, weight: Tensor, bias: Tensor, channels: int, side: str
) -> None:
    if conv.groups != 1:
        raise ValueError(
            f'a convolution of {conv.groups} groups cannot mix all channels.'
        )
    if weight.ndim != 2 or weight.shape[0] != channels or bias.ndim != 1:
        raise ValueError(
            f'the map is {tuple(weight.shape)} with a bias of '
            f'{tuple(bias.shape)}, the convolution has {channels} {side} '
            'channels.'
        )


def _bias_of(conv: nn.Conv2d, dtype: torch.dtype) -> Tensor:
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels, dtype=dtype)
    return conv.bias.detach().to(dtype)


def _replaced(conv: nn.Conv2d, kernel: Tensor, bias: Tensor) -> nn.Conv2d:
    folded = copy.deepcopy(conv)
    folded.out_channels, folded.in_channels = kernel.shape[:2]
    dtype = conv.weight.dtype
    folded.weight = nn.Parameter(kernel.to(dtype))
    folded.bias = nn.Parameter(bias.to(dtype))
    return folded
