"""Numbers of encoders, in the form that ``tools/transfer.py --measures`` reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


def measure_frame(
    numbers: Iterable[tuple[str, str, float]], dataset: str, mode: str
) -> DataFrame:
    """Lay out numbers of encoders; those of one name (seeds) become their mean.

    Args:
        numbers: Name of the encoder, of the measure, and value.
        dataset: Name of the images they were measured on, '' of several.
        mode: 'strict' or 'compat'.

    Returns:
        pandas.DataFrame: A row per encoder and measure.
    """
    import pandas as pd

    frame = pd.DataFrame(numbers, columns=['encoder', 'measure', 'value'])
    frame = frame.groupby(['encoder', 'measure'], sort=False, as_index=False).mean()
    return frame.assign(dataset=dataset, mode=mode)
