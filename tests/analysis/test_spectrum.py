import dataclasses

import pytest
import torch
from torch import nn

from medssl_mm.analysis import Spectrum, place_spectra, require_comparable
from medssl_mm.errors import UserError
from medssl_mm.functional.spectrum import covariance_eigenvalues, lidar


def test_spectra_of_a_callable():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)).train()
    batches = [torch.rand(5, 3, 2, 2), torch.rand(3, 3, 2, 2)]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    spectra = place_spectra(
        model, lambda x: dict(inner=x, outer=model(x)), batches, 'one'
    )
    assert [(s.label, s.place, s.num_samples) for s in spectra] == [
        ('one', 'inner', 32),
        ('one', 'outer', 32),
    ]
    torch.testing.assert_close(
        torch.tensor(spectra[0].singular_values),
        covariance_eigenvalues(torch.cat(batches)).float(),
    )
    assert model.training and model[0].training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_other_views_are_for_vectors_alone():
    torch.manual_seed(0)
    views = [[torch.rand(5, 3, 2, 2), torch.rand(3, 3, 2, 2)] for _ in range(4)]
    model = nn.Conv2d(3, 4, 1)
    maps, pooled = place_spectra(
        model,
        lambda x: dict(maps=model(x), pooled=model(x).mean((2, 3))),
        views[0],
        'one',
        other_views=views[1:],
    )
    assert 'lidar' not in maps.figures
    with torch.no_grad():
        rows = [model(torch.cat(view)).mean((2, 3)) for view in views]
    expected = lidar(torch.stack(rows, dim=1)).item()
    assert pooled.figures['lidar'] == pytest.approx(expected, rel=1e-4)


def test_normalisation_is_stated_for_all_or_for_none():
    one = Spectrum('a', 'stage4', 10, [1.0], {}, normalisation='running statistics')
    other = dataclasses.replace(one, label='b', normalisation='as initialised')
    require_comparable([one, other])
    with pytest.raises(UserError, match='stage4 do not compare: b does not state its'):
        require_comparable([one, dataclasses.replace(other, normalisation='')])


@pytest.mark.parametrize('name', ['stride', 'images', 'num_samples'])
def test_what_does_not_compare_is_refused(name):
    one = Spectrum('a', 'stage4', 10, [1.0], {}, stride=8, images=5)
    other = dataclasses.replace(one, label='b')
    elsewhere = dataclasses.replace(one, place='pooled', **{name: 2})
    require_comparable([one, other, elsewhere])
    with pytest.raises(UserError, match=rf'stage4 .* {name} is \d+ in a and 2 in b'):
        require_comparable([one, dataclasses.replace(other, **{name: 2})])
