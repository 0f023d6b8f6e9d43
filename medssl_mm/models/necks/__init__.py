"""Necks: from feature maps to embeddings."""

from .barlow_twins_neck import BarlowTwinsNeck
from .local_contrast_neck import LocalContrastNeck, LocalRegions
from .pooled_neck import PooledNeck

__all__ = ['BarlowTwinsNeck', 'LocalContrastNeck', 'LocalRegions', 'PooledNeck']
