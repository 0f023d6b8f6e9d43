import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from medssl_mm.engine.hooks import OnlineProbeHook
from medssl_mm.engine.observing import inner_model
from medssl_mm.errors import UserError
from medssl_mm.results import read_scalars
from tests.distributed import run_alone, run_processes
from tests.engine.hooks import test_collapse_monitor_hook as toy
from tests.engine.hooks.classified import (
    LOADED,
    log_of,
    make,
    of_method,
    online,
    run,
    steady_encoder,
)


def checkpoint_of(folder, name):
    return torch.load(folder / name, weights_only=True)


def hook_of(runner):
    return next(hook for hook in runner.hooks if isinstance(hook, OnlineProbeHook))


def _die_on_the_way(work_dir, by_epoch, at, changes):
    kill = dict(type='KillHook', iteration=at)
    run(work_dir, [online(by_epoch=by_epoch), kill], by_epoch=by_epoch, **changes)


_SAVED_OFTEN = dict(
    default_hooks__checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)
)


@pytest.mark.exact
@pytest.mark.parametrize(
    'by_epoch, method',
    [(True, 'MoCo'), (False, 'MoCo'), (True, 'SimCLR'), (True, 'BYOL')],
)
def test_killed_and_resumed_probe_equals_an_uninterrupted_one(
    tmp_path, by_epoch, method
):
    """Encoder, classifier, optimizer and place in the data; every batch's noise."""
    probes, changes = [online(by_epoch=by_epoch)], {} if by_epoch else _SAVED_OFTEN
    if method != 'MoCo':
        changes = of_method(method)
    run(tmp_path / 'straight', probes, by_epoch=by_epoch, **changes)
    at = 6 if by_epoch else 3
    code = run_alone(_die_on_the_way, str(tmp_path / 'parts'), by_epoch, at, changes)
    assert code not in (0, None)
    run(tmp_path / 'parts', probes, by_epoch=by_epoch, resume='auto', **changes)
    name = 'epoch_2.pth' if by_epoch else 'iter_5.pth'
    assert_same_end(tmp_path, name)
    ours, steps = checkpoint_of(tmp_path / 'parts', name), 8 if by_epoch else 5
    assert ours['online_probe']['optimizer']['state'][0]['step'] == steps
    assert ours['online_probe']['images_seen'] == 4 * steps
    assert (method == 'BYOL') == any('target_net' in n for n in ours['state_dict'])


def assert_same_end(folder, name):
    """Of the runs 'straight' and 'parts', bit for bit."""
    first, second = (checkpoint_of(folder / n, name) for n in ('straight', 'parts'))
    assert toy.same(first['state_dict'], second['state_dict'])
    ours, theirs = first['online_probe'], second['online_probe']
    assert toy.same(ours['head'], theirs['head'])
    assert toy.same(ours['optimizer']['state'], theirs['optimizer']['state'])
    assert ours['images_seen'] == theirs['images_seen']
    assert ours['start_scores'] == theirs['start_scores'] != {}
    curves, again = (read_scalars(folder / n) for n in ('straight', 'parts'))
    for name in [name for name in curves if name.startswith('probe/')]:
        np.testing.assert_array_equal(curves[name], again[name])


def _of_two(work_dir, at=None, resume=None):
    probes = [online()]
    if at is not None:
        probes.append(dict(type='KillHook', iteration=at, gently=True))
    try:
        run(work_dir, probes, resume=resume, **of_method('BYOL'))
    except ArithmeticError:
        return 'stopped'
    return 'ended'


@pytest.mark.slow
@pytest.mark.exact
def test_two_processes_resume_exactly(tmp_path):
    """BYOL with its target, and the probe."""
    straight, parts = str(tmp_path / 'straight'), str(tmp_path / 'parts')
    assert run_processes(_of_two, 2, straight) == ['ended'] * 2
    assert run_processes(_of_two, 2, parts, 3) == ['stopped'] * 2
    assert run_processes(_of_two, 2, parts, None, 'auto') == ['ended'] * 2
    assert_same_end(tmp_path, 'epoch_2.pth')


