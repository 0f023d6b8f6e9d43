"""What the transforms share: argument checks and the random generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from inspect import signature
from numbers import Real

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.random import Generator

Drawn = Sequence[float]  # numbers 0-1


class Transform(BaseTransform):
    """A step that keeps its settings under the names of its arguments."""

    @property
    def owner(self) -> str:
        """Name of the class, for messages."""
        return type(self).__name__

    def __repr__(self) -> str:
        names = signature(type(self)).parameters
        settings = ', '.join(f'{name}={getattr(self, name)!r}' for name in names)
        return f'{self.owner}({settings})'


def between(limits: tuple[float, float], share: float) -> float:
    """Return the number that lies a share (0-1) of the way between limits."""
    return limits[0] + share * (limits[1] - limits[0])


def log_between(limits: tuple[float, float], share: float) -> float:
    """Do the same on a logarithmic scale; limits above 0."""
    low, high = (math.log(limit) for limit in limits)
    return math.exp(between((low, high), share))


def check_number(
    owner: str,
    name: str,
    value: float,
    low: float = -np.inf,
    high: float = np.inf,
    above: float | None = None,
) -> float:
    """Return ``value`` as float when it is a number in the allowed range.

    Raises:
        TypeError: When it is no real number.
        ValueError: When it lies outside ``[low, high]`` or is not larger
            than ``above``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f'{owner}: {name} must be a number, got {value!r} of '
            f'type {type(value).__name__}.'
        )
    if not low <= value <= high:
        raise ValueError(
            f'{owner}: {name} must lie between {low} and {high}, got {value}.'
        )
    if above is not None and value <= above:
        raise ValueError(f'{owner}: {name} must be larger than {above}, got {value}.')
    return float(value)


