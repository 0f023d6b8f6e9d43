"""Saliency of :mod:`medssl_mm.analysis.saliency` as overlays, table and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.analysis.saliency import POLICIES, Saliency, mean_diffusion
from medssl_mm.statistics import Interval

from .encoder_measures import measure_frame
from .files import csv_text, interval_entry, write_results
from .screen import show_table, to_markdown
from .sheets import Tile, draw_sheet, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from rich.console import Console


def _diffusions(results: Sequence[Saliency]) -> dict[str, Interval]:
    """Attentive diffusion by encoder; all its seeds together per image."""
    names = dict.fromkeys(one.encoder for one in results)
    found = {}
    for name in names:
        by_image: dict[str, list[float]] = {}
        for one in results:
            if one.encoder == name:
                by_image.setdefault(one.image_id, []).append(one.attentive_diffusion)
        found[name] = mean_diffusion([float(np.mean(v)) for v in by_image.values()])
    return found


def saliency_table(results: Sequence[Saliency]) -> DataFrame:
    """Text of the results: a row per encoder.

    Returns:
        pandas.DataFrame: Attentive diffusion in percent, with its interval.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            (name, found.text(1, 100), str(found.units))
            for name, found in _diffusions(results).items()
        ],
        columns=['encoder', 'attentive diffusion, %', 'images'],
    )


def print_saliency(
    results: Sequence[Saliency],
    mode: str,
    notes: Sequence[str] = (),
    console: Console | None = None,
) -> None:
    """Print a row per encoder."""
    show_table(
        saliency_table(results),
        f'Attentive diffusion ({mode})',
        [
            'share of the image that matters more than the mean; brackets: 95 % '
            'interval over images',
            *notes,
        ],
        console=console,
    )


def draw_saliency(
    results: Sequence[Saliency],
    pictures: Mapping[tuple[str, int], Sequence[np.ndarray]],
    names: Sequence[str],
    labels: Sequence[str],
) -> Figure:
    """Draw every picture and its saliency in every encoder.

    Args:
        results: Saliency.
        pictures: As each encoder (name and number) takes them; ``(h, w, C)``.
        names: Of the images.
        labels: Their classes, '' where not known.
    """
    by_key = {(one.encoder, one.number, one.image_id): one for one in results}
    rows = []
    for place, (name, label) in enumerate(zip(names, labels)):
        row = [Tile(next(iter(pictures.values()))[place], label)]
        for encoder, number in pictures:
            one = by_key[encoder, number, name]
            share = f'{100 * one.attentive_diffusion:.1f} %'
            row.append(Tile(pictures[encoder, number][place], share, heat=one.values))
        rows.append(row)
    several = len({name for name, _ in pictures}) < len(pictures)
    columns = [f'{name} #{n}' if several else name for name, n in pictures]
    return draw_sheet(
        rows,
        ['image', *columns],
        [shortened(name) for name in names],
        note='bright: covering it changes the features; number: attentive diffusion',
        side=1.8,
    )


def write_saliency(
    results: Sequence[Saliency],
    folder: str | Path,
    mode: str,
    settings: Mapping,
    sheet: Figure,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``saliency.json``, ``.csv``, ``.md``, measures and ``saliency.png``.

    Args:
        results: Of one mode.
        folder: Made if need be.
        mode: 'strict' or 'compat'.
        settings: What they were made with, with ``dataset``; plain data.
        sheet: See :func:`draw_saliency`.
        notes: What a reader has to know.
    """
    import pandas as pd

    frame = pd.DataFrame(
        [
            dict(
                mode=mode,
                encoder=one.encoder,
                number=one.number,
                image_id=one.image_id,
                attentive_diffusion=one.attentive_diffusion,
                largest_change=float(one.values.max()),
            )
            for one in results
        ]
    )
    text = [to_markdown(saliency_table(results)), POLICIES[mode], *notes]
    return write_results(
        folder,
        {
            'saliency.json': dict(
                mode=mode,
                **settings,
                policy=POLICIES[mode],
                notes=list(notes),
                means={
                    name: interval_entry(found)
                    for name, found in _diffusions(results).items()
                },
                results=frame.to_dict('records'),
            ),
            'saliency.csv': csv_text(frame, '%.6g'),
            'saliency.md': '\n\n'.join(text) + '\n',
            'saliency_measures.csv': measure_frame(
                [
                    (name, 'attentive diffusion', found.estimate)
                    for name, found in _diffusions(results).items()
                ],
                settings['dataset'],
                mode,
            ),
            'saliency.png': sheet,
        },
    )
