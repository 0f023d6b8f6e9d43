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
from numpy.random import Generator

from medssl_mm.datasets.transforms.base import (
    Drawn,
    Jitter,
    between,
    by_channel,
    check_number,
    check_range,
    log_between,
)
from medssl_mm.datasets.transforms.intensity import SMALLEST_RANGE, scale_to_unit
from medssl_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IntensityJitter(Jitter):
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

    draws = 2

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.4,
        prob: float = 0.8,
        limits: Sequence[float] | None = (0.0, 1.0),
    ) -> None:
        super().__init__(prob)
        self.brightness = check_number(self.owner, 'brightness', brightness, 0.0)
        self.contrast = check_number(self.owner, 'contrast', contrast, 0.0, 1.0)
        self.limits = limits and check_range(self.owner, 'limits', limits)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Apply the jitter."""
        contrast, brightness = drawn
        factor = 1 + self.contrast * (2 * contrast - 1)
        shift = self.brightness * (2 * brightness - 1)

        def adjust(plane: np.ndarray, _: int) -> np.ndarray:
            mean = cv2.mean(plane)[0]
            plane = plane * np.float32(factor)
            plane += np.float32(mean * (1 - factor) + shift)
            if self.limits is not None:
                low, high = self.limits
                np.clip(plane, low, high, out=plane)
            return plane

        return by_channel(image, adjust)


@TRANSFORMS.register_module()
class GammaJitter(Jitter):
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

    draws = 1

    def __init__(
        self,
        gamma: Sequence[float] = (0.67, 1.5),
        prob: float = 0.5,
        limits: Sequence[float] | None = (0.0, 1.0),
        uniform: bool = False,
    ) -> None:
        super().__init__(prob)
        self.uniform = uniform
        self.gamma = check_range(self.owner, 'gamma', gamma, above=0.0)
        self.limits = limits and check_range(self.owner, 'limits', limits)
        if self.limits and self.limits[0] == self.limits[1]:
            raise ValueError(f'{self.owner}: limits must differ, got {limits!r}.')

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Apply the power."""
        exponent = (between if self.uniform else log_between)(self.gamma, *drawn)

        def raise_to(plane: np.ndarray, _: int) -> np.ndarray:
            low, high = self.limits or cv2.minMaxLoc(plane)[:2]
            if high - low <= SMALLEST_RANGE:
                return plane
            if (low, high) == (0.0, 1.0):
                return cv2.pow(np.clip(plane, 0.0, 1.0), exponent)
            powered: np.ndarray = cv2.pow(scale_to_unit(plane, low, high), exponent)
            powered *= np.float32(high - low)
            powered += np.float32(low)
            return powered

        return by_channel(image, raise_to)


@TRANSFORMS.register_module()
class BlurJitter(Jitter):
    """Blur by a Gaussian of random width.

    Required Keys: img (grey or RGB), rng. Modified Keys: img (float32).

    Args:
        sigma (tuple[float, float]): Smallest and largest standard deviation
            of the kernel, pixels, above 0. Defaults to (0.1, 2.0).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    draws = 1
    colour = True

    def __init__(self, sigma: Sequence[float] = (0.1, 2.0), prob: float = 0.5) -> None:
        super().__init__(prob)
        self.sigma = check_range(self.owner, 'sigma', sigma, above=0.0)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Apply the blur."""
        sigma = between(self.sigma, *drawn)
        side = 2 * math.ceil(3 * sigma) + 1
        return cv2.GaussianBlur(
            image, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101
        )


@TRANSFORMS.register_module()
class NoiseJitter(Jitter):
    """Add Gaussian noise of random strength.

    Required Keys: img, rng. Modified Keys: img (float32, not clipped).

    Args:
        std (tuple[float, float]): Smallest and largest standard deviation
            of the noise, in the unit of the image. Defaults to (0.0, 0.05).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    draws = 1

    def __init__(self, std: Sequence[float] = (0.0, 0.05), prob: float = 0.5) -> None:
        super().__init__(prob)
        self.std = check_range(self.owner, 'std', std, 0.0)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Add the noise."""
        # Two axes: with more, OpenCV would want a deviation per channel.
        flat = np.empty((len(image), image.size // len(image)), np.float32)
        # OpenCV's generator is three times as fast as numpy's; seeding it
        # from the sample's own keeps the noise a function of the sample.
        cv2.setRNGSeed(int(rng.integers(2**31 - 1)))
        cv2.randn(flat, 0.0, between(self.std, *drawn))  # type: ignore[call-overload]
        noise = flat.reshape(image.shape)
        noise += image
        return noise


@TRANSFORMS.register_module()
class RangeNoise(Jitter):
    """Add one field of Gaussian noise to all channels, within the image's range.

    The result is clipped to the smallest and largest value that the image had,
    so a constant image stays as it is.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img
    (float32).

    Args:
        std (float): Standard deviation of the noise, in the unit of the image.
        prob (float): Probability of changing the image. Defaults to 0.5.
    """

    colour = True

    def __init__(self, std: float, prob: float = 0.5) -> None:
        super().__init__(prob)
        self.std = check_number(self.owner, 'std', std, 0.0)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Add the noise."""
        noise = rng.standard_normal(image.shape[:2], np.float32)
        noise *= np.float32(self.std)
        low, high = image.min(), image.max()
        return by_channel(image, lambda plane, _: np.clip(plane + noise, low, high))


@TRANSFORMS.register_module()
class EraseJitter(Jitter):
    """Fill one random rectangle with the slice's mean.

    Required Keys: img, rng. Modified Keys: img (float32).

    Args:
        area (tuple[float, float]): Smallest and largest share of the slice's
            area, 0-1. Defaults to (0.02, 0.2).
        ratio (tuple[float, float]): Smallest and largest width over height,
            above 0. Defaults to (0.33, 3.0).
        prob (float): Probability of changing the slice. Defaults to 0.5.
    """

    draws = 4

    def __init__(
        self,
        area: Sequence[float] = (0.02, 0.2),
        ratio: Sequence[float] = (0.33, 3.0),
        prob: float = 0.5,
    ) -> None:
        super().__init__(prob)
        self.area = check_range(self.owner, 'area', area, 0.0, 1.0)
        self.ratio = check_range(self.owner, 'ratio', ratio, above=0.0)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Erase the rectangle."""
        area, ratio, left, top = drawn
        height, width = image.shape[:2]
        pixels = height * width * between(self.area, area)
        shape = log_between(self.ratio, ratio)
        box_width = min(width, round(math.sqrt(pixels * shape)))
        box_height = min(height, round(math.sqrt(pixels / shape)))
        x0 = int(left * (width - box_width + 1))
        y0 = int(top * (height - box_height + 1))

        def erase(plane: np.ndarray, _: int) -> np.ndarray:
            plane[y0 : y0 + box_height, x0 : x0 + box_width] = cv2.mean(plane)[0]
            return plane

        return by_channel(image.copy(), erase)
