"""Normalisation of grey values: windows, percentiles, z-scores.

Each takes ``results['img']`` of shape ``(H, W)`` (ShiftScale RGB as well), or
the channels of a store ``(H, W, C)``, and leaves it float32. Statistics, of the
case or of the slice, are those of each channel. A constant slice stays
constant: nothing divides by a slice's own range without a guard.
"""

from __future__ import annotations

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from medssl_mm.datasets.transforms.base import (
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
class CTWindow(BaseTransform):
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
        self.level = check_number('CTWindow', 'level', level)
        self.width = check_number('CTWindow', 'width', width, above=0.0)
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
        image = sample_image(results, 'CTWindow')
        results['img'] = scale_to_unit(image, low, high)
        return results

    def __repr__(self) -> str:
        return f'CTWindow(level={self.level}, width={self.width})'


@TRANSFORMS.register_module()
class PercentileNormalize(BaseTransform):
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

    _stored = {0.5: 'p00_5', 99.5: 'p99_5', 0.0: 'min', 100.0: 'max'}

    def __init__(
        self, lower: float = 0.5, upper: float = 99.5, per: str = 'case'
    ) -> None:
        owner = 'PercentileNormalize'
        self.lower = check_number(owner, 'lower', lower, 0.0, 100.0)
        self.upper = check_number(owner, 'upper', upper, 0.0, 100.0)
        if self.lower >= self.upper:
            raise ValueError(
                f'{owner}: lower must be below upper, got '
                f'lower={lower} and upper={upper}.'
            )
        if per not in ('case', 'slice'):
            raise ValueError(f"{owner}: per must be 'case' or 'slice', got {per!r}.")
        if per == 'case' and not {self.lower, self.upper} <= set(self._stored):
            raise ValueError(
                f'{owner}: a store keeps the percentiles '
                f'{sorted(self._stored)} of a case, got lower={lower} and '
                f"upper={upper}; use those or per='slice'."
            )
        self.per = per

    def transform(self, results: dict) -> dict:
        """Apply the normalisation."""
        owner = 'PercentileNormalize'
        image = sample_image(results, owner)
        if self.per == 'case':
            low = _case_statistic(results, self._stored[self.lower], owner)
            high = _case_statistic(results, self._stored[self.upper], owner)

        def normalize(plane: np.ndarray, number: int) -> np.ndarray:
            if self.per == 'case':
                limits = low[number], high[number]
            else:
                limits = np.percentile(plane, [self.lower, self.upper])
            return scale_to_unit(plane, *limits)

        results['img'] = by_channel(image, normalize)
        return results

    def __repr__(self) -> str:
        return (
            f'PercentileNormalize(lower={self.lower}, '
            f'upper={self.upper}, per={self.per!r})'
        )


@TRANSFORMS.register_module()
class ZScoreNormalize(BaseTransform):
    """Subtract the mean and divide by the standard deviation.

    Required Keys: img; intensity with per='case'. Modified Keys: img
    (float32, in standard deviations; all 0 where the deviation is 0).

    Args:
        per (str): 'case' takes the statistics stored at import, 'slice'
            those of the slice. Defaults to 'case'.
        limit (float | None): Values are clipped to plus and minus this many
            standard deviations. None: not clipped. Defaults to None.
    """

    def __init__(self, per: str = 'case', limit: float | None = None) -> None:
        if per not in ('case', 'slice'):
            raise ValueError(
                f"ZScoreNormalize: per must be 'case' or 'slice', got {per!r}."
            )
        if limit is not None:
            check_number('ZScoreNormalize', 'limit', limit, above=0.0)
        self.per = per
        self.limit = limit

    def transform(self, results: dict) -> dict:
        """Apply the normalisation."""
        image = sample_image(results, 'ZScoreNormalize')
        if self.per == 'case':
            means = _case_statistic(results, 'mean', 'ZScoreNormalize')
            deviations = _case_statistic(results, 'std', 'ZScoreNormalize')

        def normalize(plane: np.ndarray, number: int) -> np.ndarray:
            if self.per == 'case':
                return self._normalize(plane, means[number], deviations[number])
            return self._normalize(plane, *(n.item() for n in cv2.meanStdDev(plane)))

        results['img'] = by_channel(image, normalize)
        return results

    def _normalize(
        self, plane: np.ndarray, mean: float, deviation: float
    ) -> np.ndarray:
        # The smallest range is relative to the mean's size: float32 noise
        # around a large constant must not be blown up to unit variance.
        if deviation <= SMALLEST_RANGE * max(1.0, abs(mean)):
            return np.zeros(plane.shape, np.float32)
        plane = plane - np.float32(mean)
        plane *= np.float32(1.0 / deviation)
        if self.limit is not None:
            np.clip(plane, -self.limit, self.limit, out=plane)
        return plane

    def __repr__(self) -> str:
        return f'ZScoreNormalize(per={self.per!r}, limit={self.limit})'


@TRANSFORMS.register_module()
class ShiftScale(BaseTransform):
    """Subtract a fixed mean and divide by a fixed standard deviation.

    Required Keys: img (grey, RGB or channels). Modified Keys: img (float32).

    Args:
        mean (float): Subtracted, in the unit of the image.
        std (float): Divisor, in the unit of the image, above 0.
    """

    def __init__(self, mean: float, std: float) -> None:
        self.mean = check_number('ShiftScale', 'mean', mean)
        self.std = check_number('ShiftScale', 'std', std, above=0.0)

    def transform(self, results: dict) -> dict:
        """Apply shift and scale."""
        image = sample_image(results, 'ShiftScale', colour=True)
        image = image - np.float32(self.mean)
        image *= np.float32(1.0 / self.std)
        results['img'] = image
        return results

    def __repr__(self) -> str:
        return f'ShiftScale(mean={self.mean}, std={self.std})'
