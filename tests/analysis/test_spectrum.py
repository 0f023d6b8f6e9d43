import torch
from torch import nn

from medssl_mm.analysis import place_spectra
from medssl_mm.functional.spectrum import covariance_eigenvalues


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
