"""Heads: from features to loss terms."""
from .multi_level_head import LevelContext, MultiLevelHead

__all__ = ['LevelContext', 'MultiLevelHead']
