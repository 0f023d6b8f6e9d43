"""One volume with a known geometry, written in every format."""

import nibabel
import numpy as np

SPACING = (0.7, 0.8, 3.0)  # x, y, z in mm
ORIGIN = (-12.0, 20.0, 30.0)  # LPS, mm


def make_values(depth=5, rows=12, columns=10, seed=0):
    """HU ``(Z, Y, X)`` of the canonical axes L, P, S."""
    rng = np.random.default_rng(seed)
    return rng.integers(-1000, 2000, (depth, rows, columns)).astype(np.int16)


def lps_affine():
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    return affine


def write_nifti_volume(path, values):
    affine = np.diag([-1.0, -1, 1, 1]) @ lps_affine()
    nibabel.save(nibabel.Nifti1Image(values.T, affine), path)
    return path


def write_itk(path, values, turned=False, compressed=False):
    """Write by SimpleITK; ``turned`` stores other axes of the same voxels."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(values)
    if path.suffix not in ('.tif', '.tiff'):
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        if turned:
            image = sitk.DICOMOrient(image, 'SAR')
    sitk.WriteImage(image, str(path), compressed)
    return path
