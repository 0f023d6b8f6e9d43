import random

import numpy as np
import pytest
import torch

from medssl_mm.datasets.transforms import (
    PackImage,
    RandomCropView,
    TorchvisionSteps,
)
from medssl_mm.datasets.transforms.torchvision_steps import (
    build_step,
    seeded_torch,
)
from tests.datasets.images import make_picture

JITTER = dict(
    type='RandomApply',
    p=0.8,
    transforms=[
        dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
    ],
)
STEPS = [
    dict(type='RandomResizedCrop', size=12, scale=(0.4, 1.0)),
    JITTER,
    dict(type='RandomGrayscale', p=0.2),
    dict(type='RandomRotation', degrees=30, interpolation='bilinear'),
    dict(type='RandomHorizontalFlip'),
]


def run(transform, image, seed=0):
    return transform(dict(img=image, rng=np.random.default_rng(seed)))['img']


@pytest.mark.parametrize('channels', [1, 3])
def test_equals_torchvision_with_the_same_seed(channels):
    from torchvision.transforms import v2

    picture = make_picture(1, 24, channels)
    seed = int(np.random.default_rng(7).integers(2**63 - 1))
    tensor = torch.from_numpy(np.atleast_3d(picture)).permute(2, 0, 1)
    torch.manual_seed(seed)
    tensor = v2.RandomResizedCrop(12, (0.4, 1.0))(tensor)
    tensor = v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)(tensor)
    wanted = tensor.permute(1, 2, 0).numpy() / 255
    found = run(TorchvisionSteps([STEPS[0], JITTER]), picture, 7)
    np.testing.assert_allclose(np.atleast_3d(found), wanted, rtol=1e-6, atol=1e-7)


def test_is_a_function_of_the_samples_generator_alone():
    picture = make_picture(1, 24)
    transform = TorchvisionSteps(STEPS)
    first = run(transform, picture)
    for disturb in (torch.manual_seed, random.seed, np.random.seed):
        disturb(5)
    np.testing.assert_array_equal(run(transform, picture), first)
    assert any((run(transform, picture, n) != first).any() for n in range(1, 4))


def test_global_generator_is_left_as_it_was():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    run(TorchvisionSteps(STEPS), make_picture(1, 24))
    assert (torch.rand(4) == wanted).all()
    torch.manual_seed(3)
    with pytest.raises(RuntimeError), seeded_torch(np.random.default_rng(0)):
        raise RuntimeError
    assert (torch.rand(4) == wanted).all()


@pytest.mark.parametrize('channels', [1, 3])
def test_scales_to_one_and_leaves_the_source_alone(channels):
    picture = make_picture(2, 16, channels)
    before = picture.copy()
    found = run(TorchvisionSteps(), picture)
    np.testing.assert_allclose(found, before / 255, rtol=1e-6)
    assert found.dtype == np.float32 and found.shape == before.shape
    run(TorchvisionSteps(STEPS), picture)
    np.testing.assert_array_equal(picture, before)


def test_float_images_stay_in_their_range():
    picture = run(TorchvisionSteps(), make_picture(2, 16))
    np.testing.assert_array_equal(run(TorchvisionSteps(), picture), picture)
    found = run(TorchvisionSteps([JITTER]), picture)
    assert found.min() >= 0 and found.max() <= 1
    turned = run(RandomCropView(16, rotation=90), picture)
    assert run(TorchvisionSteps([JITTER]), turned).shape == (16, 16, 3)


@pytest.mark.parametrize('value', [0, 255])
def test_blank_images_pass(value):
    blank = np.full((20, 20, 3), value, np.uint8)
    for seed in range(5):
        assert np.isfinite(run(TorchvisionSteps(STEPS), blank, seed)).all()


def test_size_and_packing():
    results = TorchvisionSteps(STEPS)(
        dict(img=make_picture(1, 24), rng=np.random.default_rng(0))
    )
    assert results['img_shape'] == (12, 12)
    packed = PackImage()(results)['inputs']
    assert packed.shape == (3, 12, 12) and packed.is_contiguous()
    np.testing.assert_array_equal(packed.permute(1, 2, 0).numpy(), results['img'])


@pytest.mark.parametrize(
    'step, error, message',
    [
        ('ColorJitter', TypeError, 'every step must be a dict'),
        (dict(size=3), TypeError, 'every step must be a dict'),
        (dict(type='ColourJitter'), ValueError, "no transform 'ColourJitter'"),
        (dict(type='functional'), ValueError, "no transform 'functional'"),
        (dict(type='ColorJitter', brightnes=1), ValueError, 'refuses.*brightnes'),
        (
            dict(type='RandomApply', transforms=[dict(type='No')]),
            ValueError,
            "no transform 'No'",
        ),
    ],
)
def test_wrong_steps_are_named(step, error, message):
    with pytest.raises(error, match=message):
        build_step(step)


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r'\(H, W\) or \(H, W, 3\).*4\)'):
        run(TorchvisionSteps(), np.zeros((5, 5, 4), np.uint8))
    with pytest.raises(KeyError, match="no 'rng'"):
        TorchvisionSteps()(dict(img=make_picture(0)))


def test_repr_shows_the_steps():
    assert 'RandomGrayscale' in repr(TorchvisionSteps(STEPS))
