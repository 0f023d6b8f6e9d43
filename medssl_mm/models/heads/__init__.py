"""Heads: from features to loss terms."""

from .decorrelation_head import DecorrelationConv, DecorrelationHead
from .multi_level_head import LevelContext, MultiLevelHead
from .restoration_head import RestorationHead

__all__ = [
    'DecorrelationConv',
    'DecorrelationHead',
    'LevelContext',
    'MultiLevelHead',
    'RestorationHead',
]
