from types import SimpleNamespace

import numpy as np
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
    logs = head(
        SimpleNamespace(maps=query, level_necks={}),
        SimpleNamespace(maps=key, level_necks=key_necks or {}),
        images,
        [],
    )
    return logs, query, key


def test_the_map_of_a_decoder_has_its_name():
    head = MultiLevelHead(
        [dict(stage='decoder', loss=DISTANCE), dict(stage=2, loss=DISTANCE)],
        has_decoder=True,
    )
    assert head.stages == (2,) and head.places == (2, 'decoder')
    query, key = ({**maps(seed), 'decoder': maps(seed + 9)[0]} for seed in (1, 2))
    logs = head(
        SimpleNamespace(maps=query, level_necks={}),
        SimpleNamespace(maps=key, level_necks={}),
        (torch.rand(2, 1, 24, 24), torch.rand(2, 1, 24, 24)),
        [],
    )
    expected = (query['decoder'] - key['decoder']).square().mean()
    torch.testing.assert_close(logs['loss_decoder_toy_map_distance'], expected)
    assert set(logs) == {f'loss_{p}_toy_map_distance' for p in ('decoder', 'stage2')}
    with pytest.raises(ValueError, match=r"levels\[0\]: stage='decoder' needs decoder"):
        MultiLevelHead([dict(stage='decoder', loss=DISTANCE)])


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


SHARED = dict(stage=2, loss=DISTANCE, neck=PROJECTOR, key_neck='shared', name='shared')
FOLLOWED = dict(stage=2, loss=DISTANCE, neck=PROJECTOR, name='followed')


def outputs(requires_grad, necks, seeds=(1, 2)):
    """What an encoder makes of either view."""
    made = []
    for seed in seeds:
        levels = {
            stage: m.requires_grad_(requires_grad) for stage, m in maps(seed).items()
        }
        made.append(SimpleNamespace(maps=levels, level_necks=necks))
    return made


def geometry(seed):
    rng = np.random.default_rng(seed)
    return [
        BaseDataElement(
            metainfo=dict(
                view_geometry=[dict(matrix=rng.normal(size=(2, 3))) for _ in range(2)]
            )
        )
        for _ in range(2)
    ]


@MODELS.register_module(force=True)
class ToyPlacesLoss(nn.Module):
    """Not symmetric; depends on maps, images and geometry of both views."""

    def forward(self, query, key, context):
        share = (context.view_matrices(0) - 2 * context.view_matrices(1)).sum().float()
        grey = context.images[0].mean() - 2 * context.images[1].mean()
        return dict(
            loss=(query - 2 * key).square().mean() + share + grey,
            share=share,
        )


def test_same_encoder_learns_from_both_views():
    head = MultiLevelHead([dict(stage=2, loss=DISTANCE, neck=PROJECTOR)], 'same')
    assert len(head.followed_necks()) == 0
    query, key = outputs(True, {})
    images = (torch.rand(2, 1, 24, 24), torch.rand(2, 1, 24, 24))
    logs = head(query, key, images, [])
    logs['loss_stage2_toy_map_distance'].backward()
    (neck,) = head.necks.values()
    fresh = [side.maps[2].detach().requires_grad_() for side in (query, key)]
    expected = (neck(fresh[0], 0, None) - neck(fresh[1], 1, None)).square().mean()
    wanted = torch.autograd.grad(expected, [*fresh, neck.layer.weight])
    for side, grad in zip((query, key), wanted):
        torch.testing.assert_close(side.maps[2].grad, grad)
        assert side.maps[1].grad is None
    torch.testing.assert_close(neck.layer.weight.grad, wanted[-1])


def test_both_ways_are_the_mean_of_two():
    """Values, and the gradient: at the query's maps and necks only."""
    levels = [
        dict(SHARED, loss=dict(type='medssl_mm.ToyPlacesLoss')),
        dict(FOLLOWED, loss=dict(type='medssl_mm.ToyPlacesLoss'), weight=0.5),
    ]
    torch.manual_seed(0)
    both, one_way = MultiLevelHead(levels, 'both'), MultiLevelHead(levels, 'slow')
    one_way.load_state_dict(both.state_dict())
    slow = {label: MODELS.build(PROJECTOR) for label in both.followed_necks()}
    images = (torch.rand(2, 1, 24, 24), torch.rand(2, 1, 24, 24))
    samples = geometry(0)
    swapped = [
        BaseDataElement(metainfo=dict(view_geometry=s.metainfo['view_geometry'][::-1]))
        for s in samples
    ]
    queries, keys = outputs(True, both.followed_necks()), outputs(False, slow, (3, 4))
    logs = both(queries, keys, images, samples)
    fresh = outputs(True, one_way.followed_necks())
    there = one_way(fresh[0], keys[1], images, samples)
    back = one_way(fresh[1], keys[0], images[::-1], swapped)
    assert set(logs) == set(there) and len(logs) == 4
    for name, value in logs.items():
        torch.testing.assert_close(value, (there[name] + back[name]) / 2)
        assert not torch.isclose(there[name], back[name])
    for parts in ([logs], [there, back]):
        total = sum(
            value / len(parts)
            for part in parts
            for name, value in part.items()
            if name.startswith('loss')
        )
        total.backward()
    for found, expected in zip(queries, fresh):
        assert expected.maps[2].grad.abs().sum() > 0
        torch.testing.assert_close(found.maps[2].grad, expected.maps[2].grad)
    for found, expected in zip(both.parameters(), one_way.parameters()):
        assert expected.grad.abs().sum() > 0
        torch.testing.assert_close(found.grad, expected.grad)
    assert all(neck.layer.weight.grad is None for neck in slow.values())
    assert all(side.maps[2].grad is None for side in keys)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (([FOLLOWED], 'none'), "key_side must be one of .*'slow'.* got 'none'"),
        (
            ([dict(FOLLOWED, key_neck='ema')], 'same'),
            r'levels\[0\]: key_neck="ema" needs a slow copy',
        ),
        (([dict(FOLLOWED, stage=13)], 'slow', 12), 'stage must be .* 12, got 13'),
    ],
)
def test_wrong_key_side(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiLevelHead(*arguments)


def test_what_views_share_is_computed_once():
    calls = []
    context = LevelContext(1, (), ())
    for key in ('a', 'b', 'a'):
        value = context.once(key, lambda key=key: calls.append(key) or [key])
        assert value == [key]
    assert calls == ['a', 'b']
    assert context.once('a', list) is context.once('a', list)
    assert LevelContext(1, (), ()).once('a', lambda: 'new') == 'new'


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
