import numpy as np
import pytest

from medssl_mm.results import Run
from tests.results.made import CLASSES, write_predictions


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    low = rng.uniform(0.3, 0.6, (8, 2))
    return low, np.clip(low + 0.2 + rng.normal(0, 0.02, (8, 2)), 0, 1)


@pytest.fixture
def classifiers(tmp_path):
    """Runs of two methods with two seeds, and their predictions."""
    made, runs = {}, []
    for name, strength in (('random', 0.1), ('moco', 0.6)):
        folders = tuple(tmp_path / f'{name}{seed}' for seed in (0, 1))
        made[name] = [
            write_predictions(folder, 10 * len(name) + seed, strength)
            for seed, folder in enumerate(folders)
        ]
        runs.append(Run('finetune', name, folders, 0.1))
    return runs, made


@pytest.fixture
def store(tmp_path):
    from medssl_mm.store import StoreWriter

    rng = np.random.default_rng(0)
    writer = StoreWriter.create(
        tmp_path / 'store', 'toy', 'CT', 'HU', ['background', *CLASSES]
    )
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    for case in range(3):
        label = np.zeros((3, 20, 16), np.uint8)
        label[1, 2:9, 3:8], label[1, 12:16, 8:12] = 1, 2
        image = rng.normal(40, 20, label.shape).astype(np.int16)
        writer.add_case(
            f'case{case}',
            image,
            label,
            patient_id=f'p{case}',
            spacing=(5.0, 2.0, 2.0),
            affine=affine,
            source_affine=affine,
            source_shape=(16, 20, 3),
            source_orientation='LPS',
        )
    return writer.finish()
