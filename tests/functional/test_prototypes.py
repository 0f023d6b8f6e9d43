import numpy as np
import pytest
import torch

from medssl_mm.functional.prototypes import nearest_prototype


def reference(support, query):
    """Loop over episodes, queries and classes, in float64."""
    answers = []
    for examples, asked in zip(support.double().numpy(), query.double().numpy()):
        means = [one.mean(axis=0) for one in examples]
        answers.append(
            [
                int(np.argmin([np.sum((row - mean) ** 2) for mean in means]))
                for row in asked
            ]
        )
    return torch.tensor(answers)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
def test_equals_a_loop(dtype):
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(6, 4, 5, 8, generator=generator, dtype=dtype)
    query = torch.randn(6, 20, 8, generator=generator, dtype=dtype)
    assert nearest_prototype(support, query).equal(reference(support, query))


def test_does_not_depend_on_the_origin_nor_on_autocast():
    generator = torch.Generator().manual_seed(1)
    support = torch.randn(3, 2, 5, 16, generator=generator)
    query = torch.randn(3, 30, 16, generator=generator)
    expected = reference(support, query)
    # On a grid, so that the shift itself rounds nothing.
    support, query = ((x * 256).round() / 256 for x in (support, query))
    assert nearest_prototype(support, query).equal(reference(support, query))
    shifted = nearest_prototype(support + 4096, query + 4096)
    assert (shifted == expected).double().mean() > 0.98
    with torch.autocast('cpu', torch.bfloat16):
        assert nearest_prototype(support, query).equal(reference(support, query))
