"""Statistics and counts of a case, and their file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medssl_mm.store import CaseInfo
from tests.conftest import writer_at


def test_statistics_equal_numpy(tmp_path):
    rng = np.random.default_rng(1)
    image = rng.integers(-1024, 1500, (4, 64, 64)).astype(np.int16)
    image[0] = -1000
    writer = writer_at(tmp_path / 's', units='HU')
    info = writer.add_case('a', image)
    found = info.intensity
    assert found['min'] == image.min() and found['max'] == image.max()
    assert found['mean'] == pytest.approx(image.mean(dtype=float))
    assert found['std'] == pytest.approx(image.std(dtype=float))
    low, high = np.percentile(image, (0.5, 99.5))
    assert found['p00_5'] == pytest.approx(low, abs=1)
    assert found['p99_5'] == pytest.approx(high, abs=1)
    np.testing.assert_allclose(
        info.slice_foreground, (image > -500).mean((1, 2)), atol=1e-5
    )
    assert info.slice_foreground[0] == 0


def test_statistics_of_float_images(tmp_path):
    image = np.random.default_rng(1).normal(3, 1, (4, 32, 32)).astype(np.float32)
    info = writer_at(tmp_path / 's').add_case('a', image)
    limit = 0.05 * np.percentile(image, 99.5)
    np.testing.assert_allclose(
        info.slice_foreground, (image > limit).mean((1, 2)), atol=1e-5
    )
    assert info.intensity['p00_5'] == pytest.approx(np.percentile(image, 0.5))


def test_class_counts(tmp_path):
    image = np.random.default_rng(0).integers(0, 99, (3, 16, 16)).astype(np.uint8)
    label = np.zeros_like(image)
    label[1, :2, :3] = 1
    info = writer_at(tmp_path / 's').add_case('a', image, label, labelled_slices=[1, 2])
    assert info.class_slices == {'1': 1} and info.class_voxels == {'1': 6}
    assert [info.has_label(i) for i in range(3)] == [False, True, True]


def test_case_info_survives_the_file(tiny_store):
    info = tiny_store.case('p1-0')
    again = CaseInfo.from_dict(
        json.loads((tiny_store.root / 'cases' / 'p1-0' / 'case.json').read_text())
    )
    assert again == info
    assert info.shape == (6, 40, 48)
    assert info.spacing == (5.0, 1.25, 1.5)
    assert info.source_orientation == 'RAS'
    assert info.patient_id == 'p1'


def test_a_voxel_of_a_sheared_grid_is_no_box(tiny_store):
    info = tiny_store.case(tiny_store.case_ids[0])
    size = np.array([3.0, 0.8, 0.7])
    upright = replace(
        info, spacing=tuple(size), affine=np.diag([*size[::-1], 1]).tolist()
    )
    assert upright.voxel_ml == pytest.approx(1.68e-3)
    affine = np.array(upright.affine)
    affine[1, 2] = 1.5  # the slices follow each other askew
    sheared = replace(upright, spacing=(np.hypot(3, 1.5), 0.8, 0.7), affine=affine)
    assert sheared.voxel_ml == pytest.approx(1.68e-3)
    assert replace(sheared, affine=None).voxel_ml > 1.8e-3
    assert replace(sheared, affine=None, spacing=None).voxel_ml is None
