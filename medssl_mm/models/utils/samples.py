"""What the samples of a batch say."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from medssl_mm.errors import UserError


def stated_by(data_samples: Sequence | None, key: str) -> list[Any]:
    """What each sample says of something; None where it does not.

    Args:
        data_samples (Sequence, optional): Elements of mmengine, as
            :class:`medssl_mm.datasets.transforms.PackViews` makes them; others say
            nothing.
        key (str): Of their metainfo.
    """
    return [getattr(sample, 'metainfo', {}).get(key) for sample in data_samples or ()]


def number_of_patient(name: str) -> int:
    """Number above 0 that stands for a patient, the same in every process."""
    digest = hashlib.blake2b(name.encode(), digest_size=7).digest()
    return int.from_bytes(digest, 'big') + 1


def patients_of(
    data_samples: Sequence | None, count: int, device: torch.device
) -> Tensor:
    """Number of each sample's patient, for ``mask_same_patient``.

    Args:
        data_samples (Sequence, optional): See :func:`stated_by`.
        count (int): Number of images.
        device (torch.device): Where it is wanted.

    Shape: returns ``(N,)``, int64.

    Raises:
        UserError: When a sample does not name its patient.
    """
    names = stated_by(data_samples, 'patient_id')
    if len(names) != count or None in names:
        raise UserError(
            'mask_same_patient=True needs the patient of every sample, but '
            f'{max(names.count(None), count - len(names))} of {count} have no '
            'patient_id; load them with a data set of medssl_mm and pack them with '
            'medssl_mm.PackViews, or set mask_same_patient=False'
        )
    numbers = [number_of_patient(str(name)) for name in names]
    return torch.tensor(numbers, device=device)
