"""Neighbours of :mod:`medssl_mm.analysis.neighbours` as sheets, table and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.neighbours import POLICY, Neighbours

from .files import csv_text, write_results
from .screen import show_table, to_markdown
from .sheets import RIGHT, WRONG, Tile, draw_sheet, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console


def neighbour_frame(results: Sequence[Neighbours]) -> DataFrame:
    """Share of right neighbours: a row per encoder."""
    import pandas as pd

    return pd.DataFrame(
        [
            dict(
                encoder=one.encoder,
                number=one.number,
                queries=len(one.rows),
                neighbours=one.rows.shape[1],
                right=float(one.right.mean()),
                first_right=float(one.right[:, 0].mean()),
                chance=one.chance,
            )
            for one in results
        ]
    )


def neighbour_table(results: Sequence[Neighbours]) -> DataFrame:
    """Text of the results, in percent."""
    import pandas as pd

    frame = neighbour_frame(results)
    k = results[0].rows.shape[1]
    return pd.DataFrame(
        {
            'encoder': frame['encoder'],
            f'right among {k}, %': [f'{100 * v:.1f}' for v in frame['right']],
            'nearest right, %': [f'{100 * v:.1f}' for v in frame['first_right']],
            'chance, %': [f'{100 * v:.1f}' for v in frame['chance']],
            'queries': [str(v) for v in frame['queries']],
        }
    )


def print_neighbours(
    results: Sequence[Neighbours],
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a row per encoder."""
    show_table(
        neighbour_table(results),
        'Nearest neighbours of the class of the query',
        notes,
        console=console,
    )


def draw_neighbours(
    result: Neighbours,
    queries: Sequence[int],
    shown: Sequence[int],
    picture: Callable[[int], np.ndarray],
    label: Callable[[int], str],
) -> Figure:
    """Draw queries at the left and their neighbours beside them.

    Args:
        result: Of one encoder.
        queries: Row of the picture of every query.
        shown: Which of the queries.
        picture: From a row to what is drawn.
        label: From a row to the names of its classes.
    """
    rows = []
    for place in shown:
        row = [Tile(picture(queries[place]), shortened(label(queries[place])))]
        for near, cosine, right in zip(
            result.rows[place], result.similarities[place], result.right[place]
        ):
            row.append(
                Tile(
                    picture(int(near)),
                    f'{shortened(label(int(near)), 18)}  {cosine:.3f}',
                    RIGHT if right else WRONG,
                    dashed=not right,
                )
            )
        rows.append(row)
    columns = ['query', *(f'{n}' for n in range(1, result.rows.shape[1] + 1))]
    return draw_sheet(
        rows,
        columns,
        title=result.encoder,
        note='blue: of the class of the query; orange, dashed: of another one; number: '
        'cosine of the features',
        side=1.3,
    )


def write_neighbours(
    results: Sequence[Neighbours],
    folder: str | Path,
    settings: Mapping,
    names: Sequence[str],
    queries: Sequence[int],
    shown: Sequence[int],
    sheets: Mapping[str, Figure],
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``neighbours.json``, ``.csv``, ``.md`` and a sheet per encoder.

    Args:
        results: One per encoder.
        folder: Made if need be.
        settings: What they were made with; plain data.
        names: Of all pictures.
        queries: Rows of the queries.
        shown: Which of these the sheets show.
        sheets: Figures by file name.
        notes: What a reader has to know.
    """
    text = [to_markdown(neighbour_table(results)), POLICY, *notes]
    return write_results(
        folder,
        {
            'neighbours.json': dict(
                **settings,
                policy=POLICY,
                notes=list(notes),
                results=neighbour_frame(results).to_dict('records'),
                shown=[
                    dict(
                        encoder=one.encoder,
                        query=names[queries[place]],
                        neighbours=[names[row] for row in one.rows[place]],
                        cosines=one.similarities[place].tolist(),
                        right=one.right[place].tolist(),
                    )
                    for one in results
                    for place in shown
                ],
            ),
            'neighbours.csv': csv_text(neighbour_frame(results), '%.6g'),
            'neighbours.md': '\n\n'.join(text) + '\n',
            **sheets,
        },
    )
