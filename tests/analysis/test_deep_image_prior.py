import io

import numpy as np
import pytest
import torch
from torch import nn

from medssl_mm.analysis.deep_image_prior import FeatureInversion
from medssl_mm.errors import UserError
from tests.analysis.plain import Plain, pictures


class Centred(Plain):
    def normalise(self, pixels):
        return (pixels - 0.5) / 0.25


class Ranked(Plain):
    """Counts values, as histogram equalisation does: it has no gradient."""

    def normalise(self, pixels):
        found = []
        for image in pixels.detach():
            known, place = torch.unique(image, return_inverse=True)
            found.append(place.float() / max(1, len(known) - 1))
        return torch.stack(found)


def encoder():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()
    )
    return network.requires_grad_(False).eval()


def inversion(images, preprocessing=None, mode='strict', seed=0, **options):
    network = encoder()
    return FeatureInversion(
        network, network, preprocessing or Centred(), images, mode, seed, **options
    )


def run(made, steps):
    for _ in range(steps):
        made.step()
    return made


def test_features_come_closer_to_those_of_the_original():
    images = pictures(1)
    made = run(inversion(images), 15)
    first, last = made.losses[0][0], made.losses[-1][0]
    assert last < 0.7 * first
    found = made.pictures()
    assert found.shape == (1, 32, 32, 3) and found.dtype == np.uint8
    # The loss is the error of the map of the normalised picture.
    network, normalise = encoder(), Centred().normalise
    original, own = (
        network(normalise(torch.tensor(one).permute(2, 0, 1)[None] / 255))
        for one in (images[0], found[0])
    )
    # But for the steps of 1/255 of what is written.
    expected = float((own - original).square().mean())
    assert made.step()[0] == pytest.approx(expected, rel=0.02)


def test_going_on_is_bit_equal_to_not_having_stopped():
    images = pictures(2)
    whole = run(inversion(images), 4)
    half = run(inversion(images), 2)
    half.pictures()  # a preview changes nothing
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    again = inversion(images)
    again.load_state_dict(torch.load(file, weights_only=True))
    run(again, 2)
    assert again.losses == whole.losses
    np.testing.assert_array_equal(again.pictures(), whole.pictures())


def test_pictures_have_no_part_in_each_other():
    images = pictures(2)
    together, alone = inversion(images), inversion(images[:1])
    errors = together.errors()
    torch.testing.assert_close(errors[:1], alone.errors())
    own, other = (
        torch.autograd.grad(
            errors[0], list(net.parameters()), allow_unused=True, retain_graph=True
        )
        for net in together.networks
    )
    assert all(gradient is not None for gradient in own)
    assert not any(gradient is not None and gradient.any() for gradient in other)
    assert not torch.equal(together.noise[0], together.noise[1])


def test_seed_decides():
    images = pictures(1)
    one, same, other = (run(inversion(images, seed=seed), 1) for seed in (0, 0, 1))
    assert one.losses == same.losses != other.losses


def test_compat_normalises_and_bounds_nothing():
    images = pictures(1)
    for mode in ('strict', 'compat'):
        made = run(inversion(images, mode=mode, learning_rate=0.1), 3)
        with torch.no_grad():
            values = made._make()
        inside = bool(((values >= 0) & (values <= 1)).all())
        assert inside is (mode == 'strict')
    made = inversion(images, mode='compat')
    pixels = torch.tensor(images[0]).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(made.target, encoder()(pixels))
    torch.testing.assert_close(
        inversion(images).target, encoder()(Centred().normalise(pixels))
    )


def test_normalisation_by_counting_uses_the_curve_of_the_original():
    images = [np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)]
    made = inversion(images, Ranked())
    pixels = torch.tensor(images[0]).permute(2, 0, 1)[None] / 255
    curve = made.normalise(pixels.clone().requires_grad_())
    torch.testing.assert_close(curve, Ranked().normalise(pixels), atol=1e-6, rtol=0)
    curve.sum().backward()
    run(made, 8)
    assert made.losses[-1][0] < made.losses[0][0]


def test_what_cannot_go_on_is_refused():
    network = encoder().train()
    with pytest.raises(ValueError, match='training mode'):
        FeatureInversion(network, network, Centred(), pictures(1))
    made = inversion(pictures(1), learning_rate=1e30)
    with pytest.raises(UserError, match='lower --lr'):
        run(made, 10)
