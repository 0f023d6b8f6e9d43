"""Whether a network makes of weights what the one made that was trained.

Strides and dilations are in no weight: a network of other ones takes them
without a word and computes other maps. Checkpoints state where the windows of
their backbone look (:func:`medssl_mm.backbones.tap_distances`); of earlier ones
the network is built from the config that they hold.
"""

import copy
import logging
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.backbones import backbone_of, different_taps, tap_distances
from medssl_mm.backbones.timm import TimmPyramidBackbone
from medssl_mm.engine.config_text import parse_config_text
from medssl_mm.engine.observing import own_randomness, quietly
from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.registry import MODELS

KEY = 'tap_distances'
#: Setting of a config, and of ``model.backbone.init_cfg``.
ALLOW = 'allow_other_dilation'
#: Share of its length that a map may be off by rounding.
EXACT = 1e-4
# What a config says of strides and dilations.
_SETTINGS = (
    'type',
    'network',
    'output_stride',
    'legacy_dilation',
    'strides',
    'dilations',
    'contract_dilation',
    'multi_grid',
    'style',
    'max_pool',
)


def attach_taps(checkpoint: dict, model: Any) -> None:
    """Put the entry into a checkpoint of a model that has a backbone."""
    try:
        taps = tap_distances(getattr(model, 'backbone', None) or nn.Identity())
    except Exception as error:  # of a network that takes no image of its own size
        # A checkpoint must be written whatever else fails.
        print_log(
            'The checkpoint does not say where the windows of its network look '
            f'({_brief(error)})',
            'current',
            logging.WARNING,
        )
        return
    if taps:
        checkpoint[KEY] = taps


def compare_taps(
    backbone: nn.Module, content: object, source: str, allow: bool = False
) -> str:
    """Compare a network with the one that the weights of a file were trained in.

    Args:
        backbone (nn.Module): Not changed.
        content (object): What the file holds.
        source (str): Its name, for messages.
        allow (bool): Whether another network is taken all the same, with a
            warning. Defaults to False.

    Returns:
        str: What was found, for the log.

    Raises:
        UserError: The network makes something else of the weights.
    """
    try:
        ours = tap_distances(backbone)
    except Exception as error:  # whatever a network of somebody else raises
        return _not_compared(f'this network takes no blank image ({_brief(error)})')
    theirs, reason = stated_taps(content)
    if ours is None or not theirs or not set(ours) & set(theirs):
        reason = reason or 'there is nothing to compare in this kind of network'
        return _not_compared(reason)
    different = different_taps(ours, theirs)
    if different:
        name, (here, there) = next(iter(different.items()))
        told = (
            f'{source} was trained in a network that makes something else of these '
            f'weights: {len(different)} of {len(ours)} windows look elsewhere, such as '
            f'{name} at pixels {there} apart there and {here} here'
        )
        advice = _advice(content)
    else:
        off, strides = _off_by_stride(backbone, content)
        if off <= EXACT:
            return (
                'strides and dilations make of the weights what they were trained for'
            )
        told = (
            f'{source} was trained at stride {strides[1]}; at stride {strides[0]} this '
            'kind of network makes something else of the weights: its last map is '
            f'{100 * off:.3g} % off at the positions of both (windows of even size, or '
            'padded as in TensorFlow, are shifted; means over the map see other cells)'
        )
        advice = f'Set model.backbone.output_stride={strides[1]}'
    if not allow:
        raise UserError(
            f'{told}. {advice}; or accept it by --cfg-options {ALLOW}=True, '
            'which writes it into the log'
        )
    print_log(f'{told}; accepted by {ALLOW}', 'current', logging.WARNING)
    return 'strides and dilations OTHERS than in the training, which was accepted'


