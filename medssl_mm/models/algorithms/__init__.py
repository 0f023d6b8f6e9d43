"""Pretraining algorithms."""

from .base import BaseAlgorithm
from .byol import MultiLevelBYOL
from .masked_restoration import MaskedRestoration
from .moco import MultiLevelMoCo
from .simclr import MultiLevelSimCLR
from .vicreg import MultiLevelVICReg

__all__ = [
    'BaseAlgorithm',
    'MaskedRestoration',
    'MultiLevelBYOL',
    'MultiLevelMoCo',
    'MultiLevelSimCLR',
    'MultiLevelVICReg',
]
