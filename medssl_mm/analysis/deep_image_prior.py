"""What an encoder still knows of a picture: the picture made from its features.

A network that makes pictures from noise (:mod:`.skip_network`) is trained until
the feature map of its picture is that of the original; what the encoder does
not tell apart stays as that network happens to make it. The method of
`Deep Image Prior <https://arxiv.org/abs/1711.10925>`_, section 3.4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.features import device_of

from .frozen import COMPAT, STRICT, Preprocessing, check_frozen, pixels_of
from .skip_network import NOISE_CHANNELS, SkipNetwork, noise_size

POLICIES = {
    STRICT: (
        'For every picture a network of 2.6 million parameters is trained that '
        'makes a picture from fixed noise, so that its feature map at the last '
        'place of the encoder (mean squared error) becomes that of the original. '
        'Both are normalised as the encoder wants its images; a sigmoid keeps the '
        'values of the picture between black and white, so that what is shown is '
        'what the encoder saw.'
    ),
    COMPAT: (
        'As in the original: as strict, but nothing is normalised, values are cut off '
        'only in the end, the map of a DenseNet is taken before its last '
        'normalisation, and one iteration more is made than asked for.'
    ),
}
LEARNING_RATE = 1e-3
# Largest value of the noise.
_NOISE = 0.1


class FeatureInversion:
    """Pictures made from the feature maps of others, several at once.

    Each has a network and a seed of its own, and no part in the gradients of
    the others: together they are what each would be alone, but for rounding.

    Args:
        encoder (nn.Module): In evaluation mode, frozen.
        maps (Callable): From images to the map that is to be met.
        preprocessing (Preprocessing): Of the encoder.
        pictures (Sequence[np.ndarray]): uint8, as it resizes them.
        mode (str): 'strict' or 'compat'. Defaults to 'strict'.
        seed (int): Defaults to 0.
        learning_rate (float): Of Adam. Defaults to 0.001.

    Shape: pictures ``(h, w, C)`` each, of one size.

    Attributes:
        losses (list[list[float]]): Of every iteration and picture.

    Raises:
        ValueError: A part of the encoder is in training mode.
    """

    def __init__(
        self,
        encoder: nn.Module,
        maps: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        pictures: Sequence[np.ndarray],
        mode: str = STRICT,
        seed: int = 0,
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        check_frozen(encoder)
        device = device_of(encoder)
        pixels = torch.stack([pixels_of(one) for one in pictures]).float() / 255
        self.maps = maps
        self.bounded = mode == STRICT
        self.size = pixels.shape[-2:]
        sides = noise_size(self.size[0]), noise_size(self.size[1])
        self.networks, self.noise = nn.ModuleList(), []
        for number in range(len(pictures)):
            own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            with torch.random.fork_rng([]):
                torch.manual_seed(own)
                self.networks.append(SkipNetwork(pixels.shape[1]))
                noise = torch.rand(1, NOISE_CHANNELS, *sides) * _NOISE
            self.noise.append(noise.to(device))
        self.networks.to(device)
        self.normalise = _curves(preprocessing, pixels, mode)
        with torch.no_grad():
            self.target = maps(self.normalise(pixels.to(device)))
        self.optimizer = torch.optim.Adam(self.networks.parameters(), learning_rate)
        self.losses: list[list[float]] = []

    def step(self) -> list[float]:
        """Train all networks once.

        Returns:
            list[float]: Mean squared error of every picture's map, before it.

        Raises:
            UserError: One is not finite.
        """
        losses = self.errors()
        found = losses.tolist()
        if not np.isfinite(found).all():
            raise UserError(
                f'the error of the features is not finite after {len(self.losses)} '
                'iterations; choose a lower --lr'
            )
        self.optimizer.zero_grad(set_to_none=True)
        # The sum: no picture changes the gradient of another.
        losses.sum().backward()
        self.optimizer.step()
        self.losses.append(found)
        return found

    def errors(self) -> Tensor:
        """Mean squared error of every picture's map, with gradient.

        Shape: ``(N,)``.
        """
        maps = self.maps(self.normalise(self._make()))
        return (maps - self.target).square().flatten(1).mean(1)

    def _make(self) -> Tensor:
        height, width = self.size
        made = [net(noise) for net, noise in zip(self.networks, self.noise)]
        pictures = torch.cat(made)[..., :height, :width]
        return pictures.sigmoid() if self.bounded else pictures

    @torch.no_grad()
    def pictures(self) -> np.ndarray:
        """The pictures as they are now.

        Shape: ``(N, h, w, C)``, uint8.
        """
        made = self._make().clamp(0, 1) * 255
        return made.round().byte().permute(0, 2, 3, 1).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return dict(
            networks=self.networks.state_dict(),
            optimizer=self.optimizer.state_dict(),
            losses=self.losses,
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        self.networks.load_state_dict(state['networks'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.losses = [list(found) for found in state['losses']]


def _curves(
    preprocessing: Preprocessing, pixels: Tensor, mode: str
) -> Callable[[Tensor], Tensor]:
    """The normalisation, with a gradient.

    One that counts the values of a picture has none: then every made picture
    gets the curve of values that its original has.
    """
    if mode == COMPAT:
        return lambda images: images
    probe = pixels[:1].clone().requires_grad_()
    if preprocessing.normalise(probe).requires_grad:
        return preprocessing.normalise
    levels = [torch.unique(one) for one in pixels]
    curves = []
    for one, values in zip(preprocessing.normalise(pixels), pixels):
        known, place = torch.unique(values, return_inverse=True)
        curve = one.new_zeros(len(known))
        curves.append(curve.scatter_(0, place.flatten(), one.flatten()))

    def apply(images: Tensor) -> Tensor:
        return torch.stack(
            [
                _interpolate(image, level.to(image), curve.to(image))
                for image, level, curve in zip(images, levels, curves)
            ]
        )

    return apply


def _interpolate(values: Tensor, levels: Tensor, curve: Tensor) -> Tensor:
    """Values of a curve between its points, and on its last pieces beyond them."""
    if len(levels) < 2:
        return values - values.detach() + curve[0]
    right = torch.searchsorted(levels, values.detach().contiguous())
    right = right.clamp(1, len(levels) - 1)
    low, high = levels[right - 1], levels[right]
    slope = (curve[right] - curve[right - 1]) / (high - low)
    return curve[right - 1] + slope * (values - low)
