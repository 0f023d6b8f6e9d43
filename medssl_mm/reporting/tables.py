"""Result tables: on screen, as Markdown, CSV and picture."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from medssl_mm.files import write_whole

from .figures import plot_intervals
from .results import TableRow


def _interval(values, digits: int, signed: bool = False) -> str:
    if values is None or math.isnan(values[0]):
        return '–'
    sign = '+' if signed else ''
    mean, low, high = (f'{value:{sign}.{digits}f}' for value in values)
    return mean if math.isnan(values[1]) else f'{mean} [{low}, {high}]'


def _points(shares, signed: bool = False) -> str:
    """Format a score or difference, 0-1, in points."""
    return _interval(
        None if shares is None else [100 * share for share in shares], 1, signed
    )


def table_cells(rows: Sequence[TableRow]) -> tuple[list[str], list[list[str]]]:
    """Lay out rows as text: scores in points (0-100), HD95 in mm.

    Returns:
        tuple: Header and cells. Columns that no row fills are left out.
    """
    header = [
        'Evaluation',
        'Initial weights',
        'Labelled patients',
        f'{rows[0].measure.title} [95 % interval]',
        'SD over seeds',
        'Seeds',
        'Difference to baseline',
        'HD95, mm [95 % interval]',
    ]
    cells = []
    for row in rows:
        cells.append(
            [
                row.run.group,
                row.run.label,
                f'{100 * row.run.fraction:g} %',
                _points(row.score),
                '–' if math.isnan(row.spread) else f'{100 * row.spread:.1f}',
                str(len(row.run.folders)),
                _points(row.difference, signed=True),
                _interval(row.hd95, 1),
            ]
        )
    keep = [
        index
        for index in range(len(header))
        if index < 4 or any(line[index] not in ('–', '1') for line in cells)
    ]
    if all(row.run.fraction == 1 for row in rows):
        keep.remove(2)
    return (
        [header[index] for index in keep],
        [[line[index] for index in keep] for line in cells],
    )


def caption_of(rows: Sequence[TableRow]) -> str:
    """Say what the numbers of a table are, in one paragraph."""
    from medssl_mm.evaluation.bootstrap import FEW_PATIENTS

    splits = sorted({f'{row.protocol} (split {row.split_hash})' for row in rows})
    patients = sorted({row.patients for row in rows})
    text = (
        f'Protocol {", ".join(splits)}, '
        f'{"/".join(map(str, patients))} test patients. '
        f'{rows[0].measure.definition} (in points, 0–100); '
        'brackets: 95 % interval from resampling patients.'
    )
    undefined = dict.fromkeys(name for row in rows for name in row.undefined)
    if undefined:
        text += (
            ' Not in the mean, as all test images have one value of the '
            f'class: {", ".join(undefined)}.'
        )
    pooled = sorted({row.splits for row in rows if row.splits > 1})
    if pooled:
        text += (
            f' Cross-validation over {"/".join(map(str, pooled))} '
            'splits: each has a model of its own, and their test cases '
            'are pooled, so every patient counts once per seed.'
        )
    if any(row.difference is not None for row in rows):
        text += (
            ' Differences are paired by patient; an interval that '
            'excludes 0 is unlikely to be chance in the choice of '
            'patients.'
        )
    if patients[0] < FEW_PATIENTS:
        text += (
            ' With so few patients the intervals are too narrow: read '
            'them as a lower bound of the uncertainty.'
        )
    if all(len(row.run.folders) == 1 for row in rows):
        runs = 'seed' if pooled else 'training run'
        text += (
            f' One {runs} per row: the variation between seeds is not in the interval.'
        )
    return text


def wide_cells(rows: Sequence[TableRow]) -> tuple[list[str], list[list[str]]]:
    """Lay out rows as text with one line per initial weights.

    Returns:
        tuple: Header, a column per evaluation and share of labelled patients;
        and cells of score and difference to the baseline. A dash stands for
        what was not evaluated.
    """
    columns = dict.fromkeys((row.run.group, row.run.fraction) for row in rows)
    found = {(row.run.label, row.run.group, row.run.fraction): row for row in rows}

    def cell(row):
        if row is None:
            return '–'
        text = _points(row.score)
        if row.difference is None:
            return text
        return f'{text}, {_points(row.difference, signed=True)}'

    header = [
        'Initial weights',
        *(
            group if fraction == 1 else f'{group}, {100 * fraction:g} % labels'
            for group, fraction in columns
        ),
    ]
    return header, [
        [label, *(cell(found.get((label, *column))) for column in columns)]
        for label in dict.fromkeys(row.run.label for row in rows)
    ]


def to_markdown(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Format cells as a Markdown table."""
    lines = [header, ['---'] * len(header), *cells]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def to_csv(rows: Sequence[TableRow]) -> str:
    """Format rows as CSV with unrounded numbers (scores 0-1)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    name = rows[0].measure.name
    writer.writerow(
        [
            'evaluation',
            'initial_weights',
            'fraction',
            'seeds',
            'patients',
            'protocol',
            'split_hash',
            'splits',
            name,
            f'{name}_low',
            f'{name}_high',
            f'{name}_seed_sd',
            'difference',
            'difference_low',
            'difference_high',
            'hd95_mm',
            'hd95_low',
            'hd95_high',
        ]
    )
    for row in rows:
        numbers = [
            *row.score,
            row.spread,
            *(row.difference or (math.nan,) * 3),
            *row.hd95,
        ]
        writer.writerow(
            [
                row.run.group,
                row.run.label,
                row.run.fraction,
                len(row.run.folders),
                row.patients,
                row.protocol,
                row.split_hash,
                row.splits,
                *('' if math.isnan(value) else f'{value:.6g}' for value in numbers),
            ]
        )
    return buffer.getvalue()


def print_table(rows: Sequence[TableRow], title: str) -> None:
    """Show the table on screen."""
    from rich.console import Console
    from rich.table import Table

    header, cells = table_cells(rows)
    table = Table(title=title, title_justify='left')
    for index, name in enumerate(header):
        table.add_column(name, justify='left' if index < 2 else 'right')
    previous = None
    for line in cells:
        if previous is not None and line[0] != previous:
            table.add_section()
        table.add_row(*line)
        previous = line[0]
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a log has room for whole cells
    console.print(table)
    console.print(caption_of(rows), style='dim', highlight=False)


def write_table(
    rows: Sequence[TableRow], folder: str | Path, title: str, note: str = ''
) -> list[Path]:
    """Write ``table.md``, ``table-wide.md``, ``table.csv``, ``table.png``.

    Args:
        rows (Sequence[TableRow]): Rows of the table.
        folder (str | Path): Where to write.
        title (str): Heading of the table.
        note (str): Sentence added to the caption. Defaults to ''.

    Returns:
        list[Path]: The files.
    """
    folder = Path(folder)
    caption = f'{caption_of(rows)} {note}'.rstrip()
    contents = {
        'table.md': f'### {title}\n\n{to_markdown(*table_cells(rows))}\n{caption}\n',
        'table-wide.md': f'### {title}\n\n'
        f'{to_markdown(*wide_cells(rows))}\n{caption}\n',
        'table.csv': to_csv(rows),
        'table.png': plot_intervals(rows, title),
    }
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]
