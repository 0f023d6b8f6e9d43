import math

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.datasets.transforms.crop import RandomCropView
from medssl_mm.datasets.transforms.views import CropViews
from medssl_mm.functional.distributed import rank, world_size
from medssl_mm.functional.geometry import apply_affine, cell_centres
from medssl_mm.models.heads import LevelContext
from medssl_mm.models.necks import LocalContrastNeck
from tests.distributed import run_processes
from tests.models.algorithms.toy import backbone, batches, build_ours
from tests.numerics import close

SOURCE = (150, 170)
SIZE = 128


def view_pairs(number, rotation=30.0, shared=False, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    crop = RandomCropView(size=size, scale=(0.2, 1.0), rotation=rotation)
    pairs = []
    for _ in range(number):
        first = crop.sample(SOURCE, rng)
        pairs.append([first, first if shared else crop.sample(SOURCE, rng)])
    return pairs


def make_context(pairs, images=None):
    samples = [BaseDataElement(metainfo=dict(view_geometry=pair)) for pair in pairs]
    if images is None:
        height, width = pairs[0][0]['view_shape']
        images = [torch.rand(len(pairs), 1, height, width)] * 2
    return LevelContext(3, tuple(images), samples)


def coordinate_map(context, view, stride):
    """A map whose two channels are the source place of every cell."""
    shape = context.images[view].shape[2:]
    cells = [side // stride for side in shape]
    places = apply_affine(context.view_matrices(view), cell_centres(shape, cells))
    return places.mT.unflatten(2, cells).float()


def plain_neck(**settings):
    """A neck that returns what it takes from the map."""
    neck = LocalContrastNeck(2, **settings)
    neck.projector = nn.Identity()
    return neck


def both(neck, context, maps):
    regions = [neck(level, view, context) for view, level in enumerate(maps)]
    return (*[found.features for found in regions], regions[0].valid & regions[1].valid)


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(grid_size=7, samples_per_side=2),
        dict(sampling='points', num_points=20),
    ],
    ids=['grid', 'means', 'points'],
)
@pytest.mark.parametrize('rotation', [0.0, 60.0])
def test_overlap_matches_places_exactly(stride, settings, rotation):
    """Between cell centres a map of coordinates is interpolated exactly."""
    context = make_context(view_pairs(40, rotation))
    neck = plain_neck(edge_margin=0.5, **settings)
    query, key, valid = both(
        neck, context, [coordinate_map(context, view, stride) for view in (0, 1)]
    )
    assert valid.sum() > 100
    assert (query - key).norm(dim=2)[valid].max() < 1e-3
    # The places are told apart: the nearest is the own one.
    distance = torch.cdist(query, key)
    distance[~valid[:, None].expand_as(distance)] = torch.inf
    own = torch.arange(valid.shape[1]).expand_as(valid)
    assert (distance.argmin(dim=2) == own)[valid].all()


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
def test_overlap_at_the_edges_is_within_half_a_cell(stride):
    context = make_context(view_pairs(40, 0.0))
    query, key, valid = both(
        plain_neck(),
        context,
        [coordinate_map(context, view, stride) for view in (0, 1)],
    )
    coarse = (
        torch.stack(
            [context.view_matrices(view)[:, :, :2].norm(dim=1) for view in (0, 1)]
        ).amax(dim=0)
        * stride
    )  # (N, 2) sides of the larger cell
    gap = (query - key).abs() / coarse[:, None]
    assert gap[valid].max() <= 0.5 + 1e-6
    # Nothing but the edges differ.
    within = torch.ones_like(valid)
    for view in (0, 1):
        level = coordinate_map(context, view, stride).flatten(2).mT
        for places in (query, key):
            low, high = level.amin(dim=1), level.amax(dim=1)
            edge = 1e-3 * (high - low)
            within &= (
                (places > (low + edge)[:, None]) & (places < (high - edge)[:, None])
            ).all(dim=2)
    assert (within & valid).any()
    assert gap[within & valid].max() < 1e-4


def test_overlap_of_real_views():
    """The same through the cut images: a slice that shows its own x."""
    slice_image = np.broadcast_to(np.arange(SOURCE[1], dtype=np.float32), SOURCE)
    views = CropViews(
        crop=dict(type='medssl_mm.RandomCropView', size=SIZE), transforms=[]
    )
    rng = np.random.default_rng(1)
    done = [views.transform(dict(img=slice_image, rng=rng)) for _ in range(20)]
    images = [
        torch.from_numpy(np.stack([item['img'][view] for item in done]))[:, None]
        for view in (0, 1)
    ]
    context = make_context([item['view_geometry'] for item in done], images)
    neck = plain_neck(edge_margin=0.5)
    query, key, valid = both(
        neck, context, [F.avg_pool2d(image, 8) for image in images]
    )
    assert valid.sum() > 100
    # Border pixels repeat the slice's edge: at most half a pixel.
    assert (query - key).abs()[valid].max() < 0.51
    assert (query - key).abs()[valid].median() < 1e-3


