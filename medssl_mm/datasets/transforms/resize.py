"""Resizes to a fixed size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from medssl_mm.datasets.transforms.base import PaddedTransform, by_channel, sample_image
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeAndPad(PaddedTransform):
    """Resize a slice to a fixed size, keeping its shape by padding.

    For evaluation label maps are left alone: mmseg turns the prediction back
    to the original grid (padding cut off, then resized to ori_shape), so
    metrics are taken there. Load the label after this step. For training
    without random steps, load it before and set ``resize_labels``.

    Required Keys: img (grey, RGB or channels). Modified Keys: img (float32),
    img_shape, label maps on request. Added Keys: img_padding_size ([left,
    right, top, bottom] in pixels).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        keep_aspect (bool): Fit into size and pad right and below; False
            stretches. Defaults to True.
        pad_value (float | str): Grey value of the padding; 'minimum' takes
            the slice's. Defaults to 0.0, which is air in a window.
        resize_labels (bool): Resize loaded label maps, too (nearest pixel).
            Defaults to False.
        seg_pad_value (int): Label of the padding. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        keep_aspect: bool = True,
        pad_value: float | str = 0.0,
        resize_labels: bool = False,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__(size, pad_value, seg_pad_value)
        if not isinstance(keep_aspect, bool):
            raise TypeError(
                f'ResizeAndPad: keep_aspect must be True or False, got {keep_aspect!r}.'
            )
        self.keep_aspect = keep_aspect
        self.resize_labels = bool(resize_labels)

    def transform(self, results: dict) -> dict:
        """Resize and pad."""
        labels = results.get('seg_fields', ())
        if labels and not self.resize_labels:
            raise ValueError(
                'ResizeAndPad: the label is already loaded and would no '
                'longer fit the image; put LoadSliceLabel after ResizeAndPad '
                '(evaluation), or set resize_labels=True or use '
                'RandomAffineView (training).'
            )
        image = sample_image(results, 'ResizeAndPad', colour=True)
        for key in labels:
            self.check_label_shape(results, key, image)
        shape = self._inner_shape(*image.shape[:2])
        shrinks = shape[0] < image.shape[0] or shape[1] < image.shape[1]
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

        def fit(plane: np.ndarray, _: int = 0) -> np.ndarray:
            plane = _resize(plane, shape, way)
            return _pad(plane, self.size, self.fill_value(plane))

        results['img'] = (
            by_channel(image, fit) if results.get('channels') else fit(image)
        )
        for key in labels:
            label = _resize(results[key], shape, cv2.INTER_NEAREST_EXACT)
            results[key] = _pad(label, self.size, self.seg_pad_value)
        results['img_shape'] = self.size
        bottom, right = self.size[0] - shape[0], self.size[1] - shape[1]
        results['img_padding_size'] = [0, right, 0, bottom]
        return results

    def _inner_shape(self, height: int, width: int) -> tuple[int, int]:
        """Part of the result that shows the slice."""
        if not self.keep_aspect:
            return self.size
        factor = min(self.size[0] / height, self.size[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))


def _resize(image: np.ndarray, shape: tuple[int, int], way: int) -> np.ndarray:
    if image.shape[:2] == shape:
        return image
    return cv2.resize(image, shape[::-1], interpolation=way)


def _pad(image: np.ndarray, size: tuple[int, int], fill: float) -> np.ndarray:
    """Pad below and at the right."""
    bottom, right = size[0] - image.shape[0], size[1] - image.shape[1]
    if not (bottom or right):
        return image
    return cv2.copyMakeBorder(
        image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(fill,) * 4
    )