@pytest.mark.exact
def test_checkpoint_without_the_probe_starts_it_anew(tmp_path):
    run(tmp_path, train_cfg__max_epochs=1)
    run(tmp_path, [online()], resume='auto')
    assert 'the checkpoint holds nothing of it; it starts anew' in log_of_last(tmp_path)
    saved = checkpoint_of(tmp_path, 'epoch_2.pth')['online_probe']
    assert saved['images_seen'] == 16 and not saved['start_scores']


def log_of_last(folder):
    return sorted(folder.glob('*/*.log'))[-1].read_text()


@pytest.mark.exact
def test_probe_of_other_classes_is_not_resumed(tmp_path):
    run(tmp_path, [online()], train_cfg__max_epochs=1)
    three = dict(type='ToyClassified', labels=(0, 1, 2), classes='xyz')
    wrong = online(
        train_dataset=dict(three, patients='a'), val_dataset=dict(three, patients='b')
    )
    with pytest.raises(ValueError, match='a classifier of other features or classes'):
        run(tmp_path, [wrong], resume='auto')


class NoGradient(Hook):
    """After the probe's step no parameter of the model may have a gradient."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        head = hook_of(runner).classifier.head
        self.seen.append(all(p.grad is not None for p in head.parameters()))
        assert all(p.grad is None for p in runner.model.parameters())


@pytest.mark.exact
def test_the_encoder_gets_no_gradient(tmp_path):
    runner, _ = make(tmp_path, [online()])
    runner.register_hook(hook := NoGradient())
    runner.train()
    assert hook.seen == [True] * 8


@pytest.mark.exact
@pytest.mark.parametrize('size', [4, 6, 60])
def test_an_epoch_is_one_pass_of_the_pretraining(tmp_path, size):
    """Whether the probe's data are fewer or more; they go round by themselves."""
    LOADED.clear()
    train = dict(type='ToyClassified', patients='a', size=size)
    runner, _ = run(tmp_path, [online(train_dataset=train, start_steps=0)])
    assert runner.iter == 8
    rows = LOADED['a'][1:]  # a look at the first image comes before
    assert len(rows) == 8 * 4
    for first in range(0, len(rows) - size + 1, size):
        assert sorted(rows[first : first + size]) == list(range(size))


def test_classifier_learns_what_it_is_shown(tmp_path):
    probe = online(lr=0.02, weight_decay=0.0)
    run(tmp_path, [probe], train_cfg__max_epochs=8, **steady_encoder())
    curves = read_scalars(tmp_path)
    assert curves['probe/online_accuracy'][-1, 1] == 1.0
    loss = curves['probe/online_loss'][:, 1]
    assert loss[-1] < 0.5 * loss[1]


def _classify(work_dir, probe, batch_size):
    runner, _ = run(
        work_dir,
        [probe],
        train_dataloader__batch_size=batch_size,
        **steady_encoder(),
    )
    classifier = hook_of(runner).classifier
    weights = list(classifier.state_dict()['head'].values())
    return weights, hook_of(runner).images_seen


@pytest.mark.parametrize('class_weights', [None, [0.1, 0.9]])
def test_two_processes_equal_one(tmp_path, class_weights):
    """Images shared out, gradients of the joint batch, scores of all images."""
    probe = online(
        train_dataset=dict(type='ToyClassified', patients='a', noise=False),
        val_dataset=dict(type='ToyClassified', patients='b', size=7, noise=False),
        class_weights=class_weights,
        dropout=0.0,
        lr=0.01,
    )
    one, seen = run_processes(
        _classify, 1, str(tmp_path / 'one'), dict(probe, batch_size=8), 8
    )[0]
    first, second = run_processes(
        _classify, 2, str(tmp_path / 'two'), dict(probe, batch_size=4), 4
    )
    assert seen == first[1] == second[1]
    for alone, shared, other in zip(one, first[0], second[0]):
        assert torch.equal(shared, other)
        torch.testing.assert_close(alone, shared, rtol=1e-4, atol=1e-5)
    curves, both = (read_scalars(tmp_path / name) for name in ('one', 'two'))
    for name in [name for name in curves if name.startswith('probe/')]:
        np.testing.assert_allclose(curves[name], both[name], rtol=1e-3, atol=1e-4)


