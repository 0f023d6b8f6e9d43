import multiprocessing
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS

from medssl_mm.engine import launch
from medssl_mm.engine.checkpoints import random_state
from medssl_mm.errors import UserError
from tests.distributed import run_alone, run_processes
from tests.engine import toy
from tests.waiting import PATIENCE


def _load(path):
    return torch.load(path, weights_only=True)


def _assert_identical(first, second, path=''):
    assert type(first) is type(second), path
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key in first:
            _assert_identical(first[key], second[key], f'{path}.{key}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        for i, pair in enumerate(zip(first, second, strict=True)):
            _assert_identical(*pair, f'{path}.{i}')
    else:
        assert first == second, path


def _assert_same_training_state(first, second):
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        _assert_identical(first[key], second[key], key)
    _assert_identical(first['random_states'], second['random_states'], 'rng')


def _buffers_after_validation(work_dir):
    settings = toy.config(work_dir, launcher='pytorch')
    runner = RUNNERS.build(Config(settings))
    runner.train()
    layer = runner.model.module.backbone[1]
    return layer.running_mean.clone(), layer.running_var.clone()


@pytest.mark.slow
@pytest.mark.parametrize('by_epoch', [True, False], ids=['epochs', 'iters'])
@pytest.mark.parametrize('num_workers', [0, 1])
def test_killed_and_resumed_run_equals_a_straight_one(tmp_path, by_epoch, num_workers):
    last = 'epoch_4.pth' if by_epoch else 'iter_16.pth'
    toy.train(toy.config(tmp_path / 'straight', by_epoch, num_workers))
    killed = toy.config(
        tmp_path / 'killed',
        by_epoch,
        num_workers,
        custom_hooks=[dict(type='KillHook', iteration=10)],
    )
    assert run_alone(toy.train, killed) == -signal.SIGKILL
    assert not (tmp_path / 'killed' / last).exists()
    killed['custom_hooks'] = []
    toy.train(killed, 'auto')
    _assert_same_training_state(
        _load(tmp_path / 'straight' / last), _load(tmp_path / 'killed' / last)
    )


def test_toy_training_depends_on_every_random_generator(tmp_path):
    """Otherwise the test above would prove little."""
    toy.train(toy.config(tmp_path / 'straight'))
    path = tmp_path / 'straight' / 'epoch_2.pth'
    for name in ('python', 'torch'):
        checkpoint = _load(path)
        work_dir = tmp_path / name
        _spoil_and_train(str(work_dir), checkpoint, name)
        end = _load(work_dir / 'epoch_4.pth')
        reference = _load(tmp_path / 'straight' / 'epoch_4.pth')
        assert not torch.equal(
            end['state_dict']['queue'], reference['state_dict']['queue']
        )


def _spoil_and_train(work_dir, checkpoint, name):
    Path(work_dir).mkdir()
    states = checkpoint['random_states']
    torch.manual_seed(99)
    states[0][name] = random_state()[name]
    path = Path(work_dir, 'epoch_2.pth')
    torch.save(checkpoint, path)
    toy.train(toy.config(work_dir), resume=str(path))


def _train_on_two(work_dir, resume, *hooks, by_iterations=False):
    settings = toy.config(
        work_dir,
        launcher='pytorch',
        randomness=dict(seed=3, diff_rank_seed=True),
        custom_hooks=list(hooks),
        resume=resume,
    )
    settings = _by_iterations(settings) if by_iterations else settings
    RUNNERS.build(Config(settings)).train()


def test_two_processes_resume_exactly_each_with_its_random_state(tmp_path):
    straight, parts = str(tmp_path / 'straight'), str(tmp_path / 'parts')
    run_processes(_train_on_two, 2, straight, False)
    stop = dict(type='KillHook', iteration=5, gently=True)
    with pytest.raises(ArithmeticError):
        run_processes(_train_on_two, 2, parts, False, stop)
    assert not (tmp_path / 'parts' / 'epoch_4.pth').exists()
    run_processes(_train_on_two, 2, parts, 'auto')
    end = _load(tmp_path / 'straight' / 'epoch_4.pth')
    _assert_same_training_state(end, _load(tmp_path / 'parts' / 'epoch_4.pth'))
    first, second = end['random_states']
    assert not torch.equal(first['torch'], second['torch'])


@pytest.fixture
def stopped_clock(monkeypatch):
    """Runners are named by the second; here all are of the same."""
    monkeypatch.setattr(
        'mmengine.runner.runner.time',
        SimpleNamespace(
            time=lambda: 1e9, strftime=time.strftime, localtime=time.localtime
        ),
    )


def test_runners_made_at_once_have_their_own_logs(tmp_path, stopped_clock):
    runners = [
        RUNNERS.build(Config(toy.config(tmp_path / name)))
        for name in ('first', 'second')
    ]
    for runner, name in zip(runners, ('first', 'second')):
        runner.logger.info(f'a line of the {name}')
        runner.visualizer.add_scalar('loss', 1.0)
    for runner, own, other in (
        (runners[0], 'first', 'second'),
        (runners[1], 'second', 'first'),
    ):
        assert Path(runner.log_dir).parent == tmp_path / own
        (log,) = Path(runner.log_dir).glob('*.log')
        assert f'a line of the {own}' in log.read_text()
        assert f'a line of the {other}' not in log.read_text()
        scalars = Path(runner.log_dir, 'vis_data/scalars.json').read_text()
        assert len(scalars.splitlines()) == 1
    assert runners[0].message_hub is not runners[1].message_hub
    names = {runner.experiment_name for runner in runners}
    assert len(names) == 2


def test_second_run_into_a_folder_has_its_own_log(tmp_path, stopped_clock):
    for _ in range(2):
        RUNNERS.build(Config(toy.config(tmp_path)))
    assert len(list(tmp_path.glob('*/*.log'))) == 2


def _make_runners(work_dir):
    settings = toy.config(work_dir, launcher='pytorch')
    return [RUNNERS.build(Config(settings)).timestamp for _ in range(4)]


def test_names_of_runners_are_those_of_all_ranks(tmp_path):
    first, second = run_processes(_make_runners, 2, str(tmp_path))
    assert first == second
    assert len(set(first)) == 4


def test_truncated_newest_checkpoint_is_skipped(tmp_path, capfd):
    toy.train(toy.config(tmp_path))
    newest = tmp_path / 'epoch_4.pth'
    reference = _load(newest)
    newest.write_bytes(newest.read_bytes()[:-100])
    runner = toy.train(toy.config(tmp_path), resume='auto')
    assert 'epoch_4.pth is truncated' in capfd.readouterr().out
    log = next(Path(runner.log_dir).glob('*.log')).read_text()
    assert 'resumed epoch: 3' in log
    _assert_same_training_state(_load(newest), reference)


def test_no_intact_checkpoint_is_an_error(tmp_path):
    (tmp_path / 'epoch_1.pth').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(UserError, match=r'no checkpoint .*epoch_1\.pth'):
        toy.train(toy.config(tmp_path), resume='auto')


def test_resume_without_any_checkpoint_starts_anew(tmp_path):
    toy.train(toy.config(tmp_path), resume='auto')
    assert (tmp_path / 'epoch_4.pth').exists()


def test_resume_from_a_named_file_reports_its_damage(tmp_path):
    broken = tmp_path / 'mine.pth'
    broken.write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'mine\.pth is truncated or not'):
        toy.train(toy.config(tmp_path), resume=str(broken))
    with pytest.raises(UserError, match=r'other\.pth is not there'):
        toy.train(toy.config(tmp_path), resume=str(tmp_path / 'other.pth'))


