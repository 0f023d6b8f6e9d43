import copy
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from torch.nn.modules.batchnorm import _BatchNorm

import medssl_mm.registry  # noqa: F401
from medssl_mm.engine.checkpoints import random_state
from medssl_mm.engine.hooks import CollapseMonitorHook
from medssl_mm.functional.features import FIGURES
from medssl_mm.functional.spectrum import effective_rank
from tests.engine import toy
from tests.models.algorithms.toy import backbone, build_ours, neck

PLACES = {f'stage{n}' for n in range(1, 5)} | {'decorrelated', 'pooled', 'projection'}
HEAD = dict(type='medssl_mm.DecorrelationHead', num_channels=64, num_groups=8, eps=1e-2)


@DATASETS.register_module(force=True)
class ToyViews(torch.utils.data.Dataset):
    """Two noisy views of each image; draws from all global generators."""

    def __init__(self, size=16, subset='train'):
        self.size = size
        self.shift = dict(train=0, val=100)[subset]

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index + self.shift)
        image = torch.rand(1, 32, 32, generator=generator)
        noise = random.random() + np.random.rand() + torch.rand(1, 32, 32)
        return dict(inputs=[image + 0.1 * noise, image], data_samples=index)


class Witness(Hook):
    """Keeps everything that training depends on, after every iteration."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        state = random_state()
        self.seen.append(
            dict(
                weights=copy.deepcopy(runner.model.state_dict()),
                python=state['python'],
                numpy=state['numpy'][1],
                torch=state['torch'],
                loader=runner.train_dataloader.generator.get_state(),
                batch=data_batch['inputs'][0].clone(),
                modes=[m.training for m in runner.model.modules()],
                momenta=[
                    m.momentum
                    for m in runner.model.modules()
                    if isinstance(m, _BatchNorm)
                ],
            )
        )


def settings(work_dir, by_epoch=True, hook=None, **changes):
    content = toy.config(
        work_dir,
        by_epoch=by_epoch,
        model=dict(
            type='medssl_mm.MultiLevelMoCo',
            backbone=backbone(),
            neck=neck(),
            head=dict(type='medssl_mm.InfoNCELoss'),
            queue_len=32,
            feat_dim=16,
            decorrelation=HEAD,
        ),
        val_dataloader=None,
        val_evaluator=None,
        val_cfg=None,
        test_dataloader=None,
        test_evaluator=None,
        test_cfg=None,
        custom_hooks=[dict(type='medssl_mm.CollapseMonitorHook', **hook)]
        if hook is not None
        else [],
    )
    content['custom_imports']['imports'] = ['medssl_mm.registry']
    content['train_dataloader']['dataset'] = dict(type='ToyViews')
    content['train_cfg'].pop('val_interval', None)
    if by_epoch:
        content['train_cfg']['max_epochs'] = 2
    else:
        content['train_cfg']['max_iters'] = 5
    content.update(changes)
    return content


def run(work_dir, **changes):
    from medssl_mm.engine import launch

    runner = launch.make_runner(Config(settings(work_dir, **changes)))
    runner.register_hook(witness := Witness())
    runner.train()
    return runner, witness.seen


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first
        )
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    return first == second


@pytest.mark.exact
@pytest.mark.parametrize('by_epoch', [True, False])
def test_training_is_the_same_bit_for_bit(tmp_path, by_epoch):
    hook = dict(interval=1, by_epoch=by_epoch, num_samples=6, batch_size=4)
    loop = dict(max_epochs=2) if by_epoch else dict(max_iters=3)
    changes = dict(by_epoch=by_epoch, train_cfg=dict(by_epoch=by_epoch, **loop))
    _, without = run(tmp_path / 'without', **changes)
    _, watched = run(tmp_path / 'with', hook=hook, **changes)
    assert len(without) == len(watched) == (8 if by_epoch else 3)
    for step, (first, second) in enumerate(zip(without, watched)):
        for name in first:
            assert same(first[name], second[name]), (step, name)
    times = [0, 4, 8] if by_epoch else range(4)
    folder = tmp_path / 'with/spectra'
    assert {path.name for path in folder.iterdir()} == {
        f'iter_{n}.{kind}' for n in times for kind in ('npz', 'png')
    }


def test_what_is_written(tmp_path):
    """Figures of every place, on images which do not change."""
    runner, _ = run(
        tmp_path,
        hook=dict(interval=2, num_samples=8, positions=1),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]),
    )
    first, last = (dict(np.load(tmp_path / f'spectra/iter_{n}.npz')) for n in (0, 8))
    assert set(first) == {
        f'{place}_{name}' for place in PLACES for name in (*FIGURES, 'eigenvalues')
    }
    assert len(last['stage2_eigenvalues']) == 16
    assert last['stage3_effective_rank'] == pytest.approx(
        float(effective_rank(torch.from_numpy(last['stage3_eigenvalues'])))
    )
    # The running statistics of the backbone have changed meanwhile.
    assert last['stage4_rankme'] != first['stage4_rankme']
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert '"collapse/projection_std_of_l2_normalized"' in scalars
    # It is known of which map the figures are.
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'Effective rank (8 images, last map at stride 32 px): stage1 ' in log


@pytest.mark.exact
def test_held_out_images_are_those_of_the_subset(tmp_path):
    content = settings(tmp_path, hook=dict(num_samples=4))
    from medssl_mm.engine import launch

    runner = launch.make_runner(Config(content))
    hook = CollapseMonitorHook(num_samples=4, batch_size=3)
    batches = hook._load(runner)
    images = torch.cat([batch['inputs'][1] for batch in batches])
    dataset = ToyViews(subset='val')
    wanted = torch.stack([dataset[n]['inputs'][1] for n in (0, 5, 10, 15)])
    assert torch.equal(images, wanted)
    other = CollapseMonitorHook(num_samples=9, dataset=dict(type='ToyViews', size=2))
    assert len(other._load(runner)[0]['inputs'][0]) == 2


def test_collapse_is_reported_once(tmp_path):
    """A projector of zeros, and one of a single direction."""
    for name, share in (('complete', 0.1), ('dimensional', 0.0)):
        model = build_ours(seed=0)
        last = model.neck.mlp[2]
        torch.nn.init.zeros_(last.weight)
        if name == 'dimensional':
            torch.nn.init.ones_(last.weight[:1])
        file = tmp_path / f'{name}.pth'
        torch.save(dict(state_dict=model.state_dict()), file)
        work_dir = tmp_path / name
        run(
            work_dir,
            hook=dict(interval=1, num_samples=8, std_share=share),
            load_from=str(file),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0)),
        )
        log = next(work_dir.glob('*/*.log')).read_text()
        assert log.count(f'projection: {name} collapse: ') == 1
        assert log.index('collapse: ') > log.index('Effective rank (')


@pytest.mark.exact
@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(interval=0), 'interval must be 1 or more'),
        (dict(num_samples=1), 'num_samples must be 2 or more'),
        (dict(rank_share=2), 'rank_share is a share from 0 to 1, got 2'),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        CollapseMonitorHook(**wrong)
