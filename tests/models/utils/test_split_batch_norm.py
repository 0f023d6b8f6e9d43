import copy

import pytest
import torch
from torch import nn

from medssl_mm.errors import UserError
from medssl_mm.models.utils import SplitBatchNorm

SHAPES = [(16, 3, 4, 5), (8, 3, 7), (24, 3)]


def pair(splits, dtype=torch.double, **settings):
    """A split layer, and a batch normalisation for each part."""
    ours = SplitBatchNorm(3, splits, dtype=dtype, **settings)
    with torch.no_grad():
        if ours.affine:
            ours.weight.uniform_(0.5, 1.5)
            ours.bias.normal_()
    parts = []
    for _ in range(splits):
        part = nn.BatchNorm2d(3, dtype=dtype, **settings)
        part.load_state_dict(ours.state_dict())
        part._check_input_dim = lambda x: None
        parts.append(part)
    return ours, parts


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('momentum', [0.1, None])
def test_equals_a_layer_for_each_part(shape, momentum):
    ours, parts = pair(4, momentum=momentum)
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.double) * 2 + 1
        expected = torch.cat([p(c) for p, c in zip(parts, x.chunk(4), strict=True)])
        torch.testing.assert_close(ours(x), expected)
        # All start the next step from the mean over the parts.
        for name in ('running_mean', 'running_var'):
            mean = torch.stack([getattr(p, name) for p in parts]).mean(0)
            torch.testing.assert_close(getattr(ours, name), mean)
            for part in parts:
                getattr(part, name).copy_(mean)
    assert ours.num_batches_tracked == 3


def test_gradients_equal_those_of_the_parts():
    ours, parts = pair(8)
    x = torch.randn(16, 3, 4, 4, dtype=torch.double, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    weight = torch.randn(16, 3, 4, 4, dtype=torch.double)
    (ours(x) * weight).sum().backward()
    made = torch.cat([p(c) for p, c in zip(parts, other.chunk(8), strict=True)])
    (made * weight).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    for name in ('weight', 'bias'):
        total = torch.stack([getattr(p, name).grad for p in parts]).sum(0)
        torch.testing.assert_close(getattr(ours, name).grad, total)


def test_evaluation_is_that_of_batch_normalisation():
    ours, parts = pair(8)
    ours(torch.randn(16, 3, 4, 4, dtype=torch.double))
    plain = parts[0]
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4, 4, dtype=torch.double)  # any number of images
    before = copy.deepcopy(ours.state_dict())
    torch.testing.assert_close(ours.eval()(x), plain.eval()(x), rtol=0, atol=0)
    assert all(torch.equal(before[n], v) for n, v in ours.state_dict().items())


def test_a_part_does_not_feel_the_others():
    ours, _ = pair(2)
    x = torch.randn(8, 3, 4, 4, dtype=torch.double)
    changed = x.clone()
    changed[4:] = changed[4:] * 5 + 3
    torch.testing.assert_close(ours(x)[:4], ours(changed)[:4])
    whole = nn.BatchNorm2d(3, dtype=torch.double)
    assert not torch.allclose(whole(x)[:4], whole(changed)[:4])


def test_one_part_and_no_statistics():
    x = torch.randn(8, 3, 4, 4, dtype=torch.double)
    one, (plain,) = pair(1)
    torch.testing.assert_close(one(x), plain(x), rtol=0, atol=0)
    ours, parts = pair(4, track_running_stats=False, affine=False)
    expected = torch.cat([p(c) for p, c in zip(parts, x.chunk(4), strict=True)])
    torch.testing.assert_close(ours.eval()(x), expected)


def test_channels_last_and_autocast():
    ours, parts = pair(4, dtype=torch.float)
    x = torch.randn(16, 3, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16):
        made = ours(x.bfloat16())
        expected = torch.cat([p(c) for p, c in zip(parts, x.bfloat16().chunk(4))])
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert made.dtype == expected.dtype and ours.running_mean.dtype == torch.float
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(
        ours.running_var, torch.stack([p.running_var for p in parts]).mean(0)
    )


def test_what_cannot_be_shared_is_refused():
    with pytest.raises(UserError, match=r'12 images .*num_splits=8.*multiple'):
        SplitBatchNorm(3)(torch.randn(12, 3, 2, 2))
    with pytest.raises(UserError, match='num_splits must be 1 or more, got 0'):
        SplitBatchNorm(3, 0)


def test_statistics_that_are_not_tracked_stay():
    """As of batch normalisation, whose switch it is."""
    ours, _ = pair(4)
    x = torch.randn(16, 3, 4, 5, dtype=torch.double)
    expected = copy.deepcopy(ours)(x)
    before = copy.deepcopy(ours.state_dict())
    ours.track_running_stats = False
    torch.testing.assert_close(ours(x), expected)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name]), name
