r"""How far few labels move the outputs of a model from those of many labels.

The Kolmogorov-Smirnov distance of `Intermediate Layers Matter in Momentum
Contrastive Self Supervised Learning <https://arxiv.org/abs/2110.14805>`_,
between the output probabilities on the same test images of two models that
were fine-tuned alike on few and on many labels: the largest difference of
their cumulative distributions,

.. math:: D = \sup_x |F_{few}(x) - F_{many}(x)|

0 when both are distributed alike, 1 when they do not overlap. It compares
distributions, not images: two models may agree in it and not in any image,
and two that give every image the same output agree perfectly; so it is to be
read beside a score such as AUROC. The samples are the same images, so the
usual p-value would be wrong and is not given; the spread over seeds is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl_mm.console import wide_console
from medssl_mm.files import whole_file, write_json

NAME = 'output_distributions'


@dataclass(frozen=True, eq=False)
class Comparison:
    """Few against many labels, for one method.

    Args:
        label (str): Name of the method.
        few (tuple[np.ndarray]): Output probabilities of the model with few
            labels, one array per seed.
        many (tuple[np.ndarray]): The same with many labels.

    Shape: arrays ``(images, classes)``, the same for all.
    """

    label: str
    few: tuple[np.ndarray, ...]
    many: tuple[np.ndarray, ...]

    @property
    def distances(self) -> np.ndarray:
        """Kolmogorov-Smirnov distances. Shape: ``(seeds, classes)``."""
        return np.stack(
            [ks_distances(few, many) for few, many in zip(self.few, self.many)]
        )


def ks_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of every column, by scipy.

    Args:
        first (np.ndarray): Outputs of the first model.
        second (np.ndarray): Outputs of the second.

    Shape: ``(N, C)`` and ``(M, C)``; returns ``(C,)``, 0-1.

    Raises:
        ValueError: If the columns differ in number or a value is not finite.
    """
    from scipy.stats import ks_2samp

    if first.ndim != 2 or second.ndim != 2 or (first.shape[1] != second.shape[1]):
        raise ValueError(
            'first and second must be (samples, classes) with the same '
            f'classes, got {first.shape} and {second.shape}'
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(
            'the outputs hold NaN or infinity, which have no '
            'place in a distribution; evaluate the model again'
        )
    # The exact method costs much for the p-value, which is not used.
    return np.array(
        [
            ks_2samp(first[:, c], second[:, c], method='asymp').statistic
            for c in range(first.shape[1])
        ]
    )


def draw_comparisons(
    comparisons: Sequence[Comparison], classes: Sequence[str], few: str, many: str
):
    """Draw the distances, and the distributions of every class.

    Args:
        comparisons (Sequence[Comparison]): In the order of the legend.
        classes (Sequence[str]): Names of the columns.
        few (str): What the models with few labels are called.
        many (str): The same of the others.

    Returns:
        matplotlib.figure.Figure: To be saved. First panel: distance of every
        class, mean over seeds and the range. Others: cumulative distributions
        of the first seed.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(4, 1 + len(classes))
    rows = math.ceil((1 + len(classes)) / columns)
    figure = Figure(
        figsize=(3.6 * columns, max(2.8 * rows, 1 + 0.3 * len(classes))),
        layout='constrained',
    )
    axes = figure.add_subplot(rows, columns, 1)
    places = np.arange(len(classes))
    colours = [f'C{index % 10}' for index in range(len(comparisons))]
    for index, (comparison, colour) in enumerate(zip(comparisons, colours)):
        values = comparison.distances
        shift = 0.6 * ((index + 0.5) / len(comparisons) - 0.5)
        axes.hlines(places + shift, values.min(0), values.max(0), color=colour, lw=1.5)
        axes.plot(values.mean(0), places + shift, 'o', color=colour, ms=4)
    axes.set_yticks(places, classes, fontsize='small')
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.set_xlabel('Kolmogorov-Smirnov distance', fontsize='small')
    axes.grid(axis='x', alpha=0.3)
    for column, name in enumerate(classes):
        axes = figure.add_subplot(rows, columns, 2 + column)
        for comparison, colour in zip(comparisons, colours):
            for content, style in ((comparison.few, '--'), (comparison.many, '-')):
                axes.ecdf(content[0][:, column], color=colour, ls=style, lw=1.2)
        axes.set_title(name, fontsize='small')
        axes.tick_params(labelsize='small')
        # Probabilities of rare classes have many leading zeros.
        axes.ticklabel_format(axis='x', style='sci', scilimits=(-2, 2))
        axes.locator_params(axis='x', nbins=4)
        axes.set_xlabel('output probability', fontsize='small')
    handles = [Line2D([], [], color=colour) for colour in colours] + [
        Line2D([], [], color='grey', ls=style) for style in ('--', '-')
    ]
    figure.legend(
        handles,
        [c.label for c in comparisons] + [few, many],
        loc='outside lower center',
        ncols=min(4, len(handles)),
    )
    return figure


def summarize(comparisons: Sequence[Comparison], classes: Sequence[str]) -> dict:
    """Distances of every method and class, ready for JSON.

    Standard deviations over seeds are null for one seed.
    """

    def entry(values: np.ndarray) -> dict:
        spread = float(values.std(ddof=1)) if len(values) > 1 else None
        return dict(
            mean=float(values.mean()), sd_over_seeds=spread, seeds=values.tolist()
        )

    return {
        comparison.label: dict(
            mean=entry(comparison.distances.mean(1)),
            per_class={
                name: entry(comparison.distances[:, index])
                for index, name in enumerate(classes)
            },
        )
        for comparison in comparisons
    }


def write_comparisons(
    comparisons: Sequence[Comparison],
    classes: Sequence[str],
    folder: str | Path,
    *,
    few: str,
    many: str,
    **facts,
) -> None:
    """Write ``output_distributions.{json,png}``, each all or nothing.

    Args:
        comparisons (Sequence[Comparison]): What was compared.
        classes (Sequence[str]): Names of the columns.
        folder (str | Path): Made if need be.
        few (str): What the models with few labels are called.
        many (str): The same of the others.
        **facts: Further entries of the JSON file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figure = draw_comparisons(comparisons, classes, few, many)
    content = dict(
        measure='Kolmogorov-Smirnov distance of output probabilities, 0-1',
        few=few,
        many=many,
        **facts,
        methods=summarize(comparisons, classes),
    )
    with whole_file(folder / f'{NAME}.png') as temporary:
        figure.savefig(temporary, dpi=130)
    write_json(folder / f'{NAME}.json', content)


def print_table(
    comparisons: Sequence[Comparison], classes: Sequence[str], title: str
) -> None:
    """Print a row per class and a column per method, mean ± SD over seeds."""
    from rich.table import Table

    found = summarize(comparisons, classes)
    table = Table(title=title, title_justify='left')
    table.add_column('class', no_wrap=True)
    for comparison in comparisons:
        table.add_column(comparison.label, justify='right')

    def cell(item):
        spread = item['sd_over_seeds']
        return f'{item["mean"]:.3f}' + ('' if spread is None else f' ± {spread:.3f}')

    for name in classes:
        table.add_row(
            name, *(cell(method['per_class'][name]) for method in found.values())
        )
    table.add_section()
    table.add_row('mean', *(cell(method['mean']) for method in found.values()))
    wide_console().print(table)
