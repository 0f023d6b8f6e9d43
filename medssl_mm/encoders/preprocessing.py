"""From a picture to what an encoder takes."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from medssl_mm.errors import UserError
from medssl_mm.schema import Entry

_PerChannel = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]


class Preprocessing(Entry):
    """How the pictures of an encoder are resized and normalised.

    Args:
        size (int): Height and width of what the encoder takes, pixels.
        resize_mode (str): 'short' scales the shorter side to ``resize_to``
            and keeps the proportions, 'exact' both sides. The middle ``size``
            pixels are then cut out. Defaults to 'short'.
        resize_to (int, optional): Pixels. Defaults to None: ``size``.
        interpolation (str): Of Pillow, with antialiasing: 'bilinear',
            'bicubic', 'nearest'. Defaults to 'bicubic'.
        normalisation (str): 'mean_std'; 'unit': [0, 1]; 'histogram': the
            grey values of each picture are spread evenly over 0 to 255, by
            the histogram of all its channels together. Defaults to 'mean_std'.
        mean (tuple[float]): One per channel, or one for all, of values in
            [0, 1]. Defaults to those of ImageNet.
        std (tuple[float]): As ``mean``.
        channels (int): 1 or 3. A grey picture is repeated for an encoder of
            colour pictures. Defaults to 3.
    """

    size: PositiveInt = 224
    resize_mode: Literal['short', 'exact'] = 'short'
    resize_to: PositiveInt | None = None
    interpolation: Literal['bilinear', 'bicubic', 'nearest'] = 'bicubic'
    normalisation: Literal['mean_std', 'unit', 'histogram'] = 'mean_std'
    mean: _PerChannel = (0.485, 0.456, 0.406)
    std: _PerChannel = (0.229, 0.224, 0.225)
    channels: Literal[1, 3] = 3

    @model_validator(mode='after')
    def _fits(self) -> Preprocessing:
        if self.resize_to is not None and self.resize_to < self.size:
            raise ValueError(
                f'resize_to={self.resize_to} is smaller than size={self.size}, which '
                'is cut out of it'
            )
        if self.normalisation == 'mean_std':
            for name in ('mean', 'std'):
                if len(getattr(self, name)) not in (1, self.channels):
                    raise ValueError(
                        f'{name} must have one number, or {self.channels}, one per '
                        f'channel, got {getattr(self, name)}'
                    )
            if min(self.std) <= 0:
                raise ValueError(f'std must be positive, got {self.std}')
        return self

    def __call__(self, image: np.ndarray) -> Tensor:
        """Prepare one picture.

        Args:
            image (np.ndarray): uint8.

        Shape: ``(H, W)`` or ``(H, W, C)`` -> ``(channels, size, size)``, float32.

        Raises:
            UserError: See :meth:`resize`.
        """
        pixels = torch.from_numpy(self.resize(image)).permute(2, 0, 1)
        return self.normalise(pixels[None].float() / 255)[0]

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resize, crop and bring to the number of channels; the values stay uint8.

        Shape: ``(H, W)`` or ``(H, W, C)`` -> ``(size, size, channels)``.

        Raises:
            UserError: The picture is not 8-bit grey or colour, or has colour
                and the encoder takes grey ones.
        """
        from PIL import Image
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        channels = 1 if image.ndim == 2 else image.shape[-1]
        if (
            image.dtype != np.uint8
            or image.ndim not in (2, 3)
            or channels not in (1, 3)
        ):
            raise UserError(
                'an encoder takes 8-bit pictures (H, W) or (H, W, 3), got '
                f'{image.dtype} {image.shape}; map the values to 0-255, and drop an '
                'alpha channel'
            )
        if channels > self.channels:
            raise UserError(
                f'the encoder takes grey pictures, this one has {channels} channels: '
                'choose an encoder of colour pictures, or import the data set as grey'
            )
        size = self.resize_to or self.size
        picture = functional.resize(
            Image.fromarray(image),
            [size, size] if self.resize_mode == 'exact' else [size],
            InterpolationMode(self.interpolation),
        )
        pixels = np.asarray(functional.center_crop(picture, [self.size, self.size]))
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], self.channels, axis=2)
        return np.array(pixels)  # writable, as torch wants it

    def normalise(self, pixels: Tensor) -> Tensor:
        """Bring the values to those that the encoder was trained with.

        Carries gradients, except with 'histogram', which counts.

        Args:
            pixels (Tensor): In [0, 1].

        Shape: ``(N, channels, h, w)``, float, as returned.
        """
        if self.normalisation == 'unit':
            return pixels
        if self.normalisation == 'histogram':
            return torch.stack([_equalised(image) for image in pixels])
        mean, std = (
            pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std)
        )
        return (pixels - mean) / std


def _equalised(image: Tensor) -> Tensor:
    """Replace each value by the share of values up to its bin, times 255.

    As the networks of CovidPrognosis were trained: 256 bins from the lowest to
    the highest value, linear between the lower edges of the bins.
    """
    values = image.detach().cpu().double().numpy().ravel()
    counts, edges = np.histogram(values, 256, density=True)
    cumulative = counts.cumsum()
    if not cumulative[-1] > 0:
        raise UserError('a picture has no values to make a histogram of')
    spread = np.interp(values, edges[:-1], 255 * cumulative / cumulative[-1])
    return torch.from_numpy(spread).to(image).reshape(image.shape)
