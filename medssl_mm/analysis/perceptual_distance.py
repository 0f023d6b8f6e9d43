"""How far pictures are apart for networks that see as people do.

LPIPS of `The Unreasonable Effectiveness of Deep Features as a Perceptual Metric
<https://arxiv.org/abs/1801.03924>`_, version 0.1, by torchmetrics; and the same
formula without learned weights in any encoder.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medssl_mm.errors import InstallError, UserError
from medssl_mm.functional.features import device_of
from medssl_mm.functional.perceptual import feature_distance
from medssl_mm.statistics import Interval

from .frozen import Preprocessing, check_frozen, pixels_of

#: Networks of LPIPS, and their names in torchvision.
NETS = dict(alex='alexnet', vgg='vgg16', squeeze='squeezenet1_1')
#: The mean of all three.
AVERAGE = 'average'
#: Below this number of pictures the spread says little.
FEW_PICTURES = 5
POLICY = (
    'LPIPS 0.1 with three networks (alex, vgg, squeeze) and their mean, between a '
    'picture and the one made from its features, both of the size of the encoder; 0 '
    'is the same. An encoder as a measure: the mean squared distance of its maps '
    'with channels of unit length, summed over the stages, without learned weights; '
    'a random one gets its running statistics from the originals. '
    'SD and interval (1.96 standard errors) are over pictures.'
)


@dataclass(frozen=True, eq=False)
class Distance:
    """Distances of the pairs of one encoder by one measure.

    Args:
        encoder (str): Whose reconstructions they are.
        measure (str): 'alex', 'vgg', 'squeeze', 'average' or an encoder.
        values (np.ndarray): Of every pair.

    Shape: values ``(pairs,)``.
    """

    encoder: str
    measure: str
    values: np.ndarray

    @property
    def mean(self) -> Interval:
        """Mean over pairs with its interval."""
        mean, count = float(np.mean(self.values)), len(self.values)
        if count < 2:
            return Interval(mean, units=count)
        reach = 1.96 * self.spread / count**0.5
        return Interval(mean, mean - reach, mean + reach, count)

    @property
    def spread(self) -> float:
        """Standard deviation over pairs, NaN of one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else np.nan


def weight_files(nets: Sequence[str] = tuple(NETS)) -> dict[str, tuple[Path, str]]:
    """Where the weights of the networks of LPIPS are looked for.

    Args:
        nets (Sequence[str]): Of :data:`NETS`.

    Returns:
        dict: The path of the file, and where it is published, by net.
    """
    from torchvision.models import get_model_weights

    found = {}
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    for net in nets:
        weights: Any = get_model_weights(NETS[net])
        url = weights.DEFAULT.url
        found[net] = folder / url.rpartition('/')[2], url
    return found


def load_lpips(net: str, device: str | torch.device = 'cpu') -> nn.Module:
    """Make one network of LPIPS.

    Args:
        net (str): 'alex', 'vgg' or 'squeeze'.
        device (str | torch.device): Defaults to 'cpu'.

    Returns:
        nn.Module: Takes two batches in [-1, 1]; ``(N, 1, 1, 1)``.

    Raises:
        InstallError: torchmetrics is not installed.
        UserError: The weights are not there and cannot be had; names all
            files and the folder.
    """
    if importlib.util.find_spec('torchmetrics') is None:
        raise InstallError('LPIPS needs torchmetrics; install medssl_mm[perceptual]')
    from torchmetrics.image import lpip

    files = weight_files()
    measure: Any = lpip.LearnedPerceptualImagePatchSimilarity
    try:
        metric = measure(net)
    except (OSError, RuntimeError) as error:
        path, url = files[net]
        if path.exists():
            raise UserError(
                f'{path} is not the file from {url} ({error}); delete it'
            ) from error
        absent = [
            f'{url} to {path}' for path, url in files.values() if not path.exists()
        ]
        raise UserError(
            f'the weights of LPIPS {net} are not here and cannot be fetched ({error}). '
            'On a computer that can, get these files and copy them here:\n  '
            + '\n  '.join(absent)
            + '\nOr leave LPIPS out (--nets none) and measure in encoders (--measures)'
        ) from error
    return metric.net.to(device).eval()


@torch.no_grad()
def lpips_distances(
    net: nn.Module, pairs: Sequence[tuple[np.ndarray, np.ndarray]], batch_size: int = 8
) -> np.ndarray:
    """LPIPS of pairs of pictures.

    Args:
        net (nn.Module): Of :func:`load_lpips`.
        pairs (Sequence[tuple[np.ndarray, np.ndarray]]): uint8, all of one size.
        batch_size (int): Pairs at a time. Defaults to 8.

    Shape: pictures ``(h, w, C)``, C of 1 or 3 -> ``(pairs,)``.
    """
    device = device_of(net)

    def distances(one: Tensor, other: Tensor) -> Tensor:
        one, other = (x.expand(-1, 3, -1, -1).to(device) for x in (one, other))
        return net(2 * one - 1, 2 * other - 1).flatten()

    return _by_batches(pairs, distances, batch_size)


@torch.no_grad()
def encoder_distances(
    encoder: nn.Module,
    maps: Callable[[Tensor], Sequence[Tensor]],
    preprocessing: Preprocessing,
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    batch_size: int = 8,
) -> np.ndarray:
    """Distance of pairs of pictures in an encoder.

    Args:
        encoder (nn.Module): In evaluation mode.
        maps (Callable): From images to its maps at all stages.
        preprocessing (Preprocessing): Of the encoder.
        pairs (Sequence[tuple[np.ndarray, np.ndarray]]): uint8.
        batch_size (int): Pairs at a time. Defaults to 8.

    Shape: pictures ``(h, w, C)`` -> ``(pairs,)``.

    Raises:
        ValueError: The encoder is in training mode.
    """
    check_frozen(encoder)
    device = device_of(encoder)
    resized = [
        (preprocessing.resize(one), preprocessing.resize(other)) for one, other in pairs
    ]

    def distances(one: Tensor, other: Tensor) -> Tensor:
        one, other = (preprocessing.normalise(x).to(device) for x in (one, other))
        return feature_distance(maps(one), maps(other))

    return _by_batches(resized, distances, batch_size)


def _by_batches(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    distances: Callable[[Tensor, Tensor], Tensor],
    batch_size: int,
) -> np.ndarray:
    found = []
    for first in range(0, len(pairs), batch_size):
        part = pairs[first : first + batch_size]
        one, other = (
            torch.stack([pixels_of(pair[side]) for pair in part]).float() / 255
            for side in (0, 1)
        )
        found.append(distances(one, other).cpu().double().numpy())
    return np.concatenate(found)
