"""Random grey-value changes: contrast, gamma, blur, noise, erased parts.

Each takes ``results['img']`` of shape ``(H, W)`` (BlurJitter RGB as well), or
the channels of a store ``(H, W, C)``, leaves it float32, and draws from
``results['rng']`` alone: once for all channels, which change alike, each about
its own mean or range. A constant slice never fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from medssl_mm.datasets.transforms.base import (
    by_channel,
    check_number,
    check_probability,
    check_range,
    get_rng,
    sample_image,
)
from medssl_mm.datasets.transforms.intensity import (
    SMALLEST_RANGE,
    scale_to_unit,
)
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IntensityJitter(BaseTransform):
    """Change contrast about the slice's mean, and brightness, at random.

    ``(img - mean) * c + mean + b`` with ``c`` from 1 - contrast to
    1 + contrast and ``b`` from -brightness to +brightness. On a windowed CT
    slice this equals another window width and level.

    Required Keys: img, rng. Modified Keys: img (float32).

    Args:
        brightness (float): Largest shift, in the unit of the image.
            Defaults to 0.2.
        contrast (float): Largest relative change, 0-1. Defaults to 0.4.
        prob (float): Probability of changing the slice. Defaults to 0.8.
        limits (tuple[float, float] | None): The result is clipped to them;
            None leaves it unclipped, as z-scored slices need it. Defaults
            to (0.0, 1.0).
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.4,
        prob: float = 0.8,
        limits: Sequence[float] | None = (0.0, 1.0),
    ) -> None:
        owner = 'IntensityJitter'
        self.brightness = check_number(owner, 'brightness', brightness, 0.0)
        self.contrast = check_number(owner, 'contrast', contrast, 0.0, 1.0)
        self.prob = check_probability(owner, 'prob', prob)
        self.limits = limits and check_range(owner, 'limits', limits)

    def transform(self, results: dict) -> dict:
        """Apply the jitter."""
        rng = get_rng(results, 'IntensityJitter')
        chance, contrast, brightness = rng.random(3)
        if chance >= self.prob:
            return results
        image = sample_image(results, 'IntensityJitter')
        factor = 1 + self.contrast * (2 * contrast - 1)
        shift = self.brightness * (2 * brightness - 1)

        def change(plane: np.ndarray, _: int) -> np.ndarray:
            mean = cv2.mean(plane)[0]
            plane = plane * np.float32(factor)
            plane += np.float32(mean * (1 - factor) + shift)
            if self.limits is not None:
                np.clip(plane, *self.limits, out=plane)
            return plane

        results['img'] = by_channel(image, change)
        return results

    def __repr__(self) -> str:
        return (
            f'IntensityJitter(brightness={self.brightness}, '
            f'contrast={self.contrast}, prob={self.prob}, '
            f'limits={self.limits})'
        )


@TRANSFORMS.register_module()
class GammaJitter(BaseTransform):
    """Raise the slice, scaled to 0-1, to a random power.

    The exponent is drawn log-uniformly, so that darkening and brightening
    are equally likely for limits such as (0.67, 1.5), or evenly.

    Required Keys: img, rng. Modified Keys: img (float32).

    Args:
        gamma (tuple[float, float]): Smallest and largest exponent, above 0.
            Defaults to (0.67, 1.5).
        prob (float): Probability of changing the slice. Defaults to 0.5.
        limits (tuple[float, float] | None): Grey values that count as 0 and
            1. None takes the slice's own minimum and maximum, as z-scored
            slices need it; a constant slice is then left alone. Defaults to
            (0.0, 1.0).
        uniform (bool): Whether the exponent itself is drawn evenly, instead
            of its logarithm. Defaults to False.
    """

    def __init__(
        self,
        gamma: Sequence[float] = (0.67, 1.5),
        prob: float = 0.5,
        limits: Sequence[float] | None = (0.0, 1.0),
        uniform: bool = False,
    ) -> None:
        owner = 'GammaJitter'
        self.uniform = uniform
        self.gamma = check_range(owner, 'gamma', gamma, above=0.0)
        self.prob = check_probability(owner, 'prob', prob)
        self.limits = limits and check_range(owner, 'limits', limits)
        if self.limits and self.limits[0] == self.limits[1]:
            raise ValueError(f'{owner}: limits must differ, got {limits!r}.')

    def transform(self, results: dict) -> dict:
        """Apply the power."""
        rng = get_rng(results, 'GammaJitter')
        chance, position = rng.random(2)
        if chance >= self.prob:
            return results
        image = sample_image(results, 'GammaJitter')
        exponent = self._exponent(position)

        def change(plane: np.ndarray, _: int) -> np.ndarray:
            low, high = self.limits or cv2.minMaxLoc(plane)[:2]
            if high - low <= SMALLEST_RANGE:
                return plane
            if (low, high) == (0.0, 1.0):
                return cv2.pow(np.clip(plane, 0.0, 1.0), exponent)
            plane = cv2.pow(scale_to_unit(plane, low, high), exponent)
            plane *= np.float32(high - low)
            plane += np.float32(low)
            return plane

        results['img'] = by_channel(image, change)
        return results

    def _exponent(self, position: float) -> float:
        """The exponent at a place, 0-1, between its limits."""
        smallest, largest = self.gamma
        if self.uniform:
            return smallest + position * (largest - smallest)
        smallest, largest = math.log(smallest), math.log(largest)
        return math.exp(smallest + position * (largest - smallest))

    def __repr__(self) -> str:
        return (
            f'GammaJitter(gamma={self.gamma}, prob={self.prob}, limits={self.limits}'
            f'{", uniform=True" if self.uniform else ""})'
        )


