"""Load one slice or its label."""

from __future__ import annotations

import os
from mmap import ACCESS_READ, mmap

import cv2
import numpy as np

from medssl_mm.datasets.transforms.base import Transform, check_number
from medssl_mm.errors import UserError
from medssl_mm.registry import TRANSFORMS
from medssl_mm.store import open_store
from medssl_mm.store.header import SLICES
from medssl_mm.tiff import SIGNS, black_is_zero, first_page


@TRANSFORMS.register_module()
class LoadSlice(Transform):
    """Read one slice from a slice store.

    Required Keys: store_root, case_id, slice_index. Added Keys: img
    ``(H, W)`` in its stored type (int16 HU for CT; the first intensity step
    makes it float32), ori_shape, img_shape (both ``(H, W)``). From a store of
    several channels img is ``(H, W, C)``, and channels holds their names.
    """

    def transform(self, results: dict) -> dict:
        """Read the slice."""
        store = open_store(results['store_root'], SLICES)
        image = store.read_slice(results['case_id'], results['slice_index'])
        if image.ndim == 3:  # channels last, as OpenCV has them
            image = np.ascontiguousarray(image.transpose(1, 2, 0))
            results['channels'] = store.channels
        results['img'] = image
        results['ori_shape'] = results['img_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class LoadSliceLabel(Transform):
    """Read the label of one slice from a slice store.

    Required Keys: store_root, case_id, slice_index. Modified Keys:
    seg_fields. Added Keys: gt_seg_map ``(H, W)`` uint8, with label_map
    applied when the data set selects classes.
    """

    def transform(self, results: dict) -> dict:
        """Read the label."""
        store = open_store(results['store_root'], SLICES)
        results['gt_seg_map'] = store.read_label_slice(
            results['case_id'], results['slice_index'], results.get('label_map')
        )
        results['seg_fields'] = [*results.get('seg_fields', ()), 'gt_seg_map']
        return results


@TRANSFORMS.register_module()
class LoadGreyImage(Transform):
    """Read one 8- or 16-bit grey image file (PNG, TIFF).

    A colour file is accepted when its channels are equal. Where the header of a TIFF
    file says that white is zero, its values are turned, at any depth. The result is
    ``value * scale + offset``: with the right pair, CT slices saved as
    16-bit PNG come out in HU.

    Required Keys: img_path. Added Keys: img ``(H, W)`` float32, ori_shape,
    img_shape (both ``(H, W)``).

    Args:
        scale (float): Factor, not 0. Defaults to 1.0.
        offset (float): Added after the factor, e.g. -1024 for files that
            hold HU + 1024. Defaults to 0.0.
    """

    def __init__(self, scale: float = 1.0, offset: float = 0.0) -> None:
        self.scale = check_number(self.owner, 'scale', scale)
        if self.scale == 0:
            raise ValueError('LoadGreyImage: scale must not be 0.')
        self.offset = check_number(self.owner, 'offset', offset)

    def transform(self, results: dict) -> dict:
        """Read the file."""
        path = results['img_path']
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        if image is None:
            reason = (
                'cannot be decoded as an image'
                if os.path.isfile(path)
                else 'does not exist'
            )
            raise UserError(
                f'image {path} {reason}; restore the file or '
                'remove its line from the list.'
            )
        if image.dtype != np.uint8 and _white_is_zero(path):
            # OpenCV does this by itself at 8 bit alone.
            try:
                image = black_is_zero(image)
            except ValueError as error:
                raise UserError(f'image {path} has {error}') from error
        if image.ndim == 3:
            grey = image[..., 0]
            if not all(
                (image[..., n] == grey).all() for n in range(1, min(3, image.shape[2]))
            ):
                raise UserError(
                    f'image {path} is coloured; expected a grey '
                    'image with one channel or equal channels.'
                )
            image = grey
        image = image.astype(np.float32)
        if self.scale != 1.0:
            image *= np.float32(self.scale)
        if self.offset:
            image += np.float32(self.offset)
        results['img'] = image
        results['ori_shape'] = results['img_shape'] = image.shape
        return results


def _white_is_zero(path: str) -> bool:
    """Whether the first page of a TIFF file is grey with white as zero."""
    if not path.lower().endswith(('.tif', '.tiff')):
        return False
    # Of the file the header alone is read, besides the decoder.
    with (
        open(path, 'rb') as file,
        mmap(file.fileno(), 0, access=ACCESS_READ) as content,
    ):
        return content[:4] in SIGNS and first_page(content).photometric == 0
