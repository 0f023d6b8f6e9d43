import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from medssl_mm.errors import UserError


def build(**settings):
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(
                type='ResNet',
                depth=18,
                in_channels=1,
                strides=(1, 2, 1, 1),
                dilations=(1, 1, 2, 4),
            ),
            decode_head=dict(
                type='medssl_mm.LinearHead', in_channels=512, num_classes=3
            ),
            **settings,
        )
    )


@pytest.fixture
def model():
    return build()


def batch():
    images = torch.randn(2, 1, 32, 32) + 3
    samples = [
        SegDataSample(
            gt_sem_seg=PixelData(data=torch.randint(0, 3, (1, 32, 32))),
            metainfo=dict(ori_shape=(32, 32), img_shape=(32, 32)),
        )
        for _ in range(2)
    ]
    return images, samples


def test_training_leaves_the_backbone_bit_for_bit(model):
    before = copy.deepcopy(model.state_dict())
    # All parameters, as the optimizer constructor of the host passes them.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
    )
    for _ in range(3):
        model.train()
        losses = model.loss(*batch())
        optimizer.zero_grad()
        losses['decode.loss_ce'].backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith('decode_head.')}


def test_no_graph_through_the_backbone(model):
    model.train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.decode_head.training
    features = model.extract_feat(batch()[0].requires_grad_())
    assert all(f.grad_fn is None for f in features)
    assert features[-1].shape[-2:] == (4, 4)  # stride 8


NECK = dict(type='FPN', in_channels=[64, 128, 256, 512], out_channels=8, num_outs=4)


def test_training_with_cached_features_is_the_same():
    images, samples = batch()
    results = []
    for size in (0.0, 1.0):
        model = build(feature_cache_gib=size, test_cfg=ConfigDict(mode='whole'))
        optimizer = torch.optim.SGD(
            model.decode_head.parameters(), lr=0.1, momentum=0.9
        )
        losses = []
        for _ in range(4):
            model.train()
            loss = model.loss(images, samples)['decode.loss_ce']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        model.eval()
        scores = model.predict(images, samples)[0].seg_logits.data
        results.append((torch.stack(losses), scores))
    for got, expected in zip(*results):
        torch.testing.assert_close(got, expected)


def test_a_cache_beside_a_neck_is_refused():
    with pytest.raises(UserError, match='read a neck, which is trained'):
        build(neck=NECK, feature_cache_gib=1.0)


def test_a_neck_is_trained():
    model = MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(type='ResNet', depth=18, in_channels=1),
            neck=NECK,
            decode_head=dict(
                type='medssl_mm.LinearHead', in_channels=8, in_index=0, num_classes=3
            ),
        )
    )
    model.train()
    model.loss(*batch())['decode.loss_ce'].backward()
    assert model.neck.lateral_convs[0].conv.weight.grad.abs().sum() > 0
