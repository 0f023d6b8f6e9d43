import copy

import torch
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample


def build(head='LinearClsHead'):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='medssl_mm.FrozenImageClassifier',
                backbone=dict(type='ResNet', depth=18, in_channels=1),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type=head, num_classes=3, in_channels=512),
            )
        )


def batch():
    samples = [DataSample().set_gt_label([index % 3]) for index in range(4)]
    return torch.randn(4, 1, 32, 32) + 3, samples


def test_training_leaves_the_backbone_bit_for_bit():
    for head in ('LinearClsHead', 'MultiLabelLinearClsHead'):
        model = build(head)
        before = copy.deepcopy(model.state_dict())
        # All parameters, as the optimizer constructor of the host does.
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1
        )
        for _ in range(3):
            model.train()
            loss = model(*batch(), mode='loss')['loss']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = model.state_dict()
        changed = {
            name for name in before if not torch.equal(before[name], after[name])
        }
        assert changed == {'head.fc.weight', 'head.fc.bias'}


def test_no_graph_through_the_backbone():
    model = build().train()
    assert not any(module.training for module in model.backbone.modules())
    assert model.head.training
    images = batch()[0].requires_grad_()
    for stage in ('backbone', 'neck'):
        features = model.extract_feat(images, stage=stage)
        assert all(level.grad_fn is None for level in features)
    assert features[-1].shape == (4, 512)


def test_features_are_those_of_the_evaluation_mode():
    """A batch does not change what an image of it is turned into."""
    model = build().train()
    images, _ = batch()
    torch.testing.assert_close(
        model.extract_feat(images)[-1][:1], model.eval().extract_feat(images[:1])[-1]
    )
