"""Networks, heads and losses; importing this registers them."""
# First, because it corrects the hosts that the parts import.
from medssl_mm import registry  # noqa: F401

from .algorithms import BaseAlgorithm, MultiLevelMoCo
from .decode_heads import LinearHead
from .heads import LevelContext, MultiLevelHead
from .losses import InfoNCELoss, SoftDiceLoss
from .segmentors import FrozenEncoderDecoder

__all__ = [
    'BaseAlgorithm',
    'FrozenEncoderDecoder',
    'InfoNCELoss',
    'LevelContext',
    'LinearHead',
    'MultiLevelHead',
    'MultiLevelMoCo',
    'SoftDiceLoss',
]
