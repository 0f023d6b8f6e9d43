"""A self-contained HTML report."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl_mm.errors import UserError

from .figures import plot_classes, plot_curves, plot_intervals
from .files import png_of, write_results
from .logs import read_scalars
from .overlays import choose_cases, plot_overlays
from .runs import Run, TableRow, read_metrics, summarize
from .tables import caption_of, table_cells
from .volumes import CASES


@dataclass(frozen=True)
class Picture:
    """A figure that is embedded in the page, which needs no other file.

    Args:
        figure (matplotlib.figure.Figure): The figure.
        caption (str): Text below it.
    """

    figure: object
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
    table: object = None
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
        path (str | Path): HTML file to write.
        runs (Sequence[Run]): Arms of the comparison.
        title (str): Heading.
        lead (str): What was done, in one or two sentences. Defaults to ''.
        baseline (str, optional): Label the others are compared with.
            Defaults to None.
        curves (dict, optional): Label to work directory of training runs.
            Defaults to None.
        commands (Sequence[str]): What was run, shown at the end. Defaults
            to ().
        num_cases (int): Cases in the overlay figure. Defaults to 3.

    Returns:
        list[TableRow]: Rows of the result table.
    """
    if not runs:
        raise UserError('a report needs at least one evaluated run')
    rows = summarize(runs, baseline)
    metrics = read_metrics(runs[0].folders[0])
    measure = rows[0].measure
    volumes = 'cases' in metrics
    sections = [
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
    if volumes:
        sections += _overlay_sections(runs, metrics, num_cases)
    if curves:
        sections.append(_curve_section(curves))
    sections.append(_facts_section(metrics, rows, commands))
    write_results(
        Path(path).parent, {Path(path).name: render_page(title, lead, sections)}
    )
    return rows


def _overlay_sections(runs, metrics, num_cases) -> list[Section]:
    root = metrics.get('data_root')
    if not root or not Path(root).is_dir():
        return []
    from medssl_mm.store import open_store

    chosen = choose_cases(Path(runs[-1].folders[0]) / CASES, num_cases)
    figure = plot_overlays(runs, open_store(root), chosen)
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


def _curve_section(curves):
    by_kind = {'pretraining': {}, 'labels': {}}
    for label, folder in curves.items():
        values = read_scalars(folder)
        kind = (
            'pretraining' if any('contrastive' in name for name in values) else 'labels'
        )
        by_kind[kind][label] = values
    pictures = []
    if by_kind['pretraining']:
        pictures.append(
            Picture(
                plot_curves(by_kind['pretraining']),
                'Pretraining, one panel per loss term, weighted as in the sum. A '
                'contrastive term below its dashed chance line means that views '
                'of one slice (or region) are told from others; loss_contrastive '
                'rises while the queue fills.',
            )
        )
    if by_kind['labels']:
        pictures.append(
            Picture(
                plot_curves(by_kind['labels']),
                'Training with labels; pale: as logged, strong: smoothed.',
            )
        )
    return Section('Training curves', pictures=pictures)


def _facts_section(metrics, rows, commands):
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
