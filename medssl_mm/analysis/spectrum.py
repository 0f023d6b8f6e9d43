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

    Args:
        spectra (Sequence[Spectrum]): In the order of the legend.

    Returns:
        matplotlib.figure.Figure: To be saved.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = list(dict.fromkeys(s.place for s in spectra))
    labels = list(dict.fromkeys(s.label for s in spectra))
    columns = min(4, len(places))
    rows = math.ceil(len(places) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * rows), layout='constrained')
    for index, place in enumerate(places, start=1):
        axes = figure.add_subplot(rows, columns, index)
        for spectrum in spectra:
            values = spectrum.singular_values
            if spectrum.place != place or not values[0] > 0:
                continue
            shown = [v / values[0] for v in values if v > FLOOR * values[0]]
            axes.semilogy(
                range(1, len(shown) + 1),
                shown,
                color=f'C{labels.index(spectrum.label) % 10}',
                label=f'{spectrum.figures["effective_rank"]:.1f}',
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
    """Print the figures, a row per place and model.

    ``alpha`` is alpha-ReQ, ``std`` that of unit-length features.

    Args:
        spectra (Sequence[Spectrum]): The spectra.
    """
    from rich.table import Table

    table = Table(title='Spectra of features')
    table.add_column('place', no_wrap=True)
    table.add_column('model', overflow='fold')
    for name in ('samples', 'channels', *HEADINGS.values()):
        table.add_column(name, justify='right', no_wrap=True)
    places = list(dict.fromkeys(s.place for s in spectra))
    for s in sorted(spectra, key=lambda s: places.index(s.place)):
        table.add_row(
            s.place,
            s.label,
            str(s.num_samples),
            str(len(s.singular_values)),
            *(f'{s.figures[name]:.3g}' for name in HEADINGS),
        )
    wide_console().print(table)


def _plain(spectrum: Spectrum) -> dict:
    content = asdict(spectrum)
    # JSON has no nan.
    content['figures'] = {
        name: value if math.isfinite(value) else None
        for name, value in spectrum.figures.items()
    }
    return content
