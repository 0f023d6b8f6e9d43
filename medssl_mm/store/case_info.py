"""What a store knows of a case without reading its pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

CASE_FILE = 'case.json'
AIR_LIMIT = -500  # HU; below it a CT pixel counts as air


def _integers(values: Iterable) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _numbers(values: Iterable) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _matrix(rows: Any) -> list[list[float]]:
    return np.asarray(rows, np.float64).tolist()


def _entries(values: Iterable) -> tuple[tuple, ...]:
    return tuple(map(tuple, values))


# Whatever they are given as, and as JSON has them.
_FORMS: dict[str, Callable] = dict(
    shape=_integers,
    labelled_slices=_integers,
    spacing=_numbers,
    affine=_matrix,
    source_affine=_matrix,
    source_shape=_integers,
    source_file=str,
    label_source_file=str,
    source_stat=_entries,
    warnings=_entries,
)


@dataclass(frozen=True, kw_only=True)
class CaseInfo:
    """What is known of one case without reading its pixels.

    Args:
        case_id (str): Name of the case, its folder in the store.
        patient_id (str): Patient, the unit of every split.
        shape (tuple[int]): ``(Z, H, W)``, whatever the number of channels.
        dtype (str): Type of the stored image.
        labelled (bool): Whether a label volume exists.
        labelled_slices (tuple[int], optional): Slices whose label is known;
            None = all slices of a labelled case.
        spacing (tuple[float], optional): (z, y, x) in mm.
        affine (list, optional): 4x4, canonical voxel (x, y, z) index to
            world (RAS+ mm).
        source_affine (list, optional): 4x4 of the source grid.
        source_shape (tuple[int], optional): Shape on the source grid.
        source_orientation (str, optional): Axis codes, e.g. 'RAS'.
        intensity (dict): min, max, mean, std, p00_5, p99_5 over the case;
            with several channels a list each, one number per channel.
        slice_foreground (list[float]): Fraction (0-1) of pixels per slice
            that are not air (CT: HU > -500; others: > 5 % of p99_5) in any
            channel.
        class_slices (dict[str, int]): Class index -> slices with it.
        source_name (str): What the source calls the case, where the id differs.
        source_file (str): Image file the case was made from.
        label_source_file (str, optional): Its label file.
        source_sha256 (str): Digest of the image file(s).
        label_sha256 (str, optional): Digest of the label file(s).
        source_stat (tuple): (path, bytes, mtime in ns) of every source file.
        content_sha256 (str): Digest of the stored image, for finding equal
            content.
        label_content_sha256 (str, optional): Digest of the stored label; cases of
            before have none.
        class_voxels (dict[str, int]): Class index -> voxels of it.
        warnings (tuple): (code, message) of the import's warnings.
    """

    case_id: str
    patient_id: str
    shape: tuple[int, int, int]
    dtype: str
    labelled: bool
    labelled_slices: tuple[int, ...] | None = None
    spacing: tuple[float, float, float] | None = None
    affine: list[list[float]] | None = None
    source_affine: list[list[float]] | None = None
    source_shape: tuple[int, ...] | None = None
    source_orientation: str | None = None
    intensity: dict
    slice_foreground: list[float]
    class_slices: dict[str, int]
    source_name: str = ''
    source_file: str = ''
    label_source_file: str | None = None
    source_sha256: str = ''
    label_sha256: str | None = None
    source_stat: tuple = ()
    content_sha256: str = ''
    label_content_sha256: str | None = None
    class_voxels: dict[str, int] | None = None
    warnings: tuple = ()

    def __post_init__(self) -> None:
        for name, form in _FORMS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, form(value))

    @classmethod
    def from_dict(cls, content: dict) -> CaseInfo:
        """Build from the content of ``case.json``."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in content.items() if k in known})

    @property
    def fingerprint(self) -> str:
        """Digest of image and label, for the hash of a split."""
        label = self.label_content_sha256 or self.label_sha256
        return fingerprint_of(self.content_sha256, label, self.labelled_slices)

    def moved(
        self, source_file: str, label_source_file: str | None, source_stat: tuple
    ) -> CaseInfo:
        """Describe the same content in files of another place or time."""
        return replace(
            self,
            source_file=source_file,
            label_source_file=label_source_file,
            source_stat=source_stat,
        )

    @property
    def voxel_ml(self) -> float | None:
        """Volume of a voxel, ml, on a sheared grid too; None where unknown."""
        if self.spacing is None:
            return None
        box = float(np.prod(self.spacing)) / 1000
        if self.affine is None:
            return box
        volume = float(abs(np.linalg.det(np.array(self.affine)[:3, :3]))) / 1000
        return box if np.isclose(volume, box, rtol=1e-6) else volume

    def has_label(self, index: int) -> bool:
        """Tell whether the label of slice ``index`` is known."""
        if not self.labelled:
            return False
        return self.labelled_slices is None or index in self.labelled_slices


