"""Figures of results; parts that figures share.

Functions return a ``matplotlib.figure.Figure``, which
:func:`medssl_mm.results.write_results` writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl_mm.statistics import Interval

from .logs import CurvePanel, curve_panels
from .runs import Run, TableRow, class_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

# Distinguishable with the common colour-vision deficiencies.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
STYLE: dict = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.3,
    'axes.axisbelow': True,
    'legend.frameon': False,
}


def styled_subplots(
    rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Make a figure and its axes, in the style of all figures here.

    Args:
        rows: Of panels.
        columns: Of panels.
        **options: ``figsize`` and ``layout`` of the figure; others go to its
            ``subplots``.

    Returns:
        tuple: ``matplotlib.figure.Figure`` and array ``(rows, columns)`` of
        axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    own = {name: options.pop(name) for name in ('figsize', 'layout') if name in options}
    # Without pyplot: nothing outside the figure is changed or kept.
    with matplotlib.rc_context(STYLE):
        figure = Figure(**own)
        axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def panel_grid(
    count: int, width: float, height: float, most: int = 4
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a number of panels, row by row.

    Args:
        count: Number of panels; of none the figure is empty.
        width: Of one, in inches.
        height: Of one, in inches.
        most: Panels side by side.

    Returns:
        tuple: ``matplotlib.figure.Figure`` and list of axes.
    """
    columns = max(1, min(most, count))
    rows = max(1, math.ceil(count / columns))
    figure, axes = styled_subplots(
        rows, columns, figsize=(width * columns, height * rows), layout='constrained'
    )
    for unused in axes.flat[count:]:
        unused.remove()
    return figure, list(axes.flat[:count])


def colours_of(labels: Sequence[str]) -> dict[str, str]:
    """Give every label a colour, in the order of their first appearance."""
    unique = list(dict.fromkeys(labels))
    return {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(unique)}


