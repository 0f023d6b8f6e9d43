"""Random elastic deformation."""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from scipy.ndimage import map_coordinates

from medssl_mm.datasets.transforms.base import (
    by_channel,
    check_number,
    check_probability,
    get_rng,
    sample_image,
)
from medssl_mm.registry import TRANSFORMS

TRUNCATE = 4.0  # standard deviations of the smoothing kernel, as SciPy has it


@TRANSFORMS.register_module()
class ElasticDeformation(BaseTransform):
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

    def __init__(self, alpha: float, sigma: float, prob: float = 0.5) -> None:
        owner = 'ElasticDeformation'
        self.alpha = check_number(owner, 'alpha', alpha, 0.0)
        self.sigma = check_number(owner, 'sigma', sigma, above=0.0)
        self.prob = check_probability(owner, 'prob', prob)

    def transform(self, results: dict) -> dict:
        """Deform the image."""
        rng = get_rng(results, 'ElasticDeformation')
        if rng.random() >= self.prob:
            return results
        image = sample_image(results, 'ElasticDeformation', colour=True)
        field = self.field(rng, image.shape[:2])
        places = np.indices(image.shape[:2], np.float32) + field
        results['img'] = by_channel(
            image,
            lambda plane, _: map_coordinates(plane, places, order=1, mode='constant'),
        )
        return results

    def field(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
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

    def __repr__(self) -> str:
        return (
            f'ElasticDeformation(alpha={self.alpha}, sigma={self.sigma}, '
            f'prob={self.prob})'
        )
