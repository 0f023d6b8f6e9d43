"""Data sets on disk: slices of volumes, and images to classify.

Reading and writing need numpy and blosc2 alone, no deep-learning library.

Example:
    >>> from medssl_mm.store import open_store
    >>> store = open_store('data/acdc')
    >>> image = store.read_slice(store.case_ids[0], 4)  # (H, W) or (C, H, W)
"""

from medssl_mm.store.case_info import CaseInfo
from medssl_mm.store.image_writer import ImageStoreWriter
from medssl_mm.store.images import ImageInfo, ImageStore
from medssl_mm.store.opening import open_store
from medssl_mm.store.splits import (
    Split,
    check_no_leak,
    load_split,
    make_holdout,
    make_kfold,
    save_split,
    take_fraction,
)
from medssl_mm.store.volume_writer import StoreWriter
from medssl_mm.store.volumes import SliceStore, slice_name, to_source_grid

__all__ = [
    'CaseInfo',
    'ImageInfo',
    'ImageStore',
    'ImageStoreWriter',
    'SliceStore',
    'Split',
    'StoreWriter',
    'check_no_leak',
    'load_split',
    'make_holdout',
    'make_kfold',
    'open_store',
    'save_split',
    'slice_name',
    'take_fraction',
    'to_source_grid',
]