def test_resume_from_another_model_is_an_error(tmp_path):
    toy.train(toy.config(tmp_path))
    checkpoint = _load(tmp_path / 'epoch_4.pth')
    checkpoint['state_dict'].pop('backbone.0.weight')
    torch.save(checkpoint, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'not of the model(.|\n)*backbone\.0'):
        toy.train(toy.config(tmp_path / 'new'), resume=str(tmp_path / 'other.pth'))


def test_failed_write_leaves_the_old_checkpoint_and_no_rest(tmp_path, monkeypatch):
    runner = toy.train(toy.config(tmp_path))
    before = (tmp_path / 'epoch_4.pth').read_bytes()

    def refuse(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', refuse)
    with pytest.raises(UserError, match=r'epoch_4\.pth: .*No space left'):
        runner.save_checkpoint(str(tmp_path), 'epoch_4.pth')
    assert (tmp_path / 'epoch_4.pth').read_bytes() == before
    assert not list(tmp_path.glob('.*.tmp'))


def test_three_checkpoints_are_kept(tmp_path):
    toy.train(toy.config(tmp_path))
    names = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert names == ['epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth']


def test_validation_does_not_alter_training(tmp_path):
    without = toy.config(tmp_path / 'without')
    for key in ('val_dataloader', 'val_evaluator', 'val_cfg'):
        without[key] = None
    toy.train(toy.config(tmp_path / 'with'))
    toy.train(without)
    _assert_same_training_state(
        _load(tmp_path / 'with' / 'epoch_4.pth'),
        _load(tmp_path / 'without' / 'epoch_4.pth'),
    )


def test_test_refuses_weights_that_do_not_fill_the_model(tmp_path):
    torch.save({'state_dict': {'other': torch.ones(1)}}, tmp_path / 'a.pth')
    runner = launch.make_runner(
        Config(toy.config(tmp_path)), checkpoint=tmp_path / 'a.pth'
    )
    with pytest.raises(UserError, match='not of the model in the config'):
        runner.test()


def test_ruined_weights_are_neither_tested_nor_trained_on(tmp_path):
    toy.train(toy.config(tmp_path))
    checkpoint = _load(tmp_path / 'epoch_4.pth')
    checkpoint['state_dict']['head.1.bias'].fill_(torch.nan)
    path = tmp_path / 'epoch_4.pth'
    torch.save(checkpoint, path)
    settings = toy.config(tmp_path / 'new')
    message = r'epoch_4\.pth holds 1 weights .*head\.1\.bias \(1 of 1'
    with pytest.raises(UserError, match=message):
        launch.make_runner(Config(settings), checkpoint=path).test()
    with pytest.raises(UserError, match=message):
        toy.train(settings, resume=str(path))
    with pytest.raises(UserError, match=message):
        toy.train(dict(settings, load_from=str(path)))


def test_list_is_no_checkpoint(tmp_path):
    torch.save([torch.ones(2)], tmp_path / 'a.pth')
    with pytest.raises(UserError, match=r'a\.pth holds no named weights, but a list'):
        toy.train(dict(toy.config(tmp_path), load_from=str(tmp_path / 'a.pth')))
    with pytest.raises(UserError, match=r'a\.pth holds no named weights, but a list'):
        launch.make_runner(Config(toy.config(tmp_path)), checkpoint=tmp_path / 'a.pth')


def _train_and_wait(work_dir):
    class Wait(toy.Hook):
        def before_train(self, runner):
            Path(work_dir, 'training').touch()
            while not Path(work_dir, 'go on').exists():
                time.sleep(0.05)

    toy.HOOKS.register_module(module=Wait)
    toy.train(toy.config(work_dir, custom_hooks=[dict(type='Wait')]))


def test_second_training_in_a_folder_is_refused_before_it_writes(tmp_path):
    first = multiprocessing.get_context('spawn').Process(
        target=_train_and_wait, args=(str(tmp_path),)
    )
    first.start()
    latest = time.monotonic() + PATIENCE
    while not (tmp_path / 'training').exists():
        assert first.is_alive() and time.monotonic() < latest
        time.sleep(0.1)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError, match=f'another run works in .*process {first.pid} '):
        toy.train(toy.config(tmp_path))
    assert sorted(tmp_path.rglob('*')) == before
    (tmp_path / 'go on').touch()
    first.join()
    assert first.exitcode == 0
    rest = tmp_path / '.123.epoch_9.pth.tmp'  # a run was killed while it wrote that
    rest.touch()
    toy.train(toy.config(tmp_path), 'auto')
    assert not rest.exists()


