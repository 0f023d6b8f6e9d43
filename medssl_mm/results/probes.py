"""Linear probes of :mod:`medssl_mm.analysis.probing` as table, figure and files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from medssl_mm.analysis.probing import (
    KINDS,
    POLICY,
    Probe,
    Summary,
    difference,
    listed,
    summarize,
)
from medssl_mm.provenance import sentences
from medssl_mm.statistics import Interval

from .figures import plot_places, styled_subplots
from .files import csv_text, interval_entry, write_results
from .screen import show_table, to_markdown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def probe_notes(
    probes: Sequence[Probe], seen: Mapping[str, Mapping] | None = None
) -> list[str]:
    """Say once what a reader of the numbers has to know."""
    notes = []
    for probe in probes:
        about = list(probe.data_notes)
        if probe.left_out:
            about.insert(
                0,
                f'left out {listed(probe.left_out)}; means are over the '
                f'other {len(probe.per_class)} of '
                f'{len(probe.per_class) + len(probe.left_out)} classes',
            )
        fraction = f'{100 * probe.fraction:g} % of the labels'
        if probe.fraction_seed is not None:
            fraction += f' (draw {probe.fraction_seed})'
        notes += [f'{fraction}: {note}' for note in about]
        name = probe.checkpoint
        if probe.number:
            name += f' #{probe.number}'
        notes += [f'{name} {probe.place}: {note}' for note in probe.notes]
    ends = sum(probe.at_end for probe in probes)
    if ends:
        notes.append(
            f'{ends} of {len(probes)} probes chose the smallest or the largest strength'
        )
    notes += [
        f'{source}: {line}'
        for source, facts in (seen or {}).items()
        for line in sentences(facts)
    ]
    return list(dict.fromkeys(notes))


def _kinds(probes: Sequence[Probe]) -> dict[str, str]:
    """Name the scores that the probes have."""
    kinds = {'auroc': 'macro AUROC'}
    if any(probe.f1 for probe in probes):
        kinds['f1'] = 'macro F1'
    return kinds


class _Comparison:
    """Summaries of probes, and each one's difference to the baseline's."""

    def __init__(self, probes: Sequence[Probe], baseline: str | None) -> None:
        self.rows = summarize(probes)
        self._baselines = {
            (row.place, row.fraction): row
            for row in self.rows
            if row.checkpoint == baseline
        }

    def difference(self, row: Summary, kind: str) -> Interval | None:
        baseline = self._baselines.get((row.place, row.fraction))
        if baseline is None or baseline.checkpoint == row.checkpoint:
            return None
        return difference(row, baseline, kind)


def _text(interval: Interval | None, sign: str = '') -> str:
    return '' if interval is None else interval.text(sign=sign, missing='nan')


def markdown_table(
    probes: Sequence[Probe],
    baseline: str | None = None,
    seen: Mapping[str, Mapping] | None = None,
) -> str:
    """Write a table per share of labels, a row per name, a column per stage.

    Args:
        probes: The results.
        baseline: Name that the others are compared with.
        seen: By weights what they have seen of the test images. Defaults to none.
    """
    import pandas as pd

    found = _Comparison(probes, baseline)
    parts = []
    for kind, title in _kinds(probes).items():
        cells = pd.DataFrame(
            [
                (
                    row.fraction,
                    row.checkpoint,
                    row.place,
                    ', '.join(
                        filter(
                            None,
                            (
                                _text(getattr(row, kind)),
                                _text(found.difference(row, kind), '+'),
                            ),
                        )
                    ),
                )
                for row in found.rows
            ],
            columns=['fraction', 'checkpoint', 'place', 'cell'],
        )
        places = cells['place'].unique()
        for fraction, part in cells.groupby('fraction', sort=False):
            table = part.pivot(index='checkpoint', columns='place', values='cell')
            table = table.reindex(index=part['checkpoint'].unique(), columns=places)
            table = table.fillna('–').rename_axis(columns=None).reset_index()
            parts.append(
                f'{title}, {100 * fraction:g} % of the labels\n\n{to_markdown(table)}'
            )
    parts += [f'{note}.\n' for note in probe_notes(probes, seen)]
    return '\n'.join(parts)


def print_probes(
    probes: Sequence[Probe], console: Console | None = None, baseline: str | None = None
) -> None:
    """Print a row per name, stage and share of labels.

    Of several seeds, or draws of the share, the mean and its interval, and
    the standard deviation.

    Args:
        probes: The results.
        console: Defaults to a new one.
        baseline: Name that the others are compared with.
    """
    import pandas as pd

    found = _Comparison(probes, baseline)
    kinds = _kinds(probes)
    several = any(len(row.probes) > 1 for row in found.rows)
    cells = pd.DataFrame(
        [_line(row, found, kinds, several, baseline) for row in found.rows]
    )
    for title in kinds.values():
        cells.columns = [name.removesuffix(f' {title}') for name in cells]
    show_table(
        cells,
        'Linear probes; [95 % interval over patients and seeds]',
        probe_notes(probes),
        folded='checkpoint',
        console=console,
    )


def _line(
    row: Summary,
    found: _Comparison,
    kinds: Mapping[str, str],
    several: bool,
    baseline: str | None,
) -> dict[str, str]:
    images = sorted({probe.train_images for probe in row.probes})
    line = dict(
        checkpoint=row.checkpoint,
        stage=row.place,
        labels=f'{100 * row.fraction:g} %',
        images='-'.join(map(str, dict.fromkeys((images[0], images[-1])))),
    )
    if several:
        line['fits'] = str(len(row.probes))
    else:
        line['strength'] = f'{row.probes[0].strength:g}'
    for kind, title in kinds.items():
        line[title] = _text(getattr(row, kind))
        if several:
            spread = row.spread(kind)
            line[f'SD {title}'] = '' if math.isnan(spread) else f'{spread:.3f}'
        if baseline:
            against = _text(found.difference(row, kind), '+')
            line[f'against {baseline} {title}'] = against
    return line


def draw_probes(probes: Sequence[Probe]) -> Figure:
    """Draw the scores against the stage, a line per name.

    A panel per share of labels (and, single-label, a row for F1). Of several
    seeds or draws, the line is the mean and the dots are the single ones.

    Args:
        probes: The results.
    """
    rows = {(r.checkpoint, r.place, r.fraction): r for r in summarize(probes)}
    names = list(dict.fromkeys(row.checkpoint for row in rows.values()))
    places = list(dict.fromkeys(row.place for row in rows.values()))
    fractions = list(dict.fromkeys(row.fraction for row in rows.values()))
    kinds = _kinds(probes)
    figure, panels = styled_subplots(
        len(kinds),
        len(fractions),
        figsize=(1.5 + 3.2 * len(fractions), 0.4 + 3.4 * len(kinds)),
        layout='constrained',
        sharey='row',
    )
    for kind, line in zip(kinds, panels):
        for fraction, axes in zip(fractions, line):
            own = {
                name: [rows.get((name, place, fraction)) for place in places]
                for name in names
            }
            _draw_lines(axes, own, places, kind)
            if kind == 'auroc':
                axes.axhline(0.5, color='0.6', linewidth=0.8, linestyle=':')
            axes.set_title(f'{100 * fraction:g} % of the labels', fontsize=9)
        line[0].set_ylabel(kinds[kind])
    several = any(len(row.probes) > 1 for row in rows.values())
    figure.supxlabel(
        'bars: 95 % interval over test patients'
        + (' and seeds or draws; dots: single ones' if several else ''),
        fontsize=8,
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=min(4, len(names)))
    return figure


def _draw_lines(
    axes: Axes,
    found: Mapping[str, Sequence[Summary | None]],
    places: Sequence[str],
    kind: str,
) -> None:
    """Draw one score against the place, a line per name."""
    lines, singles = {}, {}
    for name, rows in found.items():
        lines[name] = [
            Interval() if row is None else getattr(row, kind) for row in rows
        ]
        singles[name] = [
            [getattr(probe, kind).estimate for probe in (row.probes if row else ())]
            for row in rows
        ]
    plot_places(axes, lines, places, singles)


def write_probes(
    probes: Sequence[Probe],
    folder: str | Path,
    settings: Mapping,
    baseline: str | None = None,
    further: Sequence[Probe] = (),
) -> list[Path]:
    """Write ``probe.json``, ``probe.csv``, ``probe.png`` and ``probe.md``.

    Args:
        probes: The results.
        folder: Made if need be.
        settings: What they were made with, plain data; ``seen`` is by weights
            what they have seen of the test images (:mod:`medssl_mm.provenance`).
        baseline: Name that the others are compared with.
        further: Results that are in the tables, not in the figure.
    """
    shown, probes = probes, [*probes, *further]
    found = _Comparison(probes, baseline)
    content = dict(
        **settings,
        policy=POLICY,
        notes=probe_notes(probes, settings.get('seen')),
        means=[_mean_content(row, found) for row in found.rows],
        probes=[_content(probe) for probe in probes],
    )
    return write_results(
        folder,
        {
            'probe.json': content,
            'probe.csv': csv_text(probe_frame(probes), '%.6f'),
            'probe.png': draw_probes(shown),
            'probe.md': markdown_table(probes, baseline, settings.get('seen')),
        },
    )


def _entry(interval: Interval | None) -> dict | None:
    return None if interval is None else interval_entry(interval, 'value', units=False)


def _content(probe: Probe) -> dict:
    content = asdict(probe)
    del content['drawn'], content['probabilities']
    content.update(
        auroc=_entry(probe.auroc),
        f1=_entry(probe.f1),
        per_class={name: _entry(found) for name, found in probe.per_class.items()},
    )
    return content


def _mean_content(row: Summary, found: _Comparison) -> dict:
    content = dict(checkpoint=row.checkpoint, place=row.place, fraction=row.fraction)
    for kind in KINDS:
        content[kind] = _entry(getattr(row, kind))
        content[f'{kind}_difference'] = _entry(found.difference(row, kind))
    return {name: value for name, value in content.items() if value is not None}


def probe_frame(probes: Sequence[Probe]) -> pd.DataFrame:
    """Scores as a long frame, as in ``probe.csv``.

    Returns:
        pandas.DataFrame: A row per probe, score and class ('mean': of all).
    """
    import pandas as pd

    rows = []
    for probe in probes:
        scores = [('auroc', 'mean', probe.auroc)]
        if probe.f1:
            scores.append(('f1', 'mean', probe.f1))
        scores += [('auroc', name, found) for name, found in probe.per_class.items()]
        rows += [
            {
                'checkpoint': probe.checkpoint,
                'number': probe.number,
                'place': probe.place,
                'fraction': str(probe.fraction),
                'fraction_seed': probe.fraction_seed,
                'train_images': probe.train_images,
                'strength': f'{probe.strength:g}',
                'val_auroc': probe.val_auroc,
                'score': kind,
                'class': name,
                **dict(zip(('value', 'low', 'high'), found.numbers)),
            }
            for kind, name, found in scores
        ]
    # Whole numbers, some of which are missing.
    return pd.DataFrame(rows).astype(dict(fraction_seed='Int64'))
