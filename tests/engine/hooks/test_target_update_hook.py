import math
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement

from medssl_mm.engine.runner import Runner
from tests.models.algorithms.toy import DECAY, batches, build_method


class StopAfter(Hook):
    """Ends the training after some epochs, as an interruption does."""

    def __init__(self, epochs):
        self.epochs = epochs

    def before_train_epoch(self, runner):
        if runner.epoch + 1 == self.epochs:
            runner.train_loop.stop_training = True


class Collect(Hook):
    """Keeps the weights of the target before every step."""

    def __init__(self, kept):
        self.kept = kept

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.kept.append(runner.model.target.neck.fc0.weight.clone())


class TwoViews(torch.utils.data.Dataset):
    """Sixteen pairs of views."""

    def __init__(self):
        views = next(iter(batches(1, batch=16, size=32, dtype=torch.float32)))
        self.pairs = [list(pair) for pair in zip(*views)]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return dict(inputs=self.pairs[index], data_samples=BaseDataElement())


def make_runner(folder, hook=True, method='BYOL', **settings):
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-3))
    wrapper.update(settings.pop('wrapper', {}))
    loop = dict(by_epoch=True, max_epochs=3)
    return Runner(
        build_method(method, dtype=torch.float32),
        str(folder),
        train_dataloader=dict(
            dataset=TwoViews(),
            batch_size=4,
            num_workers=0,
            drop_last=True,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=settings.pop('train_cfg', loop),
        optim_wrapper=wrapper,
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='medssl_mm.TargetUpdateHook')] if hook else [],
        default_scope='mmselfsup',
        randomness=dict(seed=0),
        **settings,
    )


def taus_of(runner):
    return runner.message_hub.get_scalar('train/tau').data[0].tolist()


def formula(steps=12):
    return [
        1 - (1 - DECAY) * (math.cos(math.pi * k / steps) + 1) / 2 for k in range(steps)
    ]


def test_tau_of_every_iteration(tmp_path):
    runner = make_runner(tmp_path)
    runner.train()
    assert taus_of(runner) == pytest.approx(formula())
    assert runner.model.target_net.steps == 12
    # And in the lines of the log, at its own iteration.
    lines = next(tmp_path.rglob('*.log')).read_text()
    shown = [float(value) for value in re.findall(r'  tau: (\S+)', lines)]
    assert len(shown) == 12 and shown[0] == pytest.approx(DECAY, abs=1e-3)


@pytest.mark.exact
def test_resumed_run_is_the_same(tmp_path):
    straight = make_runner(tmp_path / 'straight')
    straight.train()
    stopped = make_runner(tmp_path / 'first')
    stopped.register_hook(StopAfter(2))
    stopped.train()
    assert stopped.iter == 8
    resumed = make_runner(
        tmp_path / 'resumed',
        resume=True,
        load_from=str(tmp_path / 'first' / 'epoch_2.pth'),
    )
    resumed.train()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert taus_of(resumed)[-4:] == taus_of(straight)[-4:]


def test_target_waits_for_the_optimizer(tmp_path):
    """While gradients are accumulated; tau goes by the iteration."""
    runner = make_runner(tmp_path, wrapper=dict(accumulative_counts=2))
    runner.train()
    assert runner.model.target_net.steps == 6
    assert taus_of(runner) == pytest.approx(formula()[1::2])


def test_checkpoint_holds_the_last_step(tmp_path):
    """The target has seen the weights that are saved with it."""
    runner = make_runner(tmp_path, train_cfg=dict(by_epoch=True, max_epochs=1))
    targets = []
    runner.register_hook(Collect(targets))
    runner.train()
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    tau = formula(4)[-1]
    name = 'neck.fc0.weight'
    expected = tau * targets[-1] + (1 - tau) * saved[name]
    torch.testing.assert_close(saved['target_net.module.1.fc0.weight'], expected)


@pytest.mark.exact
def test_other_models_are_left_alone(tmp_path):
    states = []
    for hook in (True, False):
        runner = make_runner(
            tmp_path / str(hook),
            hook,
            'SimCLR',
            train_cfg=dict(by_epoch=True, max_epochs=1),
        )
        runner.train()
        states.append(runner.model.state_dict())
        assert 'train/tau' not in runner.message_hub.log_scalars
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
