"""A self-contained HTML report."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError
from medssl_mm.store import open_store
from medssl_mm.store.header import SLICES

from .evaluation import read_metrics
from .figures import plot_classes, plot_curves, plot_intervals
from .files import png_of, write_results
from .logs import read_scalars
from .overlays import choose_cases, plot_overlays
from .runs import Run, TableRow, summarize
from .tables import caption_of, table_cells
from .volumes import CASES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """A figure that is embedded in the page, which needs no other file.

    Args:
        figure (matplotlib.figure.Figure): The figure.
        caption (str): Text below it.
    """

    figure: Figure
    caption: str

    @property
    def base64(self) -> str:
        """The PNG as text."""
        return base64.b64encode(png_of(self.figure)).decode()


@dataclass(frozen=True)
class Section:
    """A part of the HTML report, in this order.

    Args:
        title (str): Heading.
        text (str): Paragraph below it. Defaults to ''.
        table (pandas.DataFrame, optional): Text; a line parts groups of the
            first column. Defaults to None.
        pictures (Sequence[Picture]): Figures. Defaults to ().
        facts (Mapping[str, str]): Names and values. Defaults to none.
        commands (Sequence[str]): Lines. Defaults to ().
    """

    title: str
    text: str = ''
    table: pd.DataFrame | None = None
    pictures: Sequence[Picture] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    commands: Sequence[str] = ()


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Put sections together into one HTML page; all text is escaped."""
    import jinja2

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader('medssl_mm.results'),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template('report.html').render(
        title=title, lead=lead, sections=sections
    )


def build_report(
    path: str | Path,
    runs: Sequence[Run],
    *,
    title: str,
    lead: str = '',
    baseline: str | None = None,
    curves: dict[str, str | Path] | None = None,
    commands: Sequence[str] = (),
    num_cases: int = 3,
) -> list[TableRow]:
    """Write the HTML report of a comparison.

    Args:
        path: HTML file to write.
        runs: Arms of the comparison.
        title: Heading.
        lead: What was done, in one or two sentences.
        baseline: Label the others are compared with.
        curves: Label to work directory of training runs.
        commands: What was run, shown at the end.
        num_cases: Cases in the overlay figure.

    Returns:
        list[TableRow]: Rows of the result table.
    """
    if not runs:
        raise UserError('a report needs at least one evaluated run')
    rows = summarize(runs, baseline)
    metrics = read_metrics(runs[0].folders[0])
    sections = _score_sections(runs, rows, 'cases' in metrics)
    if 'cases' in metrics:
        sections += _overlay_sections(runs, metrics, num_cases)
    if curves:
        sections.append(_curve_section(curves))
    sections.append(_facts_section(metrics, rows, commands))
    write_results(
        Path(path).parent, {Path(path).name: render_page(title, lead, sections)}
    )
    return rows


def _score_sections(
    runs: Sequence[Run], rows: Sequence[TableRow], volumes: bool
) -> list[Section]:
    measure = rows[0].measure
    return [
        Section(
            'Result',
            caption_of(rows),
            table=table_cells(rows),
            pictures=[
                Picture(
                    plot_intervals(rows),
                    f'{measure.title} of every run with its interval.',
                )
            ],
        ),
        Section(
            'Classes',
            f'{measure.title} per class in points, {measure.classes}.',
            pictures=[
                Picture(
                    plot_classes(runs),
                    'Small and thin organs are the hard ones at low resolution.'
                    if volumes
                    else 'A dash: the test set has one value only.',
                )
            ],
        ),
    ]


def _overlay_sections(
    runs: Sequence[Run], metrics: Mapping, num_cases: int
) -> list[Section]:
    root = metrics.get('data_root')
    if not root or not Path(root).is_dir():
        return []
    chosen = choose_cases(Path(runs[-1].folders[0]) / CASES, num_cases)
    figure = plot_overlays(runs, open_store(root, SLICES), chosen)
    if figure is None:
        return []
    return [
        Section(
            'Predictions',
            f'Test cases from the best to the worst by the mean Dice of '
            f'"{runs[-1].group}, {runs[-1].label}", evenly spaced by rank. Shown '
            'is the slice with most classes, at its native resolution; first '
            'seed.',
            pictures=[Picture(figure, 'Image, ground truth and predictions.')],
        )
    ]


def _curve_section(curves: Mapping[str, str | Path]) -> Section:
    by_kind: dict[str, dict] = {'pretraining': {}, 'labels': {}}
    for label, folder in curves.items():
        values = read_scalars(folder)
        kind = (
            'pretraining' if any('contrastive' in name for name in values) else 'labels'
        )
        by_kind[kind][label] = values
    captions = {
        'pretraining': 'Pretraining, one panel per loss term, weighted as in the sum. '
        'A contrastive term below its dashed chance line means that views of one '
        'slice (or region) are told from others; loss_contrastive rises while the '
        'queue fills. A probe above its dashed line: the features tell more of the '
        'labels than those before training.',
        'labels': 'Training with labels; pale: as logged, strong: smoothed.',
    }
    pictures = [
        Picture(plot_curves(found), captions[kind])
        for kind, found in by_kind.items()
        if found
    ]
    return Section('Training curves', pictures=pictures)


def _facts_section(
    metrics: Mapping, rows: Sequence[TableRow], commands: Sequence[str]
) -> Section:
    interval = metrics.get('interval') or {}
    facts = {
        'Data': str(metrics.get('data_root')),
        'Protocol': str(metrics.get('protocol')),
        'Split hash': str(metrics.get('split_hash')),
        'Test cases / patients': f'{metrics.get("cases") or metrics.get("images")} / '
        f'{metrics.get("patients")}',
        'Training runs per row': '/'.join(
            sorted({str(len(row.run.folders)) for row in rows})
        ),
        'Intervals': f'{interval.get("kind", "bootstrap")}, resampled: '
        f'{interval.get("resampled", "patients")}',
        'Empty classes': str(metrics.get('policy', '')),
        'Notes': '; '.join(metrics.get('notes') or ['none']),
        'Versions': ', '.join(
            f'{name} {version}'
            for name, version in (metrics.get('versions') or {}).items()
        ),
    }
    return Section('How this was made', facts=facts, commands=commands)
