import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from medssl_mm.analysis.frozen import features_of, pixels_of
from medssl_mm.analysis.invariances import (
    TRANSFORMS,
    Invariance,
    changed_images,
    check_steps,
    draw_images,
    draw_pairs,
    fit_whitening,
    is_grey,
    measure_invariance,
    measure_pairs,
    only_mode,
    similarities,
)
from medssl_mm.errors import UserError
from tests.analysis.plain import ChannelMeans, Lottery, Plain, convolution, pictures


def whitening_of(encoder, images, mode='strict'):
    rows = features_of(encoder, Plain(), [pixels_of(image) for image in images])
    return fit_whitening(rows.numpy(), mode)


def measured(encoder, images, name, mode='strict', steps=16):
    parameters = TRANSFORMS[name].parameters(steps, mode)
    whitening = whitening_of(encoder, images, mode)
    found = measure_invariance(
        encoder, Plain(), images, whitening, name, parameters, mode
    )
    assert found['cosine'].shape == (len(images), len(parameters))
    return found


# ------------------------------------------------------------------- measure


@pytest.mark.parametrize('mode', ['strict', 'compat'])
def test_measure_equals_the_formula_with_the_inverse_covariance(mode):
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    rows = rng.normal(size=(400, 5)) @ mixing + 3
    clean, changed = rows[:6], rows[6:30].reshape(6, 4, 5)
    whitening = fit_whitening(rows, mode)
    covariance = np.cov(rows.T, ddof=1) + 1e-6 * np.eye(5)
    if mode == 'strict':
        from sklearn.covariance import LedoitWolf

        fitted = LedoitWolf().fit(rows)
        covariance = fitted.covariance_
        assert whitening.shrinkage == fitted.shrinkage_ > 0
    inverse, mean = np.linalg.inv(covariance), rows.mean(0)
    found = similarities(clean, changed, whitening)
    for i in range(6):
        for j in range(4):
            u, v = clean[i] - mean, changed[i, j] - mean
            expected = u @ inverse @ v / np.sqrt((u @ inverse @ u) * (v @ inverse @ v))
            np.testing.assert_allclose(found['cosine'][i, j], expected, rtol=1e-9)
            distance = np.sqrt((u - v) @ inverse @ (u - v))
            np.testing.assert_allclose(found['mahalanobis'][i, j], distance, rtol=1e-9)


def test_many_samples_give_the_whitening_of_the_true_covariance():
    rng = np.random.default_rng(1)
    true = np.array([[4.0, 1.5, 0], [1.5, 1, 0], [0, 0, 0.01]])
    rows = rng.multivariate_normal([1, 2, 3], true, size=200_000)
    whitening = fit_whitening(rows)
    np.testing.assert_allclose(
        whitening.root @ whitening.root.T, np.linalg.inv(true), atol=1.5
    )
    np.testing.assert_allclose(np.cov(whitening(rows).T), np.eye(3), atol=0.02)


def test_measure_does_not_depend_on_the_scale_of_features():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 4))
    factors = np.array([1.0, 10, 0.1, 5])
    found = [
        similarities(r[:5], r[5:10][:, None], fit_whitening(r, 'compat'))['cosine']
        for r in (rows, rows * factors + 7)
    ]
    np.testing.assert_allclose(*found, atol=1e-3)


@pytest.mark.parametrize(
    'rows', [np.ones((20, 3)), np.ones((1, 3))], ids=['collapsed', 'one image']
)
def test_features_that_do_not_differ_are_refused(rows):
    with pytest.raises(UserError, match='do not differ'):
        fit_whitening(rows)


def test_fewer_images_than_features_keep_finite_numbers():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(20, 64))
    rows[:, 60:] = 0  # dead channels
    found = similarities(
        rows[:5],
        rows[:5, None] + 0.01 * rng.normal(size=(5, 1, 64)),
        fit_whitening(rows),
    )
    assert all(np.isfinite(values).all() for values in found.values())
    assert (found['cosine'] > 0.9).all()


