"""Similarities of :mod:`medssl_mm.analysis.feature_reuse` as tables and figures."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from medssl_mm.analysis.feature_reuse import Kernel, Reuse, bandwidth_notes, by_stage
from medssl_mm.statistics import Interval
from medssl_mm.statistics.compare import spread

from .figures import colours_of, heat_map, legend_below, plot_places, styled_subplots
from .screen import show_table


def print_reuse(results: Sequence[Reuse], kernel: Kernel, console=None) -> None:
    """Print a row per method, stage and estimate.

    Of several seeds mean and standard deviation. Of one: those over the
    random subsets, and in the last column sigma in median distances, before
    and after.

    Args:
        results (Sequence[Reuse]): The results.
        kernel (Kernel): What was computed.
        console (rich.console.Console, optional): Defaults to a new one.
    """
    import pandas as pd

    unit = 'median distance' if kernel.relative else 'feature units'
    groups = by_stage(results)
    several = any(len(group) > 1 for group in groups.values())
    count = max((len(v) for r in results for v in r.subsets.values()), default=0)
    lines = []
    for (method, place), group in groups.items():
        for name in kernel.estimates:
            values = [result.values[name] for result in group]
            line = dict(
                method=method,
                stage=place,
                estimate=name.replace('_', ', '),
                CKA=f'{np.mean(values):.3f}',
            )
            if several:
                deviation = spread(values)
                line['SD over seeds'] = (
                    '' if np.isnan(deviation) else f'{deviation:.3f}'
                )
                line['seeds'] = str(len(values))
            else:
                if count:
                    line[f'{count} subsets\nmean (SD)'] = '{:.3f} ({:.3f})'.format(
                        *group[0].spread(name)
                    )
                ratios = ', '.join(
                    f'{ratio:.3g}' for ratio in group[0].bandwidth_ratios
                )
                line['sigma /\nmedian'] = ratios if name.startswith('rbf') else ''
            lines.append(line)
    cells = pd.DataFrame(lines)
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


def draw_reuse(results: Sequence[Reuse]):
    """Draw CKA against the stage, a panel per estimate, a line per method.

    Lines: all images, mean over seeds. Bars beside them: mean and standard
    deviation over the random subsets of one seed; dots: single seeds.

    Args:
        results (Sequence[Reuse]): The results.

    Returns:
        matplotlib.figure.Figure: To be written.
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
            mean, deviation = np.array([group[0].spread(estimate) for group in own]).T
            if len(own[0]) == 1 and np.isfinite(mean).any():
                axes.errorbar(
                    np.arange(len(places)) + 0.06 * (index + 1),
                    mean,
                    yerr=np.nan_to_num(deviation),
                    color=colours[method],
                    marker='_',
                    linestyle='',
                    capsize=2,
                    alpha=0.7,
                )
        axes.set_title(estimate.replace('_', ', '))
    # After all panels, which share the axis.
    panels[0].set_ylim(top=1.02)
    panels[0].set_ylabel('CKA before / after')
    legend_below(figure, colours)
    return figure


def draw_layers(
    matrix: np.ndarray,
    layers: tuple[Sequence[str], Sequence[str]],
    names: tuple[str, str],
    estimate: str,
):
    """Draw a heat map, the first layer at the lower left.

    Args:
        matrix (np.ndarray): Of
            :func:`medssl_mm.analysis.feature_reuse.layer_similarity`.
        layers (tuple[Sequence[str], Sequence[str]]): Names of the layers of
            both networks.
        names (tuple[str, str]): Of the two networks.
        estimate (str): For the title.

    Shape: matrix ``(layers of the first, layers of the second)``.

    Returns:
        matplotlib.figure.Figure: To be written.
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