def test_data_that_do_not_fill_one_batch_are_an_error(tmp_path):
    settings = toy.config(tmp_path)
    settings['train_dataloader'].update(batch_size=17, drop_last=True)
    with pytest.raises(UserError, match='16 samples.*one batch of 17'):
        toy.train(settings)


def test_two_processes_validate_and_save_one_model(tmp_path):
    buffers = run_processes(_buffers_after_validation, 2, str(tmp_path))
    (mean, variance), other = buffers
    assert torch.equal(mean, other[0])
    assert torch.equal(variance, other[1])
    saved = _load(tmp_path / 'epoch_4.pth')['state_dict']
    assert torch.equal(saved['backbone.1.running_mean'], mean)


def test_settings_of_workers_are_no_obstacle_to_none(tmp_path):
    """Any shipped config can be run with num_workers=0, to look for an error."""
    settings = toy.config(tmp_path)
    settings['train_dataloader'].update(persistent_workers=True, prefetch_factor=2)
    toy.train(settings)
    assert (tmp_path / 'epoch_4.pth').exists()


def _by_iterations(settings, interval=3):
    """Epochs of 4 iterations, or 2 on two processes, and checkpoints inside them."""
    settings['default_hooks']['checkpoint'].update(
        by_epoch=False, interval=interval, max_keep_ckpts=-1
    )
    return settings


