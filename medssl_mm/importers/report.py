"""What an import prints, and the report files it leaves in the store."""

from __future__ import annotations

import csv
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from medssl_mm.files import whole_file, write_json
from medssl_mm.importers.base import Problem
from medssl_mm.importers.run import CaseResult, ImportResult
from medssl_mm.store import SliceStore
from medssl_mm.store.images import IMAGE_FILE, ImageStore, classes_of_label
from medssl_mm.store.splits import Split
from medssl_mm.texts import for_csv

SHOWN = 40  # rows of the table on screen; the report files have all


@functools.singledispatch
def summarize(store: SliceStore | ImageStore) -> dict:
    """Count what a store holds.

    Args:
        store (SliceStore | ImageStore): The store.

    Returns:
        dict: For slices: patients, cases, labelled_cases, slices,
        labelled_slices, classes (name to cases, slices, voxels), spacing
        (per axis min and max in mm, or None), bytes, channels (names, if
        several). For images: patients, images, labelled_images, classes (name
        to images, patients), size (height, width, pixels), bytes.
    """
    raise TypeError(f'no store: {store!r}')


@summarize.register
def _summarize_volumes(store: SliceStore) -> dict:
    patients, slices, labelled_slices, spacings = set(), 0, 0, []
    labelled_cases, size = 0, 0
    counts = {name: dict(cases=0, slices=0, voxels=0) for name in store.classes[1:]}
    for case_id in store.case_ids:
        info = store.case(case_id)
        patients.add(info.patient_id)
        slices += info.shape[0]
        if info.labelled:
            labelled_cases += 1
            known = info.labelled_slices
            labelled_slices += info.shape[0] if known is None else len(known)
        if info.spacing is not None:
            spacings.append(info.spacing)
        for index, number in info.class_slices.items():
            entry = counts[store.classes[int(index)]]
            entry['cases'] += 1
            entry['slices'] += number
            entry['voxels'] += (info.class_voxels or {}).get(index, 0)
        for file in os.scandir(store.root / 'cases' / case_id):
            size += file.stat().st_size
    spacing = None
    if spacings:
        spacing = {
            axis: [min(values), max(values)]
            for axis, values in zip('zyx', zip(*spacings))
        }
    return dict(
        patients=len(patients),
        cases=len(store.case_ids),
        labelled_cases=labelled_cases,
        slices=slices,
        labelled_slices=labelled_slices,
        classes=counts,
        spacing=spacing,
        bytes=size,
        **({'channels': list(store.channels)} if len(store.channels) > 1 else {}),
    )


@summarize.register
def _summarize_images(store: ImageStore) -> dict:
    counts: dict[str, dict[str, Any]] = {
        name: dict(images=0, patients=set()) for name in store.classes
    }
    patients, images, labelled = set(), 0, 0
    for info in store.infos():
        images += 1
        labelled += info.labelled
        patients.add(info.patient_id)
        for index in classes_of_label(info.label):
            entry = counts[store.classes[index]]
            entry['images'] += 1
            entry['patients'].add(info.patient_id)
    for entry in counts.values():
        entry['patients'] = len(entry['patients'])
    return dict(
        patients=len(patients),
        images=images,
        labelled_images=labelled,
        classes=counts,
        size=list(store.size),
        bytes=(store.root / IMAGE_FILE).stat().st_size,
    )


def write_report(result: ImportResult) -> None:
    """Write ``import_report.json`` and ``import_report.csv`` in the store."""
    root = Path(result.store.root)
    every = result.found.reports_every_case
    rows = [asdict(r) for r in result.results if every or r.problems]
    content = dict(
        dataset=result.store.name,
        summary=summarize(result.store),
        splits={s.protocol: s.hash for s in result.splits},
        notes=result.notes,
        cases=rows,
    )
    write_json(root / 'import_report.json', content)
    with (
        whole_file(root / 'import_report.csv') as temporary,
        # Names that are no text, as old archives have them, are written as \xff.
        open(
            temporary, 'w', newline='', encoding='utf-8', errors='backslashreplace'
        ) as file,
    ):
        writer = csv.writer(file)
        writer.writerow(
            [
                'case_id',
                'patient_id',
                'status',
                'severity',
                'code',
                'message',
                'source',
                'label_source',
            ]
        )
        for r in result.results:
            findings: list[Problem | None] = [*r.problems] or [None] * every
            for problem in findings:
                finding = (
                    ['', '', '']
                    if problem is None
                    else [problem.severity, problem.code, problem.message]
                )
                row = [r.case_id, r.patient_id, r.status, *finding, r.source]
                writer.writerow(map(for_csv, [*row, r.label_source or '']))


