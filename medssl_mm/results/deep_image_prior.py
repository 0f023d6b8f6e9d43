"""Reconstructions of :mod:`medssl_mm.analysis.deep_image_prior` as sheets and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.deep_image_prior import POLICIES

from .figures import colours_of, legend_below, panel_grid
from .files import write_results
from .sheets import Tile, draw_sheet, lossless, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """Pictures made from the features of one encoder.

    Args:
        encoder (str): Name.
        folder (str): Name of its folder.
        originals (list[np.ndarray]): Pictures as the encoder takes them.
        pictures (np.ndarray): What was made of their features.
        losses (np.ndarray): Error of the features after every iteration.
        previews (np.ndarray): Pictures on the way.
        preview_steps (np.ndarray): After how many iterations they were made.

    Shape: originals ``(h, w, C)`` each, pictures ``(N, h, w, C)``, losses
        ``(iterations, N)``, previews ``(steps, N, h, w, C)``.
    """

    encoder: str
    folder: str
    originals: Sequence[np.ndarray]
    pictures: np.ndarray
    losses: np.ndarray
    previews: np.ndarray
    preview_steps: np.ndarray


def draw_previews(made: Reconstructions, names: Sequence[str], most: int = 8) -> Figure:
    """Draw how the pictures of one encoder came about."""
    steps = len(made.preview_steps)
    shown = np.unique(np.linspace(0, steps - 1, min(most, steps)).round().astype(int))
    rows = [
        [Tile(original), *(Tile(made.previews[step][place]) for step in shown)]
        for place, original in enumerate(made.originals)
    ]
    columns = ['original', *(f'{made.preview_steps[step]}' for step in shown)]
    return draw_sheet(
        rows, columns, [shortened(n) for n in names], made.encoder, 'after iterations'
    )


def draw_reconstructions(
    results: Sequence[Reconstructions], names: Sequence[str], note: str = ''
) -> Figure:
    """Draw the pictures of all encoders: a row per picture."""
    rows = [
        [
            Tile(results[0].originals[place]),
            *(
                Tile(made.pictures[place], f'error {made.losses[-1][place]:.3g}')
                for made in results
            ),
        ]
        for place in range(len(names))
    ]
    columns = ['original', *(made.encoder for made in results)]
    return draw_sheet(
        rows, columns, [shortened(name) for name in names], note=note, side=1.8
    )


def draw_losses(results: Sequence[Reconstructions], names: Sequence[str]) -> Figure:
    """Draw the error of the features, as a share of the first, over iterations."""
    colours = colours_of([made.encoder for made in results])
    figure, panels = panel_grid(len(names), 3.4, 2.6)
    for place, (axes, name) in enumerate(zip(panels, names)):
        for made in results:
            curve = made.losses[:, place] / made.losses[0, place]
            axes.semilogy(
                np.arange(1, len(curve) + 1),
                curve,
                color=colours[made.encoder],
                linewidth=1,
            )
        axes.set_title(shortened(name), fontsize=8)
        axes.set_xlabel('iteration', fontsize=8)
    figure.supylabel('error of the features / first error', fontsize=8)
    legend_below(figure, colours)
    return figure


def write_reconstructions(
    results: Sequence[Reconstructions],
    names: Sequence[str],
    stems: Sequence[str],
    folder: str | Path,
    mode: str,
    settings: Mapping,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``deep_image_prior.json``, sheets, and every picture without loss.

    Args:
        results: One per encoder.
        names: Of the pictures.
        stems: Names of their files.
        folder: Made if need be.
        mode: 'strict' or 'compat'.
        settings: What they were made with; plain data.
        notes: What a reader has to know.
    """
    pictures, pairs = {}, []
    for made in results:
        for place, (name, stem) in enumerate(zip(names, stems)):
            files = [f'{made.folder}/{stem}{end}.png' for end in ('_original', '')]
            pictures[files[0]] = lossless(made.originals[place])
            pictures[files[1]] = lossless(made.pictures[place])
            pairs.append(
                dict(
                    encoder=made.encoder,
                    picture=name,
                    original=files[0],
                    reconstruction=files[1],
                    first_error=float(made.losses[0, place]),
                    error=float(made.losses[-1, place]),
                    iterations=len(made.losses),
                )
            )
    return write_results(
        folder,
        {
            **pictures,
            **{
                f'{made.folder}/previews.png': draw_previews(made, names)
                for made in results
            },
            'deep_image_prior.png': draw_reconstructions(
                results, names, f'{mode}; error: mean squared error of the features'
            ),
            'deep_image_prior_losses.png': draw_losses(results, names),
            # Last: what others read is there only when the pictures are.
            'deep_image_prior.json': dict(
                mode=mode,
                **settings,
                policy=POLICIES[mode],
                notes=list(notes),
                pairs=pairs,
                losses={made.encoder: made.losses.tolist() for made in results},
            ),
        },
    )
