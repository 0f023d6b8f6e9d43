"""Views of a slice (and its label) cut in one warp, with their exact geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from medssl_mm.datasets.transforms.base import (
    PaddedTransform,
    by_channel,
    get_rng,
    sample_image,
)
from medssl_mm.functional.geometry import crop_matrix

Box = tuple[float, float, float, float]


class ViewGeometry(dict):
    """Where a view lies in its source slice; read only.

    Keys: box ``(x0, y0, x1, y1)`` in source pixels, pixel ``i`` covering
    ``[i, i + 1]``; flip (bool, left-right, applied last); rotation (degrees
    by which the box is turned about its centre, counter-clockwise as
    displayed); source_shape and view_shape ``(height, width)``; matrix
    ``(2, 3)`` float64, from view pixel centres (x, y) to source pixel
    centres.
    """

    def __deepcopy__(self, memo: dict) -> ViewGeometry:
        # Data samples deep-copy their meta information several times per
        # step; these values are never changed.
        return self


def warp_view(image: np.ndarray, geometry: dict, pad_value: float) -> np.ndarray:
    """Sample a view bilinearly, in one warp, without aliasing.

    Where the view is at least twice as coarse as the source, the region is
    first averaged over whole blocks of source pixels.

    Args:
        image: Source slice ``(H, W)``, or RGB ``(H, W, 3)``, float32.
        geometry: See :class:`ViewGeometry`.
        pad_value: Value outside the slice, for turned views.

    Shape: returns ``view_shape`` (and the 3 of RGB) float32.
    """
    matrix = geometry['matrix']
    height, width = geometry['view_shape']
    x0, y0, x1, y1 = geometry['box']
    block = int(min((x1 - x0) / width, (y1 - y0) / height))
    if block >= 2:
        corners = np.array(
            [
                [-0.5, -0.5],
                [width - 0.5, -0.5],
                [-0.5, height - 0.5],
                [width - 0.5, height - 0.5],
            ]
        )
        reach = corners @ matrix[:, :2].T + matrix[:, 2]
        left, columns = _whole_blocks(reach[:, 0], image.shape[1], block)
        top, rows = _whole_blocks(reach[:, 1], image.shape[0], block)
        image = cv2.resize(
            image[top : top + rows * block, left : left + columns * block],
            (columns, rows),
            interpolation=cv2.INTER_AREA,
        )
        # Centre of block j is source pixel left + block * j + (block-1)/2.
        matrix = matrix.copy()
        matrix[0, 2] -= left + (block - 1) / 2
        matrix[1, 2] -= top + (block - 1) / 2
        matrix /= block
    # An upright box within the slice leaves it by at most half a pixel: the
    # edge is continued. Others show what is outside.
    border = cv2.BORDER_CONSTANT if _shows_outside(geometry) else cv2.BORDER_REPLICATE
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=(pad_value,) * 4,
    )


def warp_label(label: np.ndarray, geometry: dict, pad_value: int) -> np.ndarray:
    """Sample a view of a label map by its nearest pixels.

    Shape: label ``(H, W)`` uint8. Returns ``view_shape`` uint8.
    """
    matrix = geometry['matrix']
    height, width = geometry['view_shape']
    columns, rows = np.arange(width), np.arange(height)[:, None]
    x, y = (
        np.rint(line[0] * columns + line[1] * rows + line[2]).astype(np.int32)
        for line in matrix
    )
    source_height, source_width = label.shape
    view = label[np.clip(y, 0, source_height - 1), np.clip(x, 0, source_width - 1)]
    if _shows_outside(geometry):
        outside = (x < 0) | (x >= source_width) | (y < 0) | (y >= source_height)
        view[outside] = pad_value
    return view


def _shows_outside(geometry: dict) -> bool:
    x0, y0, x1, y1 = geometry['box']
    height, width = geometry['source_shape']
    return bool(geometry['rotation']) or min(x0, y0, width - x1, height - y1) < -1e-6


def _whole_blocks(reach: np.ndarray, length: int, block: int) -> tuple[int, int]:
    """Start and number of blocks that cover the reached part of an axis."""
    # One block more on each side feeds the bilinear kernel at the edges.
    start = max(0, math.floor(reach.min()) - block)
    stop = min(length, math.ceil(reach.max()) + block + 1)
    number = min(math.ceil(max(stop - start, 1) / block), length // block)
    return max(0, min(start, length - number * block)), number


class RandomWarp(PaddedTransform):
    """A random view of a slice and of its label maps, cut in one warp.

    Subclasses draw the view in ``sample``.
    """

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        raise NotImplementedError

    def geometry(
        self, shape: tuple[int, int], box: Box, flip: bool, rotation: float
    ) -> ViewGeometry:
        """Describe the view of ``size`` that shows a box of the slice."""
        return ViewGeometry(
            box=box,
            flip=flip,
            rotation=rotation,
            source_shape=(int(shape[0]), int(shape[1])),
            view_shape=self.size,
            matrix=crop_matrix(box, self.size, flip, rotation),
        )

    def apply(
        self, image: np.ndarray, geometry: dict, channels: Sequence[str] | None = None
    ) -> np.ndarray:
        """Cut the view out of a float32 slice, or out of each named channel."""

        def cut(plane: np.ndarray, _: int = 0) -> np.ndarray:
            return warp_view(plane, geometry, self.fill_value(plane))

        return by_channel(image, cut) if channels else cut(image)

    def transform(self, results: dict) -> dict:
        """Draw a view and cut it from image and labels."""
        image = sample_image(results, self.owner, colour=True)
        geometry = self.sample(image.shape[:2], get_rng(results, self.owner))
        results['img'] = self.apply(image, geometry, results.get('channels'))
        results['img_shape'] = self.size
        results['geometry'] = geometry
        for key in results.get('seg_fields', ()):
            self.check_label_shape(results, key, image)
            results[key] = warp_label(results[key], geometry, self.seg_pad_value)
        return results
