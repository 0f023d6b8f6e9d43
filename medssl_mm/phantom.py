"""A procedural abdominal CT phantom, written as NIfTI files in HU.

The anatomy is a set of implicit surfaces in a patient frame (millimetres;
x to the patient's left, y to posterior, z to superior, origin at the first
lumbar vertebra). Every patient draws organ sizes, positions, contrast phase,
body size, fat, pose, field of view, slice spacing and noise from its own
random generator, so a case depends on ``(seed, index)`` and on nothing else.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_json, write_whole

ORGANS = (
    'spleen',
    'right kidney',
    'left kidney',
    'gallbladder',
    'esophagus',
    'liver',
    'stomach',
    'aorta',
    'inferior vena cava',
    'portal and splenic vein',
    'pancreas',
    'right adrenal gland',
    'left adrenal gland',
)
CLASSES = ('background', *ORGANS)
INDEX = {name: index for index, name in enumerate(CLASSES)}

# HU in the late arterial, portal venous and delayed phase; phase 1.4 lies
# between the portal venous and the delayed column.
_PHASE_HU = {
    'spleen': (135, 120, 100),
    'cortex': (205, 182, 160),
    'medulla': (105, 142, 158),
    'gallbladder': (10, 10, 12),
    'esophagus': (48, 52, 50),
    'liver': (78, 104, 94),
    'stomach': (85, 82, 74),
    'aorta': (265, 168, 130),
    'cava': (95, 135, 124),
    'portal': (125, 166, 130),
    'pancreas': (112, 94, 80),
    'adrenal': (82, 72, 62),
    'bowel': (92, 80, 70),
    'muscle': (56, 58, 58),
}
_FAT, _AIR, _LUNG = -100.0, -1000.0, -850.0


class Shape(NamedTuple):
    """An implicit surface: a box around it and its distance in mm.

    ``distance(x, y, z)`` is negative inside and approximately the Euclidean
    distance near the surface, which is what partial volume needs.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    distance: Callable


def ellipsoid(centre, radii, turn: float = 0.0) -> Shape:
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

    def distance(x, y, z):
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


def tube(points, radii, smooth: bool = True) -> Shape:
    """Tube along a curve through ``points`` whose radius varies linearly."""
    points = np.asarray(points, float)
    radii = np.broadcast_to(np.asarray(radii, float), len(points))
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

    def distance(x, y, z):
        nearest = None
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
            nearest = gap if nearest is None else np.minimum(nearest, gap)
        return nearest

    return Shape(tuple(low), tuple(high), distance)


def plate(
    points, thickness: float, z_low: float, z_high: float, lean=(0.0, 0.0)
) -> Shape:
    """Thin upright sheet above a polyline in the axial plane.

    ``lean`` (mm per mm of height) shifts the polyline with z.
    """
    points, half = np.asarray(points, float), thickness / 2
    middle, tall = (z_low + z_high) / 2, (z_high - z_low) / 2
    lean = np.asarray(lean, float)
    spread = np.abs(lean) * tall + half
    low, high = points.min(0) - spread, points.max(0) + spread

    def distance(x, y, z):
        x = x - lean[0] * (z - middle)
        y = y - lean[1] * (z - middle)
        nearest = None
        for start, end in zip(points[:-1], points[1:], strict=True):
            along = end - start
            dx, dy = x - start[0], y - start[1]
            share = (dx * along[0] + dy * along[1]) / max(along @ along, 1e-9)
            share = np.clip(share, 0, 1)
            gap = np.hypot(dx - share * along[0], dy - share * along[1])
            nearest = gap if nearest is None else np.minimum(nearest, gap)
        return np.maximum(nearest - half, np.abs(z - middle) - tall)

    return Shape((*low, z_low), (*high, z_high), distance)


def union(*shapes: Shape, blend: float = 0.0) -> Shape:
    """Union, its seams rounded over ``blend`` mm."""
    low = np.min([shape.low for shape in shapes], axis=0) - blend / 4
    high = np.max([shape.high for shape in shapes], axis=0) + blend / 4

    def distance(x, y, z):
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

    def distance(x, y, z):
        total = shape.distance(x, y, z)
        for other in others:
            total = np.maximum(total, -other.distance(x, y, z))
        return total

    return shape._replace(distance=distance)


def smooth_field(rng, shape, spacing, wavelength: float) -> np.ndarray:
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

    def __init__(self, position, softness: float, fields: list) -> None:
        self.position = position
        self.softness = softness
        self.fields = fields
        shape = position[0].shape
        self.image = np.full(shape, _AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)
        # Range of each coordinate over the planes of its own grid axis: with
        # it a shape's box becomes index ranges without touching the volume.
        self.ranges = []
        for axis, values in ((0, position[2]), (1, position[1]), (2, position[0])):
            others = tuple(a for a in range(3) if a != axis)
            self.ranges.append((values.min(others), values.max(others)))

    def window(self, shape: Shape, margin: float):
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
        return tuple(window)

    def paint(
        self,
        shape: Shape,
        hu,
        label: int | None = 0,
        rough: float = 0.0,
        mix=(1.0, 0.0, 0.0),
        limit=None,
        softness: float | None = None,
    ) -> None:
        """Blend a shape into the image and set its label.

        Args:
            shape (Shape): What to paint.
            hu (float | Callable): Value, or ``f(x, y, z, depth, window)``
                with ``depth`` the distance below the surface, mm.
            label (int | None): Class index; None keeps the labels below
                (inner detail of an organ). Defaults to 0.
            rough (float): Amplitude of the surface roughness, mm.
            mix (tuple): Weights of the smooth fields in the roughness.
            limit (np.ndarray | None): Distance of a region the shape may not
                leave, on the whole grid.
            softness (float | None): Width of the edge ramp, mm.
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

    def blend(self, window, distance, hu, label, softness=None) -> None:
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


def _rotation(degrees) -> np.ndarray:
    """Rotation matrix from angles about x, y, z in degrees."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        cosine, sine = np.cos(angle), np.sin(angle)
        step = np.eye(3)
        first, second = [a for a in range(3) if a != axis]
        step[first, first] = step[second, second] = cosine
        step[first, second], step[second, first] = -sine, sine
        matrix = step @ matrix
    return matrix


