"""The volume being painted, with partial volume at every edge."""

from collections.abc import Callable, Sequence

import numpy as np

from medssl_mm.phantom.shapes import Array, Shape

Window = tuple[slice, slice, slice]
# HU from x, y, z, depth below the surface (mm) and window.
Level = Callable[[Array, Array, Array, Array, Window], Array]

FAT, AIR, LUNG = -100.0, -1000.0, -850.0  # HU


def smooth_field(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing: Sequence[float],
    wavelength: float,
) -> np.ndarray:
    """Smooth random field of about unit deviation on the voxel grid.

    Cubic B-splines over control points ``wavelength`` mm apart. Sums run in
    a fixed order (no BLAS), so the result does not depend on threads.
    """
    from scipy.interpolate import BSpline

    bases = []
    for size, step in zip(shape, spacing, strict=True):
        knots = int(np.ceil(size * step / wavelength)) + 4
        offset = rng.uniform(0, 1)
        place = np.arange(size) * step / wavelength + offset
        design = BSpline.design_matrix(
            place + 3, np.arange(knots + 4, dtype=float), 3
        ).toarray()
        bases.append(design.astype(np.float32))
    control = rng.standard_normal([basis.shape[1] for basis in bases])
    field = np.einsum('xc,abc->abx', bases[2], control.astype(np.float32))
    field = np.einsum('yb,abx->ayx', bases[1], field)
    # 0.33 is the mean deviation of a cubic B-spline sum of white noise in 3D.
    return np.einsum('za,ayx->zyx', bases[0], field) / np.float32(0.33)


class Canvas:
    """The CT being painted, in canonical order (slice, row, column).

    Args:
        position (tuple): Three float32 arrays: x, y, z of every voxel in the
            patient frame, mm.
        softness (float): Width of the edge ramp, mm (partial volume).
        fields (list): Smooth unit fields used to roughen surfaces.
    """

    def __init__(
        self, position: tuple[Array, Array, Array], softness: float, fields: list[Array]
    ) -> None:
        self.position = position
        self.softness = softness
        self.fields = fields
        shape = position[0].shape
        self.image = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)
        # Range of each coordinate over the planes of its own grid axis: with
        # it a shape's box becomes index ranges without touching the volume.
        self.ranges = []
        for axis, values in ((0, position[2]), (1, position[1]), (2, position[0])):
            others = tuple(a for a in range(3) if a != axis)
            self.ranges.append((values.min(others), values.max(others)))

    def window(self, shape: Shape, margin: float) -> Window | None:
        """Index ranges that hold the shape, or None outside the grid."""
        window = []
        for axis, coordinate in ((0, 2), (1, 1), (2, 0)):
            low, high = self.ranges[axis]
            hit = np.flatnonzero(
                (high >= shape.low[coordinate] - margin)
                & (low <= shape.high[coordinate] + margin)
            )
            if not len(hit):
                return None
            window.append(slice(hit[0], hit[-1] + 1))
        return window[0], window[1], window[2]

    def paint(
        self,
        shape: Shape,
        hu: float | Array | Level,
        label: int | None = 0,
        rough: float = 0.0,
        mix: Sequence[float] | Array = (1.0, 0.0, 0.0),
        limit: Array | None = None,
        softness: float | None = None,
    ) -> None:
        """Blend a shape into the image and set its label.

        Args:
            shape: What to paint.
            hu: Value, or ``f(x, y, z, depth, window)`` with ``depth`` the
                distance below the surface, mm.
            label: Class index; None keeps the labels below (inner detail of an
                organ).
            rough: Amplitude of the surface roughness, mm.
            mix: Weights of the smooth fields in the roughness.
            limit: Distance of a region the shape may not leave, on the whole
                grid.
            softness: Width of the edge ramp, mm.
        """
        window = self.window(shape, rough * 2.5 + self.softness)
        if window is None:
            return
        x, y, z = (values[window] for values in self.position)
        distance = shape.distance(x, y, z)
        if rough:
            for weight, field in zip(mix, self.fields, strict=False):
                if weight:
                    distance = distance + rough * weight * field[window]
        if limit is not None:
            distance = np.maximum(distance, limit[window])
        self.blend(window, distance, hu, label, softness)

    def blend(
        self,
        window: Window,
        distance: Array,
        hu: float | Array | Level,
        label: int | None,
        softness: float | None = None,
    ) -> None:
        """Blend by signed distance inside one index window."""
        softness = softness or self.softness
        cover = np.clip(0.5 - distance / softness, 0, 1)
        if callable(hu):
            x, y, z = (values[window] for values in self.position)
            hu = hu(x, y, z, -distance, window)
        image = self.image[window]
        image += cover * (hu - image)
        if label is not None:
            self.label[window][distance < 0] = label
