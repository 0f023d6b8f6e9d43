import torch

from medssl_mm.models import PooledNeck


def test_it_is_the_mean_over_positions():
    level = torch.randn(2, 3, 4, 5)
    (found,) = PooledNeck()([level])
    expected = torch.stack(
        [torch.stack([level[n, c].sum() / 20 for c in range(3)]) for n in range(2)]
    )
    torch.testing.assert_close(found, expected)