def test_common_box_by_hand():
    """Two upright crops: regions lie on a grid over their common box."""
    crop = RandomCropView(size=64)
    boxes = [(0.0, 0.0, 64.0, 64.0), (32.0, 16.0, 96.0, 80.0)]
    pair = []
    for box in boxes:
        geometry = dict(crop.sample(SOURCE, np.random.default_rng(0)))
        matrix = [[1.0, 0.0, box[0]], [0.0, 1.0, box[1]]]
        pair.append({**geometry, 'matrix': np.array(matrix)})
    context = make_context([pair])
    maps = [coordinate_map(context, view, 4) for view in (0, 1)]
    found, _, valid = both(plain_neck(grid_size=2, min_overlap=0.37), context, maps)
    assert valid.all()  # common share 32 * 48 / 64 / 64 = 0.375
    torch.testing.assert_close(
        found[0], torch.tensor([[39.5, 27.5], [55.5, 27.5], [39.5, 51.5], [55.5, 51.5]])
    )
    context = make_context([pair])
    *_, valid = both(plain_neck(min_overlap=0.38), context, maps)
    assert not valid.any()


@pytest.mark.parametrize('min_overlap', [0.0, 0.1, 0.5])
def test_images_with_little_in_common_do_not_count(min_overlap):
    pairs = view_pairs(60, 0.0)
    context = make_context(pairs)
    maps = [coordinate_map(context, view, 8) for view in (0, 1)]
    *_, valid = both(plain_neck(min_overlap=min_overlap), context, maps)
    for (first, second), counts in zip(pairs, valid):
        a, b = first['box'], second['box']
        common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(
            0, min(a[3], b[3]) - max(a[1], b[1])
        )
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
        expected = common > 0 and common / min(areas) >= min_overlap
        assert counts.all() == counts.any() == expected


def test_turned_crops_count_places_in_both_only():
    context = make_context(view_pairs(40, 90.0))
    maps = [coordinate_map(context, view, 8) for view in (0, 1)]
    query, _, valid = both(plain_neck(min_overlap=0.0, edge_margin=0.5), context, maps)
    assert 0 < valid.sum() < valid.numel()
    for view in (0, 1):
        inverse = torch.linalg.inv(context.view_matrices(view)[:, :, :2])
        shift = context.view_matrices(view)[:, None, :, 2]
        local = (query.double() - shift) @ inverse.mT
        assert ((local > -0.5) & (local < SIZE - 0.5))[valid].all()


