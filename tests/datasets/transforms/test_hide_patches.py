import numpy as np
import pytest

from medssl_mm.datasets.transforms import HidePatches, PackViews


def sample(seed=0, shape=(32, 48), views=2):
    image = np.ones(shape, np.float32)
    return dict(img=[image] * views, rng=np.random.default_rng(seed))


@pytest.mark.parametrize('share, count', [(0.6, 14), (0.5, 12), (0.9, 22)])
def test_every_image_has_as_many_hidden_patches(share, count):
    step = HidePatches(patch_size=8, share=share)
    found = [step(sample(seed))['hidden_patches'] for seed in range(200)]
    assert {one.shape for one in found} == {(4, 6)}
    assert {int(one.sum()) for one in found} == {count}
    # Every patch is hidden as often as the share says.
    often = np.mean(found, axis=0)
    assert np.abs(often - count / 24).max() < 0.15


def test_patches_are_those_of_the_sample():
    step = HidePatches(patch_size=(16, 8))
    one, again, other = (step(sample(seed))['hidden_patches'] for seed in (3, 3, 4))
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    packed = PackViews()(step(sample(3)))
    assert np.array_equal(packed['data_samples'].hidden_patches, one)
    # The image is whole: it is what is restored.
    assert all((view == 1).all() for view in packed['inputs'])


def test_views_before_are_the_same_with_it():
    before, after = sample(5), sample(5)
    assert before['rng'].random() == after['rng'].random()
    HidePatches(patch_size=8)(after)


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(patch_size=7), 'not made of whole patches of 7 x 7'),
        (dict(patch_size=16, share=0.01), 'hides 0 of them'),
        (dict(patch_size=16, share=0.99), 'hides 6 of them'),
    ],
)
def test_patches_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        HidePatches(**settings)(sample())
