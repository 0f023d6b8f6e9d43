"""Two MR sequences per slice: from the store through training to labels."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from medssl_mm.datasets.slices import SliceDataset
from medssl_mm.evaluation.volume_metric import VolumeMetric
from medssl_mm.registry import MODELS
from medssl_mm.store import StoreWriter
from tests.models.algorithms.toy import backbone, build_ours

CLASSES = ('background', 'lesion', 'organ')
STEPS = [dict(type='medssl_mm.LoadSlice'), dict(type='medssl_mm.ZScoreNormalize')]
TRAIN = [
    *STEPS,
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.RandomSliceAffine', size=32, pad_value='minimum'),
    dict(type='medssl_mm.IntensityJitter', limits=None),
    dict(type='medssl_mm.NoiseJitter'),
    dict(type='medssl_mm.PackSlice'),
]
TEST = [
    *STEPS,
    dict(type='medssl_mm.ResizeSlice', size=32, pad_value='minimum'),
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
VIEWS = [
    *STEPS,
    dict(
        type='medssl_mm.SliceViews',
        crop=dict(type='medssl_mm.RandomSliceCrop', size=64, pad_value='minimum'),
        transforms=[
            dict(type='medssl_mm.IntensityJitter', limits=None),
            dict(type='medssl_mm.BlurJitter'),
        ],
    ),
    dict(type='medssl_mm.PackViews'),
]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two cases; only both sequences together tell lesion from organ."""
    folder = tmp_path_factory.mktemp('channels') / 'store'
    writer = StoreWriter.create(
        folder, 'two', 'MR', 'arbitrary', CLASSES, channels=('T1', 'T2')
    )
    rng = np.random.default_rng(0)
    for case in range(2):
        image = rng.normal(0, 5, (4, 2, 36, 40)) + [[[[100]], [[900]]]]
        label = np.zeros((4, 36, 40), np.uint8)
        label[:, 6:16, 6 + case : 18], label[:, 20:32, 20:32] = 1, 2
        image[:, 0][label > 0] += 80
        image[:, 1][label == 1] += 700
        writer.add_case(
            f'c{case}', image.astype(np.int16), label, spacing=(5.0, 1.0, 1.0)
        )
    writer.finish()
    return str(folder)


def batch_of(root, pipeline, collate, number=8):
    dataset = SliceDataset(data_root=root, pipeline=pipeline)
    assert dataset.metainfo['channels'] == ['T1', 'T2']
    return collate([dataset[index] for index in range(number)])


def step(model, batch):
    """One step of training; returns the losses and the gradient of the stem."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    first = next(p for p in model.parameters() if p.requires_grad)
    before = first.detach().clone()
    losses = model.train_step(batch, OptimWrapper(optimizer))
    assert not torch.equal(before, first)
    assert all(torch.isfinite(torch.as_tensor(value)) for value in losses.values())
    return losses


def test_pretrains_with_local_contrast(root):
    level = dict(
        stage=3,
        name='local',
        neck=dict(
            type='medssl_mm.LocalContrastNeck',
            in_channels=32,
            hid_channels=16,
            out_channels=16,
        ),
        loss=dict(type='medssl_mm.LocalInfoNCELoss'),
    )
    model = build_ours(
        levels=[level],
        dtype=torch.float32,
        backbone=dict(backbone(), in_channels=2),
        queue_len=64,
    )
    batch = batch_of(root, VIEWS, default_collate)
    assert [tuple(view.shape) for view in batch['inputs']] == [(8, 2, 64, 64)] * 2
    losses = step(model, batch)
    assert any('local' in name for name in losses)


def linear():
    return dict(
        type='medssl_mm.FrozenEncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', size_divisor=8),
        backbone=dict(
            type='ResNet', depth=18, in_channels=2, base_channels=8, stem_channels=8
        ),
        decode_head=dict(
            type='medssl_mm.LinearHead',
            in_channels=64,
            in_index=3,
            num_classes=3,
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        ),
        test_cfg=dict(mode='whole'),
    )


def deeplab():
    return dict(
        linear(),
        type='EncoderDecoder',
        decode_head=dict(
            type='DepthwiseSeparableASPPHead',
            in_channels=64,
            in_index=3,
            channels=16,
            dilations=(1, 2),
            c1_in_channels=8,
            c1_channels=4,
            num_classes=3,
            norm_cfg=dict(type='BN'),
            align_corners=False,
            loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
        ),
    )


@pytest.mark.parametrize('settings', [linear, deeplab])
def test_segments_and_is_scored(root, settings):
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        model = MODELS.build(ConfigDict(settings())).train()
        batch = batch_of(root, TRAIN, pseudo_collate)
        assert tuple(batch['inputs'][0].shape) == (2, 32, 32)
        step(model, batch)
        dataset = SliceDataset(data_root=root, pipeline=TEST, test_mode=True)
        metric = VolumeMetric()
        metric.dataset_meta = dataset.metainfo
        model.eval()
        with torch.no_grad():
            for index in range(len(dataset)):
                found = model.test_step(pseudo_collate([dataset[index]]))
                assert found[0].pred_sem_seg.data.shape == (1, 36, 40)
                metric.process({}, [sample.to_dict() for sample in found])
        scores = metric.evaluate(len(dataset))
    assert any('dice' in name.lower() for name in scores)


def test_workers_read_what_the_process_reads(root):
    """In forked workers and in those of a fork server."""
    dataset = SliceDataset(data_root=root, pipeline=TEST)
    expected = torch.stack([dataset[index]['inputs'] for index in range(8)])
    assert expected.shape == (8, 2, 32, 32)
    for method in ('fork', 'forkserver'):
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_size=4,
            num_workers=2,
            collate_fn=pseudo_collate,
            multiprocessing_context=method,
        )
        found = torch.stack([image for batch in loader for image in batch['inputs']])
        assert torch.equal(found, expected)
