"""Normalisation of grey values: windows, percentiles, z-scores.

Each takes ``results['img']`` of shape ``(H, W)`` (ShiftScale RGB as well), or
the channels of a store ``(H, W, C)``, and leaves it float32. Statistics, of the
case or of the slice, are those of each channel. A constant slice stays
constant: nothing divides by a slice's own range without a guard.
"""

from __future__ import annotations

import cv2
import numpy as np

from medssl_mm.datasets.transforms.base import (
    Transform,
    by_channel,
    check_number,
    sample_image,
)
from medssl_mm.registry import TRANSFORMS

# Below this spread a slice (or case) counts as constant.
SMALLEST_RANGE = 1e-6


def _case_statistic(results: dict, name: str, owner: str) -> list[float]:
    """One intensity statistic of the slice's case, a number per channel."""
    statistics = results.get('intensity') or {}
    value = statistics.get(name)
    if value is None:
        raise KeyError(
            f'{owner}: the case statistic {name!r} is missing for '
            f'{results.get("img_path", "this slice")} (found: '
            f"{sorted(statistics) or 'none'}). Use per='slice', or load the "
            'slice from an imported store with LoadSlice.'
        )
    return np.atleast_1d(value).astype(float).tolist()


def scale_to_unit(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map low-high to 0-1 and clip; all zero where low equals high."""
    if high - low <= SMALLEST_RANGE:
        return np.zeros(image.shape, np.float32)
    scaled = np.subtract(image, np.float32(low), dtype=np.float32)
    scaled *= np.float32(1.0 / (high - low))
    return np.clip(scaled, 0.0, 1.0, out=scaled)


@TRANSFORMS.register_module()
class CTWindow(Transform):
    """Show one window of Hounsfield units: ``(img - (level - w/2)) / w``.

    Required Keys: img (HU, any number type). Modified Keys: img (float32,
    0 to 1, clipped).

    Args:
        level (float): Centre of the window, HU.
        width (float): Width of the window, HU, above 0.

    Example:
        >>> CTWindow(level=40, width=400)   # -160 HU -> 0, 240 HU -> 1
    """

    def __init__(self, level: float, width: float) -> None:
        self.level = check_number(self.owner, 'level', level)
        self.width = check_number(self.owner, 'width', width, above=0.0)
        self._low = self.level - self.width / 2
        high = self._low + self.width
        self._integer_limits = (
            self._low.is_integer()
            and high.is_integer()
            and -(2**15) <= self._low
            and high < 2**15
        )

    def transform(self, results: dict) -> dict:
        """Apply the window."""
        image = results['img']
        low, high = self._low, self._low + self.width
        if image.dtype == np.int16 and self._integer_limits:
            # Clipping 16-bit integers first is exact, and faster.
            image = np.clip(image, int(low), int(high))
            image = np.subtract(image, int(low), dtype=np.float32)
            image *= np.float32(1.0 / self.width)
            results['img'] = image
            return results
        image = sample_image(results, self.owner)
        results['img'] = scale_to_unit(image, low, high)
        return results


class _Normalize(Transform):
    """Changes every channel by two statistics of it, of the case or the slice.

    A subclass names the two as they are stored, measures them on a slice, and
    applies them.
    """

    def __init__(self, per: str) -> None:
        if per not in ('case', 'slice'):
            raise ValueError(
                f"{self.owner}: per must be 'case' or 'slice', got {per!r}."
            )
        self.per = per

    @property
    def stored(self) -> tuple[str, str]:
        """Names of the statistics of the case."""
        raise NotImplementedError

    def measure(self, plane: np.ndarray) -> tuple[float, float]:
        """Return the statistics of one slice."""
        raise NotImplementedError

    def apply(self, plane: np.ndarray, first: float, second: float) -> np.ndarray:
        """Change one channel."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Apply the normalisation."""
        image = sample_image(results, self.owner)
        case = None
        if self.per == 'case':
            case = [_case_statistic(results, name, self.owner) for name in self.stored]

        def normalize(plane: np.ndarray, number: int) -> np.ndarray:
            if case is None:
                return self.apply(plane, *self.measure(plane))
            return self.apply(plane, case[0][number], case[1][number])

        results['img'] = by_channel(image, normalize)
        return results


@TRANSFORMS.register_module()
class PercentileNormalize(_Normalize):
    """Map a lower and an upper percentile to 0 and 1, and clip.

    Required Keys: img; intensity with per='case'. Modified Keys: img
    (float32, 0 to 1; all 0 where both percentiles agree).

    Args:
        lower (float): Lower percentile, 0-100. Defaults to 0.5.
        upper (float): Upper percentile, 0-100. Defaults to 99.5.
        per (str): 'case' takes the percentiles stored at import (0.5 and
            99.5 of the whole volume), 'slice' computes them on the slice.
            Defaults to 'case'.
    """

    _names = {0.5: 'p00_5', 99.5: 'p99_5', 0.0: 'min', 100.0: 'max'}

    def __init__(
        self, lower: float = 0.5, upper: float = 99.5, per: str = 'case'
    ) -> None:
        super().__init__(per)
        self.lower = check_number(self.owner, 'lower', lower, 0.0, 100.0)
        self.upper = check_number(self.owner, 'upper', upper, 0.0, 100.0)
        if self.lower >= self.upper:
            raise ValueError(
                f'{self.owner}: lower must be below upper, got '
                f'lower={lower} and upper={upper}.'
            )
        if per == 'case' and not {self.lower, self.upper} <= set(self._names):
            raise ValueError(
                f'{self.owner}: a store keeps the percentiles '
                f'{sorted(self._names)} of a case, got lower={lower} and '
                f"upper={upper}; use those or per='slice'."
            )

    @property
    def stored(self) -> tuple[str, str]:
        """Names of the two percentiles."""
        return self._names[self.lower], self._names[self.upper]

    def measure(self, plane: np.ndarray) -> tuple[float, float]:
        """Return the percentiles of one slice."""
        low, high = np.percentile(plane, [self.lower, self.upper])
        return low, high

    def apply(self, plane: np.ndarray, first: float, second: float) -> np.ndarray:
        """Map them to 0 and 1."""
        return scale_to_unit(plane, first, second)


@TRANSFORMS.register_module()
class ZScoreNormalize(_Normalize):
    """Subtract the mean and divide by the standard deviation.

    Required Keys: img; intensity with per='case'. Modified Keys: img
    (float32, in standard deviations; all 0 where the deviation is 0).

    Args:
        per (str): 'case' takes the statistics stored at import, 'slice'
            those of the slice. Defaults to 'case'.
        limit (float | None): Values are clipped to plus and minus this many
            standard deviations. None: not clipped. Defaults to None.
    """

    stored = ('mean', 'std')

    def __init__(self, per: str = 'case', limit: float | None = None) -> None:
        super().__init__(per)
        if limit is not None:
            check_number(self.owner, 'limit', limit, above=0.0)
        self.limit = limit

    def measure(self, plane: np.ndarray) -> tuple[float, float]:
        """Return mean and deviation of one slice."""
        mean, deviation = cv2.meanStdDev(plane)
        return mean.item(), deviation.item()

    def apply(self, plane: np.ndarray, first: float, second: float) -> np.ndarray:
        """Subtract the mean, divide by the deviation."""
        mean, deviation = first, second
        # The smallest range is relative to the mean's size: float32 noise
        # around a large constant must not be blown up to unit variance.
        if deviation <= SMALLEST_RANGE * max(1.0, abs(mean)):
            return np.zeros(plane.shape, np.float32)
        plane = plane - np.float32(mean)
        plane *= np.float32(1.0 / deviation)
        if self.limit is not None:
            np.clip(plane, -self.limit, self.limit, out=plane)
        return plane


@TRANSFORMS.register_module()
class ShiftScale(Transform):
    """Subtract a fixed mean and divide by a fixed standard deviation.

    Required Keys: img (grey, RGB or channels). Modified Keys: img (float32).

    Args:
        mean (float): Subtracted, in the unit of the image.
        std (float): Divisor, in the unit of the image, above 0.
    """

    def __init__(self, mean: float, std: float) -> None:
        self.mean = check_number(self.owner, 'mean', mean)
        self.std = check_number(self.owner, 'std', std, above=0.0)

    def transform(self, results: dict) -> dict:
        """Apply shift and scale."""
        image = sample_image(results, self.owner, colour=True)
        image = image - np.float32(self.mean)
        image *= np.float32(1.0 / self.std)
        results['img'] = image
        return results