@pytest.mark.parametrize(
    'killed_at, name, progress',
    [
        (7, 'iter_6', dict(batches_done=2, batches=4)),
        (13, 'iter_12', dict(batches_done=4, batches=4)),  # the last of an epoch
    ],
)
def test_resuming_inside_an_epoch_goes_on_with_its_next_batch(
    tmp_path, killed_at, name, progress
):
    """The end, the steps and the validations are those of a run without a kill."""
    straight = toy.train(_by_iterations(toy.config(tmp_path / 'straight')))
    parts = _by_iterations(toy.config(tmp_path / 'parts'))
    stop = dict(type='KillHook', iteration=killed_at, gently=True)
    with pytest.raises(ArithmeticError):
        toy.train(dict(parts, custom_hooks=[stop]))
    saved = _load(tmp_path / 'parts' / f'{name}.pth')
    assert saved['meta']['epoch_progress'] == progress
    resumed = toy.train(parts, 'auto')
    assert (resumed.iter, resumed.epoch) == (straight.iter, straight.epoch) == (16, 4)
    last = 'iter_16.pth'
    first, second = (_load(tmp_path / part / last) for part in ('straight', 'parts'))
    _assert_same_training_state(first, second)
    _assert_identical(*(dict(run.model.state_dict()) for run in (straight, resumed)))
    # One value per epoch: none of the weights inside one.
    means = [
        run.message_hub.get_scalar('val/mean').data[0].tolist()
        for run in (straight, resumed)
    ]
    assert means[0] == means[1] and len(means[0]) == 4


def test_validation_of_an_epoch_is_known_where_checkpoints_count_iterations(tmp_path):
    """The one at the best weights holds it: nothing is due when it is resumed."""
    settings = _by_iterations(toy.config(tmp_path), interval=100)
    settings['default_hooks']['checkpoint'].update(save_best='mean', rule='greater')
    stop = dict(type='KillHook', iteration=6, gently=True)
    with pytest.raises(ArithmeticError):
        toy.train(dict(settings, custom_hooks=[stop]))
    best = tmp_path / 'best_mean_iter_4.pth'
    saved = _load(best)['meta']
    assert (saved['epoch'], saved['iter'], saved['epoch_progress']) == (1, 4, None)
    resumed = toy.train(settings, str(best))
    assert len(resumed.message_hub.get_scalar('val/mean').data[0]) == 4


