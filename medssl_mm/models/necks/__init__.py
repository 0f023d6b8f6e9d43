"""Necks: from feature maps to embeddings."""

from .barlow_twins_neck import BarlowTwinsNeck
from .dense_contrast_neck import DenseContrastNeck, DensePlaces
from .local_contrast_neck import LocalContrastNeck, LocalRegions
from .place_projector import PlaceProjector
from .pooled_neck import PooledNeck

__all__ = [
    'BarlowTwinsNeck',
    'DenseContrastNeck',
    'DensePlaces',
    'LocalContrastNeck',
    'LocalRegions',
    'PlaceProjector',
    'PooledNeck',
]
