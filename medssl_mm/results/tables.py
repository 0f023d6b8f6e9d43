"""Result tables: on screen, as Markdown, CSV, JSON and picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from medssl_mm.statistics import Interval
from medssl_mm.statistics.measures import HD95, Measure
from medssl_mm.statistics.resampling import FEW_PATIENTS
from medssl_mm.texts import for_markdown

from .figures import plot_intervals, plot_lengths
from .files import csv_text, write_results
from .runs import Run, TableRow, collect_scores
from .screen import show_table, to_markdown

if TYPE_CHECKING:
    import pandas as pd

# A table on screen that is no terminal: a log has room for whole cells.
LOG_WIDTH = 120
COST = 'Time of pretraining'
# Fewer seeds show what may be, not what is.
SEEDS_OF_A_CLAIM = 5


def points(interval: Interval, sign: str = '') -> str:
    """Format a score or difference, 0-1, in points."""
    return interval.text(1, scale=100, sign=sign)


def _columns(rows: Sequence[TableRow]) -> list[Measure]:
    """Scores beside the compared one; files always have a place for HD95."""
    return list(dict.fromkeys([HD95, *(m for row in rows for m in row.others)]))


def table_cells(rows: Sequence[TableRow]) -> pd.DataFrame:
    """Lay out rows as text: scores in points (0-100), HD95 in mm.

    Returns:
        pandas.DataFrame: Text. Columns that no row fills are left out.
    """
    import pandas as pd

    cells = pd.DataFrame(
        [
            {
                'Evaluation': row.run.group,
                'Initial weights': row.run.label,
                'Labelled patients': f'{100 * row.run.fraction:g} %',
                f'{row.measure.title} [95 % interval]': points(row.score),
                'SD over seeds': '–'
                if math.isnan(row.spread)
                else f'{100 * row.spread:.1f}',
                'Seeds': str(len(row.run.folders)),
                'Difference to baseline': points(row.difference, '+'),
                'By seed': _by_seed(row),
                'p (Holm)': _p(row.holm),
                COST: _cost(row),
                **{
                    f'{measure.heading.replace(" (", ", ").rstrip(")")} '
                    '[95 % interval]': _other(row, measure)
                    for measure in _columns(rows)
                },
            }
            for row in rows
        ]
    )
    filled = [
        name
        for index, name in enumerate(cells)
        if index < 4 or not cells[name].isin(['–', '1']).all()
    ]
    if all(row.run.fraction == 1 for row in rows):
        filled.remove('Labelled patients')
    return cells[filled]


def _by_seed(row: TableRow) -> str:
    if len(row.difference.by_seed) < 2:
        return '–'
    return ', '.join(f'{100 * value:+.1f}' for value in row.difference.by_seed)


def _cost(row: TableRow) -> str:
    return '–' if math.isnan(row.cost) else f'{row.cost:.2f} x'


def _p(value: float) -> str:
    if math.isnan(value):
        return '–'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'


def _other(row: TableRow, measure: Measure) -> str:
    found = row.others.get(measure, Interval())
    # Shares are told in points, as the compared score is.
    return found.text(measure.digits) if measure.unit else points(found)


def caption_of(rows: Sequence[TableRow]) -> str:
    """Say what the numbers of a table are, in one paragraph."""
    splits = sorted({f'{row.protocol} (split {row.split_hash})' for row in rows})
    patients = sorted({row.patients for row in rows})
    unit = 'images' if rows[0].by_image else 'patients'
    text = (
        f'Protocol {", ".join(splits)}, '
        f'{"/".join(map(str, patients))} test {unit}'
        f'{", each a patient of its own (equal ones once)" * rows[0].by_image}. '
        f'{rows[0].measure.definition} (in points, 0–100); '
        f'brackets: 95 % interval over {_levels(rows, unit)}.'
    )
    undefined = dict.fromkeys(name for row in rows for name in row.undefined)
    if undefined:
        text += (
            ' Not in the mean, as all test images have one value of the '
            f'class: {", ".join(undefined)}.'
        )
    for row in rows:
        for line in row.seen:
            text += f' {row.run.group}, {row.run.label}: {line}.'
    pooled = sorted({row.splits for row in rows if row.splits > 1})
    if pooled:
        text += (
            f' Cross-validation over {"/".join(map(str, pooled))} '
            'splits: each has a model of its own, and their test cases '
            f'are pooled, so every {unit[:-1]} counts once per seed.'
        )
    if any(row.difference.measured for row in rows):
        text += (
            f' Differences are paired by {unit[:-1]} and seed'
            f'{_other_pairing(rows)}; p of no difference, adjusted after Holm for all '
            'comparisons of the table.'
        )
    if patients[0] < FEW_PATIENTS:
        text += (
            f" With so few {unit} the intervals are Student's, and expect a "
            f'symmetrical spread of {unit}.'
        )
    if all(len(row.run.folders) == 1 for row in rows):
        runs = 'seed' if pooled else 'training run'
        text += (
            f' One {runs} per row: the variation between seeds is not in the interval.'
        )
    fewest = min(len(row.run.folders) for row in rows)
    if fewest < SEEDS_OF_A_CLAIM:
        text += (
            f' Exploratory: {fewest} seed{"s" * (fewest > 1)}; a claim needs '
            f'{SEEDS_OF_A_CLAIM}.'
        )
    return text


def _other_pairing(rows: Sequence[TableRow]) -> str:
    """Say which differences leave seeds out, or are not paired by seed."""
    told = []
    for row in rows:
        if not row.difference.measured:
            continue
        name, shared = f'{row.run.group}, {row.run.label}', row.difference.seeds
        if not shared:
            told.append(f'{name}: by {"image" if row.by_image else "patient"} alone')
        elif not row.difference.all_seeds:
            told.append(f'{name}: of seed {", ".join(map(str, shared))} alone')
    return f' ({"; ".join(told)})' if told else ''


def _levels(rows: Sequence[TableRow], unit: str) -> str:
    counts = {len(row.run.folders) > 1 for row in rows}
    if counts == {True}:
        return f"seeds and {unit} (Student's, variances of both added)"
    if counts == {False}:
        return unit
    return f'{unit} and, where there are several, seeds'


def wide_cells(rows: Sequence[TableRow]) -> pd.DataFrame:
    """Lay out rows as text with one line per initial weights.

    Returns:
        pandas.DataFrame: Text; a column per evaluation and share of labelled
        patients, with score, difference to the baseline and its p after Holm, and
        one for the time of pretraining where it is known. A dash stands for what
        was not evaluated.
    """
    import pandas as pd

    found = pd.DataFrame(
        [
            (
                row.run.label,
                row.run.group
                if row.run.fraction == 1
                else f'{row.run.group}, {100 * row.run.fraction:g} % labels',
                ', '.join(
                    [points(row.score)]
                    + [points(row.difference, '+')] * row.difference.measured
                    + [f'p {_p(row.holm)}'] * (not math.isnan(row.holm))
                ),
            )
            for row in rows
        ],
        columns=['Initial weights', 'column', 'cell'],
    )
    places = ['Initial weights', 'column']
    wide = found.drop_duplicates(places, keep='last').pivot(
        index=places[0], columns=places[1], values='cell'
    )
    # In the order of the rows, not of the alphabet.
    wide = wide.loc[found['Initial weights'].unique(), found['column'].unique()]
    costs = {row.run.label: _cost(row) for row in rows}
    if set(costs.values()) != {'–'}:
        wide[COST] = [costs[label] for label in wide.index]
    return wide.fillna('–').rename_axis(columns=None).reset_index()


def table_frame(rows: Sequence[TableRow]) -> pd.DataFrame:
    """Rows as numbers (scores 0-1), as in ``table.csv`` and ``table.json``.

    Returns:
        pandas.DataFrame: NaN where there is no number.
    """
    import pandas as pd

    def numbers(name: str, interval: Interval, middle: str | None = None) -> dict:
        keys = (middle or name, f'{name}_low', f'{name}_high')
        return dict(zip(keys, interval.numbers))

    return pd.DataFrame(
        [
            {
                'evaluation': row.run.group,
                'initial_weights': row.run.label,
                'fraction': row.run.fraction,
                'seeds': len(row.run.folders),
                'seed_numbers': ' '.join(map(str, row.run.seeds)),
                'patients': row.patients,
                'protocol': row.protocol,
                'split_hash': row.split_hash,
                'splits': row.splits,
                **numbers(row.measure.name, row.score),
                f'{row.measure.name}_seed_sd': row.spread,
                **numbers('difference', row.difference),
                'difference_p_holm': row.holm,
                'pretraining_time_ratio': row.cost,
                **{
                    key: number
                    for measure in _columns(rows)
                    for key, number in numbers(
                        measure.name,
                        row.others.get(measure, Interval()),
                        measure.column_name,
                    ).items()
                },
            }
            for row in rows
        ]
    )


def to_csv(rows: Sequence[TableRow]) -> str:
    """Format rows as CSV with unrounded numbers (scores 0-1)."""
    frame = table_frame(rows)
    frame['fraction'] = frame['fraction'].map(str)
    return csv_text(frame, '%.6g')


def print_table(rows: Sequence[TableRow], title: str) -> None:
    """Show the table on screen."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=LOG_WIDTH)
    cells = table_cells(rows)
    show_table(cells, title, left=2, sections=cells.iloc[:, 0], console=console)
    console.print(Text(caption_of(rows)), style='dim')