def test_invariant_encoder_gives_1_and_independent_features_0():
    images = pictures(60)
    flips = measured(ChannelMeans().eval(), images, 'h_flip')
    np.testing.assert_allclose(flips['cosine'], 1, atol=1e-6)
    np.testing.assert_allclose(flips['mahalanobis'], 0, atol=1e-3)
    assert abs(flips['between'].mean()) < 0.2
    chance = measured(Lottery().eval(), images, 'rotation')
    assert abs(chance['cosine'].mean()) < 0.05


def test_compat_gives_the_floor_of_one_over_k():
    images = pictures(60)
    for name, k in (('h_flip', 2), ('rotation', 16), ('posterize', 7)):
        found = measured(Lottery(4).eval(), images, name, 'compat')
        assert found['cosine'].shape[1] == k
        floor = 1 / k if name != 'posterize' else 0  # has no unchanged copy
        assert found['cosine'].mean() == pytest.approx(floor, abs=0.06)
    # (1 + s) / 2 where s is what strict tells.
    encoder = convolution()
    both = [
        measured(encoder, images, 'h_flip', m)['cosine'] for m in ('compat', 'compat')
    ]
    np.testing.assert_allclose(both[0][:, 0], 1, atol=1e-9)
    assert both[0].mean() == pytest.approx((1 + both[1][:, 1].mean()) / 2)


def test_rotation_is_noticed_by_an_encoder_that_sees_places():
    images = pictures(60)
    found = measured(convolution(), images, 'rotation')['cosine'].mean()
    assert found < 0.9
    assert found > measured(Lottery(5).eval(), images, 'rotation')['cosine'].mean()


# ---------------------------------------------------------------- transforms


def test_grids_are_those_of_the_original():
    def grid(name, steps=256):
        return TRANSFORMS[name].parameters(steps, 'compat')

    assert grid('rotation', 4) == (0, 90, 180, 270)
    assert len(grid('rotation')) == len(grid('translation')) == 256
    moves = np.array(grid('translation')) * 256
    assert moves.min() == -16 and moves.max() == 14 and [0, 0] in moves.tolist()
    assert np.array(grid('shear')).min() == -160
    assert grid('scale')[::255] == (0.25, 2)
    crops = np.array(grid('resized_crop')) * 256
    assert sorted(set(crops[:, 0])) == pytest.approx([0, 64 / 3, 128 / 3, 64])
    assert sorted(set(crops[:, 2])) == pytest.approx([64, 320 / 3, 448 / 3, 192])
    for name in ('brightness', 'contrast', 'saturation'):
        assert grid(name)[::255] == (0.25, 5)
    assert grid('hue', 5) == (-0.5, -0.25, 0, 0.25, 0.5)
    assert grid('blur')[::255] == (1e-5, 20)
    assert grid('sharpness')[::255] == (1, 30)
    assert grid('posterize') == (1, 2, 3, 4, 5, 6, 7)
    assert sorted({sigma for sigma, _ in grid('deform')}) == [
        10, 15, 21, 27, 32, 38, 44, 50
    ]  # fmt: skip
    for name in ('h_flip', 'v_flip', 'grayscale', 'invert', 'equalize'):
        assert grid(name) == (0, 1)


@pytest.mark.parametrize('name', TRANSFORMS)
def test_only_compat_has_the_copy_that_is_unchanged(name):
    image = pictures(1, 64, seed=5)[0]
    transform = TRANSFORMS[name]
    strict = transform.parameters(16, 'strict')
    compat = transform.parameters(16, 'compat')
    assert set(strict) <= set(compat)
    copies = list(changed_images(image, transform, strict, Plain()))
    assert len(copies) == len(strict)
    clean = pixels_of(image)
    for parameter, copy in zip(strict, copies):
        assert copy.dtype == torch.uint8 and copy.shape == clean.shape
        # A blur of a single pixel's width, or of 7 bits, leaves much as it was.
        assert not torch.equal(copy, clean), parameter
    same = [p for p in compat if p not in strict]
    for parameter in same:
        assert torch.equal(transform.apply(clean, parameter, 'strict'), clean)