@torch.no_grad()
def _off_by_stride(
    backbone: nn.Module, content: object
) -> tuple[float, tuple[int, int]]:
    """How far a network is from what it is at the stride of its training.

    For networks of timm, which dilate in a way of their own; the others are told by
    their windows. Both networks get the same weights.

    Returns:
        tuple: Length of the difference of the last maps at the positions of both, as a
        share; the strides here and there. 0 where the strides are the same, or the
        network of the training is not known.
    """
    same = 0.0, (0, 0)
    if not isinstance(backbone_of(backbone), TimmPyramidBackbone):
        return same
    config = _config_of(content)
    settings = (config.get('model') or {}).get('backbone')
    if not isinstance(settings, Mapping):
        return same
    try:
        trained = _build(settings, config)
    except Exception:  # stated_taps has said so, where it needed it
        return same
    views = backbone_of(backbone), backbone_of(trained)
    here, there = (view.strides[view.last] for view in views)
    if here == there or there % here:
        return same
    weights = backbone.state_dict()
    trained.load_state_dict(weights)
    trained.to(next(iter(weights.values())))
    size = max(64, 2 * there)
    with own_randomness(), evaluation_mode(backbone), evaluation_mode(trained):
        images = torch.randn(1, views[0].in_channels, size, size)
        images = images.to(next(backbone.parameters()))
        ours, theirs = (view.maps(images, [view.last])[view.last] for view in views)
    step = there // here
    off = (ours[:, :, ::step, ::step] - theirs).norm() / theirs.norm().clamp_min(1e-12)
    return float(off), (here, there)


def pass_on_allowance(config: Config) -> None:
    """Tell the initialiser of a backbone what a config accepts."""
    init = (config.get('model') or {}).get('backbone', {}).get('init_cfg')
    if config.get(ALLOW) and isinstance(init, Mapping):
        if str(init.get('type')).endswith('PretrainedBackbone'):
            config.model.backbone.init_cfg[ALLOW] = True


def stated_taps(content: object) -> tuple[dict[str, int] | None, str]:
    """Say where the windows of the network of a file look.

    Args:
        content (object): What the file holds.

    Returns:
        tuple[dict[str, int] | None, str]: By the window's name; or None and why
        it is not known.
    """
    entry = content.get(KEY) if isinstance(content, Mapping) else None
    if isinstance(entry, Mapping):
        return {str(name): int(value) for name, value in entry.items()}, ''
    config = _config_of(content)
    settings = (config.get('model') or {}).get('backbone')
    if not isinstance(settings, Mapping):
        return None, 'the file does not say its network'
    try:
        return tap_distances(_build(settings, config)), ''
    except Exception as error:  # whatever a network of somebody else raises
        return None, f'the network of its config cannot be built ({_brief(error)})'


def _not_compared(reason: str) -> str:
    return f'strides and dilations not compared with the training: {reason}'


def _brief(error: Exception) -> str:
    first = (str(error).splitlines() or [''])[0]
    return f'{type(error).__name__}: {first[:120]}'


def _build(settings: Mapping, config: Mapping) -> nn.Module:
    plain = copy.deepcopy(dict(settings))
    for name in ('init_cfg', 'checkpoint_path'):
        plain.pop(name, None)
    if plain.get('pretrained'):  # timm would fetch them
        plain['pretrained'] = False
    scope = config.get('default_scope') or 'mmpretrain'
    with DefaultScope.overwrite_default_scope(scope), own_randomness(), quietly():
        return MODELS.build(plain)


def _config_of(content: object) -> Mapping:
    """The config that a checkpoint holds as text; empty without a plain one."""
    meta = content.get('meta') if isinstance(content, Mapping) else None
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    try:
        return parse_config_text(text) if isinstance(text, str) else {}
    except ValueError:
        return {}


def _advice(content: object) -> str:
    settings = (_config_of(content).get('model') or {}).get('backbone') or {}
    stated = {name: settings[name] for name in _SETTINGS if name in settings}
    if not set(stated) & {'strides', 'dilations', 'legacy_dilation', 'multi_grid'}:
        return (
            'Set model.backbone.type=medssl_mm.DilatedResNet with the output_stride '
            'that this network has, instead of strides, dilations and '
            'contract_dilation'
        )
    words = ', '.join(f'{name}={value!r}' for name, value in stated.items())
    return (
        f'That was {words}: set the same in model.backbone, or pretrain anew with '
        'type=medssl_mm.DilatedResNet and an output_stride'
    )
