"""Checks that hold for every source format.

Tolerances: spacing may differ by 0.1 %; the corners of the label grid may
lie 1 % of the smallest voxel edge off those of the image grid without a
word, half an edge with a warning.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl_mm.importers.base import LoadedCase, Problem, error, warning
from medssl_mm.store.chunks import ChunkReader
from medssl_mm.store.orientation import shear_of, spacing_of

SPACING_TOLERANCE = 1e-3  # relative
CORNER_WARNING = 0.01  # of the smallest voxel edge
CORNER_ERROR = 0.5
MIN_SIDE = 8  # pixels
SHEAR_WARNING = 0.573  # degrees off the right angle
LABEL_ROUNDING = 1e-3  # labels stored through a scale factor
FORM_TOLERANCE = 3e-3  # of the range of values: copies of 8 bit agree in it
ROUNDING = 0.01  # of the range: more than rounding is another image
_INT16 = np.iinfo(np.int16)


def _round(values: Iterable, digits: int = 4) -> tuple:
    return tuple(round(float(v), digits) for v in values)


def check_geometry(
    image_shape: Sequence[int],
    label_shape: Sequence[int],
    image_affine: Any = None,
    label_affine: Any = None,
    what: str = 'label',
) -> list[Problem]:
    """Compare the grids of image and label (or of another channel).

    Args:
        image_shape (tuple): Shape of the image, in one axis order with the
            label's.
        label_shape (tuple): Shape of the label.
        image_affine (array, optional): 4x4; its columns belong to the
            voxel axes (x, y, z), of which the shapes are the reverse.
        label_affine (array, optional): Same for the label.
        what (str): What the label is called. Defaults to 'label'.

    Returns:
        list[Problem]: 'shape-mismatch', 'spacing-mismatch' or
        'affine-mismatch'; empty when the grids agree.
    """
    remedy = (
        f'Resample the {what} to the image grid (a label by nearest neighbour), or '
        'pair it with the image it belongs to.'
    )
    if tuple(image_shape) != tuple(label_shape):
        return [
            error(
                'shape-mismatch',
                f'image has {tuple(image_shape)} voxels (z, y, x), {what} has '
                f'{tuple(label_shape)}. {remedy}',
            )
        ]
    if image_affine is None or label_affine is None:
        return []
    spacing = np.array(spacing_of(image_affine))
    other = np.array(spacing_of(label_affine))
    if (np.abs(spacing - other) > SPACING_TOLERANCE * spacing).any():
        return [
            error(
                'spacing-mismatch',
                f'image voxels are {_round(spacing)} mm (x, y, z), {what} voxels '
                f'{_round(other)} mm. {remedy}',
            )
        ]
    return _check_corners(image_shape, image_affine, label_affine, what, remedy)


def _check_corners(
    shape: Sequence[int], image_affine: Any, label_affine: Any, what: str, remedy: str
) -> list[Problem]:
    """Compare where the corners of two grids of one shape lie."""
    size = np.array(shape[::-1]) - 1
    corners = np.stack(np.meshgrid(*[(0, n) for n in size]), -1).reshape(-1, 3)
    corners = np.c_[corners, np.ones(len(corners))]
    difference = np.asarray(image_affine) - np.asarray(label_affine)
    shifts = (corners @ difference.T)[:, :3]
    shift = float(np.linalg.norm(shifts, axis=1).max())
    edge = float(min(spacing_of(image_affine)))
    message = (
        f'the corners of image and {what} grid lie up to {shift:.3g} mm '
        f'apart (smallest voxel edge {edge:.3g} mm). '
    )
    if shift > CORNER_ERROR * edge:
        return [error('affine-mismatch', message + remedy)]
    if shift > CORNER_WARNING * edge:
        return [
            warning('affine-mismatch', f'{message}The {what} is used voxel by voxel.')
        ]
    return []


def check_affine(affine: Any) -> list[Problem]:
    """Warn about unusual voxel sizes and sheared grids."""
    problems = []
    spacing = spacing_of(affine)
    if min(spacing) < 0.05 or max(spacing) > 30:
        problems.append(
            warning(
                'spacing-unusual',
                f'voxels are {_round(spacing)} mm (x, y, z); expected 0.05 to 30 '
                'mm. Distances in mm will be wrong if the header is.',
            )
        )
    angle = shear_of(affine)
    if angle > SHEAR_WARNING:
        problems.append(
            warning(
                'sheared',
                f'grid axes are {angle:.1f} degrees off the right angle (gantry '
                'tilt?); distances in mm use the voxel size only.',
            )
        )
    return problems


def check_image(
    image: np.ndarray, units: str, channels: Sequence[str] = ()
) -> tuple[np.ndarray | None, list[Problem]]:
    """Check an image and bring it to a type of the store.

    HU are rounded to int16; values beyond its range are clipped with a
    warning. Otherwise uint8, int16 and uint16 stay, wider integers become
    int16 where they fit, everything else float32.

    Args:
        image (np.ndarray): ``(Z, H, W)``, or ``(Z, C, H, W)``.
        units (str): 'HU' or 'arbitrary'.
        channels (Sequence[str]): Names, of several. Defaults to ().

    Returns:
        tuple: image, or None when it cannot be used; problems.
    """
    unusable = _check_values(image, channels)
    if unusable:
        return None, [unusable]
    low, high = image.min(), image.max()
    if units == 'HU':
        return _to_hounsfield(image, float(low), float(high))
    return _to_stored_type(image, low, high), []


def _check_values(image: np.ndarray, channels: Sequence[str]) -> Problem | None:
    """The first reason why no store can take an image, if there is one."""
    several = len(channels) > 1
    if image.ndim != 3 + several or image.dtype.kind not in 'iufb':
        return error(
            'not-a-volume',
            f'expected a grey volume of 3 axes, found shape {image.shape} of '
            f'type {image.dtype}.',
        )
    if min(image.shape[-2:]) < MIN_SIDE or image.shape[0] < 1:
        return error(
            'tiny',
            f'slices are {image.shape[-2]} x {image.shape[-1]} pixels '
            f'({image.shape[0]} of them), fewer than {MIN_SIDE} a side. Is '
            'the slice axis the wrong one, or the file a thumbnail?',
        )
    if image.dtype.kind == 'f':
        bad = image.size - int(np.isfinite(image).sum())
        if bad:
            where = np.unique(np.nonzero(~np.isfinite(image))[0])[:5]
            return error(
                'not-finite',
                f'{bad} voxels are NaN or infinite (first in slices '
                f'{where.tolist()}). Replace them by the value of air.',
            )
    parts = np.moveaxis(image, 1, 0) if several else [image]
    for name, part in zip(channels if several else ('image',), parts):
        if part.min() == part.max():
            what = f'channel {name}' if several else 'the image'
            return error(
                'constant',
                f'every voxel is {part.min()}; {what} is empty. Fetch or '
                'convert it again, or remove it.',
            )
    return None


def _to_hounsfield(
    image: np.ndarray, low: float, high: float
) -> tuple[np.ndarray | None, list[Problem]]:
    if high - low < 20:
        return None, [
            error(
                'not-hounsfield',
                f'values span {low:g} to {high:g}, expected Hounsfield units '
                '(air about -1000, bone above 300). Use the unscaled images, or '
                'import with --modality other.',
            )
        ]
    problems = []
    if low > -10:
        problems.append(
            warning(
                'hounsfield-range',
                f'no value below {low:g} HU: air is missing. Stored values '
                'without their offset, or an image that was windowed?',
            )
        )
    elif low < -5000 or high > 20000:
        problems.append(
            warning(
                'hounsfield-range',
                f'values span {low:g} to {high:g} HU, expected about -1024 to '
                '3071 (padding down to -3024).',
            )
        )
    if low < _INT16.min or high > _INT16.max:
        outside = int(((image < _INT16.min) | (image > _INT16.max)).sum())
        problems.append(
            warning(
                'clipped',
                f'{outside} voxels do not fit 16 bit ({low:g} to '
                f'{high:g}) and were clipped.',
            )
        )
        image = np.clip(image, _INT16.min, _INT16.max)
    if image.dtype.kind == 'f':
        image = np.rint(image)
    return image.astype(np.int16, copy=False), problems


def _to_stored_type(image: np.ndarray, low: Any, high: Any) -> np.ndarray:
    target: Any
    if image.dtype.kind == 'b' or image.dtype in (np.uint8, np.int8):
        target = np.int16 if image.dtype == np.int8 else np.uint8
    elif image.dtype in (np.int16, np.uint16):
        target = image.dtype
    elif image.dtype.kind in 'iu' and low >= _INT16.min and high <= _INT16.max:
        target = np.int16
    else:
        target = np.float32
    return image.astype(np.dtype(target).newbyteorder('='), copy=False)


def check_label(
    label: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray | None, list[Problem]]:
    """Check a label and bring it to uint8.

    Args:
        label (np.ndarray): ``(Z, H, W)``.
        classes (Sequence[str]): Names; the values 0 .. len - 1 are allowed.

    Returns:
        tuple: label, or None when it cannot be used; problems.
    """
    if label.dtype.kind not in 'iufb':
        return None, [
            error(
                'label-type',
                f'label values are of type {label.dtype}, expected integers.',
            )
        ]
    values, counts = np.unique(label, return_counts=True)
    if label.dtype.kind == 'f':
        rounded = np.rint(values)
        broken = ~(np.abs(values - rounded) <= LABEL_ROUNDING)  # catches NaN
        if broken.any():
            return None, [_no_integers(values[broken], int(counts[broken].sum()))]
        label, values = np.rint(label), rounded
    unknown = (values < 0) | (values >= len(classes))
    if unknown.any():
        return None, [_unexpected(values[unknown], counts[unknown], classes)]
    problems = []
    if not (values > 0).any():
        problems.append(
            warning(
                'label-empty',
                'label is background everywhere. Leave it out if the case was '
                'never labelled.',
            )
        )
    return label.astype(np.uint8), problems


def _no_integers(values: np.ndarray, voxels: int) -> Problem:
    """Label values between the integers."""
    shown = ', '.join(f'{value:g}' for value in values[:5])
    return error(
        'label-not-integer',
        f'{voxels} label voxels are no integers (e.g. {shown}). Was the label '
        'resampled with interpolation? Use nearest neighbour.',
    )


def _unexpected(
    values: np.ndarray, counts: np.ndarray, classes: Sequence[str]
) -> Problem:
    """Label values that stand for no class, with their numbers of voxels."""
    shown = ', '.join(
        f'{int(value)} ({number} voxels)'
        for value, number in list(zip(values, counts))[:8]
    )
    return error(
        'label-unexpected',
        f'unexpected label value(s) {shown}; allowed are 0 to '
        f'{len(classes) - 1}: '
        + ', '.join(f'{i} {n}' for i, n in enumerate(classes[:16]))
        + (' and so on' if len(classes) > 16 else '')
        + '. Name the classes by --classes or correct the label.',
    )


def grid_of(image: np.ndarray) -> tuple[int, int, int]:
    """Voxels (z, y, x) of an image ``(Z, H, W)`` or ``(Z, C, H, W)``."""
    return (image.shape[0], *image.shape[-2:])


def check_case(
    case: LoadedCase,
    units: str,
    classes: Sequence[str],
    channels: Sequence[str] = (),
) -> tuple[np.ndarray | None, np.ndarray | None, list[Problem]]:
    """Run every check on a loaded case.

    Args:
        case (LoadedCase): Arrays in the canonical orientation.
        units (str): 'HU' or 'arbitrary'.
        classes (Sequence[str]): Class names of the data set.
        channels (Sequence[str]): Names of the channels. Defaults to ().

    Returns:
        tuple: image and label as the store takes them; all problems, those
        of the loader first. With an error among them nothing may be stored.
    """
    problems = list(case.problems)
    image, found = check_image(case.image, units, channels)
    problems += found
    if case.affine is not None:
        problems += check_affine(case.affine)
    label = None
    if case.label is not None:
        known = [p for p in problems if p.code.endswith('-mismatch')]
        if not known:
            problems += check_geometry(grid_of(case.image), case.label.shape)
        label, found = check_label(case.label, classes)
        problems += found
    if case.labelled_slices is not None:
        outside = [i for i in case.labelled_slices if not 0 <= i < case.image.shape[0]]
        if outside:
            problems.append(
                error(
                    'labelled-slices',
                    f'labelled slices {outside[:5]} lie '
                    f'outside the {case.image.shape[0]} slices.',
                )
            )
    return image, label, problems


def check_picture(image: np.ndarray, blank_allowed: bool) -> list[Problem]:
    """Check an image of a classification set.

    Args:
        image (np.ndarray): uint8 ``(H, W)`` or ``(H, W, 3)``.
        blank_allowed (bool): Whether an image of one colour is listed only
            (empty glass in histology) instead of left out.

    Returns:
        list[Problem]: 'blank', or nothing.
    """
    first = image.reshape(-1, *image.shape[2:])[0]
    if (image != first).any():
        return []
    make = warning if blank_allowed else error
    return [
        make(
            'blank',
            f'every pixel is {first.tolist()}; the image is empty. Fetch '
            'it again, or remove it.',
        )
    ]


def find_duplicates(
    cases: Iterable[Any], later: Collection[str] = ()
) -> dict[str, str]:
    """Find cases whose stored image equals that of another one.

    The labelled one is kept, then the first by name.

    Args:
        cases (Iterable[CaseInfo]): Cases of one store.
        later (Collection[str]): Ids of cases that are kept only where no other one
            is. Defaults to ().

    Returns:
        dict: Case id of the copy to case id of the one to keep.
    """
    kept: dict[str, str] = {}
    copies: dict[str, str] = {}
    for case in sorted(cases, key=_rank(later)):
        if not case.content_sha256:  # empty images are all alike
            continue
        first = kept.setdefault(case.content_sha256, case.case_id)
        if first != case.case_id:
            copies[case.case_id] = first
    return copies


def _rank(later: Collection[str]) -> Callable[[Any], tuple]:
    """Order in which one of several equal cases is kept."""
    return lambda case: (case.case_id in later, not case.labelled, case.case_id)


def find_near_copies(
    cases: Sequence[Any],
    open_image: Callable[[str], ChunkReader],
    later: Collection[str] = (),
) -> dict[str, tuple[str, str]]:
    """Find volumes that equal another one mirrored, retyped or rescaled.

    Mean and spread, measured from the smallest to the largest value, survive all
    three; volumes of one shape that agree in them are compared voxel by voxel.

    Args:
        cases (Sequence[CaseInfo]): Cases of one store, none equal to another.
        open_image (Callable): Function from case id to the reader of its image.
        later (Collection[str]): As in :func:`find_duplicates`.

    Returns:
        dict: Case id of the copy to that of the one to keep, and what differs.
    """
    groups: dict[tuple, list[tuple[NDArray[np.float64], Any]]] = defaultdict(list)
    for case in sorted(cases, key=_rank(later)):
        form = _form(case.intensity)
        groups[tuple(case.shape)].append((form, case))
    copies: dict[str, tuple[str, str]] = {}
    for members in groups.values():
        forms = np.stack([form for form, _ in members])
        for place, (form, case) in enumerate(members):
            alike = np.abs(forms[:place] - form).max(1) < FORM_TOLERANCE
            for other in np.flatnonzero(alike):
                original = members[other][1]
                if original.case_id in copies:
                    continue
                how = _how_equal(original, case, open_image)
                if how is not None:
                    copies[case.case_id] = original.case_id, how
                    break
    return copies


def _form(intensity: Mapping) -> NDArray[np.float64]:
    """Mean and standard deviation of each channel as shares of its range."""
    low, high, mean, std = (
        np.atleast_1d(np.asarray(intensity[name], np.float64))
        for name in ('min', 'max', 'mean', 'std')
    )
    extent = np.where(high > low, high - low, 1)
    return np.concatenate([(mean - low) / extent, std / extent])


def _how_equal(
    one: Any, other: Any, open_image: Callable[[str], ChunkReader]
) -> str | None:
    """Say how the second volume follows from the first; None: it does not."""
    first, second = open_image(one.case_id), open_image(other.case_id)
    low, high = (
        [np.atleast_1d(case.intensity[name])[:, None, None] for case in (one, other)]
        for name in ('min', 'max')
    )
    extent = [np.where(b > a, b - a, 1.0) for a, b in zip(low, high)]
    scale = extent[1] / extent[0]
    steps = [float(np.dtype(case.dtype).kind in 'iu') for case in (one, other)]
    # Both may have been rounded, and so may their limits.
    allowed = np.minimum(
        scale * steps[0] + steps[1] + 1e-5 * extent[1], ROUNDING * extent[1]
    )
    depth = one.shape[0]
    order = sorted(range(depth), key=lambda z: abs(z - depth // 2))  # body before air
    for flips in itertools.product((1, -1), repeat=3):
        step_z, step_y, step_x = flips
        for z in order:
            wanted = (first.read(z) - low[0]) * scale + low[1]
            found = second.read(z if step_z > 0 else depth - 1 - z)
            if (np.abs(wanted - found[..., ::step_y, ::step_x]) > allowed).any():
                break
        else:
            return _difference(one, other, flips, float(scale.flat[0]))
    return None


def _difference(one: Any, other: Any, flips: Sequence[int], scale: float) -> str:
    parts = []
    axes = [axis for axis, step in zip('zyx', flips) if step < 0]
    if axes:
        parts.append(f'mirrored along {", ".join(axes)}')
    if one.dtype != other.dtype:
        parts.append(f'as {other.dtype} instead of {one.dtype}')
    offset = float(np.min(other.intensity['min'])) - scale * float(
        np.min(one.intensity['min'])
    )
    if abs(scale - 1) > 1e-3 or abs(offset) > 1e-3:
        parts.append(f'its values times {scale:.4g} plus {offset:.4g}')
    return ', '.join(parts) or 'but for rounding'
