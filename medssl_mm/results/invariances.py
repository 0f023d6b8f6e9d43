"""Invariances of :mod:`medssl_mm.analysis.invariances` as table, figures and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.invariances import (
    POLICIES,
    TRANSFORMS,
    Invariance,
    only_mode,
)
from medssl_mm.statistics import Interval

from .encoder_measures import measure_frame
from .figures import colours_of, legend_below, panel_grid, styled_subplots
from .files import csv_text, interval_entry, write_results
from .screen import show_table, to_markdown
from .sheets import Tile, draw_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console


def _groups(results: Sequence[Invariance]) -> dict[tuple[str, str], list[Invariance]]:
    groups: dict[tuple[str, str], list[Invariance]] = {}
    for one in results:
        groups.setdefault((one.encoder, one.transform), []).append(one)
    return groups


def _means(
    results: Sequence[Invariance],
) -> Iterator[tuple[str, str, Interval, list[Invariance]]]:
    """Yield name, transform and mean: of several encoders that of all of them."""
    for (encoder, transform), group in _groups(results).items():
        if len(group) == 1:
            yield encoder, transform, group[0].mean, group
            continue
        values = [one.mean.estimate for one in group]
        # Over encoders, as seeds of a method; an interval of few means little.
        yield (
            encoder,
            transform,
            Interval(float(np.mean(values)), units=len(group)),
            group,
        )


def invariance_table(results: Sequence[Invariance]) -> DataFrame:
    """Text of the results: a row per encoder, a column per transform.

    Returns:
        pandas.DataFrame: Mean whitened cosine with its interval.
    """
    import pandas as pd

    only_mode(results)
    cells = pd.DataFrame(
        [
            (
                name if len(group) == 1 else f'{name} ({len(group)} seeds)',
                transform,
                mean.text(2),
            )
            for name, transform, mean, group in _means(results)
        ],
        columns=['encoder', 'transform', 'cell'],
    )
    table = cells.pivot(index='encoder', columns='transform', values='cell')
    table = table.loc[cells['encoder'].unique(), cells['transform'].unique()]
    return table.fillna('–').rename_axis(columns=None).reset_index()


def print_invariances(
    results: Sequence[Invariance],
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a row per transform and a column per encoder."""
    table = invariance_table(results).set_index('encoder').T
    table = table.rename_axis('transform').reset_index().rename_axis(columns=None)
    show_table(
        table,
        f'Whitened cosine ({only_mode(results)})',
        ['1: invariant, 0: unrelated; brackets: 95 % interval over images', *notes],
        console=console,
    )


def draw_invariances(results: Sequence[Invariance]) -> Figure:
    """Draw bars: transforms side by side, a colour per encoder."""
    mode = only_mode(results)
    names = list(dict.fromkeys(one.encoder for one in results))
    transforms = list(dict.fromkeys(one.transform for one in results))
    colours = colours_of(names)
    found = {(name, t): (mean, group) for name, t, mean, group in _means(results)}
    width = 0.8 / len(names)
    figure, ((axes,),) = styled_subplots(
        figsize=(1.8 + len(transforms) * max(0.7, 0.24 * len(names)), 3.8),
        layout='constrained',
    )
    for index, name in enumerate(names):
        for place, transform in enumerate(transforms):
            if (name, transform) not in found:
                continue
            mean, group = found[name, transform]
            at = place + width * (index - (len(names) - 1) / 2)
            axes.bar(at, mean.estimate, 0.92 * width, color=colours[name])
            if np.isfinite(mean.low):
                axes.plot([at, at], [mean.low, mean.high], color='0.2', linewidth=1)
            if len(group) > 1:
                dots = [one.mean.estimate for one in group]
                axes.plot([at] * len(dots), dots, '.', color='0.2', markersize=4)
            between = float(np.mean([one.between.mean() for one in group]))
            axes.plot([at - width / 2.2, at + width / 2.2], [between] * 2, 'k:', lw=1)
    axes.axhline(0, color='0.4', linewidth=0.8)
    axes.set_xticks(range(len(transforms)), transforms, rotation=35, ha='right')
    axes.grid(axis='x', visible=False)
    axes.set_ylabel(f'whitened cosine ({mode})')
    axes.set_title(
        'lines: 95 % interval over images; dotted: between different images',
        fontsize=8,
        loc='left',
    )
    legend_below(figure, colours)
    return figure


