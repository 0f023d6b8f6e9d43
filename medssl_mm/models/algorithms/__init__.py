"""Pretraining algorithms."""

from .base import BaseAlgorithm
from .byol import MultiLevelBYOL
from .moco import MultiLevelMoCo
from .simclr import MultiLevelSimCLR

__all__ = ['BaseAlgorithm', 'MultiLevelBYOL', 'MultiLevelMoCo', 'MultiLevelSimCLR']
