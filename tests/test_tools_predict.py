import nibabel as nib
import numpy as np

from tests import tools

from .test_inference import image, model  # noqa: F401


def run(*args):
    return tools.run('predict.py', *args)


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
