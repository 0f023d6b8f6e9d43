"""What is drawn for one patient, and how organs of it are painted."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medssl_mm.phantom.canvas import Canvas, Level, Window
from medssl_mm.phantom.shapes import Array, Shape

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


class Patient:
    """The drawn traits of one patient, and how organs are painted with them."""

    canvas: Canvas  # what is painted, and of it:
    cavity: Array  # mm beyond the inner wall of the trunk
    below: Array  # mm below the diaphragm
    pancreas: Array  # course (6, 3), mm

    def __init__(self, rng: np.random.Generator) -> None:
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
        self.everything = (slice(None),) * 3

    def jitter(self, point: ArrayLike, deviation: float = 4.0) -> np.ndarray:
        """Move a point by a normal deviation, mm."""
        return np.asarray(point, float) + self.rng.normal(0, deviation, 3)

    def size(self, radii: ArrayLike, deviation: float = 0.1) -> np.ndarray:
        """Scale radii together, and half as much each by itself."""
        radii = np.asarray(radii, float)
        return (
            radii
            * np.exp(self.rng.normal(0, deviation))
            * np.exp(self.rng.normal(0, deviation / 2, radii.shape))
        )

    def mix(self) -> np.ndarray:
        """Draw weights of three smooth fields, of unit norm."""
        weights = self.rng.normal(size=3)
        return (weights / np.linalg.norm(weights)).astype(np.float32)

    def organ(
        self,
        name: str,
        shape: Shape,
        hu: float | Level,
        texture: float = 4.0,
        **options: Any,
    ) -> None:
        """Paint a labelled organ with a low-contrast parenchyma texture."""
        fine = self.canvas.fields[3]
        options.setdefault('rough', 1.5)
        options.setdefault('mix', self.mix())
        if not callable(hu):
            level = hu

            def hu(x: Array, y: Array, z: Array, depth: Array, window: Window) -> Array:
                return level + texture * fine[window]

        self.canvas.paint(shape, hu, INDEX[name], **options)

    def contents(
        self,
        wall_hu: float,
        wall: float,
        level: float,
        fluid_hu: float,
        gas_share: float,
        stool: float = 0.0,
    ) -> Level:
        """HU of a hollow organ: wall, fluid and gas with a level, stool."""
        fine = self.canvas.fields[3]

        def hu(x: Array, y: Array, z: Array, depth: Array, window: Window) -> Array:
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
        self,
        shape: Shape,
        wall_hu: float,
        wall: float,
        stool: float = 0.0,
        gas: float = 0.5,
        bright: float = 0.3,
        **options: Any,
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
            0,
            mix=self.mix(),
            **options,
        )

    def inner_detail(self, shape: Shape, hu: float, organ: Shape, limit: Array) -> None:
        """Paint inside an organ without touching its label."""
        kept = shape._replace(
            distance=lambda x, y, z: np.maximum(
                shape.distance(x, y, z), organ.distance(x, y, z) + 3
            )
        )
        self.canvas.paint(kept, hu, None, limit=limit)