@pytest.mark.parametrize('stride', [8, 16, 32])
@pytest.mark.parametrize('grid_size', [None, 4])
def test_location_finds_the_nearest_cell(stride, grid_size):
    """Equals a slow loop over all cells, with crops, flips and turns."""
    pairs = view_pairs(8, 30.0)
    context = make_context(pairs)
    maps = [coordinate_map(context, view, stride) for view in (0, 1)]
    query, key, valid = both(
        plain_neck(matching='location', grid_size=grid_size), context, maps
    )
    if grid_size:
        maps = [F.adaptive_avg_pool2d(level, grid_size) for level in maps]
    for n in range(len(pairs)):
        ours, theirs = (level[n].flatten(1).T for level in maps)
        side = max(
            math.sqrt(abs(np.linalg.det(view['matrix'][:, :2])))
            * SIZE
            / math.sqrt(len(ours))
            for view in pairs[n]
        )
        for i, place in enumerate(ours):
            distance = (theirs - place).norm(dim=1)
            j = distance.argmin()
            back = (ours - theirs[j]).norm(dim=1).argmin()
            good = back == i and distance[j] <= 0.5 * side
            assert valid[n, i] == good
            if good:
                torch.testing.assert_close(query[n, i], place)
                torch.testing.assert_close(key[n, i], theirs[j])
    assert valid.any()


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
def test_location_is_exact_where_cells_coincide(stride):
    """Mirrored and turned by 180 degrees, and shifted by whole cells."""
    first = view_pairs(6, 0.0, shared=True)
    pairs = []
    for index, (view, _) in enumerate(first):
        other = dict(view)
        matrix = view['matrix'].copy()
        if index % 2:  # mirrored
            matrix[:, 2] += matrix[:, 0] * (SIZE - 1)
            matrix[:, 0] *= -1
        if index % 3:  # turned
            matrix[:, 2] += matrix[:, :2].sum(axis=1) * (SIZE - 1)
            matrix[:, :2] *= -1
        matrix[:, 2] += matrix[:, 0] * stride * (index // 3)
        other['matrix'] = matrix
        pairs.append([view, other])
    context = make_context(pairs)
    query, key, valid = both(
        plain_neck(matching='location', grid_size=None),
        context,
        [coordinate_map(context, view, stride) for view in (0, 1)],
    )
    columns = SIZE // stride
    assert valid.float().mean(dim=1).tolist() == pytest.approx(
        [1, 1, 1] + 3 * [1 - 1 / columns]
    )
    assert (query - key).norm(dim=2)[valid].max() < 1e-3


def test_aligned_matches_by_index():
    context = make_context(view_pairs(5, shared=True))
    maps = [coordinate_map(context, view, 8) for view in (0, 1)]
    query, key, valid = both(plain_neck(matching='aligned', grid_size=4), context, maps)
    assert valid.all()
    torch.testing.assert_close(query, key)
    torch.testing.assert_close(query, F.adaptive_avg_pool2d(maps[0], 4).flatten(2).mT)


def test_aligned_needs_a_shared_crop():
    pairs = view_pairs(3, shared=True) + view_pairs(2)
    context = make_context(pairs)
    with pytest.raises(ValueError, match='2 of 5 images .*shared_crop=True'):
        plain_neck(matching='aligned')(torch.rand(5, 2, 8, 8), 0, context)


def test_feature_finds_the_most_similar_cell():
    torch.manual_seed(0)
    level = torch.randn(6, 16, 4, 4)
    order = torch.randperm(16)
    shuffled = level.flatten(2)[:, :, order].view_as(level)
    neck = plain_neck(matching='feature', grid_size=None)
    context = LevelContext(3, [torch.rand(6, 1, 32, 32)] * 2, [])
    query, key, valid = both(neck, context, [level, 3 * shuffled])
    assert valid.all()
    torch.testing.assert_close(3 * query, key)
    # Against a slow loop where partners are not unique.
    other = torch.randn(6, 16, 4, 4)
    context = LevelContext(3, [torch.rand(6, 1, 32, 32)] * 2, [])
    query, key, valid = both(neck, context, [level, other])
    for n in range(6):
        ours, theirs = level[n].flatten(1).T, other[n].flatten(1).T
        cosine = F.cosine_similarity(ours[:, None], theirs[None], dim=2)
        for i in range(16):
            j = cosine[i].argmax()
            assert valid[n, i] == (cosine[:, j].argmax() == i)
            torch.testing.assert_close(key[n, i], theirs[j])


def test_feature_needs_the_query_first():
    neck = plain_neck(matching='feature')
    context = LevelContext(3, [torch.rand(2, 1, 32, 32)] * 2, [])
    with pytest.raises(ValueError, match='call the neck with view 0'):
        neck(torch.rand(2, 2, 8, 8), 1, context)


@pytest.mark.parametrize('matching', ['overlap', 'aligned', 'location', 'feature'])
def test_uniform_regions_do_not_count(matching):
    """The left half of the slice is air."""
    pairs = view_pairs(12, 0.0, shared=matching == 'aligned')
    rng = np.random.default_rng(0)
    slice_image = rng.random(SOURCE, dtype=np.float32)
    slice_image[:, :85] = 1
    crop = RandomCropView(size=SIZE)
    images = [
        torch.from_numpy(
            np.stack([crop.apply(slice_image, pair[view]) for pair in pairs])
        )[:, None]
        for view in (0, 1)
    ]
    maps = [coordinate_map(make_context(pairs), view, 8) for view in (0, 1)]
    results = []
    for threshold in (None, 0.02):
        neck = plain_neck(matching=matching, mask_uniform=threshold, max_distance=2)
        results.append(both(neck, make_context(pairs, images), maps))
    (query, _, everything), (_, key, textured) = results
    assert (textured <= everything).all()
    side = SOURCE[1] / 4  # no region is larger
    for places in (query, key):
        x = places[..., 0]
        assert not (textured & (x < 85 - side)).any()
    kept = everything & (query[..., 0] > 85 + side) & (key[..., 0] > 85 + side)
    assert kept.any()
    assert textured[kept].all()


def test_random_points_are_drawn_once_and_anew_every_step():
    pairs = view_pairs(4, shared=True)
    neck = plain_neck(sampling='points', edge_margin=0.5)
    contexts = [make_context(pairs), make_context(pairs)]
    maps = [coordinate_map(contexts[0], view, 4) for view in (0, 1)]
    one, two = (both(neck, context, maps) for context in contexts)
    torch.testing.assert_close(one[0], one[1])
    assert (one[0] - two[0]).abs().max() > 1


def test_bfloat16_maps_are_sampled_in_float32():
    context = make_context(view_pairs(6))
    neck = plain_neck(edge_margin=0.5)
    levels = [torch.rand(6, 2, 16, 16).bfloat16() for _ in range(2)]
    with torch.autocast('cpu', torch.bfloat16):
        found = neck(levels[0], 0, context).features
    expected = neck(levels[0].float(), 0, context).features
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('norm_cfg', [None, dict(type='BN')])
def test_projects_regions_like_a_small_network(norm_cfg):
    torch.manual_seed(0)
    neck = LocalContrastNeck(
        6, 10, 5, matching='aligned', grid_size=3, norm_cfg=norm_cfg
    )
    context = make_context(view_pairs(4, shared=True))
    level = torch.rand(4, 6, 12, 12, requires_grad=True)
    found = neck(level, 0, context).features
    assert found.shape == (4, 9, 5)
    expected = neck.projector(F.adaptive_avg_pool2d(level, 3))
    torch.testing.assert_close(found, expected.flatten(2).mT)
    found.sum().backward()
    assert level.grad.abs().sum() > 0


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(matching='nearest'), "matching must be one of .* got 'nearest'"),
        (dict(sampling='all'), "sampling must be one of .* got 'all'"),
        (dict(matching='aligned', sampling='points'), "needs matching='overlap'"),
        (dict(grid_size=None), "does not go with matching='overlap'"),
        (dict(grid_size=0), 'grid_size must be at least 1, got 0'),
        (dict(min_overlap=-1), 'min_overlap must be at least 0, got -1'),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LocalContrastNeck(4, **settings)