def legend_below(
    figure: Figure, colours: Mapping[str, str], styles: Mapping | None = None
) -> None:
    """Name colours, and perhaps line styles, below all panels, once.

    Args:
        figure: With the layout 'constrained'.
        colours: By label.
        styles: Line styles by label. Defaults to none.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour) for colour in colours.values()] + [
        Line2D([], [], color='grey', ls=style) for style in (styles or {}).values()
    ]
    names = [*colours, *(styles or ())]
    # Names may be long.
    figure.legend(
        handles, names, loc='outside lower center', ncols=max(1, min(3, len(names)))
    )


def plot_places(
    axes: Axes,
    lines: Mapping[str, Sequence],
    places: Sequence[str],
    singles: Mapping[str, Sequence[Sequence[float]]] | None = None,
) -> None:
    """Draw numbers with their intervals against the place, a line per label.

    Args:
        axes: The panel.
        lines: By label, an interval per place; one that is not measured leaves
            a gap.
        places: Where in the network.
        singles: Numbers of single seeds, by label and place; drawn as dots
            where there are several. Defaults to none.
    """
    colours = colours_of(list(lines))
    for index, (label, found) in enumerate(lines.items()):
        # Side by side, so that the bars can be told apart.
        at = np.arange(len(places)) + 0.06 * (index - (len(lines) - 1) / 2)
        middle, low, high = np.array([interval.numbers for interval in found]).T
        # Resamples may all lie on one side of the estimate.
        ends = np.nan_to_num(np.maximum([middle - low, high - middle], 0))
        axes.errorbar(
            at,
            middle,
            yerr=ends,
            color=colours[label],
            marker='o',
            markersize=4,
            capsize=2,
            linewidth=1.2,
            label=label,
        )
        for place, values in zip(at, (singles or {}).get(label, ())):
            if len(values) > 1:
                axes.plot(
                    [place] * len(values),
                    values,
                    '.',
                    color=colours[label],
                    markersize=3,
                    alpha=0.6,
                )
    axes.set_xticks(range(len(places)), places)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colours: str = 'viridis',
    **options: Any,
) -> AxesImage:
    """Draw a matrix as coloured squares with the names of its rows and columns.

    Args:
        axes: The panel.
        values: Numbers; NaN stays blank.
        rows: Names.
        columns: Names.
        limits: Numbers of the first and last colour.
        colours: Map of matplotlib.
        **options: Of ``imshow``.

    Shape: values ``(rows, columns)``.

    Returns:
        matplotlib.image.AxesImage: For a colour bar.
    """
    low, high = limits
    picture = axes.imshow(values, cmap=colours, vmin=low, vmax=high, **options)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(visible=False)
    return picture


def plot_intervals(rows: Sequence[TableRow], title: str = '') -> Figure:
    """Draw the score of every row with its 95 % interval."""
    colours = colours_of([row.run.label for row in rows])
    height, ticks, previous = 0.0, [], None
    figure, ((axes,),) = styled_subplots(figsize=(7, 1.1 + 0.34 * len(rows)))
    for row in rows:
        group = (row.run.group, row.run.fraction)
        if previous is not None and group != previous:
            height += 0.6
        previous = group
        mean, low, high = (100 * value for value in row.score.numbers)
        colour = colours[row.run.label]
        if not math.isnan(low):
            axes.plot(
                [low, high], [height] * 2, color=colour, lw=2.2, solid_capstyle='round'
            )
        axes.plot(mean, height, 'o', color=colour, ms=7)
        axes.annotate(
            f'{mean:.1f}',
            (mean, height),
            (0, 6),
            textcoords='offset points',
            ha='center',
            fontsize=8,
        )
        share = (
            '' if row.run.fraction == 1 else f', {100 * row.run.fraction:g} % labels'
        )
        ticks.append((height, f'{row.run.group}{share}\n{row.run.label}'))
        height += 1
    axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.set_ylim(height - 0.3, -0.8)
    axes.grid(axis='y', visible=False)
    axes.set_xlabel(f'{rows[0].measure.axis} (points), 95 % interval')
    axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
    return figure


def plot_lengths(rows: Sequence[TableRow], title: str = '') -> Figure | None:
    """Draw scores against the length of training, a panel per share of the labels.

    Args:
        rows: Those whose runs tell their iterations are drawn.
        title: Of the figure. Defaults to ''.

    Returns:
        matplotlib.figure.Figure | None: None with fewer than two lengths.
    """
    drawn = [row for row in rows if row.run.iterations is not None]
    lengths = sorted({row.run.iterations for row in drawn if row.run.iterations})
    if len(lengths) < 2:
        return None
    labels = list(dict.fromkeys(row.run.label for row in drawn))
    fractions = list(dict.fromkeys(row.run.fraction for row in drawn))
    found = {(r.run.label, r.run.fraction, r.run.iterations): r.score for r in drawn}
    figure, all_axes = panel_grid(len(fractions), 3.6, 3.2)
    for axes, fraction in zip(all_axes, fractions):
        lines = {
            label: [
                found.get((label, fraction, length), Interval()) for length in lengths
            ]
            for label in labels
        }
        plot_places(axes, lines, [str(length) for length in lengths])
        axes.set_title(f'{100 * fraction:g} % of the labels', loc='left')
        axes.set_xlabel('iterations')
    all_axes[0].set_ylabel(drawn[0].measure.axis)
    figure.suptitle(title, x=0.01, ha='left', fontsize=10, fontweight='bold')
    legend_below(figure, colours_of(labels))
    return figure


def plot_classes(runs: Sequence[Run]) -> Figure:
    """Draw the score of every class as a coloured grid, one row per run."""
    means = class_means(runs)
    grid = 100 * means.to_numpy(float)
    figure, ((axes,),) = styled_subplots(
        figsize=(2.6 + 0.55 * grid.shape[1], 1.6 + 0.32 * len(runs))
    )
    heat_map(axes, grid, means.index, means.columns, (0, 100), aspect='auto')
    axes.set_xticks(range(grid.shape[1]), means.columns, rotation=40, ha='right')
    for (i, j), value in np.ndenumerate(grid):
        axes.text(
            j,
            i,
            '–' if np.isnan(value) else f'{value:.0f}',
            ha='center',
            va='center',
            fontsize=8,
            # A blank square is white.
            color='white' if value <= 60 else 'black',
        )
    return figure


def plot_curves(curves: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draw training curves: a panel per loss term, the scores, the probes.

    Args:
        curves: Per label of a run what :func:`read_scalars` returns.

    Raises:
        UserError: The logs hold neither a loss nor a score.
    """
    panels = curve_panels(curves)
    colours = colours_of(list(curves))
    figure, all_axes = panel_grid(len(panels), 4.2, 3, most=3)
    for axes, panel in zip(all_axes, panels):
        _draw_panel(axes, panel, colours)
    return figure


def _draw_panel(axes: Axes, panel: CurvePanel, colours: dict[str, str]) -> None:
    for run, label, points in panel.lines:
        # A smoothed line over the pale logged one.
        window = max(1, len(points) // 25)
        kernel = np.ones(window) / window
        smooth = np.convolve(
            np.pad(points[:, 1], (window // 2, (window - 1) // 2), mode='edge'),
            kernel,
            mode='valid',
        )
        axes.plot(*points.T, color=colours[run], alpha=0.25, lw=0.8)
        axes.plot(
            points[:, 0],
            smooth,
            color=colours[run],
            label=label,
            marker='o' if len(points) < 12 else None,
            ms=3,
        )
    for points in panel.chance:
        level = points[-1, 1]
        axes.plot(*points.T, color='grey', ls='--', lw=1, label=f'chance = {level:.2f}')
    for run, start in panel.starts:
        axes.axhline(
            start,
            color=colours[run],
            ls='--',
            lw=1,
            label=f'{run} before training = {start:.2f}',
        )
    axes.set_xlabel('step')
    axes.set_title(panel.title, loc='left')
    axes.legend(fontsize=7)
