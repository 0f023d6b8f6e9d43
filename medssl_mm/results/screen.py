"""Tables on screen, in logs and in Markdown."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from medssl_mm.texts import for_markdown

if TYPE_CHECKING:
    import pandas as pd


def wide_console() -> Console:
    """Return a rich console: as wide as the terminal, or 140 in a pipe.

    In files and pipes rich assumes 80 columns, which breaks up the names of
    checkpoints.
    """
    return Console(width=None if sys.stdout.isatty() else 140)


def show_table(
    cells: pd.DataFrame,
    title: str = '',
    notes: Sequence[str] = (),
    *,
    left: int = 1,
    sections: Sequence | None = None,
    folded: str | None = None,
    console: Console | None = None,
) -> None:
    """Print a table of text.

    Args:
        cells: Text; the columns' names are the heading.
        title: Above the table.
        notes: Lines below it.
        left: Columns at the left that are not numbers.
        sections: A key per row; a line is drawn where it changes.
        folded: Column whose long names may be broken, beyond 24 characters;
            others are broken at spaces only. Defaults to None, which lets all
            be broken.
        console: Defaults to :func:`wide_console`.
    """
    console = console or wide_console()
    table = Table(title=Text(title) if title else None, title_justify='left')
    for number, name in enumerate(cells.columns):
        options: dict[str, Any] = dict(justify='left' if number < left else 'right')
        texts = cells.iloc[:, number]
        if name == folded:
            widest = max(map(len, texts), default=0)
            options.update(overflow='fold', min_width=min(widest, 24))
        elif folded is not None:
            # A number is never cut; an interval may be broken between its parts.
            options['no_wrap'] = not any(' ' in text for text in texts)
        table.add_column(Text(name), **options)
    keys = [None] * len(cells) if sections is None else list(sections)
    for number, line in enumerate(cells.to_numpy().tolist()):
        if number and keys[number] != keys[number - 1]:
            table.add_section()
        table.add_row(*map(Text, line))
    console.print(table)
    for note in notes:
        console.print(Text(f'note: {note}'))


def table_text(
    cells: pd.DataFrame, title: str = '', notes: Sequence[str] = (), **options: Any
) -> str:
    """Lay a table out as :func:`show_table` does, for a log.

    Returns:
        str: Without colours, as wide as the cells are, up to 220 columns.
    """
    buffer = io.StringIO()
    console = Console(file=buffer, width=220, color_system=None)
    show_table(cells, title, notes, console=console, **options)
    return buffer.getvalue().rstrip()


def to_markdown(cells: pd.DataFrame) -> str:
    """Format a table of text as Markdown.

    Args:
        cells: Text; the columns' names are the heading.
    """
    lines = [list(cells.columns), ['---'] * cells.shape[1], *cells.to_numpy().tolist()]
    return ''.join(
        '| ' + ' | '.join(map(for_markdown, line)) + ' |\n' for line in lines
    )


def mean_and_sd(
    values: Sequence[float], digits: str, sd_digits: str | None = None
) -> str:
    """Write '0.51 ± 0.02', of one value '0.51'.

    Args:
        values: Of all seeds.
        digits: Format of the mean, such as '.3f'.
        sd_digits: Format of the deviation. Defaults to that of the mean.
    """
    text = f'{np.mean(values):{digits}}'
    if len(values) > 1:
        text += f' ± {np.std(values, ddof=1):{sd_digits or digits}}'
    return text
