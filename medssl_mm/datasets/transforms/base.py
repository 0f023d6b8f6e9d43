"""What the transforms share: argument checks and the random generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Real

import numpy as np


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
        results: The sample; ``channels`` names the channels of a store that
            has several.
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
