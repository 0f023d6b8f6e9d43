"""What workers are sent: they import this module, which is light."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medssl_mm.encoders import Preprocessing
from medssl_mm.errors import UserError


class Pictures(torch.utils.data.Dataset):
    """Resized pictures, uint8; what loads them normalises whole batches.

    Args:
        dataset (Dataset): Gives dicts with ``img``.
        image_ids (Sequence[str]): For messages.
        preprocessing (Preprocessing): Of an encoder.
    """

    def __init__(
        self, dataset: Any, image_ids: tuple[str, ...], preprocessing: Preprocessing
    ) -> None:
        self.dataset = dataset
        self.image_ids = image_ids
        self.preprocessing = preprocessing

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> dict:
        """Read one. Shape: inputs ``(channels, size, size)``, uint8."""
        sample = self.dataset[int(row)]
        image = sample.get('img') if isinstance(sample, Mapping) else None
        if image is None:
            raise UserError(
                f'{type(self.dataset).__name__} gives no picture (img), so an encoder '
                'cannot bring its own preprocessing; use an image set of '
                'tools/prepare_data.py, or NAME=PATH with the network of the config'
            )
        if image.ndim == 3 and not hasattr(self.dataset, 'store'):
            image = image[..., ::-1]  # OpenCV reads blue first
        try:
            pixels = self.preprocessing.resize(np.ascontiguousarray(image))
        except UserError as error:
            raise UserError(f'image {self.image_ids[row]}: {error}') from error
        return dict(inputs=torch.from_numpy(pixels).permute(2, 0, 1))


def stack_pictures(samples: Sequence[Mapping]) -> dict:
    """Join pictures of one size. Shape: inputs ``(N, channels, size, size)``."""
    return dict(inputs=torch.stack([sample['inputs'] for sample in samples]))


def collate_inputs(collate: Callable, samples: Sequence[Mapping]) -> dict:
    """Join samples as a host does, without their labels.

    These come in many forms, not all of which can be joined; features need
    none.
    """
    return collate([dict(inputs=sample['inputs']) for sample in samples])
