"""Spectra of features of several models: one figure and one table.

Singular values of the covariance as in fig. 2 of `Understanding Dimensional
Collapse in Contrastive Self-supervised Learning
<https://arxiv.org/abs/2110.09348>`_; the covariance is symmetric, so they are
its eigenvalues.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from medssl_mm.console import wide_console
from medssl_mm.files import whole_file, write_json

# Below this share of the largest value float32 features hold rounding only.
FLOOR = 1e-10
HEADINGS = dict(
    effective_rank='eff. rank',
    rankme='RankMe',
    alpha_req='alpha',
    std_of_l2_normalized='std',
)


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one model at one place.

    Args:
        label (str): Name of the model.
        place (str): Where in it.
        num_samples (int): Samples (image positions, or images).
        singular_values (list[float]): Of the covariance, largest first.
        figures (dict[str, float]): See
            :mod:`medssl_mm.functional.spectrum`.
    """

    label: str
    place: str
    num_samples: int
    singular_values: list[float]
    figures: dict[str, float]


def draw_spectra(spectra: Sequence[Spectrum]):
    """Draw a panel per place with a line per model, log scale.

    Models of one label (seeds of one method) have one colour, and their mean
    effective rank in the legend of the panel.

    Args:
        spectra (Sequence[Spectrum]): In the order of the legend.

    Returns:
        matplotlib.figure.Figure: To be saved.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = list(dict.fromkeys(s.place for s in spectra))
    labels = list(dict.fromkeys(s.label for s in spectra))
    # Without any spectrum (no finite features) the figure is empty.
    columns = max(1, min(4, len(places)))
    rows = math.ceil(len(places) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout='constrained')
    for index, place in enumerate(places, start=1):
        axes = figure.add_subplot(rows, columns, index)
        for label, group in _by_label(spectra, place).items():
            rank = _mean_and_sd(group, 'effective_rank')[0]
            for seed, spectrum in enumerate(group):
                values = spectrum.singular_values
                if not values[0] > 0:
                    continue
                shown = [v / values[0] for v in values if v > FLOOR * values[0]]
                axes.semilogy(
                    range(1, len(shown) + 1),
                    shown,
                    color=f'C{labels.index(label) % 10}',
                    label=f'_{seed}' if seed else f'{rank:.1f}',
                )
        axes.set_title(place)
        axes.set_xlabel('index')
        axes.set_ylabel('singular value / largest')
        if axes.lines:
            axes.legend(title='effective rank', fontsize='small')
    # Names may be long: below all panels, once.
    figure.legend(
        [Line2D([], [], color=f'C{i % 10}') for i in range(len(labels))],
        labels,
        loc='outside lower center',
        ncols=min(3, len(labels)),
    )
    return figure


def write_spectra(spectra: Sequence[Spectrum], folder: str | Path) -> None:
    """Write ``spectrum.png`` and ``spectrum.json``, each all or nothing.

    Args:
        spectra (Sequence[Spectrum]): The spectra.
        folder (str | Path): Made if need be.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / 'spectrum.png') as temporary:
        draw_spectra(spectra).savefig(temporary, dpi=150)
    write_json(folder / 'spectrum.json', [_plain(s) for s in spectra])


def print_table(spectra: Sequence[Spectrum]) -> None:
    """Print the figures, a row per place and label.

    ``alpha`` is alpha-ReQ, ``std`` that of unit-length features. Of several
    models of one label (seeds of one method) mean ± SD.

    Args:
        spectra (Sequence[Spectrum]): The spectra.
    """
    from rich.table import Table

    table = Table(title='Spectra of features')
    table.add_column('place', no_wrap=True)
    # Names of methods stay on one line, paths may be broken.
    widest = max((len(s.label) for s in spectra), default=0)
    table.add_column('model', overflow='fold', min_width=min(widest, 24))
    for name in ('models', 'samples', 'channels', *HEADINGS.values()):
        table.add_column(name, justify='right', no_wrap=True)
    for place in dict.fromkeys(s.place for s in spectra):
        for label, group in _by_label(spectra, place).items():
            table.add_row(
                place,
                label,
                str(len(group)),
                str(group[0].num_samples),
                str(len(group[0].singular_values)),
                *(_cell(*_mean_and_sd(group, name)) for name in HEADINGS),
            )
    wide_console().print(table)


def _by_label(spectra, place) -> dict[str, list[Spectrum]]:
    groups = {}
    for spectrum in spectra:
        if spectrum.place == place:
            groups.setdefault(spectrum.label, []).append(spectrum)
    return groups


def _mean_and_sd(group, name) -> tuple[float, float | None]:
    values = [spectrum.figures[name] for spectrum in group]
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread


def _cell(mean, spread) -> str:
    return f'{mean:.3g}' + ('' if spread is None else f' ± {spread:.1g}')


def _plain(spectrum: Spectrum) -> dict:
    content = asdict(spectrum)
    # JSON has no nan.
    content['figures'] = {
        name: value if math.isfinite(value) else None
        for name, value in spectrum.figures.items()
    }
    return content
