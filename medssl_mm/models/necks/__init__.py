"""Necks: from feature maps to embeddings."""
from .local_contrast_neck import LocalContrastNeck, LocalRegions

__all__ = ['LocalContrastNeck', 'LocalRegions']
