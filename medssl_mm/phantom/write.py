"""Patients as NIfTI files, in the layout of BTCV."""

import gzip
import json
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_json, write_whole
from medssl_mm.phantom.case import make_phantom_case


def _write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    volume = nibabel.Nifti1Image(array, affine)
    volume.header.set_xyzt_units('mm')
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    # mtime=0: the same patient is the same file, byte for byte.
    write_whole(path, gzip.compress(volume.to_bytes(), 1, mtime=0))


def _write_case(out_dir: Path, seed: int, index: int, size: int) -> None:
    image_path = out_dir / 'img' / f'img{index + 1:04d}.nii.gz'
    label_path = out_dir / 'label' / f'label{index + 1:04d}.nii.gz'
    if image_path.exists() and label_path.exists():
        return
    image, label, affine = make_phantom_case(seed, index, size)
    _write_nifti(label_path, label, affine)
    _write_nifti(image_path, image, affine)


def write_phantom(
    out_dir: str | Path,
    num_patients: int = 24,
    seed: int = 0,
    size: int = 160,
    jobs: int | None = None,
) -> Path:
    """Write ``img/imgNNNN.nii.gz`` and ``label/labelNNNN.nii.gz`` pairs.

    The layout and the class indices are BTCV's. Existing files of the same
    settings are kept, so an interrupted run goes on where it stopped.

    Args:
        out_dir: Folder to write to; made if absent.
        num_patients: Number of patients.
        seed: Seed of the set.
        size: In-plane matrix.
        jobs: Processes; the files do not depend on it. Defaults to None: as the
            surrounding ``joblib.parallel_config`` says, else 1.

    Raises:
        UserError: The folder holds a phantom of another seed or size, or
            ``num_patients`` is under 1.
    """
    from joblib import Parallel, delayed

    if num_patients < 1:
        raise UserError(f'num_patients={num_patients} must be at least 1.')
    out_dir = Path(out_dir)
    record = out_dir / 'phantom.json'
    settings = dict(seed=seed, size=size, version=1)
    if record.is_file():
        found = json.loads(record.read_text())
        if found != settings:
            raise UserError(
                f'{out_dir} holds a phantom made with {found}, asked for '
                f'{settings}; choose another folder or delete this one.'
            )
    for folder in ('img', 'label'):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    write_json(record, settings, indent=None)
    Parallel(n_jobs=jobs)(
        delayed(_write_case)(out_dir, seed, index, size)
        for index in range(num_patients)
    )
    return out_dir