class _Patient:
    """The drawn traits of one patient and the painting of the anatomy."""

    def __init__(self, rng) -> None:
        self.rng = rng
        self.phase = float(np.clip(rng.normal(1.0, 0.45), 0, 2))
        self.hu = {
            name: np.interp(self.phase, (0, 1, 2), values) * rng.normal(1, 0.07)
            for name, values in _PHASE_HU.items()
        }
        # Fatty livers are darker than the spleen, others brighter.
        self.hu['liver'] -= max(0.0, rng.normal(-8, 28))
        self.fat = float(np.clip(rng.gamma(3.0, 6.5), 5, 48))
        self.wall = rng.uniform(10, 16)
        self.scale = np.array(
            [rng.normal(1, 0.06), rng.normal(1, 0.06), rng.normal(1, 0.05)]
        )
        self.half_width = rng.normal(128, 5) + 0.25 * self.fat
        self.half_depth = rng.normal(84, 4) + 0.25 * self.fat
        self.dome = rng.normal(100, 9)
        self.spine = rng.normal((0, 34), (2, 2))

    def jitter(self, point, deviation: float = 4.0) -> np.ndarray:
        return np.asarray(point, float) + self.rng.normal(0, deviation, 3)

    def size(self, radii, deviation: float = 0.1) -> np.ndarray:
        radii = np.asarray(radii, float)
        return (
            radii
            * np.exp(self.rng.normal(0, deviation))
            * np.exp(self.rng.normal(0, deviation / 2, radii.shape))
        )

    def mix(self) -> np.ndarray:
        weights = self.rng.normal(size=3)
        return (weights / np.linalg.norm(weights)).astype(np.float32)

    # The order of painting matters: later structures cover earlier ones.
    def paint(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self.everything = tuple(slice(None) for _ in range(3))
        self.paint_trunk()
        self.paint_spine()
        self.paint_bowel()
        self.paint_upper_organs()
        self.paint_kidneys()
        self.paint_pancreas()
        self.paint_vessels()

    def organ(self, name, shape, hu, texture: float = 4.0, **options) -> None:
        """Paint a labelled organ with a low-contrast parenchyma texture."""
        fine = self.canvas.fields[3]
        options.setdefault('rough', 1.5)
        options.setdefault('mix', self.mix())
        if not callable(hu):
            level = hu

            def hu(x, y, z, depth, window):
                return level + texture * fine[window]

        self.canvas.paint(shape, hu, INDEX[name], **options)

    def contents(self, wall_hu, wall, level, fluid_hu, gas_share, stool: float = 0.0):
        """HU of a hollow organ: wall, fluid and gas with a level, stool."""
        fine = self.canvas.fields[3]

        def hu(x, y, z, depth, window):
            inside = np.clip((depth - wall) / 2 + 0.5, 0, 1)
            # The patient lies on the back: gas rises to anterior (small y).
            gas = np.clip((level - y) / 2 + 0.5, 0, 1) * (gas_share > 0)
            value = fluid_hu + (-900 - fluid_hu) * gas
            if stool:
                bubbles = np.clip((fine[window] - 0.5) * 4, 0, 1)
                value = value + stool * fine[window] * (1 - gas)
                value = value - 500 * bubbles * (1 - gas)
            return wall_hu + (value - wall_hu) * inside

        return hu

    def hollow(
        self, shape, wall_hu, wall, label=0, stool=0.0, gas=0.5, bright=0.3, **options
    ) -> None:
        """Paint a hollow organ with random contents."""
        rng = self.rng
        fluid = rng.uniform(5, 45)
        if rng.random() < bright:
            fluid = rng.uniform(120, 380)
        has_gas = rng.random() < gas
        low, high = shape.low[1], shape.high[1]
        level = low + (high - low) * rng.uniform(0.15, 0.6)
        self.canvas.paint(
            shape,
            self.contents(wall_hu, wall, level, fluid, float(has_gas), stool),
            label,
            mix=self.mix(),
            **options,
        )

    def paint_trunk(self) -> None:
        rng, canvas = self.rng, self.canvas
        x, y, z = canvas.position
        width = self.half_width - 14 * np.clip((z - 60) / 60, 0, 1)
        depth = self.half_depth - 4 * np.clip((z - 60) / 60, 0, 1)
        power = 2.35
        reach = np.abs(x / width) ** power + np.abs(y / depth) ** power
        reach = reach ** (1 / power) + 1e-6
        radius = np.hypot(x, y)
        cavity = radius - radius / reach  # mm beyond the inner wall
        angle = np.arctan2(x, -y)  # 0 = anterior, +-pi = posterior
        side = np.abs(np.sin(angle))
        back = np.clip(-np.cos(angle), 0, 1)
        wall = self.wall * (0.75 + 0.45 * side + 0.3 * back)
        hips = 1 + 0.35 * np.clip((-z - 20) / 80, 0, 1)
        fat = self.fat * hips * (0.8 + 0.35 * back + 0.08 * canvas.fields[0])
        fat = np.maximum(fat, 3)
        skin = cavity - wall - fat
        self.cavity = cavity
        full = self.everything
        canvas.blend(full, skin, 20.0, 0)
        canvas.blend(full, skin + 2.2, _FAT, 0)
        # Fat planes between the layers of the wall muscles.
        layers = np.abs(np.sin(cavity / self.wall * 4.5 + canvas.fields[1]))
        muscle = self.hu['muscle'] - 55 * (layers < 0.25)
        canvas.blend(full, np.maximum(cavity - wall, -cavity), muscle, 0)
        canvas.blend(full, cavity, _FAT, 0)
        # Diaphragm: two domes, falling steeply to the back.
        right, left = self.dome, self.dome - rng.uniform(4, 14)
        fall = np.where(y > -10, 0.0072, 0.0042) * (y + 10) ** 2
        tops = [
            top - 0.009 * (x - middle) ** 2 - fall
            for top, middle in ((right, -68.0), (left, 68.0))
        ]
        dome = np.maximum(*tops)
        # Distance to the dome along z, shortened on its steep flanks.
        self.below = (z - dome) * 0.65
        lung = np.maximum(-self.below, cavity + 2)
        canvas.blend(full, np.maximum(lung - 4, cavity), self.hu['muscle'], 0)
        texture = _LUNG + 25 * canvas.fields[3] + 0.25 * (y + 60)
        middle = x - self.spine[0]
        mediastinum = np.minimum(
            np.hypot(middle - 6, (y - 20) * 0.7) - 28,
            np.hypot(np.maximum(np.abs(middle) - 34, 0), np.minimum(y - 76, 0)) - 20,
        )
        lung = np.maximum(lung, -mediastinum)
        canvas.blend(full, lung, texture, 0)
        for _ in range(26):
            start = rng.uniform((-110, -60, 70), (110, 70, 130))
            step = rng.normal(0, 18, 3)
            canvas.paint(
                tube([start, start + step], (2.6, 1.2)), 40.0, 0, limit=lung + 3
            )
        heart = ellipsoid(
            self.jitter((22, -38, self.dome + 28), 3), self.size((60, 42, 40), 0.06), 25
        )
        canvas.paint(
            heart,
            lambda x, y, z, depth, window: np.where(
                depth > 9, self.hu['aorta'] * 0.9, 95.0
            ),
            0,
            rough=2,
            limit=cavity + 6,
        )
        # Ribs: bands in the chest wall that fall from back to front.
        pitch = rng.uniform(24, 29)
        turn = np.abs(angle) / np.pi  # 0 anterior, 1 posterior
        course = z + 118 * (turn - 0.9) + 10
        phase = np.abs((course + rng.uniform(0, pitch)) % pitch - pitch / 2)
        shell = np.abs(cavity - wall * 0.42) - np.minimum(wall * 0.3, 4.2)
        rib = np.maximum(shell, (phase - 5.5) * 0.8)
        arch = 36 - 84 * turn  # the costal margin: no ribs below it
        rib = np.maximum(rib, (arch - z) * 0.5)
        rib = np.maximum(rib, (turn - 0.93) * 90)
        bone = np.where(rib < -2.2, 260.0, 620.0)
        bone = np.where(turn < 0.3, 130.0, bone)  # cartilage in front
        canvas.blend(full, rib, bone, 0)

    def paint_spine(self) -> None:
        rng, canvas = self.rng, self.canvas
        sx, sy = self.spine
        muscle, pitch = self.hu['muscle'], rng.uniform(33, 37)
        marrow, fine = rng.uniform(130, 260), canvas.fields[3]

        def streaky(x, y, z, depth, window):
            value = muscle + 10 * canvas.fields[3][window]
            return np.where(canvas.fields[3][window] > 1.6, -40.0, value)

        top = 160.0
        for side in (-1, 1):
            canvas.paint(
                tube(
                    [(sx + side * 34, sy + 40, -170), (sx + side * 34, sy + 40, top)],
                    self.size((25, 20), 0.06),
                    False,
                ),
                streaky,
                0,
                rough=2,
            )
            psoas = tube(
                [
                    (sx + side * 62, sy - 22, -150),
                    (sx + side * 44, sy - 4, -70),
                    (sx + side * 34, sy + 2, 0),
                    (sx + side * 27, sy + 8, 45),
                ],
                self.size((28, 22, 13, 4), 0.08),
            )
            canvas.paint(psoas, streaky, 0, rough=1.5, mix=self.mix())
            loins = ellipsoid(
                (sx + side * 66, sy + 28, -55), self.size((19, 9, 62), 0.08), -side * 20
            )
            canvas.paint(loins, streaky, 0, rough=1)
            crus = plate(
                [
                    (sx + side * 8, sy - 20),
                    (sx + side * 21, sy - 14),
                    (sx + side * 24, sy + 2),
                ],
                6,
                5,
                75,
            )
            canvas.paint(crus, muscle, 0)
            wing = plate(
                [(side * 58, 66), (side * 92, 48), (side * 124, 2), (side * 118, -36)],
                rng.uniform(11, 15),
                -220,
                -98 + rng.uniform(-8, 10),
                (-0.2 * side, 0.15),
            )
            canvas.paint(
                wing,
                lambda x, y, z, depth, window: np.where(depth > 3, marrow * 1.1, 700.0),
                0,
                rough=1,
            )
            gluteus = plate(
                [(side * 80, 78), (side * 128, 45), (side * 145, 0)],
                30,
                -260,
                -110,
                (-0.2 * side, 0.15),
            )
            canvas.paint(gluteus, streaky, 0, limit=self.cavity - self.wall)
        start = -170 + rng.uniform(0, pitch)
        for middle in np.arange(start, top, pitch):
            radii = self.size((23, 16.5), 0.03)
            body = tube(
                [(sx, sy, middle - pitch * 0.36), (sx, sy, middle + pitch * 0.36)],
                1.0,
                False,
            )

            def inside(x, y, z, m=middle, r=radii):
                flat = np.hypot((x - sx) / r[0], (y - sy) / r[1])
                waist = 1 - 0.06 * np.cos((z - m) / pitch * 2 * np.pi)
                return np.maximum((flat - waist) * r[1], np.abs(z - m) - pitch * 0.5)

            disc = Shape(
                (sx - 26, sy - 20, middle - pitch / 2),
                (sx + 26, sy + 20, middle + pitch / 2),
                inside,
            )
            canvas.paint(disc, 85.0, 0)

            def vertebra(x, y, z, m=middle, solid=inside):
                return np.maximum(solid(x, y, z), np.abs(z - m) - pitch * 0.38)

            body = disc._replace(distance=vertebra)
            canvas.paint(
                body,
                lambda x, y, z, depth, window: np.where(
                    depth > 2.2, marrow + 25 * fine[window], 480.0
                ),
                0,
            )
            arch = plate(
                [
                    (sx - 14, sy + 15),
                    (sx - 13, sy + 30),
                    (sx, sy + 40),
                    (sx + 13, sy + 30),
                    (sx + 14, sy + 15),
                ],
                8,
                middle - 8,
                middle + 9,
            )
            spinous = plate([(sx, sy + 38), (sx, sy + 62)], 7, middle - 14, middle + 4)
            transverse = plate(
                [(sx - 40, sy + 24), (sx - 14, sy + 20)], 7, middle - 5, middle + 5
            )
            other = plate(
                [(sx + 14, sy + 20), (sx + 40, sy + 24)], 7, middle - 5, middle + 5
            )
            for part in (arch, spinous, transverse, other):
                canvas.paint(
                    part,
                    lambda x, y, z, depth, window: np.where(
                        depth > 2.5, marrow * 1.2, 560.0
                    ),
                    0,
                )
        canal = tube([(sx, sy + 25, -170), (sx, sy + 25, top)], 8.0, False)
        canvas.paint(
            canal, lambda x, y, z, depth, window: np.where(depth > 2.5, 35.0, -20.0), 0
        )

    def paint_bowel(self) -> None:
        rng, canvas = self.rng, self.canvas
        wall, inner = self.hu['bowel'], self.cavity + 3
        for _ in range(24):  # mesenteric vessels in the fat
            start = rng.uniform((-55, -65, -120), (60, 0, 5))
            canvas.paint(
                tube([start, start + rng.normal(0, 20, 3)], (2.6, 1.6)),
                self.hu['portal'] * 0.8,
                0,
            )
        loops = rng.integers(20, 36)
        for _ in range(loops):
            start = rng.uniform((-75, -66, -150), (88, -8, -6))
            walk = start + np.cumsum(rng.normal(0, (22, 14, 16), (4, 3)), 0)
            walk = np.clip(walk, (-95, -70, -160), (98, 0, 0))
            self.hollow(
                tube([start, *walk], rng.uniform(8.5, 13.5)),
                wall,
                2.4,
                gas=0.25,
                bright=0.3,
                rough=1.5,
                limit=inner,
            )
        stool = rng.uniform(20, 60)
        z = rng.normal(0, 8)
        courses = (
            ([(-96, 8, -160), (-99, 14, -105), (-98, 12, -70), (-92, -8, -40)], 22.0),
            (
                [
                    (-90, -22, -42),
                    (-62, -60, -38 + z),
                    (-8, -72, -52 + z),
                    (48, -66, -34 + z),
                    (86, -42, 6),
                ],
                17.0,
            ),
            (
                [
                    (98, -12, 26),
                    (110, 24, 0),
                    (106, 26, -60),
                    (98, 12, -110),
                    (78, -8, -165),
                ],
                14.0,
            ),
        )
        for points, radius in courses:
            points = np.array([self.jitter(point, 5) for point in points])
            # Haustra: the radius pulsates along the colon.
            dense = np.repeat(points, 2, axis=0)[:-1].astype(float)
            dense[1::2] = (points[:-1] + points[1:]) / 2
            radii = radius * rng.uniform(0.72, 1.2, len(dense))
            self.hollow(
                tube(dense, radii),
                wall * 0.9,
                2.6,
                stool=stool,
                gas=0.65,
                bright=0.2,
                rough=2.5,
                limit=inner,
            )

    def paint_upper_organs(self) -> None:
        rng, hu = self.rng, self.hu
        limit = np.maximum(self.cavity + 2.5, self.below + 2.5)
        reach = rng.normal(0, 12)  # how far the left lobe goes to the left
        right = ellipsoid(self.jitter((-82, -2, 34)), self.size((74, 92, 84), 0.07))
        left = ellipsoid(
            self.jitter((2 + reach, -58, 52)), self.size((70, 36, 38), 0.1), 8
        )
        caudate = ellipsoid(self.jitter((-22, -10, 48), 2), (22, 18, 24))
        porta = ellipsoid(self.jitter((-34, -18, -12), 3), (38, 44, 40), -20)
        fissure = plate([(-22 + reach / 3, -84), (-26, -42)], 5, -60, 62)
        stomach = union(
            ellipsoid(self.jitter((62, 2, 62)), self.size((36, 40, 32))),
            ellipsoid(self.jitter((62, -30, 30)), self.size((27, 34, 40))),
            tube(
                [
                    self.jitter((60, -50, 6)),
                    self.jitter((22, -58, -8)),
                    self.jitter((-16, -50, 2)),
                ],
                self.size((20, 17, 12), 0.08),
            ),
            blend=14,
        )
        liver = without(union(right, left, caudate, blend=10), porta, fissure)
        self.organ('liver', liver, hu['liver'], 3.5, limit=limit, rough=2.5)
        inside = limit + 6
        for start, end, level in (
            ((-26, 2, 74), (-88, -30, 60), hu['cava']),
            ((-26, 2, 76), (-40, -58, 58), hu['cava']),
            ((-26, 2, 72), (8, -52, 60), hu['cava']),
            ((-42, -14, 34), (-92, 10, 40), hu['portal']),
            ((-44, -16, 34), (-84, -42, 22), hu['portal']),
            ((-44, -16, 36), (-2, -54, 48), hu['portal']),
        ):
            bend = self.jitter((np.array(start) + end) / 2, 7)
            branch = tube([start, bend, self.jitter(end, 6)], (5, 3.8, 2))
            self.inner_detail(branch, level, liver, inside)
        for _ in range(rng.poisson(0.9)):  # cysts and metastases
            place = self.jitter((-80, -5, 35), 26)
            self.inner_detail(
                ellipsoid(place, self.size((9, 9, 9), 0.4)),
                rng.choice([8.0, hu['liver'] - 40]),
                liver,
                inside,
            )
        spleen = without(
            ellipsoid(self.jitter((98, 30, 46)), self.size((34, 54, 52), 0.12), 18),
            ellipsoid(self.jitter((62, 12, 40), 3), (36, 44, 60), 10),
        )
        mottled = 14 * max(0.0, 0.8 - self.phase)  # arterial moire
        self.organ('spleen', spleen, hu['spleen'], 3.5 + mottled, limit=limit)
        level = rng.uniform(-40, 10)
        fluid = rng.choice([rng.uniform(0, 50), rng.uniform(150, 300)], p=(0.75, 0.25))
        full = self.contents(
            hu['stomach'],
            rng.uniform(3, 6),
            level,
            fluid,
            float(rng.random() < 0.8),
            stool=rng.choice([0.0, 25.0]),
        )
        self.organ('stomach', stomach, full, limit=limit, rough=2.5)
        if rng.random() < 0.92:  # otherwise removed by surgery
            gallbladder = union(
                ellipsoid(
                    self.jitter((-56, -50, -10), 3), self.size((15, 20, 24), 0.16), 20
                ),
                ellipsoid((-48, -32, 8), (8, 10, 12)),
                blend=10,
            )
            self.organ(
                'gallbladder',
                gallbladder,
                hu['gallbladder'],
                2.0,
                limit=self.cavity + 4,
                rough=1.0,
            )
        duodenum = tube(
            [
                (-20, -50, 4),
                (-44, -40, 2),
                (-50, -18, -22),
                (-40, -6, -46),
                (-6, -4, -52),
                (26, -10, -42),
            ],
            self.size((11, 12, 12, 12, 10, 10), 0.08),
        )
        self.hollow(duodenum, hu['bowel'], 3, gas=0.4, rough=1.5)
        esophagus = tube(
            [
                (4, -2, 150),
                self.jitter((9, -6, 105), 2),
                self.jitter((18, -8, 84), 2),
                (36, -8, 68),
            ],
            self.size((8, 8, 8, 9), 0.08),
        )
        lumen = rng.random() < 0.4
        self.organ(
            'esophagus',
            esophagus,
            lambda x, y, z, depth, window: np.where(
                (depth > 5.5) & lumen, -400.0, hu['esophagus']
            ),
            rough=1.0,
        )

    def inner_detail(self, shape, hu, organ, limit) -> None:
        """Paint inside an organ without touching its label."""
        kept = shape._replace(
            distance=lambda x, y, z: np.maximum(
                shape.distance(x, y, z), organ.distance(x, y, z) + 3
            )
        )
        self.canvas.paint(kept, hu, None, limit=limit)

    def paint_kidneys(self) -> None:
        rng, canvas, hu = self.rng, self.canvas, self.hu
        for side, name, middle in (
            (-1, 'right kidney', -16.0),
            (1, 'left kidney', 2.0),
        ):
            centre = self.jitter((side * 66, 28, middle), 5)
            radii = self.size((27, 25, 54), 0.09)
            lean = rng.normal(0.16, 0.04)  # upper pole medial
            body = ellipsoid(centre, radii, -side * 25)

            def leaning(shape, c=centre, k=side * lean):
                def distance(x, y, z):
                    return shape.distance(x + k * (z - c[2]), y + 0.12 * (z - c[2]), z)

                low, high = np.array(shape.low), np.array(shape.high)
                return Shape(
                    tuple(low - (10, 8, 0)), tuple(high + (10, 8, 0)), distance
                )

            hilum = centre - (side * 21, 10, 0)
            sinus = ellipsoid(hilum, (19, 12, 26), -side * 25)
            kidney = leaning(without(body, sinus))
            clear = ellipsoid(centre, radii * 0.62, -side * 25)
            clear = leaning(clear)

            def parenchyma(x, y, z, depth, window, clear=clear):
                deep = clear.distance(x, y, z)
                pyramid = np.clip(1.2 - deep / 3, 0, 1)
                pyramid *= np.clip(canvas.fields[3][window] * 2 + 1.2, 0, 1)
                return hu['cortex'] + (hu['medulla'] - hu['cortex']) * pyramid

            # Perirenal fat keeps the neighbours apart.
            capsule = ellipsoid(centre, radii + rng.uniform(1.5, 7), -side * 25)
            canvas.paint(
                leaning(capsule), _FAT, 0, rough=1.5, mix=self.mix(), limit=self.cavity
            )
            self.organ(name, kidney, parenchyma, rough=1.5)
            canvas.paint(leaning(sinus), _FAT, 0)
            pelvis = ellipsoid(hilum, self.size((11, 6, 14), 0.15), -side * 25)
            excreted = 12 if self.phase < 1.6 else 320
            canvas.paint(leaning(pelvis), float(excreted), 0)
            for _ in range(rng.poisson(0.35)):
                angle = rng.uniform(0, 2 * np.pi)
                place = centre + (
                    side * 18 * abs(np.cos(angle)),
                    18 * np.sin(angle),
                    rng.normal(0, 20),
                )
                self.organ(name, ellipsoid(place, self.size((9, 9, 9), 0.4)), 6.0, 2.0)

    def paint_pancreas(self) -> None:
        rng, hu = self.rng, self.hu
        lobules = 12 + 22 * rng.random()
        offset = rng.normal(0, 5, 3)
        course = np.array(
            [
                (-30, -16, -26),
                (-27, -20, -6),
                (-10, -32, 10),
                (14, -34, 18),
                (44, -16, 26),
                (76, 6, 38),
            ]
        )
        self.pancreas = course + offset
        self.organ(
            'pancreas',
            tube(self.pancreas, self.size((12, 15, 10, 9.5, 9.5, 8), 0.1)),
            hu['pancreas'],
            lobules * 0.7,
            rough=2.4,
        )

    def paint_vessels(self) -> None:
        rng, hu, jitter = self.rng, self.hu, self.jitter
        sx, sy = self.spine
        width = rng.normal(10.5, 1.3)
        front = sy - 16.5 - width  # just before the vertebrae
        aorta_x = sx + rng.normal(9, 3)
        calcified = rng.random() < 0.3
        fine = self.canvas.fields[3]
        aorta = union(
            tube(
                [
                    (aorta_x + 8, front + 10, 150),
                    (aorta_x + 6, front + 7, 95),
                    (aorta_x, front, 40),
                    (aorta_x - 1, front, -30),
                    (aorta_x - 4, front - 2, -86),
                ],
                (width * 1.1, width * 1.08, width, width * 0.9, width * 0.85),
            ),
            tube(
                [
                    (aorta_x - 4, front - 2, -84),
                    (sx + 20, front + 2, -115),
                    (sx + 42, front + 6, -150),
                ],
                width * 0.58,
            ),
            tube(
                [
                    (aorta_x - 4, front - 2, -84),
                    (sx - 18, front + 2, -115),
                    (sx - 42, front + 6, -150),
                ],
                width * 0.58,
            ),
        )

        def lumen(x, y, z, depth, window):
            value = np.where(depth < 1.2, 70.0, hu['aorta'])
            if calcified:
                value = np.where(
                    (depth < 3) & (fine[window] > 1.3) & (z < 20), 750.0, value
                )
            return value

        cava_x = sx - rng.normal(23, 2.5)
        flat = rng.uniform(0.62, 1.0)
        course = tube(
            [
                (cava_x, front + 2, -150),
                (cava_x, front + 1, -60),
                (cava_x, front, 5),
                (cava_x - 3, front - 3, 40),
                (cava_x - 2, front - 9, 85),
                (cava_x + 4, front - 14, self.dome + 10),
            ],
            self.size((11, 11.5, 12.5, 13, 13, 12.5), 0.07),
        )
        cava = course._replace(
            distance=lambda x, y, z: course.distance(x, front + (y - front) / flat, z)
        )
        for side, z_level in ((-1, -8.0), (1, 4.0)):
            hilum = (side * 48, 20, z_level - 3)
            start = (cava_x, front, z_level)
            middle = jitter((sx + side * 26, front - 8, z_level), 2)
            self.canvas.paint(
                tube([start, middle, hilum], (5.2, 4.8, 4)), hu['cava'] * 1.08, 0
            )
            self.canvas.paint(
                tube(
                    [
                        (aorta_x, front, z_level + 5),
                        (sx + side * 30, front + 8, z_level + 2),
                        hilum,
                    ],
                    2.8,
                ),
                hu['aorta'],
                0,
            )
        for name, shape in (
            (
                'right adrenal gland',
                plate(
                    [(-29, 17), (-34, 26), (-39, 37)],
                    rng.uniform(4.6, 6.4),
                    24,
                    52,
                    (0.1, 0.15),
                ),
            ),
            (
                'left adrenal gland',
                union(
                    plate(
                        [(30, 6), (34, 16), (32, 30)],
                        rng.uniform(4.6, 6.2),
                        14,
                        42,
                        (0.1, 0.1),
                    ),
                    plate(
                        [(34, 14), (43, 26)], rng.uniform(4.4, 6.0), 12, 38, (0.1, 0.1)
                    ),
                    blend=2,
                ),
            ),
        ):
            moved = rng.normal(0, 2.5, 3)
            shifted = Shape(
                tuple(shape.low + moved),
                tuple(shape.high + moved),
                lambda x, y, z, s=shape, m=moved: s.distance(
                    x - m[0], y - m[1], z - m[2]
                ),
            )
            self.organ(name, shifted, hu['adrenal'], rough=0.4)
        # The veins run behind the pancreas (posterior = larger y).
        behind = self.pancreas + (0, 9, 2)
        meeting = behind[2] + (0, 3, -2)
        mesenteric = meeting + (2, 0, -3)
        self.canvas.paint(
            tube(
                [mesenteric, mesenteric + (2, -6, -32), mesenteric + (6, -14, -75)],
                (6, 5.5, 4),
            ),
            hu['portal'],
            0,
        )
        self.canvas.paint(
            tube(
                [
                    (aorta_x, front - 8, 12),
                    mesenteric + (18, 4, -10),
                    mesenteric + (24, -8, -75),
                ],
                (4.2, 3.8, 3),
            ),
            hu['aorta'],
            0,
        )
        self.canvas.paint(
            tube(
                [(aorta_x, front - 6, 30), (aorta_x, front - 24, 32), (-26, -22, 34)],
                (4.4, 4, 2.6),
            ),
            hu['aorta'],
            0,
        )
        portal = union(
            tube(
                [meeting, meeting + (-14, 2, 12), (-44, -15, 35)],
                self.size((7.4, 7.6, 7), 0.08),
            ),
            tube(
                [meeting, behind[3], behind[4], behind[5], behind[5] + (10, 9, 4)],
                self.size((5.6, 4.8, 4.8, 4.4, 3.8), 0.08),
            ),
        )
        self.organ('portal and splenic vein', portal, hu['portal'], rough=0.5)
        self.organ('inferior vena cava', cava, hu['cava'], 4.0, rough=0.8)
        self.organ('aorta', aorta, lumen, rough=0.4)


def _scan(rng, size: int) -> dict:
    """Draw the acquisition: grid, spacing, pose, orientation, noise."""
    step = rng.uniform(3.5, 8.0)
    cover = rng.uniform(150, 215)
    slices = int(np.clip(round(cover / step), 24, 36))
    code = rng.choice(['RAS', 'LAS', 'LPS'], p=(0.5, 0.35, 0.15))
    return dict(
        slices=slices,
        step=step,
        code=str(code),
        turn=rng.normal(0, (2.0, 2.0, 4.0)),
        shift=rng.normal(0, (9, 9, 0)) + (0, 0, rng.normal(8, 14)),
        margin=rng.uniform(1.02, 1.32),
        isocentre=rng.uniform((-20, -220, -900), (20, -140, -300)),
        noise=rng.uniform(8, 26),
        blur=rng.uniform(0.35, 0.75),
        grain=rng.uniform(0.55, 1.0),
        circle=rng.random() < 0.4,
    )


def make_phantom_case(
    seed: int, index: int, size: int = 160, oblique: bool | None = None
):
    """Make one patient.

    Args:
        seed (int): Seed of the whole set.
        index (int): Number of the patient, from 0; the case depends on
            ``(seed, index, size, oblique)`` only.
        size (int): In-plane matrix. Defaults to 160.
        oblique (bool | None): Whether the scan grid is turned against the
            world axes; None means every tenth patient (4, 14, ...).

    Returns:
        tuple: image ``(X, Y, Z)`` int16 in HU, label ``(X, Y, Z)`` uint8 with
        the 13 classes of :data:`ORGANS`, affine (4, 4) to RAS+ world in mm.

    Raises:
        UserError: ``size`` under 32 or a negative ``index``.
    """
    if size < 32:
        raise UserError(
            f'size={size} is too small for an anatomy; the '
            'in-plane matrix must be at least 32.'
        )
    if index < 0:
        raise UserError(f'index={index} must not be negative.')
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng((seed, index))
    patient, scan = _Patient(rng), _scan(rng, size)
    if oblique is None:
        oblique = index % 10 == 4
    tilt = np.array((9.0, 0, 4.0)) * rng.choice([-1, 1], 3) * oblique

    body = 2 * (patient.half_width + patient.wall + patient.fat)
    view = body * patient.scale[0] * scan['margin']
    spacing = (scan['step'], view / size, view / size)
    shape = (scan['slices'], size, size)
    grid = _rotation(tilt)
    centred = [
        (np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)
    ]
    # World (left, posterior, superior) -> patient frame; explicit sums keep
    # the bytes independent of the BLAS in use.
    inverse = _rotation(scan['turn']).T @ grid
    deform = [smooth_field(rng, shape, spacing, 62) * 4.5 for _ in range(3)]
    x, y, z = (
        centred[2][None, None],
        centred[1][None, :, None],
        centred[0][:, None, None],
    )
    position = []
    for axis in range(3):
        values = inverse[axis, 0] * x + inverse[axis, 1] * y + inverse[axis, 2] * z
        values = (values + scan['shift'][axis]) / patient.scale[axis]
        position.append((values + deform[axis]).astype(np.float32))
    fields = [
        smooth_field(rng, shape, spacing, 40),
        smooth_field(rng, shape, spacing, 28),
        smooth_field(rng, shape, spacing, 20),
        smooth_field(rng, shape, spacing, 9),
    ]
    canvas = Canvas(tuple(position), max(spacing[1], 1.5), fields)
    patient.paint(canvas)

    image = canvas.image
    _paint_table(image, x, y, rng)
    image = gaussian_filter(image, (0.25, scan['blur'], scan['blur']))
    # CT noise is band-passed (ramp filter) and grows towards the middle of
    # the body, where fewest photons arrive.
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise = gaussian_filter(
        noise, (0.3, scan['grain'], scan['grain'])
    ) - 0.7 * gaussian_filter(noise, (0.3, 2.2, 2.2))
    noise *= scan['noise'] / noise.std()
    centre = np.hypot(position[0] / 150, position[1] / 105)
    image += noise * np.clip(1.25 - 0.45 * centre, 0.5, None)
    if scan['circle']:
        outside = np.hypot(x, y)[0] > view / 2
        image[:, outside] = -1024
    image = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return _to_file_order(
        image, canvas.label, spacing, grid, scan['isocentre'], scan['code']
    )


def _paint_table(image, x, y, rng) -> None:
    """Add the couch below the patient, in scanner coordinates."""
    air = image < -900
    rows = np.flatnonzero((~air).any((0, 2)))
    if not len(rows):
        return
    back = y[0, rows[-1], 0] + rng.uniform(1, 4)
    sag = np.abs(x / 210) ** 2 * 34
    upper = back - sag
    depth = (y - upper)[0]  # (H, W)
    shell = np.minimum(np.abs(depth - 2), np.abs(depth - 24))
    shell = np.clip(1.3 - shell / (y[0, 1, 0] - y[0, 0, 0]), 0, 1)
    core = (depth > 0) & (depth < 26) & (np.abs(x) < 205)[0]
    table = np.where(core, -880 + 800 * shell, _AIR)
    image[...] = np.where(air & (table > _AIR)[None], table[None], image)


def _to_file_order(image, label, spacing, grid, isocentre, code: str):
    """Turn canonical (Z, Y, X) arrays into a file of the wanted axis codes.

    The left/right and anterior/posterior signs go into the affine, so that
    every orientation shows the same patient in world coordinates.
    """
    image, label = image.transpose(2, 1, 0), label.transpose(2, 1, 0)
    steps = np.array(spacing[::-1])
    to_ras = np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras @ grid * steps
    middle = (np.array(image.shape) - 1) / 2
    affine[:3, 3] = isocentre - affine[:3, :3] @ middle
    for axis, letter in enumerate(code):
        if letter == 'LPS'[axis]:
            continue
        image, label = np.flip(image, axis), np.flip(label, axis)
        affine[:3, 3] += affine[:3, axis] * (image.shape[axis] - 1)
        affine[:3, axis] *= -1
    return (np.ascontiguousarray(image), np.ascontiguousarray(label), affine)


def _write_nifti(path: Path, array, affine) -> None:
    import nibabel

    volume = nibabel.Nifti1Image(array, affine)
    volume.header.set_xyzt_units('mm')
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    # mtime=0: the same patient is the same file, byte for byte.
    write_whole(path, gzip.compress(volume.to_bytes(), 1, mtime=0))


def _write_case(out_dir: Path, seed: int, index: int, size: int) -> None:
    image_path = out_dir / 'img' / f'img{index + 1:04d}.nii.gz'
    label_path = out_dir / 'label' / f'label{index + 1:04d}.nii.gz'
    if image_path.exists() and label_path.exists():
        return
    image, label, affine = make_phantom_case(seed, index, size)
    _write_nifti(label_path, label, affine)
    _write_nifti(image_path, image, affine)


def write_phantom(
    out_dir,
    num_patients: int = 24,
    seed: int = 0,
    size: int = 160,
    jobs: int | None = None,
) -> Path:
    """Write ``img/imgNNNN.nii.gz`` and ``label/labelNNNN.nii.gz`` pairs.

    The layout and the class indices are BTCV's. Existing files of the same
    settings are kept, so an interrupted run goes on where it stopped.

    Args:
        out_dir (str | Path): Folder to write to; made if absent.
        num_patients (int): Number of patients. Defaults to 24.
        seed (int): Seed of the set. Defaults to 0.
        size (int): In-plane matrix. Defaults to 160.
        jobs (int, optional): Processes; the files do not depend on it.
            Defaults to None: as the surrounding ``joblib.parallel_config``
            says, else 1.

    Returns:
        Path: The folder.

    Raises:
        UserError: The folder holds a phantom of another seed or size, or
            ``num_patients`` is under 1.
    """
    from joblib import Parallel, delayed

    if num_patients < 1:
        raise UserError(f'num_patients={num_patients} must be at least 1.')
    out_dir = Path(out_dir)
    record = out_dir / 'phantom.json'
    settings = dict(seed=seed, size=size, version=1)
    if record.is_file():
        found = json.loads(record.read_text())
        if found != settings:
            raise UserError(
                f'{out_dir} holds a phantom made with {found}, asked for '
                f'{settings}; choose another folder or delete this one.'
            )
    for folder in ('img', 'label'):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    write_json(record, settings, indent=None)
    Parallel(n_jobs=jobs)(
        delayed(_write_case)(out_dir, seed, index, size)
        for index in range(num_patients)
    )
    return out_dir
