"""The import tool as a user runs it."""

import re

import pytest

from medssl_mm.importers import IMPORTERS, importer_class
from medssl_mm.importers.options import flag
from medssl_mm.store import SliceStore
from medssl_mm.store.images import ImageStore
from medssl_mm.store.splits import load_split
from tests import tools
from tests.datasets.images import make_picture, write_picture


@pytest.fixture
def prepare(monkeypatch):
    """Function that runs the tool; its last error line must not be a traceback."""
    monkeypatch.setenv('COLUMNS', '120')

    def run(*args):
        done = tools.run('prepare_data.py', *args)
        assert 'Traceback' not in done.stderr
        return done

    return run


def test_import_twice_with_splits(prepare, tiny_nifti, tmp_path):
    folder, out = tiny_nifti(), tmp_path / 'out'
    args = (
        'nifti',
        '--src',
        folder,
        '--out',
        out,
        '--classes',
        'liver,kidney',
        '--holdout',
        0.3,
    )
    done = prepare(*args, '--jobs', 2)
    assert done.returncode == 0, done.stderr
    split = load_split(out, 'holdout-30-seed0')
    for text in (
        '3 imported, 0 unchanged, 0 rejected',
        'labelled slices',
        f'split holdout-30-seed0 (hash {split.hash})',
        'liver',
    ):
        assert text in done.stdout
    assert SliceStore(out).case_ids == ('case1', 'case2', 'case3')
    again = prepare(*args)
    assert again.returncode == 0
    assert '0 imported, 3 unchanged' in again.stdout
    assert 'nothing to do' in again.stdout


def test_strict_failure_names_the_file_and_leaves_nothing(
    prepare, tiny_nifti, tmp_path
):
    folder, out = tiny_nifti(), tmp_path / 'out'
    path = folder / 'images' / 'case2.nii.gz'
    path.write_bytes(path.read_bytes()[:500])
    args = ('nifti', '--src', folder, '--out', out, '--classes', 'liver,kidney')
    done = prepare(*args, '--strict')
    assert done.returncode == 2 and not out.exists()
    assert 'case2.nii.gz cannot be read' in done.stderr
    done = prepare(*args)
    assert done.returncode == 3
    assert 'unreadable' in done.stdout and '1 rejected' in done.stdout
    assert 'cases were left out' in done.stderr


def test_images_twice_with_their_splits(prepare, tmp_path):
    folder, out = tmp_path / 'source', tmp_path / 'out'
    for seed in range(24):
        patient, label = 10253 + seed // 4, seed % 2
        write_picture(
            folder / f'{patient}/{label}/{patient}_idx5_x1_y{seed}_class{label}.png',
            make_picture(seed, 50),
        )
    args = ('idc', '--src', folder, '--out', out, '--holdout', 0.4, '--stratified')
    done = prepare(*args, '--jobs', 2)
    assert done.returncode == 0, done.stderr
    names = ('idc-patients', 'holdout-40-seed0-stratified')
    for text in (
        '24 images checked',
        '24 imported, 0 unchanged, 0 rejected',
        'labelled images',
        'positive',
        *(f'split {n} (hash {load_split(out, n).hash})' for n in names),
    ):
        assert text in done.stdout
    again = prepare(*args)
    assert again.returncode == 0 and 'nothing to do' in again.stdout
    bad = next(folder.glob('10254/1/*.png'))
    bad.write_bytes(bad.read_bytes()[:100])
    lax = prepare(*args)
    assert lax.returncode == 3 and 'images were left out' in lax.stderr
    assert len(ImageStore(out)) == 23


def test_empty_folder(prepare, tmp_path):
    done = prepare('abdomen1k', '--src', tmp_path, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert f'under {tmp_path}' in done.stderr
    assert 'Case_00001_0000.nii.gz' in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'args, message',
    [
        (('nifti',), "'nifti' needs --src"),
        (('btcv', '--src', '.', '--images', '*'), 'does not take --images'),
        (('breakhis', '--src', '.', '--lists', '.'), 'does not take --lists'),
        (('png', '--imges', '*.png'), 'not take --imges; .*; did you mean --images?'),
        (('png', '--hold-out', '0.2'), 'not take --hold-out; .*mean --holdout?'),
        (('nifty', '--src', '.'), "data set 'nifty'; .*; did you mean nifti?"),
    ],
)
def test_wrong_options(prepare, tmp_path, args, message):
    done = prepare(*args, '--out', tmp_path / 'out')
    assert done.returncode == 2
    assert re.search(message.replace('?', r'\?'), done.stderr), done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', ['dicom', 'btcv', 'phantom', 'nih-cxr14'])
def test_help_of_a_name_shows_its_own_options(prepare, name):
    done = prepare(name, '--help')
    assert done.returncode == 0
    kind = importer_class(name)
    assert kind.layout.strip().splitlines()[0] in done.stdout
    shown = set(re.findall(r'^  (--[a-z-]+)', done.stdout, re.M))
    own = {flag(option) for option in kind.options()}
    others = {
        flag(option) for one in IMPORTERS for option in importer_class(one).options()
    }
    assert own <= shown and not (others - own - {'--seed'}) & shown


def test_the_name_may_follow_options(prepare, tiny_nifti, tmp_path):
    out = tmp_path / 'out'
    done = prepare('--src', tiny_nifti(2), 'nifti', '--out', out, '--classes', 'a,b')
    assert done.returncode == 0, done.stderr
    assert SliceStore(out).classes == ('background', 'a', 'b')


def test_help_shows_an_example(prepare):
    done = prepare('--help')
    assert done.returncode == 0
    assert 'python tools/prepare_data.py btcv' in done.stdout
