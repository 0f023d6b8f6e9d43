"""Scores of one segmented volume, class by class.

A further score is a function below ``@volume_score``, here or in a module of
one's own that the config imports: it is then a column of ``cases.csv``, has
its intervals in ``metrics.json`` and in the log and, where its
:class:`~medssl_mm.results.Measure` says so, in the result tables.

scipy and MONAI, which take seconds to import, are imported where distances are
measured: a training whose validation has none never waits for them.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from medssl_mm.statistics.measures import (
    DICE,
    HD95,
    NSD,
    RELATIVE_VOLUME_ERROR,
    VOLUME_ERROR,
    Measure,
)

POLICY = (
    'Dice, HD95 and NSD per case and class, then the mean over cases, then '
    'over classes (background left out). Class absent from reference and '
    'prediction: not counted. Missed or invented class: Dice 0, NSD 0, HD95 = '
    'diagonal of the case in mm; counted. Surfaces are the voxels that a '
    'binary erosion removes; HD95 is the larger of the two directed 95th '
    'percentiles; NSD is the share of surface voxels of both within the '
    'tolerance. Without a known spacing distances are not available.'
)

COUNTED, ABSENT, MISSED, INVENTED = 'counted', 'absent', 'missed', 'invented'


@dataclass(frozen=True, eq=False)
class _Volumes:
    """Both label volumes of a case, and the boxes of their classes."""

    prediction: np.ndarray
    reference: np.ndarray
    num_classes: int

    @cached_property
    def boxes(self) -> list[list[tuple | None]]:
        from scipy.ndimage import find_objects

        return [
            find_objects(volume, self.num_classes - 1)
            for volume in (self.prediction, self.reference)
        ]

    def masks(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        # Only the box of the organ: the rest of the volume has no voxel of it.
        box = _union_box([side[label - 1] for side in self.boxes])
        return self.prediction[box] == label, self.reference[box] == label


@dataclass(frozen=True, eq=False)
class ClassMasks:
    """One class of one case, as its prediction and its reference have it.

    Args:
        volumes (_Volumes): Of the case.
        label (int): Of the class.
        predicted_voxels (int): Voxels of the prediction.
        reference_voxels (int): Voxels of the reference.
        common_voxels (int): Voxels of both.
        spacing (Sequence[float] | None): Voxel size (z, y, x), mm; None:
            distances are not measured.
        voxel_volume (float): ml, or 1 where the spacing is unknown.
        diagonal (float): Of the case, mm; NaN where distances are not
            measured.
        tolerance_mm (float): Of NSD, mm.
    """

    volumes: _Volumes
    label: int
    predicted_voxels: int
    reference_voxels: int
    common_voxels: int
    spacing: Sequence[float] | None
    voxel_volume: float
    diagonal: float
    tolerance_mm: float

    @cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """Of prediction and reference, cut to a box around both.

        Shape: ``(Z, H, W)``, bool.
        """
        return self.volumes.masks(self.label)

    @property
    def status(self) -> str:
        """'counted', 'absent', 'missed' or 'invented'."""
        if self.reference_voxels:
            return COUNTED if self.predicted_voxels else MISSED
        return INVENTED if self.predicted_voxels else ABSENT

    @cached_property
    def distances(self) -> tuple[np.ndarray, np.ndarray]:
        """From the surface of either to that of the other, mm."""
        assert self.spacing is not None, 'without spacing nothing asks for distances'
        return surface_distances(*self.masks, self.spacing)


Score = Callable[[ClassMasks], float]


@dataclass(frozen=True)
class VolumeScore:
    """A score of one class of one case.

    Args:
        measure (Measure): What it is called and how it is shown.
        compute (Callable): From :class:`ClassMasks` to the number; NaN: not
            counted.
        wrong (Callable, optional): The same for a class that is missed or
            invented; None computes it as for others.
        absent (bool): Whether it is computed for a class that neither has.
        distances (bool): Whether it needs distances.
        summarised (bool): Whether it has means and intervals.
    """

    measure: Measure
    compute: Score
    wrong: Score | None
    absent: bool
    distances: bool
    summarised: bool

    def __call__(self, masks: ClassMasks) -> float:
        """Score a class; the treatment of empty ones is decided here."""
        if self.distances and masks.spacing is None:
            return float('nan')
        if masks.status == ABSENT and not self.absent:
            return float('nan')
        if masks.status in (MISSED, INVENTED) and self.wrong is not None:
            return float(self.wrong(masks))
        return float(self.compute(masks))


# In the order of the columns of cases.csv.
SCORES: dict[str, VolumeScore] = {}


def volume_score(
    measure: Measure,
    *,
    wrong: Score | None = None,
    absent: bool = False,
    distances: bool = False,
    summarised: bool = True,
) -> Callable[[Score], Score]:
    """Add a score; decorates a function from :class:`ClassMasks` to a number.

    See :class:`VolumeScore` for the arguments.

    Raises:
        ValueError: If there is a score of that name.
    """
    if measure.name in SCORES:
        raise ValueError(
            f'there is a volume score {measure.name!r} already; give the new one '
            'another name'
        )

    def add(compute: Score) -> Score:
        SCORES[measure.name] = VolumeScore(
            measure, compute, wrong, absent, distances, summarised
        )
        return compute

    return add


def summarised_measures() -> list[Measure]:
    """Scores that have means and intervals."""
    return [score.measure for score in SCORES.values() if score.summarised]


@volume_score(DICE, wrong=lambda masks: 0)
def dice(masks: ClassMasks) -> float:
    """Dice coefficient, 0-1."""
    return 2 * masks.common_voxels / (masks.reference_voxels + masks.predicted_voxels)


@volume_score(HD95, wrong=lambda masks: masks.diagonal, distances=True)
def hd95(masks: ClassMasks) -> float:
    """95th percentile Hausdorff distance, mm."""
    return max(float(np.percentile(side, 95)) for side in masks.distances)


@volume_score(NSD, wrong=lambda masks: 0, distances=True)
def nsd(masks: ClassMasks) -> float:
    """Normalised surface distance, 0-1."""
    within = sum((side <= masks.tolerance_mm).sum() for side in masks.distances)
    return float(within) / sum(map(len, masks.distances))


@volume_score(
    Measure('reference_volume', 'reference volume'), absent=True, summarised=False
)
def reference_volume(masks: ClassMasks) -> float:
    """Volume, ml, or voxels without spacing."""
    return masks.reference_voxels * masks.voxel_volume


@volume_score(
    Measure('predicted_volume', 'predicted volume'), absent=True, summarised=False
)
def predicted_volume(masks: ClassMasks) -> float:
    """The same of the prediction."""
    return masks.predicted_voxels * masks.voxel_volume


@volume_score(VOLUME_ERROR)
def volume_error(masks: ClassMasks) -> float:
    """Absolute difference of the two volumes, same unit."""
    return abs(masks.predicted_voxels - masks.reference_voxels) * masks.voxel_volume


@volume_score(RELATIVE_VOLUME_ERROR)
def relative_volume_error(masks: ClassMasks) -> float:
    """Signed difference by the reference; NaN when the reference is empty."""
    if not masks.reference_voxels:
        return float('nan')
    difference = masks.predicted_voxels - masks.reference_voxels
    return difference / masks.reference_voxels


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between two surfaces, in both directions, by MONAI.

    Args:
        prediction: Mask, not empty.
        reference: Mask, not empty.
        spacing: Voxel size per axis, mm.

    Shape: masks ``(Z, H, W)``, bool. Returns two arrays ``(points,)``, mm.
        A single slice is measured in its plane.
    """
    from monai.metrics.utils import get_edge_surface_distance

    if prediction.shape[0] == 1:
        prediction, reference, spacing = prediction[0], reference[0], spacing[1:]
    with warnings.catch_warnings():
        # MONAI warns about an argument that its own code passes.
        warnings.simplefilter('ignore', FutureWarning)
        both = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(prediction)),
            torch.from_numpy(np.ascontiguousarray(reference)),
            spacing=tuple(float(size) for size in spacing),
            symmetric=True,
        )[1]
    return both[0].numpy(), both[-1].numpy()