@pytest.mark.parametrize('name', TRANSFORMS)
def test_copies_are_the_same_in_every_run(name):
    image = pictures(1, 64)[0]
    parameters = TRANSFORMS[name].parameters(16, 'strict')
    one, other = (
        list(changed_images(image, TRANSFORMS[name], parameters, Plain()))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize(
    'name', [n for n, t in TRANSFORMS.items() if not t.needs_colour]
)
def test_grey_images_are_changed_too(name):
    image = pictures(1, 64, 1)[0]
    parameters = TRANSFORMS[name].parameters(16, 'strict')
    for copy in changed_images(image, TRANSFORMS[name], parameters, Plain()):
        assert copy.shape == (1, 64, 64)


def test_strict_changes_the_resized_image_and_compat_the_full_one():
    class Half(Plain):
        def resize(self, image):
            return np.asarray(Image.fromarray(image).resize((32, 32)))

    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    move = ((1 / 8, 0),)
    [strict] = changed_images(image, TRANSFORMS['translation'], move, Half())
    resized = pixels_of(Half().resize(image))
    assert torch.equal(strict[:, :, 4:], resized[:, :, :-4])
    assert not strict[:, :, :4].any()
    # The original moves by pixels of 256 and shears by a degree.
    [compat] = changed_images(image, TRANSFORMS['translation'], move, Half(), 'compat')
    whole = functional.affine(
        Image.fromarray(image), angle=0, translate=(32, 0), scale=1, shear=(1, 0)
    )
    assert torch.equal(compat, pixels_of(Half().resize(np.asarray(whole))))


def test_compat_crops_256_pixels_of_the_full_image_and_resizes_once():
    class Doubled(Plain):
        def resize(self, image):
            whole = Image.fromarray(image).resize((448, 448)).crop((0, 0, 224, 224))
            return np.array(whole.convert('RGB'))

    rng = np.random.default_rng(0)
    for shape in ((300, 400, 3), (300, 400)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        part = [(0.25, 0, 0.5, 0.75)]
        [found] = changed_images(
            image, TRANSFORMS['resized_crop'], part, Doubled(), 'compat'
        )
        expected = functional.resized_crop(
            Image.fromarray(image), 64, 0, 128, 192, (224, 224)
        ).convert('RGB')
        assert torch.equal(found, pixels_of(np.asarray(expected)))


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('name', TRANSFORMS)
def test_compat_changes_pictures_of_any_size(name, channels):
    transform = TRANSFORMS[name]
    if transform.needs_colour and channels == 1:
        pytest.skip('changes nothing in grey pictures')
    rng = np.random.default_rng(0)
    shape = (300, 280) if channels == 1 else (300, 280, 3)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    parameters = transform.parameters(16, 'compat')
    copies = list(changed_images(image, transform, parameters, Plain(), 'compat'))
    size = (224, 224) if name == 'resized_crop' else (300, 280)
    assert {tuple(copy.shape) for copy in copies} == {(channels, *size)}
    assert len({copy.numpy().tobytes() for copy in copies}) > 1


def test_deformation_moves_pixels_by_the_stated_amount_and_folds_nothing():
    # Every pixel tells its column: the difference is how far it has moved.
    image = np.tile(np.arange(224, dtype=np.uint8), (224, 1))[..., None]
    for parameter in TRANSFORMS['deform'].parameters(8, 'strict'):
        copy = TRANSFORMS['deform'].apply(pixels_of(image), parameter, 'strict')
        columns = copy[0].float()[40:-40, 40:-40]
        moved = columns - pixels_of(image)[0].float()[40:-40, 40:-40]
        # A quarter of the smoothness in both directions together.
        expected = parameter[0] / 4 / 2**0.5
        assert 0.5 < moved.square().mean().sqrt() / expected < 1.5, parameter
        # Columns keep their order, but for the rounding.
        assert ((columns[:, 1:] - columns[:, :-1]) >= -0.5).float().mean() > 0.99


@pytest.mark.parametrize(
    'name, steps, advice',
    [
        ('translation', 20, '4, 9, 16'),
        ('resized_crop', 9, '16, 81, 256'),
        ('rotation', 1, '2 steps or more'),
    ],
)
def test_steps_that_no_grid_has_are_refused(name, steps, advice):
    with pytest.raises(UserError, match=f'{name} .*{advice}'):
        check_steps([name], steps)
    check_steps(list(TRANSFORMS), 16)
    check_steps(['h_flip', 'posterize'], 5)


def test_grey_pictures_are_known():
    grey = np.zeros((4, 4, 3), np.uint8) + 7
    assert is_grey([grey, grey[..., 0]])
    grey[0, 0, 1] = 8
    assert not is_grey([grey])


# ------------------------------------------------------------ images, results


def test_changed_images_and_statistics_are_of_different_patients():
    patients = [f'p{row // 5}' for row in range(40)]
    for seed in range(5):
        rows, chosen = draw_images(40, patients, 4, seed)
        assert len({patients[row] for row in chosen}) == 4
        others = {patients[row] for row in rows}
        assert not others & {patients[row] for row in chosen}
        assert len(rows) == 20
    # More than there are patients: in turns, and of half of them at most.
    rows, chosen = draw_images(40, patients, 10)
    counts = [[patients[r] for r in chosen].count(p) for p in set(patients)]
    assert sorted(counts) == [0] * 4 + [2, 2, 3, 3]
    assert len(rows) == 20
    rows, chosen = draw_images(13, None, 100)
    assert sorted([*rows, *chosen]) == list(range(13)) and len(chosen) == 6
    assert len(draw_images(6000, None, 100)[0]) == 5000
    for count, names in ((3, None), (10, ['a'] * 10)):
        with pytest.raises(UserError, match='too few'):
            draw_images(count, names, 2)


def test_images_in_the_statistics_would_exaggerate_their_change():
    # Fewer images than features: a change of a tenth of the spread.
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 40))
    changed = rows[:20] + 0.1 * rng.normal(size=(20, 40))
    own, others = fit_whitening(rows[:30]), fit_whitening(rows[30:])
    inside, outside = (
        similarities(rows[:20], changed[:, None], whitening)['cosine'].mean()
        for whitening in (own, others)
    )
    assert outside > inside and outside > 0.98


