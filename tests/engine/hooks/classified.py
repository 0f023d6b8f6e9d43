"""A small labelled data set, and runs with probes on it."""

import random

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, RUNNERS

from medssl_mm.engine import launch
from medssl_mm.functional import distributed
from tests.engine.hooks import test_collapse_monitor_hook as toy

#: Rows that were loaded in this process, by patients.
LOADED: dict[str, list[int]] = {}


@DATASETS.register_module(force=True)
class ToyClassified(torch.utils.data.Dataset):
    """Stripes across or along; two images of each patient.

    Draws noise from all global generators, unless ``noise=False``. Named as a data
    set of the package by ``data_set``; patients have numbers of ``digits``.
    """

    def __init__(
        self,
        patients='a',
        size=12,
        pixels=32,
        channels=1,
        labels=(0, 1),
        classes=('across', 'along'),
        views=1,
        noise=True,
        ragged=False,
        data_set='',
        digits=1,
    ):
        self.metainfo = dict(classes=tuple(classes), dataset_name=data_set)
        self.patients = patients
        self.digits = digits
        self.size = size
        self.pixels = pixels
        self.channels = channels
        self.labels = labels
        self.views = views
        self.noise = noise
        self.ragged = ragged

    def __len__(self):
        return self.size

    def get_data_info(self, index):
        label = self.labels[int(index) % len(self.labels)]
        return dict(
            gt_label=label,
            patient_id=f'{self.patients}{int(index) // 2:0{self.digits}d}',
            img_path=f'{self.patients}.png#{int(index)}',
        )

    def __getitem__(self, index):
        LOADED.setdefault(self.patients, []).append(int(index))
        label = self.get_data_info(index)['gt_label']
        generator = torch.Generator().manual_seed(int(index) + ord(self.patients))
        pixels = self.pixels + 8 * (self.ragged and int(index) % 2)
        image = 0.3 * torch.rand(self.channels, pixels, pixels, generator=generator)
        stripes = (torch.arange(pixels) % 8 < 4).float()
        if label not in (0, [], [0]):
            image = image + stripes
        else:
            image = image + stripes[:, None]
        if self.noise:
            image = image + 0.1 * (random.random() + np.random.rand() + torch.rand(1))
        inputs = [image] * self.views if self.views > 1 else image
        return dict(inputs=inputs, data_samples=int(index))


def online(**changes):
    settings = dict(
        type='medssl_mm.OnlineProbeHook',
        train_dataset=dict(type='ToyClassified', patients='a'),
        val_dataset=dict(type='ToyClassified', patients='b', size=6),
        batch_size=4,
        num_workers=0,
        start_steps=20,
    )
    return {**settings, **changes}


def knn(**changes):
    settings = dict(
        type='medssl_mm.NearestNeighbourProbeHook',
        train_dataset=dict(type='ToyClassified', patients='a'),
        val_dataset=dict(type='ToyClassified', patients='b', size=6),
        k=3,
        interval=1,
        num_workers=0,
    )
    return {**settings, **changes}


def steady_encoder():
    """Settings with which the encoder is the same on all processes, always.

    No statistics of batches, and nothing is learned.
    """
    from tests.models.algorithms.toy import backbone, neck

    return dict(
        model=dict(
            type='medssl_mm.MultiLevelMoCo',
            backbone=dict(backbone(), norm_cfg=dict(type='GN', num_groups=2)),
            neck=neck(),
            head=dict(type='medssl_mm.InfoNCELoss'),
            queue_len=32,
            feat_dim=16,
        ),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)),
    )


def of_method(name):
    """Settings of a run of SimCLR or BYOL, and its hook."""
    from tests.models.algorithms.toy import METHODS, backbone

    model = dict(
        type=f'medssl_mm.MultiLevel{name}', backbone=backbone(), **METHODS[name][0]
    )
    hook = dict(type='medssl_mm.TargetUpdateHook')
    return dict(model=model, default_hooks__target_update=hook)


def make(work_dir, probes=(), by_epoch=True, resume=None, **changes):
    """Return a runner with probes and the hook that watches the training."""
    content = toy.settings(
        work_dir,
        by_epoch=by_epoch,
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
        custom_hooks=list(probes),
    )
    for key, value in changes.items():
        *parents, last = key.split('__')
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    if distributed.world_size() > 1:
        content.update(launcher='pytorch', resume=resume or False)
        runner = RUNNERS.build(Config(content))
    else:
        runner = launch.make_runner(Config(content), resume=resume)
    runner.register_hook(witness := toy.Witness())
    return runner, witness


def run(work_dir, probes=(), **settings):
    """Train; return the runner and what the training was like."""
    runner, witness = make(work_dir, probes, **settings)
    runner.train()
    return runner, witness.seen


def log_of(folder):
    return next(folder.glob('*/*.log')).read_text()
