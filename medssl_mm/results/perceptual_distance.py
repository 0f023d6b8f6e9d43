"""Distances of :mod:`medssl_mm.analysis.perceptual_distance` as table and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.perceptual_distance import NETS, POLICY, Distance

from .encoder_measures import measure_frame
from .figures import colours_of, legend_below, panel_grid
from .files import csv_text, interval_entry, write_results
from .screen import show_table, to_markdown
from .sheets import Tile, draw_sheet, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console


def distance_table(results: Sequence[Distance]) -> DataFrame:
    """Text of the results: a row per encoder, a column per measure.

    Returns:
        pandas.DataFrame: Mean ± standard deviation over pictures.
    """
    import pandas as pd

    cells = pd.DataFrame(
        [
            (
                one.encoder,
                one.measure,
                f'{one.mean.estimate:.3f}'
                + (f' ± {one.spread:.3f}' if len(one.values) > 1 else ''),
                str(len(one.values)),
            )
            for one in results
        ],
        columns=['encoder', 'measure', 'cell', 'pictures'],
    )
    table = cells.pivot(index='encoder', columns='measure', values='cell')
    table = table.loc[cells['encoder'].unique(), cells['measure'].unique()]
    table.insert(0, 'pictures', cells.groupby('encoder')['pictures'].first())
    return table.fillna('–').rename_axis(columns=None).reset_index()


def print_distances(
    results: Sequence[Distance],
    mode: str,
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a row per encoder and a column per measure."""
    show_table(
        distance_table(results),
        f'Perceptual distance of reconstructions ({mode}), mean ± SD over pictures',
        notes,
        console=console,
    )


def draw_distances(results: Sequence[Distance]) -> Figure:
    """Draw a panel per measure: all pictures as dots, and the mean."""
    measures = list(dict.fromkeys(one.measure for one in results))
    names = list(dict.fromkeys(one.encoder for one in results))
    colours = colours_of(names)
    figure, panels = panel_grid(len(measures), 1.4 + 0.35 * len(names), 3)
    for axes, measure in zip(panels, measures):
        for one in results:
            if one.measure != measure:
                continue
            at, colour = names.index(one.encoder), colours[one.encoder]
            axes.plot(
                at + np.linspace(-0.15, 0.15, len(one.values)),
                one.values,
                '.',
                color=colour,
                alpha=0.5,
            )
            axes.plot([at - 0.3, at + 0.3], [one.mean.estimate] * 2, color=colour, lw=2)
        axes.set_title(f'LPIPS {measure}' if measure in (*NETS, 'average') else measure)
        axes.set_xticks([])
        axes.set_ylim(bottom=0)
    figure.supylabel('distance', fontsize=8)
    legend_below(figure, colours)
    return figure


def draw_pairs(
    pairs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]],
    names: Mapping[str, Sequence[str]],
    distances: Mapping[str, np.ndarray],
    measure: str,
) -> Figure:
    """Draw every original with what was made of it, and their distance.

    Args:
        pairs: Pictures by encoder.
        names: Of the pictures, by encoder.
        distances: Of the pairs, by encoder.
        measure: Which one.
    """
    pictures = list(dict.fromkeys(name for own in names.values() for name in own))
    rows: list[list[Tile | None]] = []
    for picture in pictures:
        row: list[Tile | None] = [None]
        for encoder, own in names.items():
            if picture not in own:
                row.append(None)
                continue
            place = list(own).index(picture)
            original, made = pairs[encoder][place]
            row[0] = row[0] or Tile(original)
            row.append(Tile(made, f'{distances[encoder][place]:.3f}'))
        rows.append(row)
    return draw_sheet(
        rows,
        ['original', *names],
        [shortened(name) for name in pictures],
        note=f'distance: {measure}',
        side=1.8,
    )


def distance_frame(results: Sequence[Distance]) -> DataFrame:
    """Results as a long frame.

    Returns:
        pandas.DataFrame: A row per encoder and measure.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                'encoder': one.encoder,
                'measure': one.measure,
                'pictures': len(one.values),
                **dict(zip(('distance', 'low', 'high'), one.mean.numbers)),
                'sd': one.spread,
            }
            for one in results
        ]
    )


def write_distances(
    results: Sequence[Distance],
    folder: str | Path,
    mode: str,
    settings: Mapping,
    pairs: Figure,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``perceptual_distance.json``, ``.csv``, ``.md``, pictures and measures.

    Args:
        results: Of one mode.
        folder: Made if need be.
        mode: 'strict' or 'compat'.
        settings: What they were made with, with ``dataset``; plain data.
        pairs: See :func:`draw_pairs`.
        notes: What a reader has to know.
    """
    frame = distance_frame(results).assign(mode=mode)
    text = [to_markdown(distance_table(results)), f'Mode: {mode}. {POLICY}', *notes]
    return write_results(
        folder,
        {
            'perceptual_distance.json': dict(
                mode=mode,
                **settings,
                policy=POLICY,
                notes=list(notes),
                results=[
                    dict(
                        encoder=one.encoder,
                        measure=one.measure,
                        distance=interval_entry(one.mean),
                        sd=one.spread,
                        values=one.values.tolist(),
                    )
                    for one in results
                ],
            ),
            'perceptual_distance.csv': csv_text(frame, '%.6g'),
            'perceptual_distance.md': '\n\n'.join(text) + '\n',
            'perceptual_distance_measures.csv': measure_frame(
                [
                    (
                        one.encoder,
                        f'perceptual distance, {one.measure}',
                        one.mean.estimate,
                    )
                    for one in results
                ],
                settings['dataset'],
                mode,
            ),
            'perceptual_distance.png': draw_distances(results),
            'perceptual_distance_pairs.png': pairs,
        },
    )
