"""Bowel, upper abdominal organs, kidneys and pancreas."""

import numpy as np

from medssl_mm.phantom.canvas import FAT, Window
from medssl_mm.phantom.patient import Patient
from medssl_mm.phantom.shapes import (
    Array,
    Shape,
    ellipsoid,
    plate,
    tube,
    union,
    without,
)


def paint_bowel(patient: Patient) -> None:
    """Paint mesenteric vessels, loops of small bowel and the colon."""
    rng, canvas = patient.rng, patient.canvas
    wall, inner = patient.hu['bowel'], patient.cavity + 3
    for _ in range(24):  # mesenteric vessels in the fat
        start = rng.uniform((-55, -65, -120), (60, 0, 5))
        canvas.paint(
            tube([start, start + rng.normal(0, 20, 3)], (2.6, 1.6)),
            patient.hu['portal'] * 0.8,
            0,
        )
    loops = rng.integers(20, 36)
    for _ in range(loops):
        start = rng.uniform((-75, -66, -150), (88, -8, -6))
        walk = start + np.cumsum(rng.normal(0, (22, 14, 16), (4, 3)), 0)
        walk = np.clip(walk, (-95, -70, -160), (98, 0, 0))
        patient.hollow(
            tube([start, *walk], rng.uniform(8.5, 13.5)),
            wall,
            2.4,
            gas=0.25,
            bright=0.3,
            rough=1.5,
            limit=inner,
        )
    _paint_colon(patient, wall, inner)


def _paint_colon(patient: Patient, wall: float, inner: Array) -> None:
    rng = patient.rng
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
        moved = np.array([patient.jitter(point, 5) for point in points])
        # Haustra: the radius pulsates along the colon.
        dense = np.repeat(moved, 2, axis=0)[:-1].astype(float)
        dense[1::2] = (moved[:-1] + moved[1:]) / 2
        radii = radius * rng.uniform(0.72, 1.2, len(dense))
        patient.hollow(
            tube(dense, radii),
            wall * 0.9,
            2.6,
            stool=stool,
            gas=0.65,
            bright=0.2,
            rough=2.5,
            limit=inner,
        )


def paint_upper_organs(patient: Patient) -> None:
    """Paint liver, spleen, stomach, gallbladder, duodenum and esophagus."""
    limit = np.maximum(patient.cavity + 2.5, patient.below + 2.5)
    liver = _liver_shape(patient)
    stomach = _stomach_shape(patient)
    _paint_liver(patient, without(*liver), limit)
    _paint_spleen(patient, limit)
    _paint_stomach(patient, stomach, limit)
    if patient.rng.random() < 0.92:  # otherwise removed by surgery
        _paint_gallbladder(patient)
    _paint_duodenum(patient)
    _paint_esophagus(patient)


def _liver_shape(patient: Patient) -> tuple[Shape, Shape, Shape]:
    """Lobes, and what is cut out of them."""
    reach = patient.rng.normal(0, 12)  # how far the left lobe goes to the left
    right = ellipsoid(patient.jitter((-82, -2, 34)), patient.size((74, 92, 84), 0.07))
    left = ellipsoid(
        patient.jitter((2 + reach, -58, 52)), patient.size((70, 36, 38), 0.1), 8
    )
    caudate = ellipsoid(patient.jitter((-22, -10, 48), 2), (22, 18, 24))
    porta = ellipsoid(patient.jitter((-34, -18, -12), 3), (38, 44, 40), -20)
    fissure = plate([(-22 + reach / 3, -84), (-26, -42)], 5, -60, 62)
    return union(right, left, caudate, blend=10), porta, fissure


def _stomach_shape(patient: Patient) -> Shape:
    return union(
        ellipsoid(patient.jitter((62, 2, 62)), patient.size((36, 40, 32))),
        ellipsoid(patient.jitter((62, -30, 30)), patient.size((27, 34, 40))),
        tube(
            [
                patient.jitter((60, -50, 6)),
                patient.jitter((22, -58, -8)),
                patient.jitter((-16, -50, 2)),
            ],
            patient.size((20, 17, 12), 0.08),
        ),
        blend=14,
    )


def _paint_liver(patient: Patient, liver: Shape, limit: Array) -> None:
    rng, hu = patient.rng, patient.hu
    patient.organ('liver', liver, hu['liver'], 3.5, limit=limit, rough=2.5)
    inside = limit + 6
    for start, end, level in (
        ((-26, 2, 74), (-88, -30, 60), hu['cava']),
        ((-26, 2, 76), (-40, -58, 58), hu['cava']),
        ((-26, 2, 72), (8, -52, 60), hu['cava']),
        ((-42, -14, 34), (-92, 10, 40), hu['portal']),
        ((-44, -16, 34), (-84, -42, 22), hu['portal']),
        ((-44, -16, 36), (-2, -54, 48), hu['portal']),
    ):
        bend = patient.jitter((np.array(start) + end) / 2, 7)
        branch = tube([start, bend, patient.jitter(end, 6)], (5, 3.8, 2))
        patient.inner_detail(branch, level, liver, inside)
    for _ in range(rng.poisson(0.9)):  # cysts and metastases
        place = patient.jitter((-80, -5, 35), 26)
        patient.inner_detail(
            ellipsoid(place, patient.size((9, 9, 9), 0.4)),
            float(rng.choice([8.0, hu['liver'] - 40])),
            liver,
            inside,
        )


def _paint_spleen(patient: Patient, limit: Array) -> None:
    spleen = without(
        ellipsoid(patient.jitter((98, 30, 46)), patient.size((34, 54, 52), 0.12), 18),
        ellipsoid(patient.jitter((62, 12, 40), 3), (36, 44, 60), 10),
    )
    mottled = 14 * max(0.0, 0.8 - patient.phase)  # arterial moire
    patient.organ('spleen', spleen, patient.hu['spleen'], 3.5 + mottled, limit=limit)


