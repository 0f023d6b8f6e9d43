import gzip

import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.phantom import make_phantom_case, write_phantom


def test_files_do_not_depend_on_jobs(tmp_path):
    write_phantom(tmp_path / 'one', 2, seed=5, size=32, jobs=1)
    write_phantom(tmp_path / 'two', 2, seed=5, size=32, jobs=2)
    files = sorted(
        p.relative_to(tmp_path / 'one') for p in (tmp_path / 'one').rglob('*.nii.gz')
    )
    assert [str(p) for p in files] == [
        f'{kind}/{kind}{number:04d}.nii.gz'
        for kind in ('img', 'label')
        for number in (1, 2)
    ]
    for name in files:
        assert (tmp_path / 'one' / name).read_bytes() == (
            tmp_path / 'two' / name
        ).read_bytes()


def test_an_interrupted_run_goes_on(tmp_path):
    write_phantom(tmp_path, 2, seed=5, size=40)
    path = tmp_path / 'img' / 'img0002.nii.gz'
    first, kept = path.read_bytes(), tmp_path / 'img' / 'img0001.nii.gz'
    stamp = kept.stat().st_mtime_ns
    path.unlink()
    write_phantom(tmp_path, 2, seed=5, size=40)
    assert path.read_bytes() == first
    assert kept.stat().st_mtime_ns == stamp
    assert not list(tmp_path.rglob('*.part'))


def test_folder_of_other_settings_is_refused(tmp_path):
    write_phantom(tmp_path, 1, seed=5, size=40)
    with pytest.raises(UserError, match="'seed': 5.*asked for.*'seed': 6"):
        write_phantom(tmp_path, 1, seed=6, size=40)


def test_files_are_nifti_in_hounsfield_units(tmp_path):
    write_phantom(tmp_path, 1, seed=0, size=48)
    image, label, affine = make_phantom_case(0, 0, size=48)
    path = tmp_path / 'img' / 'img0001.nii.gz'
    volume = nibabel.load(path)
    assert volume.get_data_dtype() == np.int16
    assert volume.header.get_xyzt_units()[0] == 'mm'
    np.testing.assert_array_equal(np.asarray(volume.dataobj), image)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    mask = nibabel.load(tmp_path / 'label' / 'label0001.nii.gz')
    np.testing.assert_array_equal(np.asarray(mask.dataobj), label)
    assert len(gzip.decompress(path.read_bytes())) == 352 + image.nbytes
