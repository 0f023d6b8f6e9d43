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
    (new / 'last_checkpoint').write_text('')  # cut short
    assert experiments.last_checkpoint(new) is None


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
