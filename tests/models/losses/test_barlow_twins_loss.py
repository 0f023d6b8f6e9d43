import pytest
import torch
from torch import nn

from medssl_mm.functional.redundancy import barlow_twins
from medssl_mm.models.losses import BarlowTwinsLoss
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import FIXED_STATISTICS
from tests.models.algorithms.test_moco import train_distributed as trained
from tests.models.algorithms.toy import batches, build_ours
from tests.numerics import close

WEIGHT = 5e-5 / 32  # of the published code


def levels(weight=1e-3, stages=(1, 4), **loss):
    return [
        dict(
            stage=stage,
            neck=dict(
                type='medssl_mm.BarlowTwinsNeck',
                in_channels=8 * 2 ** (stage - 1),
                hid_channels=16,
                out_channels=24,
            ),
            key_neck='shared',
            loss=dict(type='medssl_mm.BarlowTwinsLoss', **loss),
            weight=weight,
        )
        for stage in stages
    ]


def views(samples=8, channels=6):
    torch.manual_seed(0)
    a = torch.randn(samples, channels)
    return a, a + 0.5 * torch.randn(samples, channels)


@pytest.mark.parametrize('weight', [5e-3, 1.0])
def test_uses_its_setting(weight):
    a, b = views()
    logs = BarlowTwinsLoss(weight)(a, b, None)
    torch.testing.assert_close(logs['loss'], barlow_twins(a, b, weight))
    assert set(logs) == {'loss', 'correlation'}


def test_correlation_of_the_views():
    a, b = views(50, 3)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a.T, b.T)]
    found = BarlowTwinsLoss()(a, 3 * b + 7, None)['correlation']
    torch.testing.assert_close(found, torch.stack(expected).mean())
    same = BarlowTwinsLoss()(a.bfloat16(), a.bfloat16(), None)['correlation']
    assert same.dtype == torch.float32 and same.item() == pytest.approx(1)


def test_wrong_weight():
    with pytest.raises(ValueError, match='must not be negative, got -1'):
        BarlowTwinsLoss(-1)


def published_term(query, key):
    """Affine-free batch normalisation of each view, one weight for all."""
    norm = nn.BatchNorm1d(query.shape[1], affine=False).to(query.dtype)
    c = norm(query).T @ norm(key) / len(query)
    on_diagonal = (torch.diagonal(c) - 1).pow(2).sum()
    off_diagonal = c.pow(2).sum() - torch.diagonal(c).pow(2).sum()
    return WEIGHT * (on_diagonal + off_diagonal)


def test_terms_of_the_published_code_with_gradients():
    """The projector learns from both views, the encoder from the query."""
    model = build_ours(levels=levels(WEIGHT, off_diagonal_weight=1.0))
    batch = next(iter(batches(steps=1)))
    # The first step copies the key encoder: afterwards both are what they
    # were when the terms were computed.
    logs = model(batch, [], mode='loss')
    query = model.encoder(batch[0]).maps
    with torch.no_grad():
        key = model.encoder_k.module(batch[1]).maps
    for stage in (1, 4):
        q, k = query[stage], key[stage]
        name = f'stage{stage}_barlow_twins'
        neck = model.multi_level_head.necks[name]
        expected = published_term(neck(q, 0, None), neck(k, 1, None))
        close(logs[f'loss_{name}'], expected)
        weights = [*neck.parameters(), model.backbone.conv1.weight]
        found = torch.autograd.grad(logs[f'loss_{name}'], weights, retain_graph=True)
        wanted = torch.autograd.grad(expected, weights, retain_graph=True)
        for a, b in zip(found, wanted):
            close(a, b)
    assert not [n for n, p in model.encoder_k.named_parameters() if p.requires_grad]
    # No slow copy of the projectors: they are shared.
    assert not [n for n in model.encoder_k.state_dict() if 'projector' in n]


def history(settings):
    model = build_ours(levels=settings, **FIXED_STATISTICS)
    # Statistics of a process' own part would differ from those of the batch.
    for neck in model.multi_level_head.necks.values():
        neck.eval()
    return trained(model, steps=2)


def test_two_processes_equal_one():
    expected = history(levels())
    results = run_processes(history, 2, levels())
    for step, (logs, grads) in enumerate(expected):
        for found in results:
            close(found[step][1], grads)
            for name in logs:
                if name.startswith('loss_stage'):
                    # Of the whole batch, on every process.
                    close(found[step][0][name], logs[name])
