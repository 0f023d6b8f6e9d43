import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torchvision.transforms import v2

from medssl_mm.datasets.transforms import ElasticDeformation


def run(transform, image, seed=0):
    return transform(dict(img=image, rng=np.random.default_rng(seed)))['img']


def picture(shape=(40, 48)):
    return np.random.default_rng(3).random(shape).astype(np.float32)


def test_field_is_smoothed_noise():
    step = ElasticDeformation(alpha=34, sigma=4)
    found = step.field(np.random.default_rng(5), (60, 50))
    noise = np.random.default_rng(5).uniform(-1, 1, (2, 60, 50))
    wanted = [34 * gaussian_filter(n, 4, mode='constant', cval=0) for n in noise]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_every_pixel_comes_from_where_the_field_points():
    """Slow reference: bilinear, 0 outside."""
    step = ElasticDeformation(alpha=20, sigma=3, prob=1)
    image = picture((14, 17))
    rng = np.random.default_rng(1)
    rng.random()
    field = step.field(rng, image.shape)
    found = run(step, image, 1)
    for row in range(14):
        for column in range(17):
            y, x = row + field[0, row, column], column + field[1, row, column]
            wanted = 0.0
            if 0 <= y <= 13 and 0 <= x <= 16:
                top, left = min(int(y), 12), min(int(x), 15)
                down, right = y - top, x - left
                wanted = (
                    image[top, left] * (1 - down) * (1 - right)
                    + image[top + 1, left] * down * (1 - right)
                    + image[top, left + 1] * (1 - down) * right
                    + image[top + 1, left + 1] * down * right
                )
            assert found[row, column] == pytest.approx(wanted, abs=1e-4)


def test_alpha_of_torchvision_is_twice_as_large():
    """torchvision's displacement counts in halves of the image's side."""
    torch.manual_seed(0)
    theirs = v2.ElasticTransform(alpha=68.0, sigma=4.0).make_params(
        [torch.zeros(1, 200, 200)]
    )['displacement'][0]
    pixels = theirs.numpy() * 200 / 2
    ours = ElasticDeformation(alpha=34, sigma=4).field(
        np.random.default_rng(0), (200, 200)
    )
    inside = np.s_[20:-20, 20:-20]
    assert pixels[inside].std() == pytest.approx(ours[:, 20:-20, 20:-20].std(), rel=0.1)


def test_channels_move_together():
    step = ElasticDeformation(alpha=20, sigma=3, prob=1)
    image = picture((30, 30, 3))
    found = run(step, image)
    for channel in range(3):
        np.testing.assert_array_equal(
            found[..., channel], run(step, image[..., channel])
        )


def test_same_generator_same_field():
    step, image = ElasticDeformation(20, 3, prob=1), picture()
    before = image.copy()
    np.testing.assert_array_equal(run(step, image, 4), run(step, image, 4))
    assert not np.array_equal(run(step, image, 4), run(step, image, 5))
    np.testing.assert_array_equal(image, before)


def test_nothing_without_alpha_or_luck():
    image = picture()
    np.testing.assert_array_equal(run(ElasticDeformation(20, 3, prob=0), image), image)
    np.testing.assert_allclose(run(ElasticDeformation(0, 3, prob=1), image), image)


def test_blank_image_stays_finite():
    found = run(ElasticDeformation(20, 3, prob=1), np.full((20, 20), 0.5, np.float32))
    assert np.isfinite(found).all() and found[10, 10] == pytest.approx(0.5)


@pytest.mark.parametrize(
    'settings, name',
    [(dict(alpha=-1, sigma=3), 'alpha'), (dict(alpha=1, sigma=0), 'sigma')],
)
def test_wrong_settings(settings, name):
    with pytest.raises(ValueError, match=name):
        ElasticDeformation(**settings)
