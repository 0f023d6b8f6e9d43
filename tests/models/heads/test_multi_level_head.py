from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn

from medssl_mm.functional.geometry import apply_affine, crop_matrix
from medssl_mm.models.heads import LevelContext, MultiLevelHead
from medssl_mm.models.necks import LocalRegions
from medssl_mm.registry import MODELS
from tests.models.algorithms import toy  # noqa: F401  registers the toys


@MODELS.register_module(force=True)
class ToyNormGapLoss(nn.Module):
    """Difference of mean norms, with the norms as log values."""

    def __init__(self, entry='query_norm'):
        super().__init__()
        self.entry = entry

    def forward(self, query, key, context):
        return {
            'loss': (query.mean() - key.mean()).square(),
            self.entry: query.norm(),
        }


@MODELS.register_module(force=True)
class ToyRegions(nn.Module):
    """Four corners of the map, all of them valid."""

    def forward(self, level, view, context):
        corners = level[:, :, ::5, ::5]
        return LocalRegions(
            corners.flatten(2).transpose(1, 2),
            torch.ones(len(level), 4, dtype=torch.bool),
        )


DISTANCE = dict(type='medssl_mm.ToyMapDistance')
PROJECTOR = dict(type='medssl_mm.ToyProjector', channels=4)


def maps(seed):
    torch.manual_seed(seed)
    return {stage: torch.rand(2, 4, 6, 6) for stage in range(5)}


def compute(head, key_necks=None):
    query, key = maps(1), maps(2)
    for level in query.values():
        level.requires_grad_()
    images = (torch.rand(2, 1, 24, 24), torch.rand(2, 1, 24, 24))
    logs = head(query, key, key_necks or {}, images, [])
    return logs, query, key


def test_each_term_sees_its_stage():
    head = MultiLevelHead(
        [
            dict(stage=0, loss=DISTANCE),
            dict(stage=4, loss=DISTANCE, weight=0.25, name='far'),
        ]
    )
    logs, query, key = compute(head)
    assert head.stages == (0, 4)
    assert set(logs) == {'loss_stage0_toy_map_distance', 'loss_stage4_far'}
    for name, stage, weight in (
        ('loss_stage0_toy_map_distance', 0, 1),
        ('loss_stage4_far', 4, 0.25),
    ):
        expected = weight * (query[stage] - key[stage]).square().mean()
        torch.testing.assert_close(logs[name], expected)
    sum(logs.values()).backward()
    assert [stage for stage in query if query[stage].grad is not None] == [0, 4]


def test_followed_neck_learns_from_the_query_only():
    head = MultiLevelHead([dict(stage=2, loss=DISTANCE, neck=PROJECTOR)])
    followed = head.followed_necks()
    slow = MODELS.build(PROJECTOR)
    logs, query, key = compute(head, {label: slow for label in followed})
    logs['loss_stage2_toy_map_distance'].backward()
    (fast,) = followed.values()
    expected = (fast(query[2], 0, None) - slow(key[2], 1, None)).square()
    torch.testing.assert_close(logs['loss_stage2_toy_map_distance'], expected.mean())
    assert fast.layer.weight.grad.abs().sum() > 0
    assert slow.layer.weight.grad is None


def test_shared_neck_learns_from_both():
    head = MultiLevelHead(
        [dict(stage=2, loss=DISTANCE, neck=PROJECTOR, key_neck='shared')]
    )
    assert len(head.followed_necks()) == 0
    logs, query, key = compute(head)
    (neck,) = head.necks.values()
    expected = (neck(query[2], 0, None) - neck(key[2], 1, None)).square()
    (found,) = torch.autograd.grad(
        logs['loss_stage2_toy_map_distance'], neck.layer.weight
    )
    torch.testing.assert_close(
        found, torch.autograd.grad(expected.mean(), neck.layer.weight)[0]
    )


def test_further_scalars_are_logged_apart():
    loss = dict(type='medssl_mm.ToyNormGapLoss')
    logs, query, _ = compute(MultiLevelHead([dict(stage=1, loss=loss)]))
    assert set(logs) == {'loss_stage1_toy_norm_gap', 'stage1_toy_norm_gap_query_norm'}
    torch.testing.assert_close(logs['stage1_toy_norm_gap_query_norm'], query[1].norm())


def test_chance_level_is_comparable_with_the_weighted_loss():
    loss = dict(type='medssl_mm.LocalInfoNCELoss', negatives='batch')
    neck = dict(type='medssl_mm.ToyRegions')
    logs = {}
    for weight in (1.0, 0.5):
        head = MultiLevelHead([dict(stage=1, loss=loss, neck=neck, weight=weight)])
        key_necks = {label: ToyRegions() for label in head.followed_necks()}
        logs[weight] = compute(head, key_necks)[0]
    for name, factor in (
        ('loss_stage1_local_info_nce', 0.5),
        ('stage1_local_info_nce_chance_level', 0.5),
        ('stage1_local_info_nce_top1', 1),
    ):
        torch.testing.assert_close(logs[0.5][name], factor * logs[1.0][name])
    # Two images of four regions each.
    torch.testing.assert_close(
        logs[1.0]['stage1_local_info_nce_chance_level'], torch.tensor(8.0).log()
    )


def test_log_value_that_would_be_trained_on():
    loss = dict(type='medssl_mm.ToyNormGapLoss', entry='loss_norm')
    with pytest.raises(ValueError, match="ToyNormGapLoss .* 'loss_norm'"):
        compute(MultiLevelHead([dict(stage=1, loss=loss)]))


@pytest.mark.parametrize(
    'levels, message',
    [
        ([dict(stage=5, loss=DISTANCE)], r'levels\[0\]: stage must be .* got 5'),
        ([dict(loss=DISTANCE)], r"levels\[0\]: missing \['stage'\]"),
        ([dict(stage=1, loss=DISTANCE, factor=2)], r"unknown \['factor'\]"),
        ([dict(stage=1, loss=DISTANCE, key_neck='none')], "got 'none'"),
        (
            [dict(stage=1, loss=DISTANCE)] * 2,
            r'levels\[1\]: .* stage1_toy_map_distance; give',
        ),
    ],
)
def test_wrong_level(levels, message):
    with pytest.raises(ValueError, match=message):
        MultiLevelHead(levels)


def test_context_gives_the_views_geometry():
    matrices = [
        [crop_matrix((n, 1, 9 + n, 7), (4, 8), flip=bool(view)) for view in range(2)]
        for n in range(3)
    ]
    samples = []
    for pair in matrices:
        samples.append(
            BaseDataElement(
                metainfo=dict(view_geometry=[dict(matrix=matrix) for matrix in pair])
            )
        )
    images = (torch.rand(3, 1, 4, 8), torch.rand(3, 1, 4, 8))
    context = LevelContext(2, images, samples)
    found = context.view_matrices(1)
    assert found.shape == (3, 2, 3)
    corner = torch.tensor([[-0.5, -0.5]], dtype=torch.float64)
    # The flipped view's left edge shows the right edge of its box.
    torch.testing.assert_close(
        apply_affine(found[2], corner), torch.tensor([[10.5, 0.5]], dtype=torch.float64)
    )


@pytest.mark.parametrize('samples', [[], [SimpleNamespace(metainfo={})]])
def test_missing_geometry(samples):
    images = (torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4))
    with pytest.raises(ValueError, match='no view_geometry of view 0'):
        LevelContext(1, images, samples).view_matrices(0)
