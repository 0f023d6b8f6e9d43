"""What the samples of a batch say."""

from collections.abc import Sequence
from typing import Any


def stated_by(data_samples: Sequence | None, key: str) -> list[Any]:
    """What each sample says of something; None where it does not.

    Args:
        data_samples (Sequence, optional): Elements of mmengine, as
            :class:`medssl_mm.datasets.transforms.PackViews` makes them; others say
            nothing.
        key (str): Of their metainfo.
    """
    return [getattr(sample, 'metainfo', {}).get(key) for sample in data_samples or ()]
