"""Fixtures: real data, a small store, small NIfTI folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

# What tools/test_processors.sh runs as other processors would: the tests of these
# places, which compare numbers with a reference or within a tolerance ...
NUMERIC = (
    'functional/',
    'models/',
    'evaluation/',
    'converters/',
    'engine/hooks/',
    'engine/optimizers/',
    'engine/test_pretrained.py',
)
# ... but not those marked exact (a test of an exact file may be marked numeric): a
# run compared with itself, copies, messages, settings and formats of files.


def pytest_collection_modifyitems(items):
    """Mark the tests whose numbers depend on the processor."""
    tests = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(tests).as_posix()
        if place.startswith(NUMERIC) and not item.get_closest_marker('exact'):
            item.add_marker('numeric')


def pytest_generate_tests(metafunc):
    """Repeat every test as often as ``MEDSSL_TEST_REPEAT`` says, in one process."""
    times = int(os.environ.get('MEDSSL_TEST_REPEAT', 1))
    if times > 1:
        metafunc.fixturenames.append('_repetition')
        metafunc.parametrize('_repetition', range(times), indirect=True)


@pytest.fixture
def _repetition():
    """Which repetition of a test this is; the test need not know."""


@pytest.fixture(scope='session', autouse=True)
def _server():
    """Let the processes of tests be prepared, by one server and beside other tests."""
    if 'tests.distributed' in sys.modules:
        sys.modules['tests.distributed'].start_server()


@pytest.fixture(autouse=True)
def _fresh_mmengine_scopes():
    """Undo the global scopes that a test left behind, if mmengine is used."""
    yield
    if 'mmengine' not in sys.modules:
        return
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope

    for scope in (DefaultScope, MessageHub, MMLogger):
        scope._instance_dict.clear()


@pytest.fixture(autouse=True)
def _same_environment():
    """Take back what a test, or what it called, wrote into the environment."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _rounding():
    """Compute as another processor would, if the environment asks for it."""
    if 'MEDSSL_TEST_ROUNDING' not in os.environ:
        yield
        return
    from tests.rounding import imitated_rounding

    with imitated_rounding():
        yield


@pytest.fixture
def call(monkeypatch, tmp_path):
    """Function that runs a tool of analysis in the folder of the test.

    ``call('probe', *arguments)`` returns the exit code.
    """
    from tests import tools

    monkeypatch.chdir(tmp_path)
    return lambda tool, *arguments: tools.call(f'analysis/{tool}.py', *arguments)


@pytest.fixture(scope='session')
def realdata() -> Path:
    """Folder of real images; the test is skipped where it is absent."""
    folder = os.environ.get('MEDSSL_REALDATA')
    if not folder or not Path(folder).is_dir():
        pytest.skip('MEDSSL_REALDATA does not name a folder')
    return Path(folder).resolve()


@pytest.fixture(scope='session')
def slurm_node(tmp_path_factory):
    """Environment of a running Slurm of one node, where one is installed."""
    from tests import slurm

    if slurm.missing():
        pytest.skip(f'no {slurm.missing()}')
    # Sockets have short names.
    with slurm.one_node(tmp_path_factory.mktemp('slurm')) as environment:
        yield environment


def make_ct(seed: int, shape=(6, 40, 48)):
    """Make a CT-like volume with two organs.

    Returns:
        tuple: image ``(Z, H, W)`` int16 in HU, label ``(Z, H, W)`` uint8
        with 0 background, 1 liver, 2 kidney.
    """
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    z, y, x = np.mgrid[:depth, :height, :width]
    body = ((y - height / 2) / (0.42 * height)) ** 2 + (
        (x - width / 2) / (0.45 * width)
    ) ** 2 < 1
    shift = rng.integers(-2, 3)
    label = np.zeros(shape, np.uint8)
    liver = (y - height / 2) ** 2 + (x - width / 3 - shift) ** 2 < 60
    kidney = (y - height / 1.7) ** 2 + (x - width / 1.5 + shift) ** 2 < 16
    label[liver & body & (z > 0)] = 1
    label[kidney & body & (z > 1) & (label == 0)] = 2
    image = np.where(body, 40, -1000) + np.choose(label, [0, 60, 120])
    image = image + rng.normal(0, 12, shape)
    return image.round().astype(np.int16), label


def writer_at(root, units='arbitrary', classes=('background', 'liver'), **settings):
    """Start a store with two classes."""
    from medssl_mm.store import StoreWriter

    modality = 'CT' if units == 'HU' else 'other'
    return StoreWriter.create(root, 'made', modality, units, classes, **settings)


def write_tiny_store(
    root, patients=4, cases_per_patient=1, shape=(6, 40, 48), labelled=True
):
    """Write a CT store with geometry and a hold-out split 'tiny'.

    Cases are 'p0-0', 'p0-1', 'p1-0', ...; patients 'p0', 'p1', ...
    """
    from medssl_mm.store import StoreWriter
    from medssl_mm.store.orientation import canonicalize
    from medssl_mm.store.splits import make_holdout, save_split

    writer = StoreWriter.create(
        root,
        'tiny',
        'CT',
        'HU',
        ('background', 'liver', 'kidney'),
        [[0, 0, 0], [221, 130, 101], [185, 102, 83]],
    )
    patient_of = {}
    for patient in range(patients):
        for number in range(cases_per_patient):
            image, label = make_ct(100 * patient + number, shape)
            source_affine = np.diag([1.5, 1.25, 5.0, 1.0])
            source_affine[:3, 3] = -30, -20, 10 * patient
            image, affine, info = canonicalize(image.T, source_affine)
            label, _, _ = canonicalize(label.T, source_affine)
            case_id = f'p{patient}-{number}'
            patient_of[case_id] = f'p{patient}'
            writer.add_case(
                case_id,
                image,
                label if labelled else None,
                patient_id=f'p{patient}',
                affine=affine,
                source_file=f'{case_id}.nii.gz',
                **info,
            )
    store = writer.finish()
    if patients > 2:
        save_split(
            root,
            make_holdout(
                patient_of,
                patient_of,
                'tiny',
                test=1 / patients,
                val=1 / patients,
                protocol='tiny',
            ),
        )
    return store


@pytest.fixture(scope='session')
def tiny_store(tmp_path_factory):
    """A labelled CT store of 4 patients, 6 slices of 40 x 48; read only.

    Has the split 'tiny': 2 train, 1 val, 1 test, pretrain = train + val.
    """
    return write_tiny_store(tmp_path_factory.mktemp('store') / 'tiny')


@pytest.fixture
def make_store():
    """Function that writes a small store: see ``write_tiny_store``."""
    return write_tiny_store


def write_nifti(path, array, affine=None):
    """Write ``array`` ``(I, J, K)`` as NIfTI; makes the folder."""
    import nibabel

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.5, 1.5, 5.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def tiny_nifti(tmp_path):
    """Function that writes a folder of CT volumes with labels.

    ``tiny_nifti(num_cases, image_name, label_name)`` writes
    ``<tmp>/source/<name>`` with the case number (from 1) filled into the
    names, and returns the folder. ``label_name=None`` writes no labels.
    """

    def write(
        num_cases=3,
        image_name='images/case{}.nii.gz',
        label_name='labels/case{}.nii.gz',
    ):
        folder = tmp_path / 'source'
        for number in range(1, num_cases + 1):
            image, label = make_ct(number)
            write_nifti(folder / image_name.format(number), image.T)
            if label_name:
                write_nifti(folder / label_name.format(number), label.T)
        return folder

    return write
