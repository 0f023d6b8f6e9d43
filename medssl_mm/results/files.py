"""The one writer of results: JSON, CSV, text and pictures, each all or nothing."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl_mm.errors import UserError
from medssl_mm.files import write_json, write_whole
from medssl_mm.statistics import Interval
from medssl_mm.texts import for_csv, from_csv, inside, show_as_is

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def plain(value: Any) -> Any:
    """Copy nested data for JSON; NaN, which it lacks, becomes None."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def interval_entry(
    interval: Interval, estimate: str = 'mean', units: bool = True
) -> dict:
    """Form of an interval in JSON files.

    Args:
        interval: What to write.
        estimate: Key of the estimate.
        units: Whether ``count`` is written.
    """
    entry = {estimate: interval.estimate, 'low': interval.low, 'high': interval.high}
    if units:
        entry['count'] = interval.units
    return plain(entry)


def csv_text(frame: pd.DataFrame, float_format: str | None = None) -> str:
    """Format a data frame as CSV; missing values are empty, texts no formulas.

    Args:
        frame: Columns are written, the index is not.
        float_format: Such as '%.6g'. Defaults to None, with which the same
            number is read again.
    """
    escaped = frame.rename(columns=lambda name: for_csv(str(name)))
    for place, kind in enumerate(frame.dtypes):
        if kind.kind not in 'biufc':  # texts, perhaps among numbers
            escaped.isetitem(place, [*map(_cell, frame.iloc[:, place])])
    return escaped.to_csv(index=False, float_format=float_format, lineterminator='\n')


def _cell(value: Any) -> Any:
    return for_csv(value) if isinstance(value, str) else value


def read_csv(path: str | Path) -> pd.DataFrame:
    """Read a table that :func:`csv_text` wrote, as texts.

    Raises:
        UserError: No such file, or none of CSV.
    """
    import pandas as pd

    try:
        content = Path(path).read_bytes()
        # Names such as 007 or NA are names.
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    except OSError as error:
        raise UserError(f'{path}: {error.strerror or error}') from None
    except ValueError as error:  # pandas' own are of this kind
        raise UserError(f'{path} is damaged: {error}; evaluate the model again') from (
            error
        )
    if b"'" not in content:  # as nearly always; there may be millions of numbers
        return table
    return table.rename(columns=from_csv).apply(lambda column: column.map(from_csv))


def png_of(figure: Figure) -> bytes:
    """Picture of a matplotlib figure, as PNG; a dollar sign in it is one."""
    show_as_is(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=130, bbox_inches='tight')
    return buffer.getvalue()


def write_results(folder: str | Path, contents: Mapping[str, Any]) -> list[Path]:
    """Write files into a folder, each all or nothing.

    Args:
        folder: Made if need be.
        contents: By file name: plain data for ``.json``, a ``pandas.DataFrame``
            or text for ``.csv``, a matplotlib figure or PNG bytes for ``.png``,
            text for others.

    Returns:
        list[Path]: The files, in this order.

    Raises:
        UserError: A file cannot be written, or lies outside the folder.
    """
    paths = []
    for name, content in contents.items():
        path = inside(folder, name)
        if path.suffix == '.json':
            write_json(path, plain(content))
        else:
            if hasattr(content, 'to_csv'):
                content = csv_text(content)
            elif hasattr(content, 'savefig'):
                content = png_of(content)
            write_whole(path, content)
        paths.append(path)
    return paths
