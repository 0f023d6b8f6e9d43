"""Names the modules whose import fills the data registries."""

from medssl_mm.datasets import (
    classification,
    image_list,
    pairs,
    sampler,
    slices,
    transforms,
)

__all__ = ['classification', 'image_list', 'pairs', 'sampler', 'slices', 'transforms']