def test_pooled_input():
    with pytest.raises(ValueError, match=r'a map \(N, C, H, W\), got \(4, 2'):
        plain_neck()(torch.rand(4, 2), 0, make_context(view_pairs(4)))


def local_level(**neck):
    return dict(
        stage=3,
        neck=dict(
            type='medssl_mm.LocalContrastNeck',
            in_channels=32,
            hid_channels=16,
            out_channels=8,
            **neck,
        ),
        loss=dict(type='medssl_mm.LocalInfoNCELoss'),
        weight=0.5,
        name='local',
    )


def train_step(**neck):
    """One step on this process' share of eight images."""
    model = build_ours(levels=[local_level(**neck)], backbone=backbone(norm_eval=True))
    runner = DistributedDataParallel(model) if world_size() > 1 else model
    size = 8 // world_size()
    part = slice(rank() * size, (rank() + 1) * size)
    views = [view[part] for view in next(iter(batches(steps=1)))]
    shared = neck.get('matching') == 'aligned'
    pairs = view_pairs(8, 30.0, shared, size=64, seed=3)[part]
    torch.manual_seed(11)
    logs = runner(views, make_context(pairs, views).data_samples, mode='loss')
    sum(value for name, value in logs.items() if 'loss' in name).backward()
    grads = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return (
        {name: value.detach() for name, value in logs.items()},
        grads,
        {name: parameter.requires_grad for name, parameter in model.named_parameters()},
    )


@pytest.mark.parametrize('matching', ['overlap', 'aligned', 'location', 'feature'])
def test_trains_the_query_side(matching):
    logs, grads, learns = train_step(matching=matching)
    assert {name for name in logs if 'local' in name} == {
        'loss_stage3_local',
        'stage3_local_chance_level',
        'stage3_local_top1',
        'stage3_local_valid_share',
    }
    assert logs['loss_stage3_local'] > 0
    for name, parameter_learns in learns.items():
        assert (name in grads) == parameter_learns
        assert parameter_learns != name.startswith('encoder_k.')
    for name in (
        'backbone.layer3.1.conv2.weight',
        'backbone.conv1.weight',
        'multi_level_head.necks.stage3_local.projector.0.weight',
    ):
        assert grads[name].abs().sum() > 0
    if matching == 'aligned':
        # Weighted like the term.
        assert logs['stage3_local_chance_level'].item() == pytest.approx(
            0.5 * math.log(16)
        )


def test_gradient_of_the_term_alone_reaches_backbone_and_neck():
    model = build_ours(levels=[local_level()])
    views = next(iter(batches(steps=1)))
    context = make_context(view_pairs(8, 0.0, size=64, seed=3), views)
    logs = model(views, context.data_samples, mode='loss')
    logs['loss_stage3_local'].backward()
    touched = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    assert 'backbone.conv1.weight' in touched
    assert 'multi_level_head.necks.stage3_local.projector.2.weight' in touched
    assert not [
        name
        for name in touched
        if name.startswith(('encoder_k.', 'neck.', 'backbone.layer4'))
    ]


def test_two_processes_equal_one():
    """Also where the processes have unlike numbers of regions that count."""
    expected, expected_grads, _ = train_step()
    results = run_processes(train_step, 2)
    shares = [logs['stage3_local_valid_share'] for logs, *_ in results]
    assert shares[0] != shares[1]
    for name, value in expected.items():
        mean = torch.stack([logs[name] for logs, *_ in results]).mean()
        close(mean, value)
    for _, grads, _ in results:
        close(grads, expected_grads)
