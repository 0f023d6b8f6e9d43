"""Two MR sequences per slice: from the store through training to labels."""

import nibabel as nib
import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from medssl_mm.datasets.slices import SliceDataset
from medssl_mm.errors import UserError
from medssl_mm.evaluation.volume_metric import VolumeMetric
from medssl_mm.inference import predict_file
from medssl_mm.registry import MODELS
from medssl_mm.store import StoreWriter, open_store
from tests.models.algorithms.toy import backbone, build_ours

CLASSES = ('background', 'lesion', 'organ')
STEPS = [dict(type='medssl_mm.LoadSlice'), dict(type='medssl_mm.ZScoreNormalize')]
TRAIN = [
    *STEPS,
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.RandomAffineView', size=32, pad_value='minimum'),
    dict(type='medssl_mm.IntensityJitter', limits=None),
    dict(type='medssl_mm.NoiseJitter'),
    dict(type='medssl_mm.PackSlice'),
]
TEST = [
    *STEPS,
    dict(type='medssl_mm.ResizeAndPad', size=32, pad_value='minimum'),
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.PackSlice'),
]
VIEWS = [
    *STEPS,
    dict(
        type='medssl_mm.CropViews',
        crop=dict(type='medssl_mm.RandomCropView', size=64, pad_value='minimum'),
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


def test_predicts_from_a_file_per_channel(root, tmp_path):
    """In any orientation, as from the store; or from a fourth axis."""
    store = open_store(root)
    with DefaultScope.overwrite_default_scope('mmseg'):
        torch.manual_seed(0)
        settings = linear()
        settings['decode_head'].update(in_index=0, in_channels=8)
        model = MODELS.build(ConfigDict(settings)).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                scale = module.weight[0].numel() ** -0.5
                torch.nn.init.normal_(module.weight, std=scale)
        dataset = SliceDataset(data_root=root, pipeline=TEST, test_mode=True)
        with torch.no_grad():
            found = model.test_step(pseudo_collate([dataset[n] for n in range(4)]))
    expected = np.stack([s.pred_sem_seg.data[0].numpy() for s in found])
    assert len(np.unique(expected)) > 1  # otherwise the test says nothing
    meta = dict(dataset_meta=dict(classes=CLASSES, channels=['T1', 'T2']))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'm.pth')
    config = Config(
        dict(
            model=settings,
            default_scope='mmseg',
            test_dataloader=dict(dataset=dict(pipeline=TEST)),
        )
    )
    volume = store.read_volume('c0')
    # Stored axes run to superior, posterior and left; those of the files are RAS.
    arrays = [volume[:, n, ::-1, ::-1].T for n in range(2)]
    affine = np.diag([1.0, 1.0, 5.0, 1.0])
    files = [tmp_path / f't{n + 1}.nii.gz' for n in range(2)]
    for array, file in zip(arrays, files):
        nib.save(nib.Nifti1Image(array, affine), file)
    both = tmp_path / 'both.nii.gz'
    nib.save(nib.Nifti1Image(np.stack(arrays, -1), affine), both)
    checkpoint = tmp_path / 'm.pth'
    for name, source in (('files', files), ('axis', both)):
        output = tmp_path / f'{name}-out.nii.gz'
        predict_file(config, checkpoint, source, output, device='cpu')
        labels = np.asarray(nib.load(output).dataobj)
        np.testing.assert_array_equal(labels.T[:, ::-1, ::-1], expected)
    swapped = tmp_path / 'swapped.nii.gz'
    predict_file(config, checkpoint, files[::-1], swapped, device='cpu')
    assert (np.asarray(nib.load(swapped).dataobj) != labels).any()
    output = tmp_path / 'no.nii.gz'
    with pytest.raises(UserError, match=r'2 channel.*T1, T2.*1 file.*t1.nii.gz'):
        predict_file(config, checkpoint, files[0], output, device='cpu')
    with pytest.raises(UserError, match=r'2 channel.*3 file'):
        predict_file(config, checkpoint, [*files, both], output, device='cpu')
    nib.save(nib.Nifti1Image(arrays[1][:, :30], affine), files[1])
    with pytest.raises(UserError, match=r'T2.*30|30.*T2'):
        predict_file(config, checkpoint, files, output, device='cpu')
    assert not output.exists()


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