def test_compat_draws_with_replacement_as_the_original():
    every, chosen = draw_images(500, None, 100, mode='compat')
    assert every.tolist() == list(range(500))
    state = np.random.RandomState(0)
    np.testing.assert_array_equal(chosen, state.choice(500, 100))
    assert len(draw_images(1500, None, 100, mode='compat')[0]) == 1000
    assert len(draw_images(50_000, None, 100, mode='compat')[0]) == 5000


def test_pairs_of_one_person_against_pairs_of_several():
    rng = np.random.default_rng(0)
    persons = rng.normal(size=(100, 4))
    others = persons + 0.1 * rng.normal(size=(100, 4))
    names = [f'p{number}' for number in range(100)]
    for mode in ('strict', 'compat'):
        found = measure_pairs(persons, others, names, mode)
        assert found['cosine'].shape == (100, 1)
        assert found['cosine'].mean() > 0.95
        assert abs(found['between'].mean()) < 0.1
    # In strict whitened by the others' half.
    found = measure_pairs(persons, others, names)
    half = np.unique(names, return_inverse=True)[1] % 2 == 0
    whitening = fit_whitening(np.concatenate([persons[~half], others[~half]]))
    np.testing.assert_allclose(
        found['mahalanobis'][half, 0],
        np.linalg.norm(whitening(persons[half]) - whitening(others[half]), axis=1),
    )
    with pytest.raises(UserError, match='3 persons'):
        measure_pairs(persons[:3], others[:3], names[:3])


def test_pairs_of_compat_are_a_hundred():
    chosen = draw_pairs(300, mode='compat')
    np.testing.assert_array_equal(chosen, np.random.RandomState(0).choice(300, 100))
    assert sorted(draw_pairs(300)) == list(range(300))
    assert len(draw_pairs(9000)) == 2500


def result(mode='strict', encoder='a', shift=0.0):
    values = np.linspace(0.2, 0.6, 12).reshape(4, 3) + shift
    return Invariance(encoder, 'h_flip', mode, (1, 2, 3), values, values, values)


def test_interval_is_that_of_the_mean_over_images():
    one = result()
    per_image = one.cosine.mean(1)
    assert one.mean.estimate == pytest.approx(per_image.mean())
    reach = 1.96 * per_image.std(ddof=1) / 2
    assert one.mean.high - one.mean.estimate == pytest.approx(reach)
    assert one.mean.units == 4


def test_no_table_mixes_the_modes():
    assert only_mode([result(), result()]) == 'strict'
    with pytest.raises(UserError, match='strict and of compat'):
        only_mode([result(), result('compat')])
