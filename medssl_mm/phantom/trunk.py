"""Trunk wall, lungs, heart, ribs, spine and muscles."""

import numpy as np

from medssl_mm.phantom.canvas import FAT, LUNG, Level, Window
from medssl_mm.phantom.patient import Patient
from medssl_mm.phantom.shapes import Array, Shape, ellipsoid, plate, tube

TOP = 160.0  # where spine and back muscles end, mm


def paint_trunk(patient: Patient) -> None:
    """Paint all that encloses the organs; sets ``cavity`` and ``below``."""
    angle, wall = _paint_wall(patient)
    _paint_lungs(patient)
    _paint_heart(patient)
    _paint_ribs(patient, angle, wall)


def _paint_wall(patient: Patient) -> tuple[Array, Array]:
    canvas = patient.canvas
    x, y, z = canvas.position
    width = patient.half_width - 14 * np.clip((z - 60) / 60, 0, 1)
    depth = patient.half_depth - 4 * np.clip((z - 60) / 60, 0, 1)
    power = 2.35
    reach = np.abs(x / width) ** power + np.abs(y / depth) ** power
    reach = reach ** (1 / power) + 1e-6
    radius = np.hypot(x, y)
    cavity = radius - radius / reach  # mm beyond the inner wall
    angle = np.arctan2(x, -y)  # 0 = anterior, +-pi = posterior
    side = np.abs(np.sin(angle))
    back = np.clip(-np.cos(angle), 0, 1)
    wall = patient.wall * (0.75 + 0.45 * side + 0.3 * back)
    hips = 1 + 0.35 * np.clip((-z - 20) / 80, 0, 1)
    fat = patient.fat * hips * (0.8 + 0.35 * back + 0.08 * canvas.fields[0])
    fat = np.maximum(fat, 3)
    skin = cavity - wall - fat
    patient.cavity = cavity
    full = patient.everything
    canvas.blend(full, skin, 20.0, 0)
    canvas.blend(full, skin + 2.2, FAT, 0)
    # Fat planes between the layers of the wall muscles.
    layers = np.abs(np.sin(cavity / patient.wall * 4.5 + canvas.fields[1]))
    muscle = patient.hu['muscle'] - 55 * (layers < 0.25)
    canvas.blend(full, np.maximum(cavity - wall, -cavity), muscle, 0)
    canvas.blend(full, cavity, FAT, 0)
    return angle, wall


def _paint_lungs(patient: Patient) -> None:
    rng, canvas, full = patient.rng, patient.canvas, patient.everything
    (x, y, z), cavity = canvas.position, patient.cavity
    # Diaphragm: two domes, falling steeply to the back.
    right, left = patient.dome, patient.dome - rng.uniform(4, 14)
    fall = np.where(y > -10, 0.0072, 0.0042) * (y + 10) ** 2
    tops = [
        top - 0.009 * (x - middle) ** 2 - fall
        for top, middle in ((right, -68.0), (left, 68.0))
    ]
    dome = np.maximum(*tops)
    # Distance to the dome along z, shortened on its steep flanks.
    patient.below = (z - dome) * 0.65
    lung = np.maximum(-patient.below, cavity + 2)
    canvas.blend(full, np.maximum(lung - 4, cavity), patient.hu['muscle'], 0)
    texture = LUNG + 25 * canvas.fields[3] + 0.25 * (y + 60)
    middle = x - patient.spine[0]
    mediastinum = np.minimum(
        np.hypot(middle - 6, (y - 20) * 0.7) - 28,
        np.hypot(np.maximum(np.abs(middle) - 34, 0), np.minimum(y - 76, 0)) - 20,
    )
    lung = np.maximum(lung, -mediastinum)
    canvas.blend(full, lung, texture, 0)
    for _ in range(26):
        start = rng.uniform((-110, -60, 70), (110, 70, 130))
        step = rng.normal(0, 18, 3)
        canvas.paint(tube([start, start + step], (2.6, 1.2)), 40.0, 0, limit=lung + 3)


def _paint_heart(patient: Patient) -> None:
    heart = ellipsoid(
        patient.jitter((22, -38, patient.dome + 28), 3),
        patient.size((60, 42, 40), 0.06),
        25,
    )
    patient.canvas.paint(
        heart,
        lambda x, y, z, depth, window: np.where(
            depth > 9, patient.hu['aorta'] * 0.9, 95.0
        ),
        0,
        rough=2,
        limit=patient.cavity + 6,
    )