@TRANSFORMS.register_module()
class BlurJitter(BaseTransform):
    """Blur by a Gaussian of random width.

    Required Keys: img (grey or RGB), rng. Modified Keys: img (float32).

    Args:
        sigma (tuple[float, float]): Smallest and largest standard deviation
            of the kernel, pixels, above 0. Defaults to (0.1, 2.0).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), prob: float = 0.5) -> None:
        self.sigma = check_range('BlurJitter', 'sigma', sigma, above=0.0)
        self.prob = check_probability('BlurJitter', 'prob', prob)

    def transform(self, results: dict) -> dict:
        """Apply the blur."""
        rng = get_rng(results, 'BlurJitter')
        chance, position = rng.random(2)
        if chance >= self.prob:
            return results
        image = sample_image(results, 'BlurJitter', colour=True)
        sigma = self.sigma[0] + position * (self.sigma[1] - self.sigma[0])
        side = 2 * math.ceil(3 * sigma) + 1
        results['img'] = cv2.GaussianBlur(
            image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101
        )
        return results

    def __repr__(self) -> str:
        return f'BlurJitter(sigma={self.sigma}, prob={self.prob})'


@TRANSFORMS.register_module()
class NoiseJitter(BaseTransform):
    """Add Gaussian noise of random strength.

    Required Keys: img, rng. Modified Keys: img (float32, not clipped).

    Args:
        std (tuple[float, float]): Smallest and largest standard deviation
            of the noise, in the unit of the image. Defaults to (0.0, 0.05).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    def __init__(self, std: Sequence[float] = (0.0, 0.05), prob: float = 0.5) -> None:
        self.std = check_range('NoiseJitter', 'std', std, 0.0)
        self.prob = check_probability('NoiseJitter', 'prob', prob)

    def transform(self, results: dict) -> dict:
        """Add the noise."""
        rng = get_rng(results, 'NoiseJitter')
        chance, position = rng.random(2)
        if chance >= self.prob:
            return results
        image = sample_image(results, 'NoiseJitter')
        deviation = self.std[0] + position * (self.std[1] - self.std[0])
        # Two axes: with more, OpenCV would want a deviation per channel.
        noise = np.empty((len(image), image.size // len(image)), np.float32)
        # OpenCV's generator is three times as fast as numpy's; seeding it
        # from the sample's own keeps the noise a function of the sample.
        cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
        cv2.randn(noise, 0.0, deviation)
        noise = noise.reshape(image.shape)
        noise += image
        results['img'] = noise
        return results

    def __repr__(self) -> str:
        return f'NoiseJitter(std={self.std}, prob={self.prob})'


@TRANSFORMS.register_module()
class RangeNoise(BaseTransform):
    """Add one field of Gaussian noise to all channels, within the image's range.

    The result is clipped to the smallest and largest value that the image had,
    so a constant image stays as it is.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img
    (float32).

    Args:
        std (float): Standard deviation of the noise, in the unit of the image.
        prob (float): Probability of changing the image. Defaults to 0.5.
    """

    def __init__(self, std: float, prob: float = 0.5) -> None:
        self.std = check_number('RangeNoise', 'std', std, 0.0)
        self.prob = check_probability('RangeNoise', 'prob', prob)

    def transform(self, results: dict) -> dict:
        """Add the noise."""
        rng = get_rng(results, 'RangeNoise')
        if rng.random() >= self.prob:
            return results
        image = sample_image(results, 'RangeNoise', colour=True)
        noise = rng.standard_normal(image.shape[:2], np.float32)
        noise *= np.float32(self.std)
        low, high = image.min(), image.max()
        results['img'] = by_channel(
            image, lambda plane, _: np.clip(plane + noise, low, high)
        )
        return results

    def __repr__(self) -> str:
        return f'RangeNoise(std={self.std}, prob={self.prob})'


@TRANSFORMS.register_module()
class EraseJitter(BaseTransform):
    """Fill one random rectangle with the slice's mean.

    Required Keys: img, rng. Modified Keys: img (float32).

    Args:
        area (tuple[float, float]): Smallest and largest share of the slice's
            area, 0-1. Defaults to (0.02, 0.2).
        ratio (tuple[float, float]): Smallest and largest width over height,
            above 0. Defaults to (0.33, 3.0).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    def __init__(
        self,
        area: Sequence[float] = (0.02, 0.2),
        ratio: Sequence[float] = (0.33, 3.0),
        prob: float = 0.5,
    ) -> None:
        owner = 'EraseJitter'
        self.area = check_range(owner, 'area', area, 0.0, 1.0)
        self.ratio = check_range(owner, 'ratio', ratio, above=0.0)
        self.prob = check_probability(owner, 'prob', prob)

    def transform(self, results: dict) -> dict:
        """Erase the rectangle."""
        rng = get_rng(results, 'EraseJitter')
        chance, area, ratio, left, top = rng.random(5)
        if chance >= self.prob:
            return results
        image = sample_image(results, 'EraseJitter').copy()
        height, width = image.shape[:2]
        pixels = height * width * (self.area[0] + area * (self.area[1] - self.area[0]))
        smallest, largest = (math.log(n) for n in self.ratio)
        shape = math.exp(smallest + ratio * (largest - smallest))
        box_width = min(width, round(math.sqrt(pixels * shape)))
        box_height = min(height, round(math.sqrt(pixels / shape)))
        x0 = int(left * (width - box_width + 1))
        y0 = int(top * (height - box_height + 1))

        def erase(plane: np.ndarray, _: int) -> np.ndarray:
            plane[y0 : y0 + box_height, x0 : x0 + box_width] = cv2.mean(plane)[0]
            return plane

        results['img'] = by_channel(image, erase)
        return results

    def __repr__(self) -> str:
        return f'EraseJitter(area={self.area}, ratio={self.ratio}, prob={self.prob})'