def complete_cases(folder: Path) -> list[str]:
    """List the case folders that hold a ``case.json``; sorted."""
    if not folder.is_dir():
        return []
    return sorted(
        entry.name
        for entry in os.scandir(folder)
        if not entry.name.startswith('.')
        and os.path.exists(os.path.join(entry.path, CASE_FILE))
    )


def describe(image: np.ndarray, units: str) -> tuple[dict, list[float]]:
    """Compute the intensity statistics and foreground fraction per slice.

    Args:
        image: ``(Z, H, W)`` or ``(Z, C, H, W)``.
        units: 'HU' or 'arbitrary'.

    Returns:
        tuple: dict of min, max, mean, std, p00_5, p99_5, a number each (with
        C channels a list of C); list of Z fractions.
    """
    if image.ndim == 3:
        single = _statistics(image)
        limit = _air_limit(single, units)
        return single, [round(float((s > limit).mean()), 5) for s in image]
    channels = [_statistics(image[:, n]) for n in range(image.shape[1])]
    limits = np.array([_air_limit(found, units) for found in channels])
    above = ((s > limits[:, None, None]).any(0) for s in image)
    intensity = {name: [found[name] for found in channels] for name in channels[0]}
    return intensity, [round(float(found.mean()), 5) for found in above]


def _air_limit(intensity: dict, units: str) -> float:
    return AIR_LIMIT if units == 'HU' else 0.05 * intensity['p99_5']


def _statistics(image: np.ndarray) -> dict[str, float]:
    if image.dtype.kind in 'iu':  # percentiles from a histogram: no sort
        low = int(image.min())
        counts = np.bincount(image.ravel().astype(np.int32) - low)
        values = np.arange(len(counts)) + low
        cumulative = np.cumsum(counts)
        ranks = np.array([0.005, 0.995]) * (image.size - 1)
        p_low, p_high = values[np.searchsorted(cumulative, ranks + 1)]
        mean = float((values * (counts / image.size)).sum())
        var = float(((values - mean) ** 2 * (counts / image.size)).sum())
        std, high = var**0.5, int(values[-1])
    else:
        p_low, p_high = np.percentile(image, (0.5, 99.5))
        low, high = image.min(), image.max()
        mean = image.mean(dtype=np.float64)
        std = image.std(dtype=np.float64)
    return dict(
        min=float(low),
        max=float(high),
        mean=float(mean),
        std=float(std),
        p00_5=float(p_low),
        p99_5=float(p_high),
    )


def count_classes(label: np.ndarray) -> tuple[dict, dict]:
    """Count the slices and voxels of each class, background left out."""
    per_slice = np.stack([np.bincount(s.ravel(), minlength=256) for s in label])
    slices, voxels = (per_slice > 0).sum(0), per_slice.sum(0)
    present = [v for v in range(1, 256) if slices[v]]
    return (
        {str(v): int(slices[v]) for v in present},
        {str(v): int(voxels[v]) for v in present},
    )


def fingerprint_of(*facts: object) -> str:
    """16 hex digits of what decides the content of a case: image, label."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def content_digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and values."""
    digest = hashlib.sha256(f'{array.dtype.name}{array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
