import numpy as np
import pytest

from medssl_mm.datasets.transforms import (
    CTWindow,
    PercentileNormalize,
    ShiftScale,
    ZScoreNormalize,
)

STATISTICS = dict(min=0, max=100, mean=20, std=5, p00_5=10, p99_5=60)


def run(transform, image, **more):
    return transform(dict(img=image, **more))['img']


@pytest.mark.parametrize('dtype', [np.int16, np.int32, np.float32])
@pytest.mark.parametrize('level, width', [(40, 400), (50.5, 350), (0, 1e6)])
def test_window_equals_its_formula(dtype, level, width):
    image = np.array([[-32768, -1024, -160, 0], [40, 239, 240, 32767]])
    seen = run(CTWindow(level, width), image.astype(dtype))
    wanted = np.clip((image - (level - width / 2)) / width, 0, 1)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, wanted, atol=1e-6)


def test_window_leaves_its_input_alone():
    image = np.full((4, 4), 40, np.int16)
    run(CTWindow(40, 400), image)
    assert (image == 40).all()


def test_percentiles_of_the_case():
    image = np.array([[0, 10, 35, 60, 99]], np.float32)
    seen = run(PercentileNormalize(), image, intensity=STATISTICS)
    np.testing.assert_allclose(seen, [[0, 0, 0.5, 1, 1]], atol=1e-6)


def test_percentiles_of_the_slice():
    image = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    low, high = np.percentile(image, [5, 90])
    seen = run(PercentileNormalize(5, 90, per='slice'), image)
    np.testing.assert_allclose(
        seen, np.clip((image - low) / (high - low), 0, 1), atol=1e-5
    )


def test_z_score_of_case_and_slice():
    image = np.random.default_rng(0).normal(9, 3, (40, 30)).astype(np.float32)
    seen = run(ZScoreNormalize(per='slice'), image)
    np.testing.assert_allclose(seen, (image - image.mean()) / image.std(), atol=1e-4)
    seen = run(ZScoreNormalize(limit=1.5), image, intensity=STATISTICS)
    np.testing.assert_allclose(seen, np.clip((image - 20) / 5, -1.5, 1.5), atol=1e-5)


def test_missing_case_statistics_are_named():
    with pytest.raises(KeyError, match="'p00_5' is missing.*per='slice'"):
        run(PercentileNormalize(), np.ones((3, 3), np.float32))


def test_shift_scale():
    seen = run(ShiftScale(mean=10, std=4), np.array([[10, 18]], np.uint8))
    np.testing.assert_allclose(seen, [[0, 2]])


@pytest.mark.parametrize('value', [0, 17, -1000])
@pytest.mark.parametrize(
    'transform',
    [
        CTWindow(40, 400),
        PercentileNormalize(per='slice'),
        ZScoreNormalize(per='slice'),
        ShiftScale(3, 2),
    ],
)
def test_constant_slices_stay_constant(transform, value):
    image = np.full((20, 24), value, np.int16)
    seen = run(transform, image)
    assert np.isfinite(seen).all()
    assert np.ptp(seen) < 1e-5


@pytest.mark.parametrize('transform', [PercentileNormalize(), ZScoreNormalize()])
def test_a_constant_case_maps_to_zero(transform):
    same = dict.fromkeys(STATISTICS, 7.0) | dict(std=0.0)
    seen = run(transform, np.full((5, 5), 7, np.float32), intensity=same)
    assert (seen == 0).all()


@pytest.mark.parametrize(
    'build, message',
    [
        (lambda: CTWindow(40, 0), 'width must be larger than 0.0, got 0'),
        (lambda: CTWindow('soft', 1), "level must be a number, got 'soft'"),
        (lambda: PercentileNormalize(99, 1), 'lower must be below upper'),
        (lambda: PercentileNormalize(1, 99), "use those or per='slice'"),
        (lambda: PercentileNormalize(per='volume'), "'case' or 'slice'"),
        (lambda: ZScoreNormalize(per='volume'), "'case' or 'slice'"),
        (lambda: ShiftScale(0, 0), 'std must be larger than 0.0'),
    ],
)
def test_wrong_settings_are_named(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()
