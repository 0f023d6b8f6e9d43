"""Which checkpoint counts, and which may go."""

import os

import pytest

from medssl_mm import experiments
from tests.experiments.conftest import plan


def test_last_checkpoint_survives_a_move(tmp_path):
    old, new = tmp_path / 'old', tmp_path / 'new'
    old.mkdir()
    (old / 'iter_5.pth').touch()
    (old / 'last_checkpoint').write_text(str(old / 'iter_5.pth'))
    old.rename(new)
    assert experiments.last_checkpoint(new) == new / 'iter_5.pth'
    assert experiments.last_checkpoint(tmp_path) is None
    for damage in (b'', b'\0' * 40, b'/run/iter_\xff\xfe.pth', b'gone.pth'):
        (new / 'last_checkpoint').write_bytes(damage)
        assert experiments.last_checkpoint(new) is None
    other = tmp_path / 'elsewhere/iter_7.pth'
    other.parent.mkdir()
    other.touch()
    (new / 'last_checkpoint').write_text(str(other))
    assert experiments.last_checkpoint(new) == other
    (new / 'iter_7.pth').touch()  # a copied folder has its own
    assert experiments.last_checkpoint(new) == new / 'iter_7.pth'


def test_best_is_the_later_one_whatever_the_clock_says(tmp_path):
    for step, age in (('9', 30), ('10', 20), ('8', 10)):
        path = tmp_path / f'best_mean_iter_{step}.pth'
        path.touch()
        os.utime(path, (age, age))
    os.utime(path, (2**33, 2**33))  # in the future
    assert experiments.best_checkpoint(tmp_path).name == 'best_mean_iter_10.pth'


@pytest.mark.parametrize('keep', [False, True])
def test_superseded_checkpoints_go_when_the_training_is_done(table, fake_tools, keep):
    table = experiments.select(table, seeds=[0], fractions=[1.0])
    steps, _ = plan(table)
    folder = next(
        step.folder
        for step in steps.values()
        if step.key.startswith('train-linear-moco')
    )
    folder.mkdir(parents=True)
    names = [
        'epoch_1.pth',
        'iter_10.pth',
        'iter_20.pth',
        'mine.pth',
        'best_volume_mDice_iter_10.pth',
        'best_volume_mDice_iter_20.pth',
    ]
    for age, name in enumerate(reversed(names)):
        (folder / name).touch()
        os.utime(folder / name, (1e9 - age, 1e9 - age))

    def present():
        return {path.name for path in folder.glob('*.pth')}

    (fake_tools / 'broken').touch()
    for _ in range(2):  # what failed may be resumed from any of them
        experiments.run_steps(
            table, steps, report=lambda line: None, keep_checkpoints=keep
        )
        assert present() == set(names)
    (fake_tools / 'broken').unlink()
    assert (
        experiments.run_steps(
            table, steps, report=lambda line: None, keep_checkpoints=keep
        )
        == []
    )
    assert present() == {
        'last.pth',
        *(names if keep else ['mine.pth', 'best_volume_mDice_iter_20.pth']),
    }


def test_nothing_is_deleted_where_the_last_checkpoint_is_unknown(tmp_path):
    (tmp_path / 'iter_10.pth').touch()
    assert experiments.drop_superseded(tmp_path) == []
    assert (tmp_path / 'iter_10.pth').exists()