def check_range(
    owner: str,
    name: str,
    value: Sequence[float],
    low: float = -np.inf,
    high: float = np.inf,
    above: float | None = None,
) -> tuple[float, float]:
    """Return ``value`` as an ordered pair of floats inside the limits."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(
            f'{owner}: {name} must be a pair (lowest, highest), got {value!r}.'
        )
    first = check_number(owner, f'{name}[0]', value[0], low, high, above)
    second = check_number(owner, f'{name}[1]', value[1], low, high, above)
    if first > second:
        raise ValueError(
            f'{owner}: {name} must be ordered (lowest, highest), '
            f'got {value!r}; swap the two.'
        )
    return first, second


def check_probability(owner: str, name: str, value: float) -> float:
    """Return ``value`` as float when it is a probability."""
    return check_number(owner, name, value, 0.0, 1.0)


def check_size(owner: str, name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """Return an image size as ``(height, width)`` in pixels.

    Args:
        owner: Class that asks, for the message.
        name: Name of the argument, for the message.
        value: One side for a square, or ``(height, width)``.
    """
    pair = (value, value) if isinstance(value, int) else value
    if (
        isinstance(value, (bool, str))
        or not isinstance(pair, Sequence)
        or len(pair) != 2
        or not all(isinstance(n, int) for n in pair)
    ):
        raise TypeError(
            f'{owner}: {name} must be an int or a pair (height, '
            f'width) of ints, got {value!r}.'
        )
    if min(pair) < 1:
        raise ValueError(f'{owner}: {name} must be at least 1 pixel, got {value!r}.')
    return int(pair[0]), int(pair[1])


def get_rng(results: dict, owner: str) -> np.random.Generator:
    """Return the sample's own random generator.

    Every random transform draws from it and from nothing else, which makes
    an augmentation a function of (seed, epoch, sample) alone.

    Raises:
        KeyError: When the data set did not provide one.
    """
    rng = results.get('rng')
    if rng is None:
        raise KeyError(
            f"{owner}: the sample has no 'rng'. Random transforms draw from "
            "results['rng'] only, a numpy Generator which our data sets set "
            'from (seed, epoch, sample). With another data set, put '
            "results['rng'] = numpy.random.default_rng(...) first."
        )
    return rng


def as_float_image(image: np.ndarray, owner: str, colour: bool = False) -> np.ndarray:
    """Return an image as float32, without a copy where it is already.

    Args:
        image: Grey ``(H, W)``, or RGB ``(H, W, 3)`` where allowed.
        owner: Class that asks, for the message.
        colour: Whether RGB is allowed.

    Raises:
        ValueError: When the image has another shape.
    """
    if colour and image.ndim == 3 and image.shape[2] == 3:
        return image.astype(np.float32, copy=False)
    if image.ndim != 2:
        wanted = (
            'a grey (H, W) or an RGB (H, W, 3) image'
            if colour
            else 'one grey slice (H, W)'
        )
        raise ValueError(
            f'{owner}: img must be {wanted}, got shape {image.shape}'
            f'{"." if colour else "; this step works on grey values only."}'
        )
    return image.astype(np.float32, copy=False)


def sample_image(results: dict, owner: str, colour: bool = False) -> np.ndarray:
    """Return a sample's image as float32, without a copy where it is already.

    Args:
        results: The sample; ``channels`` names the channels of a store that has
            several.
        owner: Class that asks, for the message.
        colour: Whether RGB is allowed.

    Returns:
        Grey ``(H, W)``, the C channels of a store ``(H, W, C)``, or RGB
        ``(H, W, 3)`` where allowed.

    Raises:
        ValueError: When the image has another shape.
    """
    image, channels = results['img'], results.get('channels')
    if channels is None:
        return as_float_image(image, owner, colour)
    if image.ndim != 3 or image.shape[2] != len(channels):
        raise ValueError(
            f'{owner}: img must be (H, W, {len(channels)}), one plane per channel '
            f'{tuple(channels)}, got shape {image.shape}.'
        )
    return image.astype(np.float32, copy=False)


def by_channel(
    image: np.ndarray, change: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """Change the channels of an image one by one.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``.
        change: Takes a channel ``(H, W)`` and its number, returns a channel.
    """
    if image.ndim == 2:
        return change(image, 0)
    planes = [
        change(np.ascontiguousarray(image[..., number]), number)
        for number in range(image.shape[2])
    ]
    return np.stack(planes, axis=2)


class PaddedTransform(Transform):
    """A step whose result has a fixed size, and may show what is outside.

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        pad_value (float | str): Grey value outside the slice; 'minimum' takes
            the slice's.
        seg_pad_value (int): Label outside the slice, 0-255.
    """

    def __init__(
        self, size: int | Sequence[int], pad_value: float | str, seg_pad_value: int
    ) -> None:
        self.size = check_size(self.owner, 'size', size)
        if isinstance(pad_value, str) and pad_value != 'minimum':
            raise ValueError(
                f"{self.owner}: pad_value must be a number or 'minimum', "
                f'got {pad_value!r}.'
            )
        self.pad_value = (
            pad_value
            if isinstance(pad_value, str)
            else check_number(self.owner, 'pad_value', pad_value)
        )
        self.seg_pad_value = int(
            check_number(self.owner, 'seg_pad_value', seg_pad_value, 0, 255)
        )

    def fill_value(self, image: np.ndarray) -> float:
        """Grey value outside of an image."""
        if isinstance(self.pad_value, str):
            return float(image.min())
        return self.pad_value

    def check_label_shape(self, results: dict, key: str, image: np.ndarray) -> None:
        """Refuse a label map that lies on another grid than its image."""
        if results[key].shape != image.shape[:2]:
            raise ValueError(
                f'{self.owner}: {key} has shape {results[key].shape} but img '
                f'{image.shape[:2]} in {results.get("img_path")}; put {self.owner} '
                'before anything that resizes only one of them.'
            )


class Jitter(Transform):
    """A change that is made with a probability.

    A subclass tells how many numbers it draws, whether it takes RGB, and makes
    the change.
    """

    draws = 0
    colour = False

    def __init__(self, prob: float) -> None:
        self.prob = check_probability(self.owner, 'prob', prob)

    def change(self, image: np.ndarray, rng: Generator, drawn: Drawn) -> np.ndarray:
        """Return the changed image; the one given stays as it is."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Change the image, or leave it."""
        rng = get_rng(results, self.owner)
        chance, *drawn = rng.random(1 + self.draws).tolist()
        if chance < self.prob:
            image = sample_image(results, self.owner, self.colour)
            results['img'] = self.change(image, rng, drawn)
        return results