def test_end_of_an_epoch_says_so(tmp_path):
    toy.train(toy.config(tmp_path))
    assert _load(tmp_path / 'epoch_2.pth')['meta']['epoch_progress'] is None


def test_checkpoint_inside_an_epoch_of_before_is_told_of(tmp_path, capfd):
    parts = _by_iterations(toy.config(tmp_path))
    stop = dict(type='KillHook', iteration=7, gently=True)
    with pytest.raises(ArithmeticError):
        toy.train(dict(parts, custom_hooks=[stop]))
    path = tmp_path / 'iter_6.pth'
    saved = _load(path)
    del saved['meta']['epoch_progress']
    torch.save(saved, path)
    toy.train(parts, 'auto')
    said = capfd.readouterr().out
    assert 'after iteration 6, inside an epoch of 4' in said
    assert 'epoch 2 begins anew' in said


def test_two_processes_go_on_inside_an_epoch(tmp_path):
    straight, parts = str(tmp_path / 'straight'), str(tmp_path / 'parts')
    train = partial(_train_on_two, by_iterations=True)
    run_processes(train, 2, straight, False)
    stop = dict(type='KillHook', iteration=4, gently=True)
    with pytest.raises(ArithmeticError):
        run_processes(train, 2, parts, False, stop)
    saved = _load(tmp_path / 'parts' / 'iter_3.pth')['meta']['epoch_progress']
    assert saved == dict(batches_done=1, batches=2)
    run_processes(train, 2, parts, 'auto')
    first, second = (_load(tmp_path / p / 'iter_8.pth') for p in ('straight', 'parts'))
    _assert_same_training_state(first, second)


@toy.MODELS.register_module(force=True)
class RuinedByItsGradient(toy.ToyModel):
    """At one step its loss is finite and its gradient is not."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        found = super().forward(inputs, data_samples, mode)
        if mode == 'loss' and int(self.steps) == 8:
            weight = self.head[1].weight
            zero = (weight - weight.detach()).square().sum().sqrt()
            found['loss_size'] = found['loss_size'] + zero
        return found


def test_weights_that_a_gradient_has_ruined_are_not_saved(tmp_path, capfd):
    """The last good checkpoint stays, and can be gone on from."""
    settings = toy.config(tmp_path, model=dict(type='RuinedByItsGradient'))
    settings['default_hooks']['checkpoint']['max_keep_ckpts'] = 1
    message = r'epoch_2\.pth is not written: 1 weights .* gradient .*clip_grad'
    with pytest.raises(UserError, match=message):
        toy.train(settings)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    settings['model'] = dict(type='ToyModel')
    toy.train(settings, 'auto')
    assert 'resumed epoch: 1' in capfd.readouterr().out
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_4.pth']


def test_ruined_weights_are_passed_over_by_automatic_resume(tmp_path, capfd):
    """As versions wrote them that did not look."""
    toy.train(toy.config(tmp_path))
    reference = _load(tmp_path / 'epoch_4.pth')
    for name in ('epoch_3.pth', 'epoch_4.pth'):
        ruined = _load(tmp_path / name)
        ruined['state_dict']['head.1.bias'].fill_(torch.nan)
        torch.save(ruined, tmp_path / name)
    toy.train(toy.config(tmp_path), 'auto')
    said = capfd.readouterr().out
    assert 'epoch_4.pth holds 1 weights' in said and 'resumed epoch: 2' in said
    _assert_same_training_state(_load(tmp_path / 'epoch_4.pth'), reference)


@toy.MODELS.register_module(force=True)
class WithAMask(toy.ToyModel):
    """A buffer that is infinite from the start."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mask', torch.tensor([0.0, -torch.inf]))


def test_what_is_infinite_from_the_start_may_be_so(tmp_path):
    settings = toy.config(tmp_path, model=dict(type='WithAMask'))
    toy.train(settings)
    runner = toy.train(settings, 'auto')
    assert runner.model.mask[1] == -torch.inf and runner.epoch == 4
