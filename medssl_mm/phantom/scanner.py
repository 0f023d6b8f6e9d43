"""The acquisition: grid, pose, couch, noise and the order of the file."""

from collections.abc import Sequence

import numpy as np

from medssl_mm.phantom.canvas import AIR
from medssl_mm.phantom.shapes import Array


def rotation(degrees: Sequence[float] | Array) -> np.ndarray:
    """Rotation by angles about x, then y, then z, in degrees, right-handed."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        cosine, sine = np.cos(angle), np.sin(angle)
        step = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        step[first, first] = step[second, second] = cosine
        step[first, second], step[second, first] = -sine, sine
        matrix = step @ matrix
    return matrix


def draw_scan(rng: np.random.Generator) -> dict:
    """Draw the acquisition: grid, spacing, pose, orientation, noise."""
    step = rng.uniform(3.5, 8.0)
    cover = rng.uniform(150, 215)
    slices = int(np.clip(round(cover / step), 24, 36))
    code = rng.choice(['RAS', 'LAS', 'LPS'], p=(0.5, 0.35, 0.15))
    return dict(
        slices=slices,
        step=step,
        code=str(code),
        # The sign of the second angle keeps the volumes of earlier releases.
        turn=rng.normal(0, (2.0, 2.0, 4.0)) * (1, -1, 1),
        shift=rng.normal(0, (9, 9, 0)) + (0, 0, rng.normal(8, 14)),
        margin=rng.uniform(1.02, 1.32),
        isocentre=rng.uniform((-20, -220, -900), (20, -140, -300)),
        noise=rng.uniform(8, 26),
        blur=rng.uniform(0.35, 0.75),
        grain=rng.uniform(0.55, 1.0),
        circle=rng.random() < 0.4,
    )


def paint_table(image: Array, x: Array, y: Array, rng: np.random.Generator) -> None:
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
    table = np.where(core, -880 + 800 * shell, AIR)
    image[...] = np.where(air & (table > AIR)[None], table[None], image)


def add_noise(
    image: Array, position: Sequence[Array], scan: dict, rng: np.random.Generator
) -> np.ndarray:
    """Blur the image and add the noise of the reconstruction."""
    from scipy.ndimage import gaussian_filter

    image = gaussian_filter(image, (0.25, scan['blur'], scan['blur']))
    # CT noise is band-passed (ramp filter) and grows towards the middle of
    # the body, where fewest photons arrive.
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise = gaussian_filter(
        noise, (0.3, scan['grain'], scan['grain'])
    ) - 0.7 * gaussian_filter(noise, (0.3, 2.2, 2.2))
    noise *= scan['noise'] / noise.std()
    centre = np.hypot(position[0] / 150, position[1] / 105)
    image += noise * np.clip(1.25 - 0.45 * centre, 0.5, None)
    return image


def to_file_order(
    image: Array,
    label: Array,
    spacing: Sequence[float],
    grid: Array,
    isocentre: Array,
    code: str,
) -> tuple[Array, Array, Array]:
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
