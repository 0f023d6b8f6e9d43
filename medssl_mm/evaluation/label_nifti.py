"""Label volumes as files, NIfTI on the grid of the source image."""

from pathlib import Path

import nibabel as nib
import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import whole_file
from medssl_mm.store import CaseInfo, to_source_grid
from medssl_mm.store.orientation import corner_shift, shear_of, spacing_of

SCANNER = 1  # code of a form in scanner coordinates
_SHIFT = 0.1  # of a voxel edge, by which a qform may misplace a corner


def write_label_nifti(
    volume: np.ndarray,
    case: CaseInfo,
    path: str | Path,
    code: int = SCANNER,
) -> tuple[str, ...]:
    """Write labels on the source grid with the source affine, in mm.

    Sform and qform are equal and have one code. A sheared grid (gantry tilt) cannot
    be told by a qform: its sform stands alone, with qform code 0.

    Args:
        volume (np.ndarray): Class per voxel, in the store's orientation.
        case (CaseInfo): Case with its source grid.
        path (str | Path): Ends with .nii or .nii.gz.
        code (int): NIfTI code of both forms: that of the source, so that a program
            places both alike; 0: the source has none, nor have the labels. Defaults
            to 1, scanner coordinates.

    Shape: volume ``(Z, H, W)``, uint8.

    Returns:
        tuple[str, ...]: What a reader of the file has to know.

    Raises:
        UserError: If the case has no source grid, the name is no NIfTI name,
            or the file cannot be written.
    """
    path = Path(path)
    if case.source_affine is None:
        raise UserError(
            f'case {case.case_id} has no affine (it was imported from images '
            'without geometry), so it cannot be written as NIfTI'
        )
    suffix = '.nii.gz' if path.name.endswith('.nii.gz') else '.nii'
    if not path.name.endswith(suffix):
        raise UserError(f'{path} must end with .nii or .nii.gz')
    affine = np.asarray(case.source_affine, dtype=float)
    labels = np.ascontiguousarray(to_source_grid(volume, case)).astype(np.uint8)
    image = nib.Nifti1Image(labels, affine)
    image.header.set_xyzt_units('mm')
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    shift = corner_shift(labels.shape, image.get_qform(), affine)
    sheared = shift > _SHIFT * min(spacing_of(affine))
    if sheared:
        image.set_qform(affine, 0)
    if not code:
        image.header.set_zooms(spacing_of(affine))
    with whole_file(path) as temporary:
        nib.save(image, temporary)
    if not sheared:
        return ()
    return (
        f'the grid is sheared by {shear_of(affine):.1f} degrees (gantry tilt?); the '
        'labels state it by their sform alone (qform code 0), which readers that know '
        'right angles only (ITK, SimpleITK, 3D Slicer) refuse',
    )


def write_label_array(volume: np.ndarray, path: str | Path) -> None:
    """Write labels of a case without geometry, key ``labels``.

    Args:
        volume: Class per voxel, in the store's orientation.
        path: Ends with .npz.

    Shape: volume ``(Z, H, W)``, uint8.

    Raises:
        UserError: If the file cannot be written.
    """
    with whole_file(path) as temporary:
        np.savez_compressed(temporary, labels=volume)
