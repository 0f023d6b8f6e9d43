"""Random elastic deformation."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from medssl_mm.datasets.transforms.base import (
    Drawn,
    Jitter,
    by_channel,
    check_number,
)
from medssl_mm.registry import TRANSFORMS

TRUNCATE = 4.0  # standard deviations of the smoothing kernel, as SciPy has it


@TRANSFORMS.register_module()
class ElasticDeformation(Jitter):
    """Shift every pixel by a smooth random field, the same in all channels.

    A field of uniform noise in [-1, 1] per axis is smoothed by a Gaussian and
    multiplied by ``alpha``; the image is interpolated linearly where the field
    points to, and 0 outside. As in `Best Practices for Convolutional Neural
    Networks Applied to Visual Document Analysis
    <https://doi.org/10.1109/ICDAR.2003.1227801>`_. ``alpha`` counts in pixels:
    torchvision's ElasticTransform makes this field with twice the number.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img
    (float32).

    Args:
        alpha (float): Factor of the smoothed noise, pixels.
        sigma (float): Standard deviation of the smoothing, pixels, above 0.
        prob (float): Probability of changing the image. Defaults to 0.5.
    """

    colour = True

    def __init__(self, alpha: float, sigma: float, prob: float = 0.5) -> None:
        super().__init__(prob)
        self.alpha = check_number(self.owner, 'alpha', alpha, 0.0)
        self.sigma = check_number(self.owner, 'sigma', sigma, above=0.0)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Deform the image."""
        # Every run loads this module; few of them deform.
        from scipy.ndimage import map_coordinates

        field = self.field(rng, image.shape[:2])
        places = np.indices(image.shape[:2], np.float32) + field
        return by_channel(
            image,
            lambda plane, _: map_coordinates(plane, places, order=1, mode='constant'),
        )

    def field(self, rng: Generator, shape: tuple[int, int]) -> np.ndarray:
        """Draw a field: shift down and to the right, pixels ``(2, H, W)``."""
        noise = rng.uniform(-1, 1, (2, *shape)).astype(np.float32)
        side = 2 * int(TRUNCATE * self.sigma + 0.5) + 1
        smooth = [
            cv2.GaussianBlur(
                plane, (side, side), self.sigma, borderType=cv2.BORDER_CONSTANT
            )
            for plane in noise
        ]
        return np.stack(smooth) * np.float32(self.alpha)