def _union_box(masks_boxes: Sequence[tuple | None]) -> tuple[slice, ...]:
    boxes = [box for box in masks_boxes if box is not None]
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(
            min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
        )
        for axis in range(3)
    )


def _confusion(
    prediction: np.ndarray, reference: np.ndarray, num_classes: int, ignore_label: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the voxels by reference and prediction.

    Shape: returns both volumes, with 0 where the reference does not count, and
        ``(256, 256)``.
    """
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(
            'prediction and reference must be volumes on one grid, got '
            f'{prediction.shape} and {reference.shape}'
        )
    ignored = reference == ignore_label
    if ignored.any():
        prediction = np.where(ignored, 0, prediction)
        reference = np.where(ignored, 0, reference)
    table = np.bincount(
        (reference.astype(np.uint16) * 256 + prediction).ravel(), minlength=65536
    ).reshape(256, 256)
    for name, sizes in (('reference', table.sum(1)), ('prediction', table.sum(0))):
        if sizes[num_classes:].any():
            label = int(np.flatnonzero(sizes)[-1])
            raise ValueError(
                f'the {name} holds label {label}, expected 0 to {num_classes - 1}'
            )
    return prediction, reference, table


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    num_classes: int,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = 2.0,
    surface: bool = True,
    diagonal: float | None = None,
    ignore_label: int = 255,
    voxel_ml: float | None = None,
) -> list[dict]:
    """Score a label volume against its reference.

    Args:
        prediction: Predicted class per voxel.
        reference: True class per voxel.
        num_classes: Classes, background (0) included.
        spacing: Voxel size (z, y, x), mm. Defaults to None, which leaves out
            distances.
        tolerance_mm: Tolerance of NSD, mm.
        surface: Whether to measure distances.
        diagonal: Penalty distance, mm. Defaults to the diagonal of the given
            volume.
        ignore_label: Reference voxels that do not count.
        voxel_ml: Volume of a voxel, ml, where the grid is no box of the voxel
            size. Defaults to None: the product of the spacing.

    Shape: prediction, reference ``(Z, H, W)``, uint8.

    Returns:
        list[dict]: Per foreground class its 'status' and, by name, the
        numbers of all :data:`SCORES`; NaN: not counted.

    Raises:
        ValueError: If the shapes differ or a label is out of range.
    """
    prediction, reference, table = _confusion(
        prediction, reference, num_classes, ignore_label
    )
    voxel_volume = 1.0
    if spacing is not None:
        voxel_volume = voxel_ml or float(np.prod(spacing)) / 1000
    if not surface:
        spacing = None
    if spacing is None:
        diagonal = float('nan')
    elif diagonal is None:
        diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    volumes = _Volumes(prediction, reference, num_classes)
    scores = []
    for label in range(1, num_classes):
        masks = ClassMasks(
            volumes,
            label,
            predicted_voxels=int(table[:, label].sum()),
            reference_voxels=int(table[label].sum()),
            common_voxels=int(table[label, label]),
            spacing=spacing,
            voxel_volume=voxel_volume,
            diagonal=diagonal,
            tolerance_mm=tolerance_mm,
        )
        scores.append(
            dict(
                status=masks.status,
                **{name: score(masks) for name, score in SCORES.items()},
            )
        )
    return scores
