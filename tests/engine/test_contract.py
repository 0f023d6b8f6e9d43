"""Runs that are resumed with other settings than they began with."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

from medssl_mm.engine.contract import differences
from tests.distributed import run_processes
from tests.engine import toy


def _load(path):
    return torch.load(path, weights_only=True)


def _lines(runner):
    return next(Path(runner.log_dir).glob('*.log')).read_text()


def _with_schedule(work_dir, epochs, by_epoch=True, **optimizer):
    """A warm-up by iterations, then a cosine to the end of the run."""
    settings = toy.config(work_dir, by_epoch)
    length = epochs if by_epoch else 4 * epochs
    settings['train_cfg']['max_epochs' if by_epoch else 'max_iters'] = length
    settings['optim_wrapper']['optimizer'].update(optimizer)
    settings['param_scheduler'] = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6),
        dict(type='CosineAnnealingLR', by_epoch=by_epoch, T_max=length, end=length),
    ]
    return settings


@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iters'])
def test_longer_training_has_the_schedule_of_a_fresh_one(tmp_path, by_epoch):
    fresh = toy.train(_with_schedule(tmp_path / 'fresh', 8, by_epoch))
    toy.train(_with_schedule(tmp_path / 'longer', 4, by_epoch))
    longer = toy.train(_with_schedule(tmp_path / 'longer', 8, by_epoch), 'auto')
    last = 'epoch_8.pth' if by_epoch else 'iter_32.pth'
    ends = [_load(tmp_path / name / last) for name in ('fresh', 'longer')]
    rates = [
        end['message_hub']['log_scalars']['train/lr']['log_history'][16:].tolist()
        for end in ends
    ]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 2  # it goes on falling
    assert ends[0]['param_schedulers'] == ends[1]['param_schedulers']
    text = _lines(longer)
    assert 'goes on as a new run with these settings' in text
    assert 'train_cfg.max' in text
    assert 'goes on as a new run' not in _lines(fresh)


def test_other_rate_and_decay_are_applied_and_told(tmp_path):
    toy.train(_with_schedule(tmp_path, 2))
    runner = toy.train(
        _with_schedule(tmp_path, 3, lr=0.2, weight_decay=0.01, momentum=0.5), 'auto'
    )
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert group['initial_lr'] == 0.2
    assert (group['weight_decay'], group['momentum']) == (0.01, 0.5)
    text = _lines(runner)
    assert 'optim_wrapper.optimizer.lr: 0.05 -> 0.2' in text
    assert 'weight_decay 0 -> 0.01' in text


def test_other_batch_size_counts_epochs_as_a_fresh_run(tmp_path):
    toy.train(_with_schedule(tmp_path, 2))
    settings = _with_schedule(tmp_path, 4)
    settings['train_dataloader']['batch_size'] = 8
    runner = toy.train(settings, 'auto')
    text = _lines(runner)
    assert 'batches of an epoch: 4 -> 2' in text
    assert 'train_dataloader.batch_size: 4 -> 8' in text
    assert _load(tmp_path / 'epoch_4.pth')['meta']['iter'] == 8


def test_same_settings_say_nothing(tmp_path):
    toy.train(_with_schedule(tmp_path, 2))
    (tmp_path / 'epoch_2.pth').unlink()
    text = _lines(toy.train(_with_schedule(tmp_path, 2), 'auto'))
    assert 'resumed epoch: 1' in text
    assert 'WARNING' not in text.partition('resumed epoch')[2]
    assert 'other settings' not in text


def test_checkpoint_of_before_is_resumed_and_said_to_be_unknown(tmp_path):
    toy.train(_with_schedule(tmp_path, 2))
    checkpoint = _load(tmp_path / 'epoch_2.pth')
    del checkpoint['contract']
    torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    text = _lines(toy.train(_with_schedule(tmp_path, 3), 'auto'))
    assert 'does not say with which data and settings' in text
    assert 'goes on as a new run' in text


def _on_two(work_dir):
    settings = toy.config(work_dir, launcher='pytorch')
    settings['train_cfg']['max_epochs'] = 2
    RUNNERS.build(Config(settings)).train()


def test_fewer_processes_are_told(tmp_path):
    run_processes(_on_two, 2, str(tmp_path))
    text = _lines(toy.train(toy.config(tmp_path), 'auto'))
    assert 'processes: 2 -> 1' in text
    assert 'batches of an epoch: 2 -> 4' in text


def test_data_split_and_long_lists_of_differences():
    old = dict(
        facts={'training data': '9 samples, split a, split_hash 12'},
        settings={f'model.{n}': '1' for n in range(20)},
    )
    new = dict(
        facts={'training data': '9 samples, split a, split_hash 34'},
        settings={'model.new': '1'},
    )
    found = differences(old, new)
    assert found[0].endswith('split_hash 12 -> 9 samples, split a, split_hash 34')
    assert 'model.0: 1 -> not set' in found
    assert found[-1] == 'and 10 more'
    assert differences(old, old) == []
