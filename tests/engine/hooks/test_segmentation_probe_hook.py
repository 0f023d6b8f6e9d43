from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from medssl_mm.engine import launch
from medssl_mm.engine.hooks import SegmentationProbeHook
from medssl_mm.engine.hooks.segmentation_probe_hook import (
    class_counts,
    mean_dice,
)
from tests.engine.hooks import test_collapse_monitor_hook as toy


@DATASETS.register_module(force=True)
class ToyLabelled(torch.utils.data.Dataset):
    """Bright squares on dark noise; two slices of each case."""

    metainfo = dict(classes=('background', 'square'))

    def __init__(self, patients='a', size=32):
        self.patients = patients
        self.size = size

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index + 100 * ord(self.patients))
        top, left = torch.randint(0, 16, (2,), generator=generator).tolist()
        label = torch.zeros(1, self.size, self.size, dtype=torch.long)
        label[:, top : top + 14, left : left + 14] = 1
        noise = torch.rand(1, 32, 32, generator=generator) + torch.rand(1)
        image = 0.1 * noise + label[:, :32, :32]
        case = f'{self.patients}{index // 2}'
        return dict(
            inputs=image,
            data_samples=SimpleNamespace(
                metainfo=dict(case_id=case, patient_id=case),
                gt_sem_seg=SimpleNamespace(data=label),
            ),
        )


PROBE = dict(
    type='medssl_mm.SegmentationProbeHook',
    stages=(1, 4),
    interval=1,
    train_dataset=dict(type='ToyLabelled', patients='a'),
    val_dataset=dict(type='ToyLabelled', patients='b'),
    steps=30,
    batch_size=4,
    lr=0.05,
)


def run(work_dir, probe=(), resume=None, max_epochs=2, **changes):
    content = toy.settings(work_dir, custom_hooks=list(probe), **changes)
    content['train_cfg']['max_epochs'] = max_epochs
    runner = launch.make_runner(Config(content), resume=resume)
    runner.register_hook(witness := toy.Witness())
    runner.train()
    return witness.seen


def test_training_is_the_same_bit_for_bit(tmp_path):
    without = run(tmp_path / 'without')
    # Enough steps to end up at the best decoder, not on some way there.
    probed = run(tmp_path / 'with', [dict(PROBE, steps=100)])
    for step, (first, second) in enumerate(zip(without, probed)):
        for name in first:
            assert toy.same(first[name], second[name]), (step, name)
    log = next((tmp_path / 'with').glob('*/*.log')).read_text()
    scores = [
        float(line.split('stage1 ')[1].split(',')[0])
        for line in log.splitlines()
        if 'Dice of the linear' in line
    ]
    assert len(scores) == 2
    assert max(scores) > 0.7  # squares are easy to find


def saved_probe(folder, epoch=3):
    checkpoint = torch.load(folder / f'epoch_{epoch}.pth', weights_only=True)
    return checkpoint['segmentation_probe'], checkpoint['state_dict']


@pytest.mark.exact
def test_resumed_probe_continues_exactly(tmp_path):
    run(tmp_path / 'straight', [PROBE], max_epochs=3)
    run(tmp_path / 'parts', [PROBE], max_epochs=3)
    for name in ('epoch_2.pth', 'epoch_3.pth'):
        (tmp_path / 'parts' / name).unlink()
    (tmp_path / 'parts/last_checkpoint').write_text('epoch_1.pth')
    run(tmp_path / 'parts', [PROBE], resume='auto', max_epochs=3)
    first, weights = saved_probe(tmp_path / 'straight')
    second, other_weights = saved_probe(tmp_path / 'parts')
    assert toy.same(weights, other_weights)
    assert toy.same(first['decoders'], second['decoders'])
    assert toy.same(first['optimizer']['state'], second['optimizer']['state'])
    steps = first['optimizer']['state'][0]['step']
    assert steps == 90
    assert not any('probe' in name for name in weights)


def test_dice_of_cases():
    guess = torch.tensor([[0, 1], [1, 2]])
    truth = torch.tensor([[0, 1], [255, 1]])
    counts = class_counts(guess, truth, 3)
    assert counts.tolist() == [[1, 1, 0], [1, 1, 1], [1, 2, 0]]
    perfect = np.array([[2, 0, 3], [2, 0, 3], [2, 0, 3]])
    # Class 1 in the first case only, class 2 in the second only.
    assert mean_dice(np.stack([counts, perfect])) == pytest.approx((2 / 3 + 1) / 2)
    assert np.isnan(mean_dice(np.zeros((1, 3, 3))))


@pytest.mark.exact
@pytest.mark.parametrize(
    'wrong, message',
    [
        (
            dict(val_dataset=dict(type='ToyLabelled', patients='a')),
            'patients in both train_dataset and val_dataset: a0, a1',
        ),
        (
            dict(val_dataset=dict(type='ToyLabelled', patients='b', size=40)),
            r'must all have one size, found \[\(32, 32\), \(40, 40\)\]',
        ),
        (dict(stages=(5,)), r'ResNet has no stage 5; it has .* 4 \(stage4\)'),
    ],
)
def test_unfit_data(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path, [dict(PROBE, **wrong)])


@pytest.mark.exact
@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(steps=0), 'steps must be 1 or more, got 0'),
        (dict(stages=(0,)), r'stages count from 1 on, got \(0,\)'),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        SegmentationProbeHook(dict(), dict(), **wrong)
