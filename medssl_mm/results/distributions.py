"""Comparisons of :mod:`medssl_mm.analysis.output_distributions`, shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl_mm.analysis.output_distributions import Comparison, summarize

from .figures import colours_of, legend_below, panel_grid
from .files import write_results
from .screen import mean_and_sd, show_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 'output_distributions'


def draw_comparisons(
    comparisons: Sequence[Comparison], classes: Sequence[str], few: str, many: str
) -> Figure:
    """Draw the distances, and the distributions of every class.

    Args:
        comparisons: In the order of the legend.
        classes: Names of the columns.
        few: What the models with few labels are called.
        many: The same of the others.

    Returns:
        matplotlib.figure.Figure: To be written. First panel: distance of every
        class, mean over seeds and the range. Others: cumulative distributions
        of the first seed.
    """
    figure, (axes, *panels) = panel_grid(1 + len(classes), 3.6, 2.8)
    colours = colours_of([comparison.label for comparison in comparisons])
    places = np.arange(len(classes))
    for index, comparison in enumerate(comparisons):
        colour = colours[comparison.label]
        values = comparison.distances
        shift = 0.6 * ((index + 0.5) / len(comparisons) - 0.5)
        axes.hlines(places + shift, values.min(0), values.max(0), color=colour, lw=1.5)
        axes.plot(values.mean(0), places + shift, 'o', color=colour, ms=4)
    axes.set_yticks(places, classes, fontsize='small')
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlabel('Kolmogorov-Smirnov distance', fontsize='small')
    axes.grid(axis='x', alpha=0.3)
    for column, (name, axes) in enumerate(zip(classes, panels)):
        for comparison in comparisons:
            colour = colours[comparison.label]
            for content, style in ((comparison.few, '--'), (comparison.many, '-')):
                axes.ecdf(content[0][:, column], color=colour, ls=style, lw=1.2)
        axes.set_title(name, fontsize='small')
        axes.tick_params(labelsize='small')
        # Probabilities of rare classes have many leading zeros.
        axes.ticklabel_format(axis='x', style='sci', scilimits=(-2, 2))
        axes.locator_params(axis='x', nbins=4)
        axes.set_xlabel('output probability', fontsize='small')
    legend_below(figure, colours, {few: '--', many: '-'})
    return figure


def write_comparisons(
    comparisons: Sequence[Comparison],
    classes: Sequence[str],
    folder: str | Path,
    *,
    few: str,
    many: str,
    **facts: Any,
) -> list[Path]:
    """Write ``output_distributions.{json,png}``.

    Args:
        comparisons: What was compared.
        classes: Names of the columns.
        folder: Made if need be.
        few: What the models with few labels are called.
        many: The same of the others.
        **facts: Further entries of the JSON file.
    """
    content = dict(
        measure='Kolmogorov-Smirnov distance of output probabilities, 0-1',
        few=few,
        many=many,
        **facts,
        methods=summarize(comparisons, classes),
    )
    figure = draw_comparisons(comparisons, classes, few, many)
    return write_results(folder, {f'{NAME}.json': content, f'{NAME}.png': figure})


def print_comparisons(
    comparisons: Sequence[Comparison], classes: Sequence[str], title: str
) -> None:
    """Print a row per class and a column per method, mean ± SD over seeds."""
    import pandas as pd

    cells = pd.DataFrame({'class': [*classes, 'mean']})
    for label, method in summarize(comparisons, classes).items():
        found = [*method['per_class'].values(), method['mean']]
        cells[label] = [mean_and_sd(entry['seeds'], '.3f') for entry in found]
    # A line parts the mean from the classes.
    show_table(cells, title, sections=[name == 'mean' for name in cells['class']])
