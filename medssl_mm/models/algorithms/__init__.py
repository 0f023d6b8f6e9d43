"""Pretraining algorithms."""

from .base import BaseAlgorithm
from .moco import MultiLevelMoCo

__all__ = ['BaseAlgorithm', 'MultiLevelMoCo']
