import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from medssl_mm.encoders import Preprocessing
from medssl_mm.errors import UserError
from medssl_mm.schema import checked


def picture(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize('shape', [(50, 40, 3), (20, 90, 3), (32, 32, 3)])
@pytest.mark.parametrize('mode', ['short', 'exact'])
def test_is_the_usual_chain_of_torchvision(shape, mode):
    image = picture(*shape)
    chain = transforms.Compose(
        [
            transforms.Resize(
                36 if mode == 'short' else (36, 36),
                transforms.InterpolationMode.BICUBIC,
            ),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    found = Preprocessing(size=32, resize_to=36, resize_mode=mode)(image)
    torch.testing.assert_close(found, chain(Image.fromarray(image)))


def test_grey_is_repeated_and_the_wanted_size_is_kept():
    image = picture(32, 32)
    plain = Preprocessing(size=32, normalisation='unit')
    found = plain(image)
    assert found.shape == (3, 32, 32)
    for channel in found:  # 32 px shown at 32 px: no value changes
        torch.testing.assert_close(channel, torch.from_numpy(image).float() / 255)
    one = Preprocessing(size=32, normalisation='unit', channels=1)
    torch.testing.assert_close(one(image), found[:1])
    torch.testing.assert_close(one(image[..., None]), found[:1])


def test_batches_equal_single_pictures():
    images = [picture(40, 30, 3, seed=seed) for seed in range(3)]
    for settings in (
        dict(),
        dict(normalisation='unit'),
        dict(normalisation='histogram'),
        dict(mean=(0.5,), std=(0.2,)),
    ):
        step = Preprocessing(size=24, **settings)
        pixels = torch.stack(
            [torch.from_numpy(step.resize(i)).permute(2, 0, 1) for i in images]
        )
        together = step.normalise(pixels.float() / 255)
        torch.testing.assert_close(together, torch.stack([step(i) for i in images]))


def test_histogram_ranks_the_values():
    """Each value becomes the share of values at or below its bin, times 255."""
    values = np.repeat(np.arange(4, dtype=np.uint8) * 80, [1, 2, 3, 10]).reshape(4, 4)
    step = Preprocessing(size=4, channels=1, normalisation='histogram')
    found = step(values)[0].numpy()
    for level, share in zip((0, 80, 160), (1, 3, 6)):
        # The level is the lower edge of its bin, or just above it.
        assert found[values == level] == pytest.approx(255 * share / 16, abs=0.5)
    assert found[values == 240] == pytest.approx(255)
    brighter = step.normalise(torch.from_numpy(values / 510 + 0.2)[None, None].float())
    torch.testing.assert_close(brighter[0, 0].numpy(), found, atol=1, rtol=0)


def test_gradients_pass_mean_and_deviation():
    pixels = torch.rand(2, 3, 4, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(Preprocessing().normalise, pixels)
    Preprocessing(normalisation='unit').normalise(pixels).sum().backward()
    assert (pixels.grad == 1).all()


@pytest.mark.parametrize(
    'image, message',
    [
        (picture(4, 4, 4), r'8-bit pictures .* got uint8 \(4, 4, 4\)'),
        (picture(4, 4).astype(np.uint16), 'got uint16'),
        (picture(4), r'got uint8 \(4,\)'),
    ],
)
def test_other_pictures_are_refused(image, message):
    with pytest.raises(UserError, match=message):
        Preprocessing(size=4)(image)


def test_colour_for_an_encoder_of_grey_is_refused():
    with pytest.raises(UserError, match='takes grey pictures, this one has 3 channels'):
        Preprocessing(size=4, channels=1, normalisation='unit')(picture(4, 4, 3))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(size=224, resize_to=200), 'resize_to=200 is smaller than size=224'),
        (dict(channels=1), 'mean must have one number, or 1'),
        (dict(std=(0.1, 0.0, 0.1)), 'std must be positive'),
        (dict(sizee=3), "unknown key 'sizee'; did you mean size"),
        (dict(size=0), 'size: should be greater than 0, got 0'),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(UserError, match=message):
        checked(Preprocessing, settings, 'file.py')
