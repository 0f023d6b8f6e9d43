import pytest
import torch
from torch import nn

from medssl_mm.functional.features import (
    FIGURES,
    collapse_of,
    collect_features,
    evaluation_mode,
    grid_rows,
    spectrum_figures,
)


def test_modes_return():
    module = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout()).train()
    module[0].eval()
    with pytest.raises(ArithmeticError):
        with evaluation_mode(module):
            assert not module[1].training
            raise ArithmeticError
    assert [m.training for m in module.modules()] == [True, False, True]


def test_grid_is_even_and_complete():
    positions = torch.arange(36.0).view(1, 1, 6, 6)
    assert grid_rows(positions, 2).flatten().tolist() == [7, 10, 25, 28]
    assert grid_rows(positions, 9).flatten().tolist() == list(range(36))
    rows = torch.rand(3, 4)
    assert grid_rows(rows) is rows


def test_collects_batches_without_gradient():
    layer = nn.Linear(3, 2)
    batches = [torch.rand(4, 3), torch.rand(2, 3)]
    found = collect_features(lambda x: dict(out=layer(x)), batches)['out']
    torch.testing.assert_close(found, layer(torch.cat(batches)).detach())
    assert not found.requires_grad


def test_collapse_in_words():
    healthy = torch.randn(500, 20, generator=torch.Generator().manual_seed(0))
    line = healthy[:, :1] * torch.ones(20)
    point = torch.ones(20) + 1e-4 * healthy
    for rows, word in (
        (healthy, ''),
        (line, 'dimensional collapse'),
        (point, 'complete collapse'),
    ):
        values, figures = spectrum_figures(rows)
        assert set(figures) == set(FIGURES) and len(values) == 20
        assert collapse_of(figures, *rows.shape).startswith(word)
    assert not collapse_of(spectrum_figures(healthy)[1], *healthy.shape)
    strict = collapse_of(spectrum_figures(healthy)[1], 500, 20, rank_share=1.0)
    assert 'of 20 possible is below 20.00' in strict
