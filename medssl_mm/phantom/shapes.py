"""Implicit surfaces in millimetres: ellipsoids, tubes, plates, and their sums."""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Array = np.ndarray


class Shape(NamedTuple):
    """An implicit surface: a box around it and its distance in mm.

    ``distance(x, y, z)`` is negative inside and approximately the Euclidean
    distance near the surface, which is what partial volume needs.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    distance: Callable


def ellipsoid(centre: ArrayLike, radii: ArrayLike, turn: float = 0.0) -> Shape:
    """Ellipsoid turned by ``turn`` degrees about z (x axis towards y)."""
    centre, radii = np.asarray(centre, float), np.asarray(radii, float)
    cosine, sine = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    reach = np.array(
        [
            np.hypot(radii[0] * cosine, radii[1] * sine),
            np.hypot(radii[0] * sine, radii[1] * cosine),
            radii[2],
        ]
    )

    def distance(x: Array, y: Array, z: Array) -> Array:
        x, y, z = x - centre[0], y - centre[1], z - centre[2]
        x, y = cosine * x + sine * y, cosine * y - sine * x
        x, y, z = x / radii[0], y / radii[1], z / radii[2]
        scaled = np.sqrt(x * x + y * y + z * z) + 1e-6
        slope = (
            np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2)
            + 1e-9
        )
        return scaled * (scaled - 1) / slope

    return Shape(tuple(centre - reach), tuple(centre + reach), distance)


def tube(curve: Sequence[Any] | Array, widths: ArrayLike, smooth: bool = True) -> Shape:
    """Tube along a curve through points whose radius (``widths``) varies linearly."""
    points: Array = np.asarray(curve, float)
    radii: Array = np.broadcast_to(np.asarray(widths, float), len(points))
    if smooth and len(points) > 2:
        from scipy.interpolate import PchipInterpolator

        steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
        # Clipped walks may stand still: the knots must still increase.
        place = np.concatenate([[0], np.cumsum(np.maximum(steps, 0.1))])
        fine = np.linspace(0, place[-1], 2 * len(points) + 1)
        points = PchipInterpolator(place, points)(fine)
        radii = np.interp(fine, place, radii)
    low = (points - radii[:, None]).min(0)
    high = (points + radii[:, None]).max(0)

    def distance(x: Array, y: Array, z: Array) -> Array:
        gaps = []
        for start, end, first, last in zip(
            points[:-1], points[1:], radii[:-1], radii[1:], strict=True
        ):
            along = end - start
            dx, dy, dz = x - start[0], y - start[1], z - start[2]
            share = dx * along[0] + dy * along[1] + dz * along[2]
            share = np.clip(share / max(along @ along, 1e-9), 0, 1)
            dx -= share * along[0]
            dy -= share * along[1]
            dz -= share * along[2]
            gap = np.sqrt(dx * dx + dy * dy + dz * dz)
            gap -= first + share * (last - first)
            gaps.append(gap)
        return reduce(np.minimum, gaps)

    return Shape(tuple(low), tuple(high), distance)


def plate(
    points: ArrayLike,
    thickness: float,
    z_low: float,
    z_high: float,
    lean: ArrayLike = (0.0, 0.0),
) -> Shape:
    """Thin upright sheet above a polyline in the axial plane.

    ``lean`` (mm per mm of height) shifts the polyline with z.
    """
    points, half = np.asarray(points, float), thickness / 2
    middle, tall = (z_low + z_high) / 2, (z_high - z_low) / 2
    lean = np.asarray(lean, float)
    spread = np.abs(lean) * tall + half
    low, high = points.min(0) - spread, points.max(0) + spread

    def distance(x: Array, y: Array, z: Array) -> Array:
        x = x - lean[0] * (z - middle)
        y = y - lean[1] * (z - middle)
        gaps = []
        for start, end in zip(points[:-1], points[1:], strict=True):
            along = end - start
            dx, dy = x - start[0], y - start[1]
            share = (dx * along[0] + dy * along[1]) / max(along @ along, 1e-9)
            share = np.clip(share, 0, 1)
            gap = np.hypot(dx - share * along[0], dy - share * along[1])
            gaps.append(gap)
        return np.maximum(reduce(np.minimum, gaps) - half, np.abs(z - middle) - tall)

    return Shape((*low, z_low), (*high, z_high), distance)


def union(*shapes: Shape, blend: float = 0.0) -> Shape:
    """Union, its seams rounded over ``blend`` mm."""
    low = np.min([shape.low for shape in shapes], axis=0) - blend / 4
    high = np.max([shape.high for shape in shapes], axis=0) + blend / 4

    def distance(x: Array, y: Array, z: Array) -> Array:
        total = shapes[0].distance(x, y, z)
        for shape in shapes[1:]:
            other = shape.distance(x, y, z)
            if blend:
                near = np.maximum(blend - np.abs(total - other), 0) / blend
                total = np.minimum(total, other) - near * near * blend / 4
            else:
                total = np.minimum(total, other)
        return total

    return Shape(tuple(low), tuple(high), distance)


def without(shape: Shape, *others: Shape) -> Shape:
    """``shape`` with ``others`` cut away."""

    def distance(x: Array, y: Array, z: Array) -> Array:
        total = shape.distance(x, y, z)
        for other in others:
            total = np.maximum(total, -other.distance(x, y, z))
        return total

    return shape._replace(distance=distance)