def write_table(
    rows: Sequence[TableRow], folder: str | Path, title: str, note: str = ''
) -> list[Path]:
    """Write the table as ``table.{md,csv,json,png}``, wide, and its scores.

    ``table-wide.md`` has a line per initial weights; ``scores.csv`` every
    single score, see :func:`medssl_mm.results.collect_scores`; ``curves.png`` scores
    against the length of training, where evaluations tell it.

    Args:
        rows: Rows of the table.
        folder: Where to write.
        title: Heading of the table.
        note: Sentence added to the caption.
    """
    caption = f'{caption_of(rows)} {note}'.rstrip()

    def page(cells: pd.DataFrame) -> str:
        return (
            f'### {for_markdown(title)}\n\n{to_markdown(cells)}\n'
            f'{for_markdown(caption)}\n'
        )

    runs: list[Run] = [row.run for row in rows]
    curves = plot_lengths(rows, title)
    return write_results(
        folder,
        {
            **({} if curves is None else {'curves.png': curves}),
            'table.md': page(table_cells(rows)),
            'table-wide.md': page(wide_cells(rows)),
            'table.csv': to_csv(rows),
            'table.json': dict(
                title=title, caption=caption, rows=table_frame(rows).to_dict('records')
            ),
            'table.png': plot_intervals(rows, title),
            'scores.csv': collect_scores(runs),
        },
    )
