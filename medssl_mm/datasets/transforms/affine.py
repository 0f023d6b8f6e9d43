"""Random zooms, turns and shifts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medssl_mm.datasets.transforms.base import (
    check_number,
    check_probability,
    check_range,
    log_between,
)
from medssl_mm.datasets.transforms.warp import RandomWarp, ViewGeometry
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomAffineView(RandomWarp):
    """Zoom, turn and shift a slice around the view that evaluation shows.

    Without the random part the whole slice fits into the view with its
    aspect ratio kept, as by :class:`ResizeAndPad`, but centred. So structures
    have the size in training that they have in evaluation, on average; crops
    of a share of the area show them larger and stretched.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img (float32),
    img_shape; label maps named in seg_fields alike (nearest pixel). Added
    Keys: geometry (:class:`ViewGeometry`; the box may reach beyond the
    slice).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        zoom (tuple[float, float]): Range of the magnification, drawn on a
            logarithmic scale; 1 fits the slice. Defaults to (0.8, 1.25).
        rotation (float): Largest turn, degrees, either way. Defaults to 15.0.
        shift (float): Largest shift along each axis, either way, as a share
            of the view. Defaults to 0.1.
        flip_prob (float): Probability of a left-right flip. Defaults to 0.0:
            a flip turns left into right organs.
        pad_value (float | str): Grey value outside the slice; 'minimum' takes
            the slice's. Defaults to 0.0, which is air in a window.
        seg_pad_value (int): Label outside the slice. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        zoom: Sequence[float] = (0.8, 1.25),
        rotation: float = 15.0,
        shift: float = 0.1,
        flip_prob: float = 0.0,
        pad_value: float | str = 0.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__(size, pad_value, seg_pad_value)
        owner = self.owner
        self.zoom = check_range(owner, 'zoom', zoom, above=0.0)
        self.rotation = check_number(owner, 'rotation', rotation, 0.0, 180.0)
        self.shift = check_number(owner, 'shift', shift, 0.0, 1.0)
        self.flip_prob = check_probability(owner, 'flip_prob', flip_prob)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        height, width = shape
        view_height, view_width = self.size
        zoom, turn, right, down, flip = rng.random(5).tolist()
        # Source pixels per view pixel.
        step = max(height / view_height, width / view_width)
        step /= log_between(self.zoom, zoom)
        half_width, half_height = step * view_width / 2, step * view_height / 2
        x = width / 2 + (2 * right - 1) * self.shift * 2 * half_width
        y = height / 2 + (2 * down - 1) * self.shift * 2 * half_height
        return self.geometry(
            shape,
            (x - half_width, y - half_height, x + half_width, y + half_height),
            flip < self.flip_prob,
            (2 * turn - 1) * self.rotation,
        )
