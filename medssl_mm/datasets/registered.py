"""Names the modules whose import fills the data registries."""

from medssl_mm.datasets import image_list, sampler, slices, transforms

__all__ = ['image_list', 'sampler', 'slices', 'transforms']
