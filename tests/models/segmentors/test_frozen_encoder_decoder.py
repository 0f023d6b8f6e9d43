import copy

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(
                type='ResNet',
                depth=18,
                in_channels=1,
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4)),
            decode_head=dict(
                type='medssl_mm.LinearHead', in_channels=512, num_classes=3)))


def batch():
    images = torch.randn(2, 1, 32, 32) + 3
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 32, 32))),
            metainfo=dict(ori_shape=(32, 32), img_shape=(32, 32)))
        for _ in range(2)
    ]
    return images, samples


def test_training_leaves_the_backbone_bit_for_bit(model):
    before = copy.deepcopy(model.state_dict())
    # All parameters, as the optimizer constructor of the host passes them.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        model.train()
        losses = model.loss(*batch())
        optimizer.zero_grad()
        losses['decode.loss_ce'].backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name for name in before
               if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before
                       if name.startswith('decode_head.')}


def test_no_graph_through_the_backbone(model):
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.decode_head.training
    features = model.extract_feat(batch()[0].requires_grad_())
    assert all(f.grad_fn is None for f in features)
    assert features[-1].shape[-2:] == (4, 4)  # stride 8


def test_a_neck_is_trained():
    model = MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(type='ResNet', depth=18, in_channels=1),
            neck=dict(
                type='FPN',
                in_channels=[64, 128, 256, 512],
                out_channels=8,
                num_outs=4),
            decode_head=dict(
                type='medssl_mm.LinearHead',
                in_channels=8,
                in_index=0,
                num_classes=3)))
    model.train()
    model.loss(*batch())['decode.loss_ce'].backward()
    assert model.neck.lateral_convs[0].conv.weight.grad.abs().sum() > 0