def test_zero_line_is_a_classifier_trained_on_the_first_encoder(tmp_path):
    """With nothing learned by the encoder, the probe ends where the line is."""
    steps = 32
    settings = online(
        train_dataset=dict(type='ToyClassified', patients='a', noise=False),
        val_dataset=dict(type='ToyClassified', patients='b', size=6, noise=False),
        dropout=0.0,
        lr=0.003,
        start_steps=steps,
    )
    run(tmp_path, [settings], train_cfg__max_epochs=8, **steady_encoder())
    losses = read_scalars(tmp_path)['probe/online_loss'][:, 1]
    assert losses[0] == pytest.approx(losses[-1], rel=1e-3)
    assert losses[0] < 0.8 * losses[1]


@pytest.mark.exact
def test_without_a_zero_line(tmp_path):
    run(tmp_path, [online(start_steps=0)])
    curves = read_scalars(tmp_path)
    assert curves['probe/online_accuracy'][:, 0].tolist() == [4, 8]
    assert '(start' not in log_of(tmp_path)


@pytest.mark.exact
def test_encoder_in_training_mode_takes_statistics_of_the_probe(tmp_path):
    _, without = run(tmp_path / 'without')
    _, probed = run(tmp_path / 'with', [online(encoder_mode='train')])
    first, second = without[0]['weights'], probed[0]['weights']
    differing = {name for name in first if not torch.equal(first[name], second[name])}
    assert differing and all(
        name.startswith('backbone.') and 'running' in name or 'batches' in name
        for name in differing
    )
    assert without[0]['modes'] == probed[0]['modes']


def test_class_weights_count_both_data_sets(tmp_path):
    """21 positives of 100 images."""
    labels = (1,) * 21 + (0,) * 59
    probe = online(
        train_dataset=dict(type='ToyClassified', labels=labels, size=80),
        val_dataset=dict(type='ToyClassified', labels=(0,), patients='b', size=20),
        class_weights='balanced',
        start_steps=0,
    )
    runner, _ = run(tmp_path, [probe], train_cfg__max_epochs=1)
    weights = hook_of(runner).classifier.weights
    torch.testing.assert_close(weights, torch.tensor([0.21, 0.79]))


@pytest.mark.exact
def test_balanced_weights_need_every_class(tmp_path):
    three = dict(type='ToyClassified', labels=(0, 1), classes='xyz')
    probe = online(
        train_dataset=dict(three, patients='a'),
        val_dataset=dict(three, patients='b'),
        class_weights='balanced',
    )
    with pytest.raises(ValueError, match=r"of 24 images there are {'x': 12, 'y': 12,"):
        run(tmp_path, [probe])


@pytest.mark.exact
def test_features_that_are_not_finite_are_passed_over(tmp_path):
    """Said once; the classifier keeps its weights."""
    runner, _ = make(tmp_path, [online()])

    class Breaker(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            if runner.iter == 4:
                stem = inner_model(runner).backbone.bn1
                stem.running_var.fill_(float('nan'))

    runner.register_hook(Breaker())
    with pytest.raises(UserError, match='epoch_2.pth is not written: .*running_var'):
        runner.train()
    log = log_of(tmp_path)
    assert log.count('features of iteration 5 are not finite') == 1
    assert 'features of val_dataset are not finite after iteration 8: no scores' in log
    assert read_scalars(tmp_path)['probe/online_loss'][:, 0].tolist() == [0, 4]
    assert 'iteration 6 are not finite' not in log
    head = hook_of(runner).classifier.head
    assert all(p.isfinite().all() for p in head.parameters())


@pytest.mark.exact
@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(batch_size=0), 'batch_size must be 1 or more, got 0'),
        (dict(dropout=1.0), 'dropout is a share from 0 to below 1, got 1.0'),
        (dict(lr=0.0), 'lr must be above 0'),
        (dict(max_grad_norm=0), 'max_grad_norm must be above 0, got 0'),
        (dict(class_weights='equal'), "class_weights is 'balanced', .* got 'equal'"),
        (dict(encoder_mode='frozen'), "encoder_mode is one of .* got 'frozen'"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(online(**wrong))


@pytest.mark.exact
def test_class_weights_of_another_number(tmp_path):
    with pytest.raises(ValueError, match=r'3 numbers; give one per class \(across,'):
        run(tmp_path, [online(class_weights=[1, 2, 3])])
