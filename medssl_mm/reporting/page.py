"""A self-contained HTML report."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.files import write_whole

from .figures import (
    choose_cases,
    plot_classes,
    plot_curves,
    plot_intervals,
    plot_overlays,
)
from .results import DICE, Run, TableRow, read_metrics, read_scalars, summarize
from .tables import caption_of, table_cells

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: #1c2733; --soft: #5b6b7b; --line: #dfe5ea; --tint: #f4f7f9;
  --accent: #0072b2; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--tint); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
header p {{ color: var(--soft); max-width: 46rem; }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.2rem; margin: 0 0 .6rem; }}
section {{ background: #fff; border: 1px solid var(--line);
  border-radius: 10px; padding: 1.4rem 1.5rem; margin: 1.2rem 0; }}
section > p {{ max-width: 48rem; color: var(--soft); margin: .2rem 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .45rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 600; border-bottom-width: 2px; }}
th:first-child, td:first-child, table.rows th:nth-child(2),
table.rows td:nth-child(2) {{ text-align: left; }}
table.facts td {{ text-align: left; white-space: normal; }}
table.facts td:first-child {{ width: 14rem; color: var(--soft); }}
tr.first td {{ border-top: 2px solid var(--line); }}
figure {{ margin: 1.2rem 0 0; }}
figure img {{ max-width: 100%; height: auto; }}
figcaption {{ color: var(--soft); font-size: .9rem; max-width: 48rem; }}
code, pre {{ font: .86rem/1.5 ui-monospace, Menlo, Consolas, monospace; }}
pre {{ background: var(--tint); border-radius: 6px; padding: .9rem 1rem;
  overflow-x: auto; margin: 0; }}
</style></head><body><main>
<header><h1>{title}</h1><p>{lead}</p></header>
{sections}
</main></body></html>
"""


@dataclass
class Section:
    """A part of the HTML report.

    Args:
        title (str): Heading.
        text (str): Paragraph below it. Defaults to ''.
        body (list[str]): Ready HTML: tables, figures. Defaults to [].
    """

    title: str
    text: str = ''
    body: list[str] = field(default_factory=list)


def html_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Format a result table as HTML; a line parts groups."""
    head = ''.join(f'<th>{html.escape(name)}</th>' for name in header)
    body, previous = [], None
    for line in cells:
        parted = previous is not None and line[0] != previous
        previous = line[0]
        columns = ''.join(f'<td>{html.escape(cell)}</td>' for cell in line)
        body.append(f'<tr{" class=first" if parted else ""}>{columns}</tr>')
    return (
        f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr>'
        f'</thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def html_facts(facts: dict[str, str]) -> str:
    """Format names and values as a two-column table."""
    lines = ''.join(
        f'<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table class="facts"><tbody>{lines}</tbody></table>'


def html_figure(png: bytes, caption: str) -> str:
    """Embed a picture; the page needs no other file."""
    data = base64.b64encode(png).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
        f'<figcaption>{text}</figcaption></figure>'
    )


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Put sections together into one HTML page."""
    parts = []
    for section in sections:
        text = f'<p>{html.escape(section.text)}</p>' if section.text else ''
        parts.append(
            f'<section><h2>{html.escape(section.title)}</h2>{text}'
            f'{"".join(section.body)}</section>'
        )
    return _PAGE.format(
        title=html.escape(title), lead=html.escape(lead), sections='\n'.join(parts)
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
    sections = [
        Section(
            'Result',
            caption_of(rows),
            [
                html_table(*table_cells(rows)),
                html_figure(
                    plot_intervals(rows),
                    f'{measure.title} of every run with its interval.',
                ),
            ],
        ),
        Section(
            'Classes',
            f'{measure.title} per class in points, {measure.classes}.',
            [
                html_figure(
                    plot_classes(runs),
                    'Small and thin organs are the hard ones at low resolution.'
                    if measure is DICE
                    else 'A dash: the test set has one value only.',
                )
            ],
        ),
    ]
    overlays = measure is DICE and _overlay_section(runs, metrics, num_cases)
    if overlays:
        sections.append(overlays)
    if curves:
        sections.append(_curve_section(curves))
    sections.append(_facts_section(metrics, rows, commands))
    write_whole(Path(path), render_page(title, lead, sections))
    return rows


def _overlay_section(runs, metrics, num_cases):
    root = metrics.get('data_root')
    if not root or not Path(root).is_dir():
        return None
    from medssl_mm.store import open_store

    chosen = choose_cases(Path(runs[-1].folders[0]) / 'cases.csv', num_cases)
    png = plot_overlays(runs, open_store(root), chosen)
    if png is None:
        return None
    return Section(
        'Predictions',
        f'Test cases from the best to the worst by the mean Dice of '
        f'"{runs[-1].group}, {runs[-1].label}", evenly spaced by rank. Shown '
        'is the slice with most classes, at its native resolution; first '
        'seed.',
        [html_figure(png, 'Image, ground truth and predictions.')],
    )


def _curve_section(curves):
    by_kind = {'pretraining': {}, 'labels': {}}
    for label, folder in curves.items():
        values = read_scalars(folder)
        kind = (
            'pretraining' if any('contrastive' in name for name in values) else 'labels'
        )
        by_kind[kind][label] = values
    body = []
    if by_kind['pretraining']:
        body.append(
            html_figure(
                plot_curves(by_kind['pretraining']),
                'Pretraining, one panel per loss term, weighted as in the sum. A '
                'contrastive term below its dashed chance line means that views '
                'of one slice (or region) are told from others; loss_contrastive '
                'rises while the queue fills.',
            )
        )
    if by_kind['labels']:
        body.append(
            html_figure(
                plot_curves(by_kind['labels']),
                'Training with labels; pale: as logged, strong: smoothed.',
            )
        )
    return Section('Training curves', '', body)


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
    body = [html_facts(facts)]
    if commands:
        body.append('<p></p><pre>' + html.escape('\n'.join(commands)) + '</pre>')
    return Section('How this was made', '', body)
