"""Similarities of :mod:`medssl_mm.analysis.feature_reuse` as tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

from medssl_mm.analysis.feature_reuse import Kernel, Reuse, bandwidth_notes, by_stage
from medssl_mm.statistics import Interval
from medssl_mm.statistics.compare import spread

from .figures import colours_of, heat_map, legend_below, plot_places, styled_subplots
from .screen import show_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def print_reuse(
    results: Sequence[Reuse], kernel: Kernel, console: Console | None = None
) -> None:
    """Print a row per method, stage and estimate.

    Of several seeds mean and standard deviation. Of one: those over the
    random subsets, and in the last column sigma in median distances, before
    and after.

    Args:
        results: The results.
        kernel: What was computed.
        console: Defaults to a new one.
    """
    import pandas as pd

    unit = 'median distance' if kernel.relative else 'feature units'
    groups = by_stage(results)
    several = any(len(group) > 1 for group in groups.values())
    cells = pd.DataFrame(
        [
            dict(
                method=method,
                stage=place,
                estimate=name.replace('_', ', '),
                CKA=f'{np.mean([result.values[name] for result in group]):.3f}',
                **(_over_seeds if several else _over_subsets)(group, name),
            )
            for (method, place), group in groups.items()
            for name in kernel.estimates
        ]
    )
    show_table(
        cells,
        f'CKA before / after, {results[0].images} images; sigma '
        f'{kernel.bandwidth:g} ({unit})',
        bandwidth_notes(results, kernel),
        left=3,
        sections=cells['method'],
        folded='method',
        console=console,
    )


def _over_seeds(group: Sequence[Reuse], name: str) -> dict[str, str]:
    deviation = spread([result.values[name] for result in group])
    return {
        'SD over seeds': '' if np.isnan(deviation) else f'{deviation:.3f}',
        'seeds': str(len(group)),
    }


def _over_subsets(group: Sequence[Reuse], name: str) -> dict[str, str]:
    (result,) = group
    cells = {}
    count = max(map(len, result.subsets.values()), default=0)
    if count:
        mean, deviation = result.spread(name)
        cells[f'{count} subsets\nmean (SD)'] = f'{mean:.3f} ({deviation:.3f})'
    ratios = ', '.join(f'{ratio:.3g}' for ratio in result.bandwidth_ratios)
    cells['sigma /\nmedian'] = ratios if name.startswith('rbf') else ''
    return cells


def draw_reuse(results: Sequence[Reuse]) -> Figure:
    """Draw CKA against the stage, a panel per estimate, a line per method.

    Lines: all images, mean over seeds. Bars beside them: mean and standard
    deviation over the random subsets of one seed; dots: single seeds.

    Args:
        results: The results.
    """
    estimates = list(results[0].values)
    groups = by_stage(results)
    methods, places = (
        list(dict.fromkeys(key[part] for key in groups)) for part in range(2)
    )
    colours = colours_of(methods)
    figure, (panels,) = styled_subplots(
        1,
        len(estimates),
        figsize=(1 + 3 * len(estimates), 3.6),
        layout='constrained',
        sharey=True,
    )
    for estimate, axes in zip(estimates, panels):
        singles = {
            method: [
                [found.values[estimate] for found in groups[method, place]]
                for place in places
            ]
            for method in methods
        }
        plot_places(
            axes,
            {
                method: [Interval(float(np.mean(values))) for values in own]
                for method, own in singles.items()
            },
            places,
            singles,
        )
        for index, method in enumerate(methods):
            own = [groups[method, place] for place in places]
            if len(own[0]) == 1:
                _draw_spread(
                    axes, [g[0] for g in own], estimate, index, colours[method]
                )
        axes.set_title(estimate.replace('_', ', '))
    # After all panels, which share the axis.
    panels[0].set_ylim(top=1.02)
    panels[0].set_ylabel('CKA before / after')
    legend_below(figure, colours)
    return figure


def _draw_spread(
    axes: Axes, own: Sequence[Reuse], estimate: str, index: int, colour: str
) -> None:
    """Draw mean and deviation over the subsets beside a line."""
    mean, deviation = np.array([result.spread(estimate) for result in own]).T
    if np.isfinite(mean).any():
        axes.errorbar(
            np.arange(len(own)) + 0.06 * (index + 1),
            mean,
            yerr=np.nan_to_num(deviation),
            color=colour,
            marker='_',
            linestyle='',
            capsize=2,
            alpha=0.7,
        )


def draw_layers(
    matrix: np.ndarray,
    layers: tuple[Sequence[str], Sequence[str]],
    names: tuple[str, str],
    estimate: str,
) -> Figure:
    """Draw a heat map, the first layer at the lower left.

    Args:
        matrix: Of :func:`medssl_mm.analysis.feature_reuse.layer_similarity`.
        layers: Names of the layers of both networks.
        names: Of the two networks.
        estimate: For the title.

    Shape: matrix ``(layers of the first, layers of the second)``.
    """
    rows, columns = matrix.shape
    figure, ((axes,),) = styled_subplots(
        figsize=(2.4 + 0.27 * columns, 1.8 + 0.27 * rows), layout='constrained'
    )
    # Unbiased values may be slightly negative; 0 is the meaningful end.
    picture = heat_map(axes, matrix, *layers, (0, 1), 'magma', origin='lower')
    axes.tick_params(labelsize=7)
    axes.tick_params('x', rotation=90)
    axes.set_ylabel(names[0])
    axes.set_xlabel(names[1])
    axes.set_title(f'CKA, {estimate.replace("_", ", ")}', fontsize=9)
    figure.colorbar(picture, ax=axes, shrink=0.8)
    return figure


def reuse_content(results: Sequence[Reuse]) -> list[dict]:
    """Turn results into plain data, with mean and SD over the subsets."""
    content = []
    for result in results:
        entry = asdict(result)
        entry['subsets'] = {
            name: dict(zip(('mean', 'sd'), result.spread(name)), values=values)
            for name, values in result.subsets.items()
        }
        content.append(entry)
    return content
