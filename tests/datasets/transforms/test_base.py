import numpy as np
import pytest

from medssl_mm.datasets.transforms import (
    BlurJitter,
    CropViews,
    CTWindow,
    EraseJitter,
    GammaJitter,
    IntensityJitter,
    NoiseJitter,
    PackSlice,
    PackViews,
    PercentileNormalize,
    RandomAffineView,
    RandomCropView,
    ResizeAndPad,
    ShiftScale,
    ZScoreNormalize,
)
from medssl_mm.datasets.transforms.base import (
    as_float_image,
    check_number,
    check_range,
    check_size,
    get_rng,
)


def test_numbers():
    assert check_number('X', 'n', np.float32(2)) == 2.0
    with pytest.raises(TypeError, match='X: n must be a number, got True'):
        check_number('X', 'n', True)
    with pytest.raises(ValueError, match='between 0 and 1, got nan'):
        check_number('X', 'n', float('nan'), 0, 1)


def test_ranges():
    assert check_range('X', 'r', [1, 2]) == (1.0, 2.0)
    with pytest.raises(TypeError, match='r must be a pair'):
        check_range('X', 'r', (1, 2, 3))


def test_sizes():
    assert check_size('X', 's', 5) == (5, 5)
    assert check_size('X', 's', [5, 6]) == (5, 6)
    for wrong in (True, 2.0, (3, 4.0), (1, 2, 3)):
        with pytest.raises(TypeError, match='s must be an int or a pair'):
            check_size('X', 's', wrong)


def test_the_generator_is_handed_out():
    rng = np.random.default_rng(0)
    assert get_rng(dict(rng=rng), 'X') is rng
    with pytest.raises(KeyError, match='X: the sample has no'):
        get_rng({}, 'X')


def test_colour_images_only_where_allowed():
    colour = np.zeros((4, 5, 3), np.uint8)
    assert as_float_image(colour, 'X', colour=True).dtype == np.float32
    with pytest.raises(ValueError, match='X: img must be one grey slice'):
        as_float_image(colour, 'X')
    for shape in ((4, 5, 4), (3, 4, 5, 3)):
        with pytest.raises(ValueError, match='a grey .* or an RGB'):
            as_float_image(np.zeros(shape), 'X', colour=True)


GREY_STEPS = [
    CTWindow(40, 400),
    PercentileNormalize(),
    PercentileNormalize(1, 99, per='slice'),
    ZScoreNormalize(),
    ZScoreNormalize(per='slice', limit=2),
    ShiftScale(3.0, 2.0),
    IntensityJitter(prob=1, limits=None),
    GammaJitter(prob=1),
    GammaJitter(prob=1, limits=None),
    BlurJitter(prob=1),
    EraseJitter(prob=1),
    RandomCropView(16, rotation=20, pad_value='minimum'),
    RandomAffineView((12, 20), pad_value='minimum'),
    ResizeAndPad((40, 16), pad_value='minimum'),
    ResizeAndPad(11, keep_aspect=False),
]


def make_channels(number):
    """Channels of unlike scale, and the statistics of their case."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(24, 30, number)) * 10.0 ** np.arange(number)
    image = (image + 5.0 * np.arange(number)).astype(np.float32)
    image[..., -1] = 7  # constant
    statistics = {
        name: [float(function(image[..., n])) for n in range(number)]
        for name, function in dict(
            min=np.min,
            max=np.max,
            mean=np.mean,
            std=np.std,
            p00_5=lambda plane: np.percentile(plane, 0.5),
            p99_5=lambda plane: np.percentile(plane, 99.5),
        ).items()
    }
    return image, statistics


def run_channels(step, image, statistics, channels=None):
    results = dict(img=image.copy(), intensity=statistics, rng=np.random.default_rng(3))
    if channels:
        results['channels'] = channels
    return step(results)


@pytest.mark.parametrize('number', [2, 3, 6])
@pytest.mark.parametrize('step', GREY_STEPS, ids=repr)
def test_every_channel_changes_as_a_slice_of_its_own(step, number):
    image, statistics = make_channels(number)
    names = [f'sequence {n}' for n in range(number)]
    seen = run_channels(step, image, statistics, names)['img']
    assert seen.shape[2] == number and seen.dtype == np.float32
    for n in range(number):
        own = {name: values[n] for name, values in statistics.items()}
        plane = np.ascontiguousarray(image[..., n])
        alone = run_channels(step, plane, own)['img']
        np.testing.assert_allclose(seen[..., n], alone, rtol=1e-5, atol=1e-6)


def test_noise_differs_between_channels():
    step = NoiseJitter(prob=1, std=(0.5, 0.5))
    for number in (2, 3, 6):
        image = np.zeros((64, 64, number), np.float32)
        seen = run_channels(step, image, {}, 'abcdef'[:number])['img']
        np.testing.assert_allclose(seen.std((0, 1)), 0.5, rtol=0.1)
        between = np.corrcoef(seen.reshape(-1, number).T) - np.eye(number)
        assert abs(between).max() < 0.1


def test_channels_are_cut_alike_and_packed_in_order():
    image, _ = make_channels(2)
    image[..., 1] = 3 * image[..., 0] + 1
    views = CropViews(dict(type='medssl_mm.RandomCropView', size=16))
    results = run_channels(views, image, {}, ('T1', 'T2'))
    tensors = PackViews()(results)['inputs']
    assert [tuple(t.shape) for t in tensors] == [(2, 16, 16)] * 2
    for tensor in tensors:
        np.testing.assert_allclose(tensor[1], 3 * tensor[0] + 1, rtol=1e-4, atol=1e-4)
    packed = PackSlice()(dict(img=image, channels=('T1', 'T2')))['inputs']
    np.testing.assert_array_equal(packed, image.transpose(2, 0, 1))


def test_a_wrong_number_of_channels_is_named():
    results = dict(img=np.zeros((4, 5, 3), np.float32), channels=('T1', 'T2'))
    with pytest.raises(ValueError, match=r"ZScore.*'T1', 'T2'.*\(4, 5, 3\)"):
        ZScoreNormalize(per='slice')(dict(results))
    with pytest.raises(ValueError, match=r"'T1', 'T2'.*packing.*\(4, 5, 3\)"):
        PackSlice()(dict(results))
