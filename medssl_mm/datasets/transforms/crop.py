"""Random resized crops."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from medssl_mm.datasets.transforms.base import (
    between,
    check_number,
    check_probability,
    check_range,
    log_between,
)
from medssl_mm.datasets.transforms.warp import Box, RandomWarp, ViewGeometry
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomCropView(RandomWarp):
    """Random resized crop, flip and rotation of a slice, in one warp.

    The box has a random share of the slice's area and a random aspect ratio
    and lies anywhere in the slice; its position is not rounded to pixels.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img
    (float32), img_shape; every label map named in seg_fields is cropped alike
    (nearest pixel). Added Keys: geometry (:class:`ViewGeometry`).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        scale (tuple[float, float]): Smallest and largest share of the
            area, 0-1. Defaults to (0.2, 1.0).
        ratio (tuple[float, float]): Smallest and largest width over height
            of the box, above 0. Defaults to (3/4, 4/3).
        flip_prob (float): Probability of a left-right flip. Defaults to 0.5.
        rotation (float): Largest turn, degrees, either way. Defaults to 0.0.
        pad_value (float | str): Grey value outside the slice (only turned
            boxes reach there); 'minimum' takes the slice's. Defaults to 0.0,
            which is air in a window.
        seg_pad_value (int): Label outside the slice. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        rotation: float = 0.0,
        pad_value: float | str = 0.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__(size, pad_value, seg_pad_value)
        owner = self.owner
        self.scale = check_range(owner, 'scale', scale, 0.0, 1.0, above=0.0)
        self.ratio = check_range(owner, 'ratio', ratio, above=0.0)
        self.flip_prob = check_probability(owner, 'flip_prob', flip_prob)
        self.rotation = check_number(owner, 'rotation', rotation, 0.0, 180.0)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        box = self._sample_box(shape, rng)
        flip = bool(rng.random() < self.flip_prob)
        rotation = 0.0
        if self.rotation:
            rotation = float(rng.uniform(-self.rotation, self.rotation))
        return self.geometry(shape, box, flip, rotation)

    def _sample_box(self, shape: tuple[int, int], rng: np.random.Generator) -> Box:
        height, width = shape
        # Not every share and ratio fits; ten tries nearly always find one.
        for share, aspect, left, top in rng.random((10, 4)).tolist():
            area = height * width * between(self.scale, share)
            shape_ratio = log_between(self.ratio, aspect)
            box_width = math.sqrt(area * shape_ratio)
            box_height = math.sqrt(area / shape_ratio)
            if box_width <= width and box_height <= height:
                x0 = left * (width - box_width)
                y0 = top * (height - box_height)
                return x0, y0, x0 + box_width, y0 + box_height
        # The largest centred box whose aspect ratio is allowed.
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        box_width = min(width, height * aspect)
        box_height = min(height, width / aspect)
        x0, y0 = (width - box_width) / 2, (height - box_height) / 2
        return x0, y0, x0 + box_width, y0 + box_height
