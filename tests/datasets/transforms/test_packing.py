import numpy as np
import pytest
import torch

from medssl_mm.datasets.transforms import (
    PackImage,
    PackSlice,
    PackViews,
    ResizeAndPad,
)

META = dict(
    sample_idx=3,
    case_id='c',
    patient_id='p',
    slice_index=7,
    img_path='x#7',
    ori_shape=(40, 60),
    img_shape=(32, 32),
    spacing=(5.0, 1.0, 1.0),
    store_root='data/x',
    protocol='x-1',
    split_hash='abc',
    rng=object(),
)


def test_views_become_grey_tensors():
    views = [np.random.rand(8, 6), np.random.rand(8, 6)]
    geometry = [dict(box=(0, 0, 1, 1)), dict(box=(1, 1, 2, 2))]
    packed = PackViews()(dict(META, img=views, view_geometry=geometry))
    assert [v.shape for v in packed['inputs']] == [(1, 8, 6)] * 2
    for tensor, view in zip(packed['inputs'], views):
        assert tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor[0].numpy(), view, rtol=1e-6)
    meta = packed['data_samples'].metainfo
    assert meta['view_geometry'] == geometry
    assert meta['slice_index'] == 7 and 'rng' not in meta


def test_one_image_is_one_view():
    packed = PackViews(meta_keys=('case_id',))(dict(META, img=np.zeros((4, 5))))
    assert len(packed['inputs']) == 1
    assert set(packed['data_samples'].metainfo) == {'case_id'}


def test_slice_for_mmseg():
    from mmseg.structures import SegDataSample

    label = np.random.default_rng(0).integers(0, 4, (40, 60)).astype(np.uint8)
    packed = PackSlice()(
        dict(
            META,
            img=np.zeros((32, 32), np.float32),
            gt_seg_map=label,
            img_padding_size=[0, 0, 0, 11],
        )
    )
    sample = packed['data_samples']
    assert isinstance(sample, SegDataSample)
    assert packed['inputs'].shape == (1, 32, 32)
    assert sample.gt_sem_seg.data.shape == (1, 40, 60)
    assert sample.gt_sem_seg.data.dtype == torch.int64
    np.testing.assert_array_equal(sample.gt_sem_seg.data[0].numpy(), label)
    assert set(sample.metainfo) == set(META) - {'rng'} | {'img_padding_size'}


@pytest.mark.parametrize('shape', [(40, 60), (70, 30), (50, 50), (200, 90)])
def test_mmseg_maps_a_prediction_back_to_the_slice(shape):
    """Logits made from the resized slice itself return to its own grid."""
    from mmseg.models.segmentors import EncoderDecoder

    image = np.zeros(shape, np.float32)
    image[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 1
    results = ResizeAndPad(size=128)(dict(img=image, ori_shape=shape, img_shape=shape))
    packed = PackSlice()(dict(results, gt_seg_map=image.astype(np.uint8)))
    logits = torch.cat([0.5 - packed['inputs'], packed['inputs'] - 0.5])

    class Segmentor(EncoderDecoder):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.align_corners = False

    (sample,) = Segmentor().postprocess_result(logits[None], [packed['data_samples']])
    seen = sample.pred_sem_seg.data
    assert seen.shape == sample.gt_sem_seg.data.shape
    assert (seen != sample.gt_sem_seg.data).float().mean() < 0.01


def test_colour_is_refused():
    with pytest.raises(ValueError, match='one grey slice'):
        PackSlice()(dict(META, img=np.zeros((4, 4, 3))))


def test_colour_views():
    views = [np.random.rand(8, 6, 3), np.random.rand(8, 6, 3)]
    packed = PackViews()(dict(META, image_id='i', img=views))
    for tensor, view in zip(packed['inputs'], views):
        assert tensor.shape == (3, 8, 6) and tensor.dtype == torch.float32
        np.testing.assert_allclose(tensor.permute(1, 2, 0).numpy(), view, rtol=1e-6)
    assert packed['data_samples'].metainfo['image_id'] == 'i'
    with pytest.raises(ValueError, match=r'RGB \(H, W, 3\) at packing'):
        PackViews()(dict(META, img=np.zeros((4, 4, 2))))


@pytest.mark.parametrize('image', [np.zeros((8, 6)), np.zeros((8, 6, 3))])
def test_image_of_one_class_for_mmpretrain(image):
    from mmpretrain.structures import DataSample

    packed = PackImage()(dict(META, img=image, gt_label=3, image_id='i'))
    sample = packed['data_samples']
    assert isinstance(sample, DataSample)
    assert sample.gt_label.tolist() == [3] and 'gt_score' not in sample
    assert packed['inputs'].shape == (image.ndim * 2 - 3, 8, 6)
    assert sample.image_id == 'i' and sample.patient_id == 'p'
    assert 'rng' not in sample.metainfo


def test_images_of_several_classes_train_mmpretrains_head():
    """Also where nothing is found, which mmpretrain alone cannot pack."""
    from mmpretrain.models.heads import MultiLabelLinearClsHead

    samples = [
        PackImage()(
            dict(META, img=np.zeros((8, 6)), gt_label=label, gt_score=np.float32(score))
        )['data_samples']
        for label, score in (([], [0, 0, 0]), ([0, 2], [1, 0, 1]))
    ]
    assert samples[0].gt_label.tolist() == []
    assert samples[1].gt_score.tolist() == [1, 0, 1]
    head = MultiLabelLinearClsHead(num_classes=3, in_channels=4)
    loss = head.loss((torch.ones(2, 4),), samples)['loss']
    logits = head((torch.ones(2, 4),))
    wanted = (
        torch.nn.functional.binary_cross_entropy_with_logits(
            logits, torch.tensor([[0.0, 0, 0], [1, 0, 1]]), reduction='sum'
        )
        / 2
    )
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_unlabelled_images_have_no_label():
    packed = PackImage()(dict(META, img=np.zeros((8, 6)), gt_label=None))
    assert 'gt_label' not in packed['data_samples']
    assert 'PackImage' in repr(PackImage())