@contextmanager
def shown_progress(console: Console, name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar; gives the function to call with cases done and in all."""
    with Progress(
        TextColumn('importing {task.fields[name]}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        task = progress.add_task('import', name=name, visible=False)
        yield lambda done, total: progress.update(
            task, completed=done, total=total, visible=True
        )


def print_problems(
    results: Sequence[CaseResult], console: Console, unit: str = 'case'
) -> None:
    """Print the integrity table: errors first, then warnings."""
    root = _common_folder(results)
    findings = [
        (p.severity, r.case_id, _file_of(r, p, root), p)
        for r in results
        for p in r.problems
    ]
    if not findings:
        console.print(f'Integrity: {len(results)} {unit}s checked, nothing found.')
        return
    findings.sort(key=lambda f: f[:3])
    codes = Counter((f[0], f[-1].code) for f in findings)
    table = Table(title='Integrity', show_lines=True)
    for column in (f'{unit}, file', 'severity', 'finding'):
        table.add_column(column, overflow='fold')
    for severity, case_id, file, problem in findings[:SHOWN]:
        style = 'red' if severity == 'error' else 'yellow'
        table.add_row(
            Text(f'{case_id}\n{file}'),
            Text(severity, style),
            Text(f'{problem.code}: {problem.message}'),
        )
    console.print(table)
    if len(findings) > SHOWN:
        console.print(f'... and {len(findings) - SHOWN} more.')
    console.print(
        'Findings: '
        + ', '.join(
            f'{count} x {code} ({severity})'
            for (severity, code), count in sorted(codes.items())
        )
    )


def _common_folder(results: Sequence[CaseResult]) -> str | None:
    """The folder that all files share; None where there is none."""
    sources = {
        os.path.dirname(p) for r in results for p in (r.source, r.label_source) if p
    }
    try:
        return os.path.commonpath(sources)
    except ValueError:  # relative and absolute paths mixed, or no files
        return None


def _file_of(result: CaseResult, problem: Problem, root: str | None) -> str:
    """The file a finding is about, relative to what all cases share."""
    path = result.source
    if problem.code.startswith('label') and result.label_source:
        path = result.label_source
    return path if root is None else os.path.relpath(path, root)


def print_result(result: ImportResult, console: Console) -> None:
    """Print findings and counts."""
    unit = result.found.unit
    print_problems(result.results, console, unit)
    rejected = [r.case_id for r in result.results if r.status == 'rejected']
    imported = result.count('imported')
    text = (
        f'{imported} imported, {result.count("unchanged")} unchanged, '
        f'{len(rejected)} rejected'
    )
    if not imported:
        text += ' - nothing to do'
    console.print(text, highlight=False)
    summary = summarize(result.store)
    table = Table(title=Text(f'{result.store.name}: {result.store.root}'))
    table.add_column('what')
    table.add_column('count', justify='right')
    for key, value in summary.items():
        if isinstance(value, int) and key != 'bytes':
            table.add_row(key.replace('_', ' '), str(value))
    if 'channels' in summary:
        table.add_row('channels', Text(', '.join(summary['channels'])))
    if 'spacing' in summary:
        table.add_row('spacing z, y, x (mm)', _spacing(summary['spacing']))
    if 'size' in summary:
        table.add_row('pixels', ' x '.join(map(str, summary['size'])))
    table.add_row('size on disk', f'{summary["bytes"] / 1e6:.1f} MB')
    console.print(table)
    if summary[f'labelled_{unit}s'] and summary['classes']:
        table = Table(title='Classes')
        columns = list(next(iter(summary['classes'].values())))
        for column in ('class', *columns):
            table.add_column(column, justify='left' if column == 'class' else 'right')
        for name, count in summary['classes'].items():
            table.add_row(Text(name), *(str(count[key]) for key in columns))
        console.print(table)


def _spacing(spacing: dict | None) -> str:
    if spacing is None:
        return 'unknown'
    return ', '.join(
        '-'.join(dict.fromkeys(f'{v:.3g}' for v in limits))
        for limits in spacing.values()
    )


def print_splits(splits: Sequence[Split], console: Console, unit: str = 'case') -> None:
    """Print one line per split: protocol, hash, number of cases."""
    for split in splits:
        sizes = ', '.join(f'{k} {len(v)}' for k, v in split.subsets.items())
        text = f'split {split.protocol} (hash {split.hash}): {sizes} {unit}s'
        console.print(Text(text), soft_wrap=True)


def print_notes(notes: Sequence[str], console: Console) -> None:
    """Print what concerns the data set as a whole."""
    for note in notes:
        console.print(Text('note:', 'yellow'), Text(note), soft_wrap=True)
