import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

from medssl_mm.engine.runner import Runner
from tests.distributed import run_alone, run_processes
from tests.engine import toy

# A run is compared with itself.
pytestmark = pytest.mark.exact


def _settings(work_dir, keep=3, **changes):
    settings = toy.config(work_dir, by_epoch=False, **changes)
    settings['default_hooks']['checkpoint'].update(
        save_best='mean', rule='greater', max_keep_ckpts=keep
    )
    return settings


def _names(folder):
    return sorted(path.name for path in folder.glob('*.pth'))


def _load(path):
    return torch.load(path, weights_only=True)


def _killed_at(settings, moment):
    """Train until a moment of the second best checkpoint, and die there."""
    save = Runner.save_checkpoint

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def saving(self, out_dir, filename, *args, **kwargs):
        second = self.iter >= 8
        best = filename.startswith('best')
        if second and best and moment == 'before the new best':
            die()
        save(self, out_dir, filename, *args, **kwargs)
        if second and best and moment == 'before its state':
            die()
        if second and not best and 'best_ckpt' in self.message_hub.runtime_info:
            if 'iter_8' in self.message_hub.get_info('best_ckpt'):
                if moment == 'before the deletion':
                    die()

    Runner.save_checkpoint = saving
    toy.train(settings)


@pytest.fixture(scope='module')
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp('straight')
    toy.train(_settings(folder))
    assert 'best_mean_iter_8.pth' in _names(folder)
    return folder


@pytest.mark.parametrize(
    'moment',
    [
        'before the new best',
        'before its state',
        'before the deletion',
    ],
)
def test_killed_around_the_best_there_is_one_and_it_is_that_of_a_straight_run(
    tmp_path, straight, moment
):
    assert run_alone(_killed_at, _settings(tmp_path), moment) == -signal.SIGKILL
    assert [name for name in _names(tmp_path) if name.startswith('best')]
    toy.train(_settings(tmp_path), 'auto')
    assert _names(tmp_path) == _names(straight)
    for name in ('best_mean_iter_8.pth', 'iter_16.pth'):
        ours, theirs = _load(tmp_path / name), _load(straight / name)
        for key, value in theirs['state_dict'].items():
            assert torch.equal(ours['state_dict'][key], value), (name, key)
        info = [c['message_hub']['runtime_info'] for c in (ours, theirs)]
        assert info[0]['best_score'] == info[1]['best_score']


def _with_late_kill(settings):
    validate = Runner.call_hook

    def call(self, name, **kwargs):
        if name == 'before_val' and self.iter == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        validate(self, name, **kwargs)

    Runner.call_hook = call
    toy.train(settings)


def test_validation_that_was_due_is_done_once(tmp_path, straight):
    assert run_alone(_with_late_kill, _settings(tmp_path)) == -signal.SIGKILL
    runner = toy.train(_settings(tmp_path), 'auto')
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    # Runs that start in one second share a file.
    text = text.partition('resumed epoch')[2]
    assert text.count('which is due') == 1
    assert text.count('Iter(val) [4/4]') == 3  # of 8, 12 and 16
    assert _names(tmp_path) == _names(straight)
    pointer = tmp_path / 'last_checkpoint'
    pointer.write_text('')  # cut short
    again = toy.train(_settings(tmp_path), 'auto')
    assert Path(pointer.read_text()) == tmp_path / 'iter_16.pth'
    text = next(Path(again.log_dir).glob('*.log')).read_text()
    text = text.rpartition('resumed epoch')[2]
    assert text.count('Iter(val) [4/4]') == 1  # no new best: may be repeated
    assert _names(tmp_path) == _names(straight)


def _two(work_dir, resume, kill):
    settings = _settings(work_dir, launcher='pytorch', resume=resume)
    if kill:
        call = Runner.call_hook

        def dying(self, name, **kwargs):
            if name == 'before_val' and self.iter == 8:
                raise ArithmeticError('stopped')
            call(self, name, **kwargs)

        Runner.call_hook = dying
    RUNNERS.build(Config(settings)).train()


def test_two_processes_do_the_validation_that_was_due(tmp_path):
    straight, parts = tmp_path / 'straight', tmp_path / 'parts'
    run_processes(_two, 2, str(straight), False, False)
    with pytest.raises(ArithmeticError):
        run_processes(_two, 2, str(parts), False, True)
    run_processes(_two, 2, str(parts), 'auto', False)
    assert _names(parts) == _names(straight)
    assert [name for name in _names(parts) if name.startswith('best')]
    ends = [_load(folder / 'iter_16.pth')['state_dict'] for folder in (straight, parts)]
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key


def _dies_while_saving(settings):
    save = Runner.save_checkpoint

    def saving(self, out_dir, filename, *args, **kwargs):
        if filename == 'iter_8.pth':
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, out_dir, filename, *args, **kwargs)

    Runner.save_checkpoint = saving
    toy.train(settings)


def test_the_only_state_that_is_kept_goes_after_the_next_one(tmp_path):
    settings = _settings(tmp_path, keep=1)
    assert run_alone(_dies_while_saving, settings) == -signal.SIGKILL
    assert 'iter_4.pth' in _names(tmp_path)
    toy.train(settings, 'auto')
    assert [n for n in _names(tmp_path) if n.startswith('iter')] == ['iter_16.pth']


def _dies_while_deleting(settings):
    remove = os.remove

    def removing(path):
        if Path(path).name == 'iter_4.pth':
            os.kill(os.getpid(), signal.SIGKILL)
        remove(path)

    os.remove = removing
    toy.train(settings)


def test_what_a_killed_run_was_about_to_delete_goes(tmp_path):
    settings = _settings(tmp_path, keep=1)
    assert run_alone(_dies_while_deleting, settings) == -signal.SIGKILL
    assert {'iter_4.pth', 'iter_8.pth'} <= set(_names(tmp_path))
    toy.train(settings, 'auto')
    assert [n for n in _names(tmp_path) if n.startswith('iter')] == ['iter_16.pth']


def test_best_that_was_deleted_is_chosen_anew(tmp_path):
    toy.train(_settings(tmp_path))
    (tmp_path / 'best_mean_iter_8.pth').unlink()
    settings = _settings(tmp_path)
    settings['train_cfg']['max_iters'] = 20
    runner = toy.train(settings, 'auto')
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'best_mean_iter_8.pth, is not there' in text
    assert [name for name in _names(tmp_path) if name.startswith('best')]


def test_moved_folder_replaces_its_own_best(tmp_path):
    settings = _settings(tmp_path / 'here')
    settings['train_cfg']['max_iters'] = 4
    toy.train(settings)
    (tmp_path / 'here').rename(tmp_path / 'there')
    toy.train(_settings(tmp_path / 'there'), 'auto')
    assert _names(tmp_path / 'there')[0] == 'best_mean_iter_8.pth'
    assert not (tmp_path / 'here').exists()
