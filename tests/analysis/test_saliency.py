import numpy as np
import pytest
import torch
from torch import nn

from medssl_mm.analysis import saliency
from medssl_mm.analysis.saliency import (
    Saliency,
    attentive_diffusion,
    kept_part,
    mean_diffusion,
    occlusion_saliency,
    windows,
)
from medssl_mm.errors import InstallError, UserError
from tests.analysis.plain import convolution

pytest.importorskip('captum')


class Patch(nn.Module):
    """Sees one patch only."""

    def __init__(self, rows, columns):
        super().__init__()
        self.rows, self.columns = slice(*rows), slice(*columns)

    def forward(self, images):
        return images[:, :, self.rows, self.columns].flatten(1)


def image(size=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(3, size, size, generator=rng) + 0.5


def slow(encoder, picture, window, stride=1):
    """Mean over all windows that cover a pixel."""
    _, height, width = picture.shape
    clean = encoder(picture[None])[0]
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for y in range(0, height - window + stride, stride):
        for x in range(0, width - window + stride, stride):
            covered = picture.clone()
            covered[:, y : y + window, x : x + window] = 0
            change = (encoder(covered[None])[0] - clean).norm() / clean.norm()
            total[y : y + window, x : x + window] += float(change)
            count[y : y + window, x : x + window] += 1
    return total / count


@pytest.mark.parametrize('stride', [1, 3, 4])
def test_saliency_equals_a_slow_loop(stride):
    encoder, picture = convolution(), image(20)
    counts = []
    found = occlusion_saliency(encoder, picture, 6, stride, 7, counts.append)
    np.testing.assert_allclose(
        found, slow(encoder, picture, 6, stride), rtol=1e-4, atol=1e-6
    )
    assert max(counts) <= 7
    # captum asks for the whole image once, too.
    assert sum(counts) == windows((20, 20), 6, stride) + 1


def test_network_that_sees_one_patch_has_its_saliency_there():
    encoder = Patch((12, 18), (20, 30)).eval()
    found = occlusion_saliency(encoder, image(), window=4)
    assert (found[12:18, 20:30] > 0).all()
    outside = found.copy()
    outside[12 - 3 : 18 + 3, 20 - 3 : 30 + 3] = 0
    np.testing.assert_allclose(outside, 0, atol=1e-6)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 12 <= row < 18 and 20 <= column < 30
    # The window reaches three pixels beyond the patch.
    share = attentive_diffusion(found)
    assert 6 * 10 / 1600 <= share <= 12 * 16 / 1600


def test_covering_all_that_is_seen_changes_everything():
    encoder = Patch((3, 5), (3, 5)).eval()
    found = occlusion_saliency(encoder, image(10), window=6)
    # Every window that covers (4, 4) covers the whole patch or part of it.
    assert 0 < found[4, 4] <= 1
    assert found.max() <= 1 + 1e-6


def test_scale_of_the_features_does_not_count():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.inner, self.factor = convolution().eval(), factor

        def forward(self, images):
            return self.factor * self.inner(images)

    one, other = (
        occlusion_saliency(Scaled(factor).eval(), image(16), 4) for factor in (1, 50)
    )
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_diffusion_is_the_share_above_the_mean():
    values = np.array([[0, 0, 0, 1.0]])
    assert attentive_diffusion(values) == 0.25
    assert attentive_diffusion(np.full((7, 9), np.float32(0.1))) == 0
    assert Saliency('a', 'b', values).attentive_diffusion == 0.25
    found = mean_diffusion([0.2, 0.4])
    assert found.estimate == pytest.approx(0.3) and found.units == 2
    assert found.high - 0.3 == pytest.approx(1.96 * np.std([0.2, 0.4], ddof=1) / 2**0.5)


def test_compat_keeps_the_pixels_that_a_hundred_windows_cover():
    values = np.arange(242 * 242).reshape(242, 242)
    inner = kept_part(values, 'compat')
    assert inner.shape == (224, 224) and inner[0, 0] == values[9, 9]
    assert kept_part(values, 'strict') is values
    count = np.zeros((242, 242))
    for y in range(242 - 9):
        count[y : y + 10] += 1
    assert (kept_part(count, 'compat') == 10).all()
    assert windows((242, 242)) == 54_289


@pytest.mark.parametrize('window, stride', [(50, 1), (4, 5), (4, 0)])
def test_windows_that_do_not_cover_the_image_are_refused(window, stride):
    with pytest.raises(UserError, match='choose a stride from 1'):
        occlusion_saliency(convolution(), image(), window, stride)


def test_features_of_0_and_training_mode_are_refused():
    class Dead(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 3)

    with pytest.raises(UserError, match='have the length 0'):
        occlusion_saliency(Dead().eval(), image())
    with pytest.raises(ValueError, match='training mode'):
        occlusion_saliency(convolution().train(), image())


def test_without_captum_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(saliency.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InstallError, match=r'medssl_mm\[saliency\]'):
        occlusion_saliency(convolution(), image())
