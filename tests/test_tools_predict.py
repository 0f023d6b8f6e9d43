import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from .test_inference import image, model  # noqa: F401

ROOT = Path(__file__).parents[1]


def run(*args):
    return subprocess.run(
        [sys.executable, 'tools/predict.py', *map(str, args)],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )


def test_writes_labels_and_refuses_bad_input(model, image, tmp_path):  # noqa: F811
    config, checkpoint = model
    config.dump(tmp_path / 'config.py')
    nib.save(image, tmp_path / 'scan.nii.gz')
    arguments = (tmp_path / 'config.py', checkpoint)
    done = run(
        *arguments, tmp_path / 'scan.nii.gz', tmp_path / 'out.nii.gz', '--device', 'cpu'
    )
    assert done.returncode == 0, done.stderr
    assert 'spleen' in done.stdout
    labels = nib.load(tmp_path / 'out.nii.gz')
    np.testing.assert_allclose(labels.affine, image.affine)
    again = run(*arguments, tmp_path / 'scan.nii.gz', tmp_path / 'out.nii.gz')
    assert again.returncode == 2
    assert again.stderr.strip().startswith('error: ')
    assert '--overwrite' in again.stderr and 'Traceback' not in again.stderr
