"""What analyses of frozen encoders share: batches, modes and finished parts.

An encoder is a module ``encoder(images) -> features``, its preprocessing has
``resize`` and ``normalise`` of :class:`medssl_mm.encoders.Preprocessing`.
"""

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.files import whole_file
from medssl_mm.functional.features import device_of

#: The careful choices, and the formulas of the study that the analyses come
#: from, `How Well Do Self-Supervised Models Transfer to Medical Imaging?
#: <https://doi.org/10.3390/jimaging8120320>`_, with their faults. No table
#: mixes them.
MODES = STRICT, COMPAT = ('strict', 'compat')


class Preprocessing(Protocol):
    """How an encoder wants its images."""

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Shape: uint8 ``(H, W)`` or ``(H, W, C)`` -> ``(h, w, C)``."""

    def normalise(self, pixels: Tensor) -> Tensor:
        """Shape: 0-1 ``(N, C, h, w)`` -> the same."""


def check_frozen(encoder: nn.Module) -> None:
    """Refuse an encoder of which a part is in training mode.

    Batch statistics would then stand for the learned ones, and the result of
    an image would depend on the others.

    Raises:
        ValueError: Names a part.
    """
    for name, part in encoder.named_modules():
        if part.training:
            raise ValueError(
                f'{name or type(encoder).__name__} is in training mode; call eval() '
                'on the encoder before it is analysed'
            )


def pixels_of(image: np.ndarray) -> Tensor:
    """Turn a picture into the form that torch has.

    Shape: ``(h, w, C)`` -> ``(C, h, w)``, uint8.
    """
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalised(preprocessing: Preprocessing, images: Sequence[Tensor]) -> Tensor:
    """Batch of images as an encoder takes it.

    Shape: uint8 ``(C, h, w)`` each -> ``(N, C, h, w)``.
    """
    return preprocessing.normalise(torch.stack(list(images)).float() / 255)


@torch.no_grad()
def features_of(
    encoder: nn.Module,
    preprocessing: Preprocessing,
    images: Iterable[Tensor],
    batch_size: int = 32,
    seen: Callable[[int], object] = lambda count: None,
) -> Tensor:
    """Features of images, on the CPU; few images are in memory at a time.

    Args:
        encoder (nn.Module): In evaluation mode.
        preprocessing (Preprocessing): Of the encoder.
        images (Iterable[Tensor]): All of one size.
        batch_size (int): Images at a time. Defaults to 32.
        seen (Callable): Called with the number of images of every batch.

    Shape: uint8 ``(C, h, w)`` each -> ``(N, D)``, float32.

    Raises:
        ValueError: The encoder is in training mode, or there is no image.
        UserError: A feature is not finite.
    """
    check_frozen(encoder)
    device, found = device_of(encoder), []
    for batch in _batches(images, batch_size):
        inputs = normalised(preprocessing, batch).to(device)
        found.append(encoder(inputs).float().cpu())
        seen(len(batch))
    if not found:
        raise ValueError('there is no image to compute features of')
    features = torch.cat(found)
    if not features.isfinite().all():
        row = int((~features.isfinite()).any(1).nonzero()[0, 0])
        raise UserError(
            f'the encoder has features that are not finite (image {row}); its weights '
            'are damaged, or it does not fit this preprocessing'
        )
    return features


def _batches(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch


class Parts:
    """Finished parts of a long computation, so that it can be taken up again.

    Every part is an ``.npz`` file, written whole. Its name holds a digest of
    the settings, so parts of other settings are not taken.

    Args:
        folder (str | Path): Made if need be.
        settings (Mapping): Plain data that the parts depend on.
    """

    def __init__(self, folder: str | Path, settings: Mapping) -> None:
        self.folder = Path(folder)
        text = json.dumps(settings, sort_keys=True, default=str)
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:12]

    def path(self, name: str) -> Path:
        """File of a part; names may hold any character."""
        safe = ''.join(c if c.isalnum() or c in '.+-' else '_' for c in name)
        own = hashlib.sha256(name.encode()).hexdigest()[:6]
        return self.folder / f'{safe[:80]}-{own}-{self.digest}.npz'

    def get(
        self, name: str, compute: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Read a part, or compute and keep it.

        Args:
            name (str): Of the part.
            compute (Callable): Returns its arrays by name.

        Raises:
            UserError: The file is damaged, or cannot be written.
        """
        path = self.path(name)
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as content:
                    return dict(content)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise UserError(
                    f'{path} is damaged ({error}); delete it and start again'
                ) from error
        arrays = dict(compute())
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            np.savez(temporary, **arrays)  # type: ignore[arg-type]
        return arrays