def _paint_ribs(patient: Patient, angle: Array, wall: Array) -> None:
    """Bands in the chest wall that fall from back to front."""
    rng, canvas, cavity = patient.rng, patient.canvas, patient.cavity
    z = canvas.position[2]
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
    canvas.blend(patient.everything, rib, bone, 0)


def paint_spine(patient: Patient) -> None:
    """Paint the muscles of the back, the pelvis and the vertebrae."""
    rng, canvas = patient.rng, patient.canvas
    pitch, marrow = rng.uniform(33, 37), rng.uniform(130, 260)
    for side in (-1, 1):
        _paint_back_muscles(patient, side)
        _paint_pelvis(patient, side, marrow)
    for middle in np.arange(-170 + rng.uniform(0, pitch), TOP, pitch).tolist():
        _paint_vertebra(patient, middle, pitch, marrow)
    sx, sy = patient.spine
    canal = tube([(sx, sy + 25, -170), (sx, sy + 25, TOP)], 8.0, False)
    canvas.paint(
        canal, lambda x, y, z, depth, window: np.where(depth > 2.5, 35.0, -20.0), 0
    )


def _streaky(patient: Patient) -> Level:
    """HU of muscle with streaks of fat."""
    canvas, muscle = patient.canvas, patient.hu['muscle']

    def hu(x: Array, y: Array, z: Array, depth: Array, window: Window) -> Array:
        value = muscle + 10 * canvas.fields[3][window]
        return np.where(canvas.fields[3][window] > 1.6, -40.0, value)

    return hu


def _paint_back_muscles(patient: Patient, side: int) -> None:
    canvas, streaky = patient.canvas, _streaky(patient)
    sx, sy = patient.spine
    canvas.paint(
        tube(
            [(sx + side * 34, sy + 40, -170), (sx + side * 34, sy + 40, TOP)],
            patient.size((25, 20), 0.06),
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
        patient.size((28, 22, 13, 4), 0.08),
    )
    canvas.paint(psoas, streaky, 0, rough=1.5, mix=patient.mix())
    loins = ellipsoid(
        (sx + side * 66, sy + 28, -55), patient.size((19, 9, 62), 0.08), -side * 20
    )
    canvas.paint(loins, streaky, 0, rough=1)
    crus = plate(
        [(sx + side * 8, sy - 20), (sx + side * 21, sy - 14), (sx + side * 24, sy + 2)],
        6,
        5,
        75,
    )
    canvas.paint(crus, patient.hu['muscle'], 0)


def _paint_pelvis(patient: Patient, side: int, marrow: float) -> None:
    rng, canvas = patient.rng, patient.canvas
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
    canvas.paint(gluteus, _streaky(patient), 0, limit=patient.cavity - patient.wall)


def _paint_vertebra(
    patient: Patient, middle: float, pitch: float, marrow: float
) -> None:
    canvas, fine = patient.canvas, patient.canvas.fields[3]
    sx, sy = patient.spine
    radii = patient.size((23, 16.5), 0.03)

    def inside(x: Array, y: Array, z: Array) -> Array:
        flat = np.hypot((x - sx) / radii[0], (y - sy) / radii[1])
        waist = 1 - 0.06 * np.cos((z - middle) / pitch * 2 * np.pi)
        return np.maximum((flat - waist) * radii[1], np.abs(z - middle) - pitch * 0.5)

    disc = Shape(
        (sx - 26, sy - 20, middle - pitch / 2),
        (sx + 26, sy + 20, middle + pitch / 2),
        inside,
    )
    canvas.paint(disc, 85.0, 0)

    def vertebra(x: Array, y: Array, z: Array) -> Array:
        return np.maximum(inside(x, y, z), np.abs(z - middle) - pitch * 0.38)

    body = disc._replace(distance=vertebra)
    canvas.paint(
        body,
        lambda x, y, z, depth, window: np.where(
            depth > 2.2, marrow + 25 * fine[window], 480.0
        ),
        0,
    )
    for part in _processes(sx, sy, middle):
        canvas.paint(
            part,
            lambda x, y, z, depth, window: np.where(depth > 2.5, marrow * 1.2, 560.0),
            0,
        )


def _processes(sx: float, sy: float, middle: float) -> tuple[Shape, ...]:
    """Arch, spinous and transverse processes of a vertebra."""
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
    sides = (
        plate([start, end], 7, middle - 5, middle + 5)
        for start, end in (
            ((sx - 40, sy + 24), (sx - 14, sy + 20)),
            ((sx + 14, sy + 20), (sx + 40, sy + 24)),
        )
    )
    return arch, spinous, *sides
