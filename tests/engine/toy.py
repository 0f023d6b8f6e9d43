"""A tiny model, data set and config for tests of the engine."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from torch import nn

from medssl_mm.functional import distributed


@DATASETS.register_module(force=True)
class ToyData(torch.utils.data.Dataset):
    """Sixteen vectors, with noise from all global generators if wanted."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, noise=True):
        self.noise = noise

    def __len__(self):
        return 16

    def __getitem__(self, index):
        inputs = torch.full((4,), float(index))
        if self.noise:
            inputs += random.random() + np.random.rand() + torch.rand(4)
        return dict(inputs=inputs)


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    """Normalisation, dropout, and a queue that remembers what passed."""

    def __init__(self, bad_from=None):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 1))
        self.register_buffer('queue', torch.zeros(6))
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self.bad_from = bad_from

    def forward(self, inputs, data_samples=None, mode='tensor'):
        value = self.head(self.backbone(inputs))
        if mode != 'loss':
            return [value.mean()]
        newest = distributed.reduce_mean(value.mean(0))
        self.queue = torch.cat([newest, self.queue[:-1]])
        self.steps += 1
        loss = (value - self.queue.mean()).square().mean()
        if self.bad_from is not None and self.steps >= self.bad_from:
            loss = loss * float('nan')
        return dict(loss_fit=loss, loss_size=0.1 * value.square().mean())


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    """The mean of the predictions; draws random numbers on the way."""

    def process(self, data_batch, data_samples):
        random.random(), np.random.rand(), torch.rand(1)
        self.results += [float(sample) for sample in data_samples]

    def compute_metrics(self, results):
        return dict(mean=float(np.mean(results)))


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Ends the process as a power cut would, or raises an error."""

    def __init__(self, iteration, gently=False):
        self.iteration = iteration
        self.gently = gently

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            if self.gently:
                raise ArithmeticError('stopped')
            os.kill(os.getpid(), signal.SIGKILL)


@HOOKS.register_module(force=True)
class GateHook(Hook):
    """Waits before some iterations until somebody writes ``pass_<iteration>``.

    That it has come there is told by ``at_<iteration>``. All iterations last
    ``seconds`` longer: of quick ones, ranks do ten before they ask each other.
    """

    def __init__(self, folder, iterations, seconds=0.0):
        self.folder = Path(folder)
        self.iterations = iterations
        self.seconds = seconds

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(self.seconds)
        if runner.iter in self.iterations and distributed.is_main_process():
            (self.folder / f'at_{runner.iter}').touch()
            while not (self.folder / f'pass_{runner.iter}').exists():
                time.sleep(0.05)


def config(work_dir, by_epoch=True, num_workers=0, **changes):
    """Return the config of a run of 4 epochs or 16 iterations."""
    sampler = 'DefaultSampler' if by_epoch else 'InfiniteSampler'
    loader = dict(
        batch_size=4,
        num_workers=num_workers,
        collate_fn=dict(type='default_collate'),
        # Workers of an endless loop start anew when it is resumed, so only
        # there noise must not come from their global generators.
        dataset=dict(type='ToyData', noise=by_epoch or num_workers == 0),
        sampler=dict(type=sampler, shuffle=True),
    )
    test = dict(loader, sampler=dict(type='DefaultSampler', shuffle=False))
    if by_epoch:
        loop = dict(by_epoch=True, max_epochs=4)
    else:
        loop = dict(by_epoch=False, max_iters=16, val_interval=4)
    schedule = dict(type='CosineAnnealingLR', by_epoch=by_epoch, T_max=16)
    settings = dict(
        default_scope='mmengine',
        custom_imports=dict(
            imports=['medssl_mm.registry', 'tests.engine.toy'],
            allow_failed_imports=False,
        ),
        runner_type='medssl_mm.Runner',
        work_dir=str(work_dir),
        model=dict(type='ToyModel'),
        train_dataloader=loader,
        train_cfg=loop,
        val_dataloader=test,
        val_evaluator=dict(type='ToyMetric'),
        val_cfg=dict(),
        test_dataloader=test,
        test_evaluator=dict(type='ToyMetric'),
        test_cfg=dict(),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.05, momentum=0.9),
        ),
        param_scheduler=[schedule],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=by_epoch,
                interval=1 if by_epoch else 4,
                max_keep_ckpts=3,
            ),
            finite_loss=dict(type='medssl_mm.FiniteLossHook'),
            data_wait=dict(type='medssl_mm.DataWaitHook'),
        ),
        log_processor=dict(type='medssl_mm.ShortLogProcessor', by_epoch=by_epoch),
        randomness=dict(seed=3),
    )
    settings.update(changes)
    return settings


def train(settings, resume=None):
    """Train by a config, as tools/train.py does; return the Runner."""
    from mmengine.config import Config

    import medssl_mm.registry  # noqa: F401
    from medssl_mm.engine import launch

    runner = launch.make_runner(Config(settings), resume=resume)
    runner.train()
    return runner