def _paint_stomach(patient: Patient, stomach: Shape, limit: Array) -> None:
    rng = patient.rng
    level = rng.uniform(-40, 10)
    choices = [rng.uniform(0, 50), rng.uniform(150, 300)]
    fluid = float(rng.choice(choices, p=(0.75, 0.25)))
    full = patient.contents(
        patient.hu['stomach'],
        rng.uniform(3, 6),
        level,
        fluid,
        float(rng.random() < 0.8),
        stool=float(rng.choice([0.0, 25.0])),
    )
    patient.organ('stomach', stomach, full, limit=limit, rough=2.5)


def _paint_gallbladder(patient: Patient) -> None:
    gallbladder = union(
        ellipsoid(
            patient.jitter((-56, -50, -10), 3), patient.size((15, 20, 24), 0.16), 20
        ),
        ellipsoid((-48, -32, 8), (8, 10, 12)),
        blend=10,
    )
    patient.organ(
        'gallbladder',
        gallbladder,
        patient.hu['gallbladder'],
        2.0,
        limit=patient.cavity + 4,
        rough=1.0,
    )


def _paint_duodenum(patient: Patient) -> None:
    duodenum = tube(
        [
            (-20, -50, 4),
            (-44, -40, 2),
            (-50, -18, -22),
            (-40, -6, -46),
            (-6, -4, -52),
            (26, -10, -42),
        ],
        patient.size((11, 12, 12, 12, 10, 10), 0.08),
    )
    patient.hollow(duodenum, patient.hu['bowel'], 3, gas=0.4, rough=1.5)


def _paint_esophagus(patient: Patient) -> None:
    esophagus = tube(
        [
            (4, -2, 150),
            patient.jitter((9, -6, 105), 2),
            patient.jitter((18, -8, 84), 2),
            (36, -8, 68),
        ],
        patient.size((8, 8, 8, 9), 0.08),
    )
    lumen = patient.rng.random() < 0.4
    patient.organ(
        'esophagus',
        esophagus,
        lambda x, y, z, depth, window: np.where(
            (depth > 5.5) & lumen, -400.0, patient.hu['esophagus']
        ),
        rough=1.0,
    )


def paint_kidneys(patient: Patient) -> None:
    """Paint both kidneys with cortex, medulla, sinus, pelvis and cysts."""
    _paint_kidney(patient, -1, 'right kidney', -16.0)
    _paint_kidney(patient, 1, 'left kidney', 2.0)


def _paint_kidney(patient: Patient, side: int, name: str, middle: float) -> None:
    rng, canvas, hu = patient.rng, patient.canvas, patient.hu
    centre = patient.jitter((side * 66, 28, middle), 5)
    radii = patient.size((27, 25, 54), 0.09)
    lean = rng.normal(0.16, 0.04)  # upper pole medial
    body = ellipsoid(centre, radii, -side * 25)

    def leaning(shape: Shape) -> Shape:
        def distance(x: Array, y: Array, z: Array) -> Array:
            up = z - centre[2]
            return shape.distance(x + side * lean * up, y + 0.12 * up, z)

        low, high = np.array(shape.low), np.array(shape.high)
        return Shape(tuple(low - (10, 8, 0)), tuple(high + (10, 8, 0)), distance)

    hilum = centre - (side * 21, 10, 0)
    sinus = ellipsoid(hilum, (19, 12, 26), -side * 25)
    kidney = leaning(without(body, sinus))
    clear = ellipsoid(centre, radii * 0.62, -side * 25)
    clear = leaning(clear)

    def parenchyma(x: Array, y: Array, z: Array, depth: Array, window: Window) -> Array:
        deep = clear.distance(x, y, z)
        pyramid = np.clip(1.2 - deep / 3, 0, 1)
        pyramid *= np.clip(canvas.fields[3][window] * 2 + 1.2, 0, 1)
        return hu['cortex'] + (hu['medulla'] - hu['cortex']) * pyramid

    # Perirenal fat keeps the neighbours apart.
    capsule = ellipsoid(centre, radii + rng.uniform(1.5, 7), -side * 25)
    canvas.paint(
        leaning(capsule), FAT, 0, rough=1.5, mix=patient.mix(), limit=patient.cavity
    )
    patient.organ(name, kidney, parenchyma, rough=1.5)
    canvas.paint(leaning(sinus), FAT, 0)
    pelvis = ellipsoid(hilum, patient.size((11, 6, 14), 0.15), -side * 25)
    excreted = 12 if patient.phase < 1.6 else 320
    canvas.paint(leaning(pelvis), float(excreted), 0)
    for _ in range(rng.poisson(0.35)):
        angle = rng.uniform(0, 2 * np.pi)
        place = centre + (
            side * 18 * abs(np.cos(angle)),
            18 * np.sin(angle),
            rng.normal(0, 20),
        )
        patient.organ(name, ellipsoid(place, patient.size((9, 9, 9), 0.4)), 6.0, 2.0)


def paint_pancreas(patient: Patient) -> None:
    """Paint the pancreas; sets its course, ``pancreas`` (6, 3) in mm."""
    rng, hu = patient.rng, patient.hu
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
    patient.pancreas = course + offset
    patient.organ(
        'pancreas',
        tube(patient.pancreas, patient.size((12, 15, 10, 9.5, 9.5, 8), 0.1)),
        hu['pancreas'],
        lobules * 0.7,
        rough=2.4,
    )
