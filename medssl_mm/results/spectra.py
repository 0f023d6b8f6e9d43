"""Spectra of :mod:`medssl_mm.analysis.spectrum`: one figure and one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.spectrum import Spectrum, require_comparable

from .figures import colours_of, legend_below, panel_grid
from .files import write_results
from .screen import mean_and_sd, show_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Below this share of the largest value float32 features hold rounding only.
FLOOR = 1e-10
HEADINGS = dict(
    effective_rank='eff. rank',
    rankme='RankMe',
    alpha_req='alpha',
    std_of_l2_normalized='std',
    lidar='LiDAR',
)


def draw_spectra(spectra: Sequence[Spectrum]) -> Figure:
    """Draw a panel per place with a line per model, log scale.

    Models of one label (seeds of one method) have one colour, and their mean
    effective rank in the legend of the panel.

    Args:
        spectra: In the order of the legend.
    """
    places = list(dict.fromkeys(s.place for s in spectra))
    colours = colours_of([s.label for s in spectra])
    # Without any spectrum (no finite features) the figure is empty.
    figure, panels = panel_grid(len(places), 4, 3.2)
    for place, axes in zip(places, panels):
        for label, group in _by_label(spectra, place).items():
            rank = np.mean([s.figures['effective_rank'] for s in group])
            for seed, spectrum in enumerate(group):
                values = spectrum.singular_values
                if not values[0] > 0:
                    continue
                shown = [v / values[0] for v in values if v > FLOOR * values[0]]
                axes.semilogy(
                    range(1, len(shown) + 1),
                    shown,
                    color=colours[label],
                    label=f'_{seed}' if seed else f'{rank:.1f}',
                )
        axes.set_title(_title(place, spectra))
        axes.set_xlabel('index')
        axes.set_ylabel('singular value / largest')
        if axes.lines:
            axes.legend(title='effective rank', fontsize='small')
    legend_below(figure, colours)
    return figure


def _title(place: str, spectra: Sequence[Spectrum]) -> str:
    """The place and what was taken of it, as far as that is stated."""
    one = next(s for s in spectra if s.place == place)
    if one.stride is None:
        return place
    return (
        f'{place}, stride {one.stride} px\n'
        f'{one.num_samples} samples of {one.images} images'
    )


def write_spectra(spectra: Sequence[Spectrum], folder: str | Path) -> list[Path]:
    """Write ``spectrum.png`` and ``spectrum.json``.

    Args:
        spectra: The spectra.
        folder: Made if need be.

    Raises:
        UserError: They do not compare, see
            :func:`medssl_mm.analysis.require_comparable`.
    """
    require_comparable(spectra)
    return write_results(
        folder,
        {
            'spectrum.png': draw_spectra(spectra),
            'spectrum.json': [asdict(spectrum) for spectrum in spectra],
        },
    )


def print_spectra(spectra: Sequence[Spectrum]) -> None:
    """Print the figures, a row per place and label.

    ``alpha`` is alpha-ReQ, ``std`` that of unit-length features. Of several
    models of one label (seeds of one method) mean ± SD.

    Args:
        spectra: The spectra.
    """
    import pandas as pd

    measured = {name for s in spectra for name in s.figures}
    cells = pd.DataFrame(
        [
            {
                'place': place,
                'model': label,
                'models': str(len(group)),
                'samples': str(group[0].num_samples),
                'channels': str(len(group[0].singular_values)),
                **{
                    heading: mean_and_sd([s.figures[name] for s in group], '.3g', '.1g')
                    if name in group[0].figures
                    else '–'
                    for name, heading in HEADINGS.items()
                    if name in measured
                },
                **_stated(group[0]),
            }
            for place in dict.fromkeys(s.place for s in spectra)
            for label, group in _by_label(spectra, place).items()
        ]
    )
    show_table(cells, 'Spectra of features', left=2, folded='model')


def _stated(one: Spectrum) -> dict[str, str]:
    if one.stride is None:
        return {}
    return {'stride': f'{one.stride} px', 'normalisation': one.normalisation}


def _by_label(spectra: Sequence[Spectrum], place: str) -> dict[str, list[Spectrum]]:
    groups: dict[str, list[Spectrum]] = {}
    for spectrum in spectra:
        if spectrum.place == place:
            groups.setdefault(spectrum.label, []).append(spectrum)
    return groups
