import numpy as np
import pytest

from medssl_mm.datasets.transforms import (
    BlurJitter,
    EraseJitter,
    GammaJitter,
    IntensityJitter,
    NoiseJitter,
    RangeNoise,
)

JITTERS = [
    IntensityJitter(prob=1),
    GammaJitter(prob=1),
    GammaJitter(prob=1, limits=None),
    BlurJitter(prob=1),
    NoiseJitter(prob=1),
    EraseJitter(prob=1),
    RangeNoise(0.1, prob=1),
    GammaJitter(prob=1, uniform=True),
]


def run(transform, image, seed=0):
    results = dict(img=image, rng=np.random.default_rng(seed))
    return transform(results)['img']


@pytest.mark.parametrize('value', [0, 17, -1000])
@pytest.mark.parametrize('transform', [*JITTERS[:4], *JITTERS[5:]], ids=repr)
def test_constant_slices_stay_constant(transform, value):
    seen = run(transform, np.full((20, 24), value, np.int16))
    assert np.isfinite(seen).all()
    assert np.ptp(seen) < 1e-5


@pytest.mark.parametrize('transform', JITTERS, ids=repr)
def test_jitter_depends_on_the_generator_alone(transform):
    image = np.random.default_rng(9).random((32, 32)).astype(np.float32)
    before = image.copy()
    first, again = run(transform, image, 4), run(transform, image, 4)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, run(transform, image, 5))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    'kind', [IntensityJitter, GammaJitter, BlurJitter, NoiseJitter, EraseJitter]
)
def test_probability_zero_changes_nothing(kind):
    image = np.random.default_rng(9).random((8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(kind(prob=0), image), image)


@pytest.mark.parametrize('transform', JITTERS, ids=repr)
def test_jitter_without_generator_is_explained(transform):
    with pytest.raises(KeyError, match=r"results\['rng'\]"):
        transform(dict(img=np.zeros((4, 4), np.float32)))


def test_intensity_jitter_is_affine_about_the_mean():
    image = np.random.default_rng(0).random((30, 30)).astype(np.float32)
    seen = run(IntensityJitter(0.3, 0.4, prob=1, limits=None), image)
    slope, offset = np.polyfit(image.ravel(), seen.ravel(), 1)
    np.testing.assert_allclose(seen, slope * image + offset, atol=1e-5)
    assert 0.6 <= slope <= 1.4
    assert abs(seen.mean() - image.mean()) <= 0.3


def test_gamma_is_a_power_of_the_scaled_slice():
    image = np.linspace(-2, 3, 200, dtype=np.float32).reshape(10, 20)
    seen = run(GammaJitter((2, 2), prob=1, limits=None), image)
    np.testing.assert_allclose(seen, ((image + 2) / 5) ** 2 * 5 - 2, atol=1e-4)


def test_noise_has_the_drawn_strength():
    seen = run(NoiseJitter((0.1, 0.1), prob=1), np.ones((200, 200)))
    assert seen.std() == pytest.approx(0.1, rel=0.03)
    assert seen.mean() == pytest.approx(1, abs=0.003)


def test_blur_keeps_the_mean_and_lowers_contrast():
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    seen = run(BlurJitter((1.5, 1.5), prob=1), image)
    assert seen.mean() == pytest.approx(image.mean(), abs=0.01)
    assert seen.std() < 0.4 * image.std()


def test_erase_fills_the_drawn_share():
    image = np.random.default_rng(0).random((100, 100)).astype(np.float32)
    seen = run(EraseJitter((0.1, 0.1), (1, 1), prob=1), image)
    assert (seen != image).mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: IntensityJitter(prob=2), 'prob must lie between'),
        (lambda: IntensityJitter(contrast=3), 'contrast must lie between'),
        (lambda: GammaJitter((0, 1)), r'gamma\[0\] must be larger than 0'),
        (lambda: GammaJitter(limits=(1, 1)), 'limits must differ'),
        (lambda: BlurJitter((2, 1)), 'sigma must be ordered'),
        (lambda: NoiseJitter(0.1), 'std must be a pair'),
        (lambda: EraseJitter(area=(0.1, 2)), r'area\[1\] must lie between'),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


def test_colour_is_refused():
    with pytest.raises(ValueError, match='one grey slice'):
        run(IntensityJitter(prob=1), np.zeros((4, 4, 3), np.float32))


def test_blur_treats_the_channels_of_rgb_alike():
    picture = np.random.default_rng(0).random((20, 24, 3)).astype(np.float32)
    blurred = run(BlurJitter(prob=1), picture)
    for channel in range(3):
        np.testing.assert_allclose(
            blurred[..., channel],
            run(BlurJitter(prob=1), picture[..., channel].copy()),
            atol=1e-6,
        )
    with pytest.raises(ValueError, match=r'RGB \(H, W, 3\) image.*4, 4'):
        run(BlurJitter(prob=1), np.zeros((4, 4, 4), np.float32))


def test_range_noise_is_one_field_within_the_range():
    image = np.random.default_rng(0).random((200, 200, 3)).astype(np.float32)
    image[..., 1] = 0.5 + image[..., 1] / 1e6
    image[..., 0], image[..., 2] = image[..., 1], image[..., 1]
    image[0, 0], image[0, 1] = 0.0, 1.0
    seen = run(RangeNoise(0.05, prob=1), image)
    noise = seen - image
    np.testing.assert_allclose(noise[..., 0], noise[..., 2], atol=1e-6)
    assert noise[1:].std() == pytest.approx(0.05, rel=0.03)
    assert abs(noise[1:].mean()) < 1e-3
    assert seen.min() >= 0 and seen.max() <= 1


def test_range_noise_is_clipped_to_what_was_there():
    image = np.random.default_rng(0).uniform(0.4, 0.6, (50, 50)).astype(np.float32)
    seen = run(RangeNoise(5.0, prob=1), image)
    assert (seen.min(), seen.max()) == (image.min(), image.max())


def test_gamma_may_be_drawn_evenly():
    image = np.full((4, 4), 0.5, np.float32)
    step = GammaJitter((0.5, 1.5), prob=1, uniform=True)
    drawn = [np.log(run(step, image, n)[0, 0]) / np.log(0.5) for n in range(400)]
    assert 0.5 <= min(drawn) and max(drawn) <= 1.5
    # Log-uniform would have its mean at 0.91.
    assert np.mean(drawn) == pytest.approx(1.0, abs=0.04)