def draw_curves(results: Sequence[Invariance]) -> Figure | None:
    """Draw the cosine against the parameter, where it is a number.

    Returns:
        matplotlib.figure.Figure or None: A panel per transform; None when no
        transform has several numbers.
    """
    curves = {
        transform: [one for one in results if one.transform == transform]
        for transform in dict.fromkeys(one.transform for one in results)
    }
    curves = {
        name: group
        for name, group in curves.items()
        if len(group[0].parameters) > 2
        and all(isinstance(p, (int, float)) for p in group[0].parameters)
    }
    if not curves:
        return None
    colours = colours_of([one.encoder for one in results])
    figure, panels = panel_grid(len(curves), 3, 2.4)
    for axes, (name, group) in zip(panels, curves.items()):
        for one in group:
            axes.plot(
                one.parameters,
                one.cosine.mean(0),
                color=colours[one.encoder],
                marker='.',
                markersize=3,
            )
        axes.set_title(name)
        axes.set_xlabel(TRANSFORMS[name].unit, fontsize=8)
        axes.axhline(0, color='0.4', linewidth=0.8)
    figure.supylabel('whitened cosine, mean over images', fontsize=8)
    legend_below(figure, colours)
    return figure


def draw_copies(copies: Mapping[str, Sequence[np.ndarray]], title: str) -> Figure:
    """Draw what the transforms make of one picture.

    Args:
        copies: By transform, the picture itself first; ``(h, w, C)``.
        title: Name of the picture.
    """
    rows = [[Tile(picture) for picture in own] for own in copies.values()]
    most = max(map(len, rows))
    columns = ['unchanged', *[''] * (most - 1)]
    return draw_sheet(rows, columns, list(copies), title, side=0.9)


def invariance_frame(results: Sequence[Invariance]) -> DataFrame:
    """Results as a long frame.

    Returns:
        pandas.DataFrame: A row per encoder and transform.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                'mode': one.mode,
                'encoder': one.encoder,
                'number': one.number,
                'transform': one.transform,
                'images': one.cosine.shape[0],
                'copies': one.cosine.shape[1],
                **dict(zip(('cosine', 'low', 'high'), one.mean.numbers)),
                'between_images': float(one.between.mean()),
                'mahalanobis': one.distance.estimate,
            }
            for one in results
        ]
    )


def write_invariances(
    results: Sequence[Invariance],
    folder: str | Path,
    settings: Mapping,
    notes: Sequence[str] = (),
    copies: Figure | None = None,
) -> list[Path]:
    """Write ``invariances.json``, ``.csv``, ``.md``, ``.png``, sheets and measures.

    Args:
        results: Of one mode.
        folder: Made if need be.
        settings: What they were made with, with ``dataset``; plain data.
        notes: What a reader has to know.
        copies: See :func:`draw_copies`.

    Raises:
        UserError: The results are of both modes, or a file cannot be written.
    """
    mode = only_mode(results)
    figures = {
        'invariances.png': draw_invariances(results),
        'invariances_curves.png': draw_curves(results),
        'invariances_copies.png': copies,
    }
    text = [to_markdown(invariance_table(results)), POLICIES[mode], *notes]
    return write_results(
        folder,
        {
            'invariances.json': dict(
                mode=mode,
                **settings,
                policy=POLICIES[mode],
                notes=list(notes),
                results=[
                    dict(
                        encoder=one.encoder,
                        number=one.number,
                        transform=one.transform,
                        parameters=one.parameters,
                        cosine=interval_entry(one.mean),
                        cosine_by_parameter=one.cosine.mean(0).tolist(),
                        mahalanobis=interval_entry(one.distance),
                        between_images=float(one.between.mean()),
                    )
                    for one in results
                ],
            ),
            'invariances.csv': csv_text(invariance_frame(results), '%.6g'),
            'invariances.md': '\n\n'.join(text) + '\n',
            'invariances_measures.csv': measure_frame(
                [
                    (one.encoder, f'invariance, {one.transform}', one.mean.estimate)
                    for one in results
                ],
                settings['dataset'],
                mode,
            ),
            **{name: figure for name, figure in figures.items() if figure is not None},
        },
    )
