import pytest
import torch

from medssl_mm.errors import UserError
from medssl_mm.functional.vicreg import covariance_penalty, variance_hinge, vicreg
from medssl_mm.models.losses import VICRegLocalLoss, VICRegLoss
from medssl_mm.models.necks import PlaceProjector
from tests.models.algorithms.toy import batches, build_ours
from tests.models.necks.test_local_contrast_neck import make_context, view_pairs
from tests.numerics import close

WEIGHTS = dict(invariance_weight=2.0, variance_weight=3.0, covariance_weight=0.5)


def maps(seed=0, images=6, channels=5, height=4, width=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(
            images, channels, height, width, generator=generator, dtype=torch.float64
        )
        for _ in range(2)
    ]


def test_positions_of_maps_are_samples():
    a, b = maps()
    rows = [view.permute(0, 2, 3, 1).reshape(-1, 5) for view in (a, b)]
    close(VICRegLoss(**WEIGHTS)(a, b)['loss'], vicreg(*rows, **WEIGHTS)[0])


def test_soft_decorrelation_of_a_map_that_is_kept():
    """As a level without a neck, beside MoCo."""
    level = dict(
        stage=4, loss=dict(type='medssl_mm.VICRegLoss', invariance_weight=0), weight=0.1
    )
    model = build_ours(levels=[level])
    views = next(iter(batches(steps=1)))
    logs = model.loss(views)
    query = model.encoder(views[0]).maps[4].permute(0, 2, 3, 1).reshape(-1, 64)
    with torch.no_grad():
        key = model.encoder_k.module(views[1]).maps[4]
        key = key.permute(0, 2, 3, 1).reshape(-1, 64)
    hinges = (variance_hinge(query) + variance_hinge(key)) / 2
    penalties = covariance_penalty(query) + covariance_penalty(key)
    close(logs['loss_stage4_vic_reg'], 0.1 * (25 * hinges + penalties))
    close(logs['stage4_vic_reg_covariance'], penalties.detach())


def slow_local(query, key, distance, count):
    """Both directions of one way of matching, by loops over places."""
    total = 0
    for one, other, d in ((query, key, distance), (key, query, distance.mT)):
        chosen = []
        for image in range(len(one)):
            pairs = sorted(
                (min(row), place, min(range(len(row)), key=lambda j: row[j]))
                for place, row in enumerate(d[image].tolist())
            )
            chosen.append(pairs[:count])
        a, b = (
            torch.stack(
                [
                    torch.stack([rows[image, pair[which]] for pair in pairs])
                    for image, pairs in enumerate(chosen)
                ]
            )
            for rows, which in ((one, 1), (other, 2))
        )
        total = total + vicreg(a, b, **WEIGHTS)[0] / 2
    return total


@pytest.mark.parametrize('rotation', [0.0, 60.0])
def test_a_loop_over_places(rotation):
    context = make_context(view_pairs(6, rotation))
    query, key = maps(height=4, width=4)
    query.requires_grad_()
    rows = [view.flatten(2).mT for view in (query, key)]
    feature = torch.stack(
        [
            torch.stack([(p - other).norm(dim=1) for p in one])
            for one, other in zip(*(view.detach() for view in rows))
        ]
    )
    centres = []
    for view in (0, 1):
        side = context.images[view].shape[2]
        place = (torch.arange(4.0).double() + 0.5) * side / 4 - 0.5
        y, x = torch.meshgrid(place, place, indexing='ij')
        points = torch.stack([x.flatten(), y.flatten(), torch.ones(16)], 0)
        centres.append((context.view_matrices(view) @ points.double()).mT)
    location = (centres[0][:, :, None] - centres[1][:, None]).norm(dim=-1)
    found = {
        how: VICRegLocalLoss((how,), matched_share=0.4, **WEIGHTS)(query, key, context)
        for how in ('feature', 'location')
    }
    for how, distance in (('feature', feature), ('location', location)):
        expected = slow_local(*rows, distance, count=6)
        close(found[how]['loss'], expected)
        grads = (
            torch.autograd.grad(loss, query, retain_graph=True)[0]
            for loss in (found[how]['loss'], expected)
        )
        close(*grads)
    both = VICRegLocalLoss(matched_share=0.4, **WEIGHTS)(query, key, context)
    for name, value in both.items():
        close(value, found['feature'][name] + found['location'][name])


def test_projector_sees_each_place_by_itself():
    torch.manual_seed(0)
    neck = PlaceProjector(5, 8, 7).double().eval()
    (level, _) = maps(height=4, width=4)
    found = neck(level, 0, None)
    assert found.shape == (6, 7, 4, 4)
    alone = neck(level[:, :, 2:3, 1:2], 0, None)
    close(found[:, :, 2:3, 1:2], alone)
    assert len(neck.projector) == 7


def test_what_does_not_fit():
    with pytest.raises(UserError, match='weights must not be negative'):
        VICRegLoss(variance_weight=-1)
    with pytest.raises(UserError, match=r"of \['location', 'feature'\], got \['x'\]"):
        VICRegLocalLoss(('x',))
    with pytest.raises(UserError, match=r'in \(0, 1\], got 0'):
        VICRegLocalLoss(matched_share=0)
    with pytest.raises(UserError, match=r'projected maps .* got \(4, 8\)'):
        VICRegLocalLoss()(torch.zeros(4, 8), torch.zeros(4, 8))
    with pytest.raises(UserError, match='at least 1, got 0, 512, 512 and 3'):
        PlaceProjector(0)
    with pytest.raises(UserError, match=r'needs a map .* got \(2, 8\)'):
        PlaceProjector(8)(torch.zeros(2, 8), 0, None)
