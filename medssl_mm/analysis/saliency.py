"""Where an encoder looks: how its features change when a part is covered.

Occlusion of `Visualizing and Understanding Convolutional Networks
<https://arxiv.org/abs/1311.2901>`_ on features instead of classes, and the
share of the picture that matters more than the mean, called attentive
diffusion in `How Well Do Self-Supervised Models Transfer?
<https://arxiv.org/abs/2011.13377>`_, appendix A.9.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from medssl_mm.errors import InstallError, UserError
from medssl_mm.functional.features import device_of
from medssl_mm.statistics import Interval

from .frozen import COMPAT, STRICT, check_frozen

POLICIES = {
    STRICT: (
        'A window of value 0 (in normalised values) is moved over the image; the '
        'saliency of a pixel is the mean, over the windows that cover it, of the '
        'relative change of the features, |f - f_covered| / |f|. Attentive '
        'diffusion is the share of pixels above the mean of the map.'
    ),
    COMPAT: (
        'As in the original: as strict, with stride 1 on an image of 242 pixels, of '
        'which the inner 224, each covered by 100 windows, are kept.'
    ),
}
#: Side of the window, in pixels of what the encoder takes.
WINDOW = 10
#: Side of the image, and of what is kept of it, in ``compat``.
COMPAT_SIZES = 242, 224


@dataclass(frozen=True, eq=False)
class Saliency:
    """Saliency of one image in one encoder.

    Args:
        encoder (str): Name.
        image_id (str): Which image.
        values (np.ndarray): Relative change of the features, 0 or more.
        number (int): Which of the encoders of that name. Defaults to 0.

    Shape: values ``(h, w)``.
    """

    encoder: str
    image_id: str
    values: np.ndarray
    number: int = 0

    @property
    def attentive_diffusion(self) -> float:
        """Share of pixels above the mean, 0-1."""
        return attentive_diffusion(self.values)


def attentive_diffusion(values: np.ndarray) -> float:
    """Share of pixels whose saliency is above the mean, 0-1.

    Shape: ``(h, w)``.
    """
    # Sums of float32 would let a mean lie above equal values.
    values = np.asarray(values, np.float64)
    return float((values > values.mean()).mean())


def mean_diffusion(values: list[float]) -> Interval:
    """Mean over images with its interval (1.96 standard errors)."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Interval(mean, units=count)
    reach = 1.96 * float(np.std(values, ddof=1)) / count**0.5
    return Interval(mean, mean - reach, mean + reach, count)


def require_captum() -> None:
    """Refuse to begin without captum.

    Raises:
        InstallError: It is not installed.
    """
    if importlib.util.find_spec('captum') is None:
        raise InstallError('saliency needs captum; install medssl_mm[saliency]')


def windows(size: tuple[int, int], window: int = WINDOW, stride: int = 1) -> int:
    """How many places a window has.

    Args:
        size (tuple[int, int]): Of the image, pixels.
        window (int): Side, pixels. Defaults to 10.
        stride (int): Pixels. Defaults to 1.
    """
    rows, columns = (-(-(side - window) // stride) + 1 for side in size)
    return rows * columns


@torch.no_grad()
def occlusion_saliency(
    encoder: nn.Module,
    image: Tensor,
    window: int = WINDOW,
    stride: int = 1,
    batch_size: int = 32,
    seen: Callable[[int], object] = lambda count: None,
) -> np.ndarray:
    """Relative change of the features when a window covers a pixel.

    Args:
        encoder (nn.Module): In evaluation mode.
        image (Tensor): Normalised.
        window (int): Side, pixels. Defaults to 10.
        stride (int): Pixels. Defaults to 1.
        batch_size (int): Covered images at a time. Defaults to 32.
        seen (Callable): Called with the number of images of every batch.

    Shape: image ``(C, h, w)``; returns ``(h, w)``, float32.

    Raises:
        InstallError: captum is not installed.
        UserError: The window does not fit, or the features are 0.
        ValueError: The encoder is in training mode.
    """
    require_captum()
    check_frozen(encoder)
    channels, *size = image.shape
    if not 1 <= stride <= window <= min(size):
        raise UserError(
            f'a window of {window} pixels moved by {stride} does not fit, or does not '
            f'cover, an image of {size[0]}x{size[1]}; choose a stride from 1 to the '
            'window, and a window inside the image'
        )
    from captum.attr import Occlusion

    image = image[None].to(device_of(encoder))
    clean = encoder(image)
    length = clean.norm()
    if not (length > 0 and length.isfinite()):
        raise UserError(
            f'the features of the image have the length {float(length):g}: a relative '
            'change cannot be told; the encoder has collapsed or is damaged'
        )

    def change(images: Tensor) -> Tensor:
        seen(len(images))
        return (encoder(images) - clean).norm(dim=1) / length

    with warnings.catch_warnings():
        # captum speaks of its own future.
        warnings.simplefilter('ignore')
        found = Occlusion(change).attribute(
            image,
            sliding_window_shapes=(channels, window, window),
            strides=(channels, stride, stride),
            baselines=0,
            perturbations_per_eval=batch_size,
        )
    # captum gives the loss of the score from 0, in every channel alike.
    return (-found[0, 0]).cpu().float().numpy()


def kept_part(values: np.ndarray, mode: str) -> np.ndarray:
    """Cut off the border, which fewer windows cover, in ``compat``.

    Shape: ``(242, 242)`` -> ``(224, 224)``; kept in ``strict``.
    """
    if mode != COMPAT:
        return values
    whole, kept = COMPAT_SIZES
    border = (whole - kept) // 2
    return values[border : border + kept, border : border + kept]
