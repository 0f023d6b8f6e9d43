"""Compare DICOM volumes with other readers: SimpleITK, and dcm2niix if on PATH.

Prints the largest difference of a voxel and of a corner, volume by volume.
Without folders: the test images in the packages pydicom and nibabel.

Series of a tilted gantry differ in their corners from both. Every slice of ours lies
where its ImagePositionPatient says. SimpleITK stacks the slices along their normal.
dcm2niix (1.0.20260724) leaves the shear in the affine of what it does not resample,
but gives the step from slice to slice the length of its part along the normal: of n
slices the last lies (n - 1) * step * (1 - cos(tilt)) too near, 1.06 mm for 8 slices of
2.5 mm at 20 degrees. In the column of positions the first voxels of all slices are
compared with the files themselves.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import Series, group_series
from medssl_mm.store.orientation import canonicalize, corner_shift

EXAMPLE = """example:
  python tools/benchmark/dicom_oracle.py ~/scans ~/phantoms
"""

Volume = tuple[NDArray, NDArray[np.float64]]


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument(
        'folders', nargs='*', type=Path, metavar='DIR', help='with DICOM series'
    )
    return parser.parse_args()


def packaged(scratch: Path) -> list[Path]:
    """The test images of pydicom, and those of nibabel unpacked."""
    folders = [Path(pydicom.__file__).parent / 'data' / 'test_files']
    shipped = Path(nibabel.__file__).parent / 'nicom' / 'tests' / 'data'
    scratch.mkdir()
    for path in shipped.glob('*.dcm*'):
        target = scratch / path.name.split('.')[0] / 'image.dcm'
        target.parent.mkdir(exist_ok=True)
        content = path.read_bytes()
        target.write_bytes(
            gzip.decompress(content) if path.suffix == '.gz' else content
        )
    return [*folders, scratch]


def by_simpleitk(folder: Path) -> Iterator[Volume]:
    """Every series of a folder as SimpleITK stacks it."""
    reader = sitk.ImageSeriesReader()
    for uid in reader.GetGDCMSeriesIDs(str(folder)):
        names = reader.GetGDCMSeriesFileNames(str(folder), uid)
        image = sitk.ReadImage(names[0] if len(names) == 1 else names)
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        affine[:3, 3] = image.GetOrigin()
        affine[:2] *= -1
        yield sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine


def by_dcm2niix(folder: Path) -> Iterator[Volume]:
    """Every volume of a folder as dcm2niix converts it."""
    with tempfile.TemporaryDirectory() as out:
        subprocess.run(
            ['dcm2niix', '-b', 'n', '-z', 'n', '-f', '%s', '-o', out, str(folder)],
            check=False,
            capture_output=True,
        )
        for path in sorted(Path(out).glob('*.nii')):
            image = nibabel.load(path)
            values = np.atleast_3d(np.asarray(image.dataobj))
            for part in values.reshape(*values.shape[:3], -1).transpose(3, 0, 1, 2):
                yield part, image.affine


def turned(volume: Volume) -> Volume:
    """Voxels ``(Z, Y, X)`` and affine in the canonical orientation."""
    array, affine, _ = canonicalize(*volume)
    return array, affine


def difference(ours: Volume, other: Volume) -> tuple[float, float] | None:
    """Largest difference of a voxel, and of a corner in mm; None: other size."""
    (one, one_affine), (two, two_affine) = turned(ours), turned(other)
    if one.shape != two.shape:
        return None
    shift = corner_shift(one.shape[::-1], one_affine, two_affine)
    return float(np.abs(one - two.astype(float)).max()), shift


def misplaced(series: Series, ours: Volume) -> str:
    """Farthest that a slice of the files lies from every slice of ours, in words."""
    places = [item.position for item in series.slices]
    array, affine = ours
    if None in places:
        return ''
    own = affine[:3, 2] * np.arange(array.shape[2])[:, None] + affine[:3, 3]
    stated = np.array(places, np.float64) * (-1, -1, 1)
    apart = np.linalg.norm(own[:, None] - stated[None], axis=2).min(0)
    return f'{apart.max():.2g} mm'


def compare(ours: Volume, others: list[Volume]) -> str:
    """The nearest of the volumes of another reader, in words."""
    found = [result for other in others if (result := difference(ours, other))]
    if not found:
        shapes = sorted({str(array.shape) for array, _ in others})
        return f'no such volume; has {", ".join(shapes) or "none"}'
    voxel, corner = min(found, key=lambda pair: (round(pair[1], 2), pair[0]))
    return f'{voxel:.4g}, {corner:.2g} mm'


def linked(series: Series, scratch: Path) -> Path:
    """The files of a series alone in a new folder."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    for index, path in enumerate(series.files):
        (folder / f'{index}.dcm').symlink_to(path)
    return folder


def rows(folder: Path, scratch: Path) -> Iterator[list[str]]:
    """One row per volume below a folder."""
    for series in group_series(folder)[0]:
        where = series.folder.relative_to(folder).as_posix()
        name = f'{where} {series.number or ""} {series.part}'.strip()
        try:
            array, affine, problems = read_series(series.files, series.frames)
        except UserError as error:
            yield [name, '', '', '', '', f'refused: {error}']
            continue
        alone = linked(series, scratch)
        ours = array, affine
        other = 'not on PATH'
        if shutil.which('dcm2niix'):
            other = compare(ours, list(by_dcm2niix(alone)))
        yield [
            name,
            ' x '.join(map(str, array.shape)),
            misplaced(series, ours),
            compare(ours, list(by_simpleitk(alone))),
            other,
            ', '.join(problem.code for problem in problems),
        ]


def main() -> None:
    """Compare and show the differences."""
    args = parse_args()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    table = Table('volume', 'voxels', 'positions', 'SimpleITK', 'dcm2niix', 'findings')
    with tempfile.TemporaryDirectory() as scratch:
        for folder in args.folders or packaged(Path(scratch, 'nibabel')):
            for row in rows(folder, Path(scratch)):
                table.add_row(*row)
    Console().print(table)
    print('largest difference of a voxel, and of a corner; of positions, of a slice')


if __name__ == '__main__':
    run_tool(main)
