"""Scores of one segmented volume, class by class."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class in one case; NaN means not counted.

    Args:
        status (str): 'counted', 'absent', 'missed' or 'invented'.
        dice (float): Dice coefficient, 0-1.
        hd95 (float): 95th percentile Hausdorff distance, mm.
        nsd (float): Normalised surface distance, 0-1.
        reference_volume (float): ml, or voxels without spacing.
        predicted_volume (float): The same.
        volume_error (float): Absolute difference of the two, same unit.
        relative_volume_error (float): Signed difference by the reference;
            NaN when the reference is empty.
    """

    status: str
    dice: float
    hd95: float
    nsd: float
    reference_volume: float
    predicted_volume: float
    volume_error: float
    relative_volume_error: float


def empty_class_policy(
    reference: int, predicted: int, diagonal: float
) -> tuple[str, dict[str, float] | None]:
    """Decide what happens when a class is empty on one or both sides.

    The only place where this is decided; see :data:`POLICY`.

    Args:
        reference (int): Voxels of the class in the reference.
        predicted (int): Voxels of the class in the prediction.
        diagonal (float): Diagonal of the case, mm; NaN without spacing.

    Returns:
        tuple[str, dict | None]: Status, and the scores it forces; None when
        the scores are to be measured.
    """
    if reference and predicted:
        return COUNTED, None
    if not reference and not predicted:
        return ABSENT, dict(dice=np.nan, hd95=np.nan, nsd=np.nan)
    status = MISSED if reference else INVENTED
    # Without spacing there is no distance and so no surface score either.
    nsd = np.nan if np.isnan(diagonal) else 0.0
    return status, dict(dice=0.0, hd95=diagonal, nsd=nsd)


def surface_distances(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances between two surfaces, in both directions, by MONAI.

    Args:
        prediction (np.ndarray): Mask, not empty.
        reference (np.ndarray): Mask, not empty.
        spacing (Sequence[float]): Voxel size per axis, mm.

    Shape: masks ``(Z, H, W)``, bool. Returns two arrays ``(points,)``, mm.
        A single slice is measured in its plane.
    """
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    if prediction.shape[0] == 1:
        prediction, reference = prediction[0], reference[0]
        spacing = spacing[1:]
    with warnings.catch_warnings():
        # MONAI warns about an argument that its own code passes.
        warnings.simplefilter('ignore', FutureWarning)
        _, (forward, backward), _ = get_edge_surface_distance(
            torch.from_numpy(np.ascontiguousarray(prediction)),
            torch.from_numpy(np.ascontiguousarray(reference)),
            spacing=tuple(float(size) for size in spacing),
            symmetric=True,
        )
    return forward.numpy(), backward.numpy()


def _union_box(masks_boxes: Sequence[tuple | None]) -> tuple[slice, ...]:
    boxes = [box for box in masks_boxes if box is not None]
    return tuple(
        slice(
            min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)
        )
        for axis in range(3)
    )


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    num_classes: int,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = 2.0,
    surface: bool = True,
    diagonal: float | None = None,
    ignore_label: int = 255,
) -> list[ClassScore]:
    """Score a label volume against its reference.

    Args:
        prediction (np.ndarray): Predicted class per voxel.
        reference (np.ndarray): True class per voxel.
        num_classes (int): Classes, background (0) included.
        spacing (Sequence[float], optional): Voxel size (z, y, x), mm.
            Defaults to None, which leaves out distances.
        tolerance_mm (float): Tolerance of NSD, mm. Defaults to 2.0.
        surface (bool): Whether to measure distances. Defaults to True.
        diagonal (float, optional): Penalty distance, mm. Defaults to the
            diagonal of the given volume.
        ignore_label (int): Reference voxels that do not count. Defaults to
            255.

    Shape: prediction, reference ``(Z, H, W)``, uint8. Returns one score per
        foreground class, in order.

    Raises:
        ValueError: If the shapes differ or a label is out of range.
    """
    from scipy.ndimage import find_objects

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
    surface = surface and spacing is not None
    millilitres = np.prod(spacing) / 1000 if spacing is not None else 1.0
    if not surface:
        diagonal = np.nan
    elif diagonal is None:
        diagonal = float(np.linalg.norm(np.multiply(prediction.shape, spacing)))
    boxes = (
        [find_objects(volume, num_classes - 1) for volume in (prediction, reference)]
        if surface
        else None
    )
    scores = []
    for index in range(1, num_classes):
        n_ref = int(table[index].sum())
        n_pred = int(table[:, index].sum())
        status, forced = empty_class_policy(n_ref, n_pred, diagonal)
        values = forced
        if values is None:
            values = dict(
                dice=2 * int(table[index, index]) / (n_ref + n_pred),
                hd95=np.nan,
                nsd=np.nan,
            )
            if surface:
                # Only the box of the organ: the rest of the volume has no
                # surface voxel of it.
                box = _union_box([side[index - 1] for side in boxes])
                forward, backward = surface_distances(
                    prediction[box] == index, reference[box] == index, spacing
                )
                values['hd95'] = float(
                    max(np.percentile(forward, 95), np.percentile(backward, 95))
                )
                within = (forward <= tolerance_mm).sum() + (
                    backward <= tolerance_mm
                ).sum()
                values['nsd'] = float(within / (len(forward) + len(backward)))
        scores.append(
            ClassScore(
                status=status,
                reference_volume=n_ref * millilitres,
                predicted_volume=n_pred * millilitres,
                volume_error=abs(n_pred - n_ref) * millilitres
                if status != ABSENT
                else np.nan,
                relative_volume_error=(n_pred - n_ref) / n_ref if n_ref else np.nan,
                **values,
            )
        )
    return scores
