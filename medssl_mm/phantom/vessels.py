"""Aorta, veins, adrenal glands and portal system."""

import numpy as np

from medssl_mm.phantom.canvas import Level, Window
from medssl_mm.phantom.patient import Patient
from medssl_mm.phantom.shapes import Array, Shape, plate, tube, union


def paint_vessels(patient: Patient) -> None:
    """Paint the great vessels, the renal and portal ones, and the adrenals."""
    rng, hu = patient.rng, patient.hu
    sx, sy = patient.spine
    width = rng.normal(10.5, 1.3)
    front = sy - 16.5 - width  # just before the vertebrae
    aorta_x = sx + rng.normal(9, 3)
    calcified = rng.random() < 0.3
    cava_x = sx - rng.normal(23, 2.5)
    cava = _cava_shape(patient, cava_x, front)
    for side, z_level in ((-1, -8.0), (1, 4.0)):
        _paint_renal_vessels(patient, side, z_level, cava_x, aorta_x, front)
    _paint_adrenals(patient)
    portal = _paint_portal_system(patient, aorta_x, front)
    patient.organ('portal and splenic vein', portal, hu['portal'], rough=0.5)
    patient.organ('inferior vena cava', cava, hu['cava'], 4.0, rough=0.8)
    aorta = _aorta_shape(aorta_x, front, width, sx)
    patient.organ('aorta', aorta, _lumen(patient, calcified), rough=0.4)


def _aorta_shape(aorta_x: float, front: float, width: float, sx: float) -> Shape:
    return union(
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


def _lumen(patient: Patient, calcified: bool) -> Level:
    fine = patient.canvas.fields[3]

    def lumen(x: Array, y: Array, z: Array, depth: Array, window: Window) -> Array:
        value = np.where(depth < 1.2, 70.0, patient.hu['aorta'])
        if calcified:
            value = np.where(
                (depth < 3) & (fine[window] > 1.3) & (z < 20), 750.0, value
            )
        return value

    return lumen


def _cava_shape(patient: Patient, cava_x: float, front: float) -> Shape:
    flat = patient.rng.uniform(0.62, 1.0)
    course = tube(
        [
            (cava_x, front + 2, -150),
            (cava_x, front + 1, -60),
            (cava_x, front, 5),
            (cava_x - 3, front - 3, 40),
            (cava_x - 2, front - 9, 85),
            (cava_x + 4, front - 14, patient.dome + 10),
        ],
        patient.size((11, 11.5, 12.5, 13, 13, 12.5), 0.07),
    )
    return course._replace(
        distance=lambda x, y, z: course.distance(x, front + (y - front) / flat, z)
    )


def _paint_renal_vessels(
    patient: Patient,
    side: int,
    z_level: float,
    cava_x: float,
    aorta_x: float,
    front: float,
) -> None:
    sx, hu = patient.spine[0], patient.hu
    hilum = (side * 48, 20, z_level - 3)
    start = (cava_x, front, z_level)
    middle = patient.jitter((sx + side * 26, front - 8, z_level), 2)
    patient.canvas.paint(
        tube([start, middle, hilum], (5.2, 4.8, 4)), hu['cava'] * 1.08, 0
    )
    patient.canvas.paint(
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


def _paint_adrenals(patient: Patient) -> None:
    rng = patient.rng
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
                plate([(34, 14), (43, 26)], rng.uniform(4.4, 6.0), 12, 38, (0.1, 0.1)),
                blend=2,
            ),
        ),
    ):
        moved = rng.normal(0, 2.5, 3)
        shifted = Shape(
            tuple(shape.low + moved),
            tuple(shape.high + moved),
            lambda x, y, z, s=shape, m=moved: s.distance(x - m[0], y - m[1], z - m[2]),
        )
        patient.organ(name, shifted, patient.hu['adrenal'], rough=0.4)


def _paint_portal_system(patient: Patient, aorta_x: float, front: float) -> Shape:
    """Paint what is not labelled; gives the shape of the labelled veins."""
    hu = patient.hu
    # The veins run behind the pancreas (posterior = larger y).
    behind = patient.pancreas + (0, 9, 2)
    meeting = behind[2] + (0, 3, -2)
    mesenteric = meeting + (2, 0, -3)
    patient.canvas.paint(
        tube(
            [mesenteric, mesenteric + (2, -6, -32), mesenteric + (6, -14, -75)],
            (6, 5.5, 4),
        ),
        hu['portal'],
        0,
    )
    patient.canvas.paint(
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
    patient.canvas.paint(
        tube(
            [(aorta_x, front - 6, 30), (aorta_x, front - 24, 32), (-26, -22, 34)],
            (4.4, 4, 2.6),
        ),
        hu['aorta'],
        0,
    )
    return union(
        tube(
            [meeting, meeting + (-14, 2, 12), (-44, -15, 35)],
            patient.size((7.4, 7.6, 7), 0.08),
        ),
        tube(
            [meeting, behind[3], behind[4], behind[5], behind[5] + (10, 9, 4)],
            patient.size((5.6, 4.8, 4.8, 4.4, 3.8), 0.08),
        ),
    )
