"""What a backbone is to the rest of the package: places, channels, maps.

A place is where a feature map is taken: ``stem``, then ``stage1``, ``stage2``
..., of a Vision Transformer ``block1``, ``block2`` ... Places are counted in
that order, the stem is number 0. ``backbone_of`` gives the view of a network
that knows them; the network itself stays as it is, whatever its class.

A further family of networks is one subclass of :class:`Backbone` in
``FAMILIES`` of ``lookup.py``. A family is recognised by the parts that it is
made of, not by its class, so the networks of all hosts are, and none of them
is imported here.
"""

from .base import STEM, Backbone, Tap
from .dilation import (
    different_taps,
    set_common_stride,
    set_output_stride,
    tap_distances,
)
from .encoders import ENCODERS, TARGET, choose_encoder, target_prefix
from .lookup import (
    FAMILIES,
    backbone_of,
    describe_weights,
    encoder_features,
    find_family,
    stated_channels,
)
from .timm import TimmNetworkBackbone, require_parts, require_timm

__all__ = [
    'ENCODERS',
    'FAMILIES',
    'STEM',
    'TARGET',
    'Backbone',
    'Tap',
    'TimmNetworkBackbone',
    'backbone_of',
    'choose_encoder',
    'describe_weights',
    'different_taps',
    'encoder_features',
    'find_family',
    'require_parts',
    'require_timm',
    'set_common_stride',
    'set_output_stride',
    'stated_channels',
    'tap_distances',
    'target_prefix',
]
