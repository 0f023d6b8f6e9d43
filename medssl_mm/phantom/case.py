"""One patient: drawn, painted and scanned."""

from collections.abc import Sequence

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.phantom import organs, scanner, trunk, vessels
from medssl_mm.phantom.canvas import Canvas, smooth_field
from medssl_mm.phantom.patient import Patient

# The order of painting matters: later structures cover earlier ones.
_PARTS = (
    trunk.paint_trunk,
    trunk.paint_spine,
    organs.paint_bowel,
    organs.paint_upper_organs,
    organs.paint_kidneys,
    organs.paint_pancreas,
    vessels.paint_vessels,
)


def make_phantom_case(
    seed: int, index: int, size: int = 160, oblique: bool | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make one patient.

    Args:
        seed: Seed of the whole set.
        index: Number of the patient, from 0; the case depends on ``(seed,
            index, size, oblique)`` only.
        size: In-plane matrix.
        oblique: Whether the scan grid is turned against the world axes; None
            means every tenth patient (4, 14, ...).

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
    rng = np.random.default_rng((seed, index))
    patient, scan = Patient(rng), scanner.draw_scan(rng)
    if oblique is None:
        oblique = index % 10 == 4
    tilt = np.array((9.0, 0, 4.0)) * rng.choice([-1, 1], 3) * oblique

    body = 2 * (patient.half_width + patient.wall + patient.fat)
    view = body * patient.scale[0] * scan['margin']
    spacing = (scan['step'], view / size, view / size)
    shape = (scan['slices'], size, size)
    grid = scanner.rotation(tilt)
    z, y, x = np.ix_(
        *((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True))
    )
    rows = scanner.rotation(scan['turn']).T @ grid
    # Explicit sums keep the bytes independent of the BLAS in use.
    turned = [row[0] * x + row[1] * y + row[2] * z for row in rows]
    canvas = patient.canvas = _canvas(patient, scan, turned, spacing)
    for paint in _PARTS:
        paint(patient)
    scanner.paint_table(canvas.image, x, y, rng)
    image = scanner.add_noise(canvas.image, canvas.position, scan, rng)
    if scan['circle']:
        outside = np.hypot(x, y)[0] > view / 2
        image[:, outside] = -1024
    image = np.clip(np.rint(image), -1024, 3071).astype(np.int16)
    return scanner.to_file_order(
        image, canvas.label, spacing, grid, scan['isocentre'], scan['code']
    )


def _canvas(
    patient: Patient,
    scan: dict,
    turned: Sequence[np.ndarray],
    spacing: tuple[float, float, float],
) -> Canvas:
    """Empty canvas of a patient, who is moved, scaled and deformed in the scanner.

    Args:
        patient: Whose frame it has.
        scan: See :func:`medssl_mm.phantom.scanner.draw_scan`.
        turned: World coordinates (left, posterior, superior) along the turned axes
            of the patient, ``(Z, Y, X)``, mm.
        spacing: Of slices, rows and columns, mm.
    """
    rng, shape = patient.rng, turned[0].shape
    deform = [smooth_field(rng, shape, spacing, 62) * 4.5 for _ in range(3)]
    x, y, z = (
        (((turned[axis] + scan['shift'][axis]) / patient.scale[axis]) + field).astype(
            np.float32
        )
        for axis, field in enumerate(deform)
    )
    fields = [smooth_field(rng, shape, spacing, length) for length in (40, 28, 20, 9)]
    return Canvas((x, y, z), max(spacing[1], 1.5), fields)
