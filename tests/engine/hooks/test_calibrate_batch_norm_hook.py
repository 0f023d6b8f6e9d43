import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS

import medssl_mm.registry  # noqa: F401
from medssl_mm.engine.checkpoints import random_state
from medssl_mm.engine.hooks import CalibrateBatchNormHook
from tests.engine import toy


def _runner(tmp_path, **changes):
    settings = toy.config(tmp_path, **changes)
    settings['train_dataloader']['dataset']['noise'] = False
    return RUNNERS.build(Config(settings))


def test_statistics_are_the_mean_over_the_training_data(tmp_path):
    runner = _runner(tmp_path)
    linear, norm = runner.model.backbone
    CalibrateBatchNormHook(num_batches=4).before_train(runner)
    inputs = torch.stack([torch.full((4,), float(i)) for i in range(16)])
    outputs = linear(inputs)
    torch.testing.assert_close(norm.running_mean, outputs.mean(0).detach())
    # Within batches of 4 of the 16 samples the variance is that of all of
    # them on average (drawn without replacement), up to chance.
    ratio = norm.running_var / outputs.var(0)
    assert ((ratio > 0.5) & (ratio < 2)).all()


class Snapshot(Hook):
    """Keeps what training starts from."""

    priority = 'LOWEST'

    def before_train_epoch(self, runner):
        if runner.epoch == 0:
            self.state = random_state()
            self.weights = {
                name: parameter.detach().clone()
                for name, parameter in runner.model.named_parameters()
            }
            self.modes = [m.training for m in runner.model.modules()]
            self.momentum = runner.model.backbone[1].momentum
            self.order = list(runner.train_dataloader.sampler)


@pytest.mark.exact
def test_nothing_else_changes(tmp_path):
    shots = []
    for hooks in ([], [dict(type='medssl_mm.CalibrateBatchNormHook')]):
        shots.append(Snapshot())
        runner = _runner(tmp_path / str(len(hooks)), custom_hooks=hooks)
        runner.register_hook(shots[-1])
        runner.train()
    without, with_hook = shots
    assert with_hook.state['python'] == without.state['python']
    assert torch.equal(with_hook.state['torch'], without.state['torch'])
    assert with_hook.order == without.order
    assert with_hook.modes == without.modes
    assert with_hook.momentum == without.momentum == 0.1
    for name, weight in without.weights.items():
        assert torch.equal(weight, with_hook.weights[name]), name


@pytest.mark.exact
def test_resumed_run_keeps_its_statistics(tmp_path):
    toy.train(toy.config(tmp_path))
    runner = _runner(
        tmp_path,
        resume='auto',
        custom_hooks=[dict(type='medssl_mm.CalibrateBatchNormHook')],
    )
    runner.train()
    saved = torch.load(tmp_path / 'epoch_4.pth', weights_only=True)
    torch.testing.assert_close(
        runner.model.backbone[1].running_mean,
        saved['state_dict']['backbone.1.running_mean'],
    )


@pytest.mark.exact
def test_backbone_without_batch_norm_is_an_error(tmp_path):
    runner = _runner(tmp_path)
    with pytest.raises(ValueError, match='no batch normalisation.*"head"'):
        CalibrateBatchNormHook(module='head').before_train(runner)
    with pytest.raises(ValueError, match='num_batches must be at least 1'):
        CalibrateBatchNormHook(num_batches=0)
