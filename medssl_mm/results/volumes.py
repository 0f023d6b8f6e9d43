"""Scores of segmented volumes: ``cases.csv``, read, resampled, summarised, pooled."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.provenance import join_facts, result_entry
from medssl_mm.statistics import Interval, Resampled, bootstrap_means, few_patients
from medssl_mm.statistics.measures import Measure, measures_of
from medssl_mm.statistics.resampling import (
    FEW_PATIENTS,
    class_means,
    mean_of_classes,
    patient_weights,
)

from .evaluation import METRICS, Evaluation, interval_settings, read_metrics, title_of
from .files import interval_entry, read_csv, write_results

if TYPE_CHECKING:
    import pandas as pd

CASES = 'cases.csv'
STATUSES = ('counted', 'absent', 'missed', 'invented')


def read_cases(path: str | Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table of cases: one row per case and class.

    Args:
        path: ``cases.csv`` of :class:`medssl_mm.VolumeMetric`.
        columns: Scores that it must have. Defaults to none.

    Returns:
        pandas.DataFrame: As written; scores as numbers, NaN where not
        counted, other columns as text.

    Raises:
        UserError: If the file is absent or lacks a column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'score table {path} does not exist; write it with '
            'tools/test.py and out_dir set'
        )
    table = read_csv(path)
    absent = {'case_id', 'patient_id', 'class', *(columns or ())} - set(table)
    if absent:
        raise UserError(
            f'score table {path} lacks the columns {sorted(absent)}; it '
            f'has {list(table)}'
        )
    twice = table[table.duplicated(['case_id', 'class'])]
    if len(twice):
        case, name = twice.iloc[0][['case_id', 'class']]
        raise UserError(
            f'score table {path} has several rows of case {case} and class '
            f'{name}; evaluate the model again'
        )
    _check_complete(table, path)
    return _as_numbers(table, columns or (), path)


def _check_complete(table: pd.DataFrame, path: Path) -> None:
    """Refuse a table that was cut short: its scores would be those of fewer cases."""
    rows = table.groupby('case_id', sort=False).size()
    summary = path.with_name(METRICS)
    cases = read_metrics(path.parent).get('cases') if summary.is_file() else None
    if rows.nunique() > 1 or (isinstance(cases, int) and cases != len(rows)):
        raise UserError(
            f'score table {path} is not complete: it has {len(rows)} cases'
            + (f' of the {cases} in {METRICS}' if cases is not None else '')
            + f', with {rows.min()} to {rows.max()} classes each; evaluate the model '
            'again'
        )


def _as_numbers(
    table: pd.DataFrame, columns: Iterable[str], path: str | Path
) -> pd.DataFrame:
    """Turn text into numbers, which are those that were written."""
    table = table.copy()
    for name in columns:
        try:
            table[name] = [float(text) if text else math.nan for text in table[name]]
        except ValueError as error:
            raise UserError(
                f'score table {path} is damaged in the column {name} ({error}); '
                'evaluate the model again'
            ) from error
    return table


def matrix_of(
    cases: pd.DataFrame, score: str, classes: Sequence[str]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Arrange a score by case and class.

    Args:
        cases: From :func:`read_cases`.
        score: Column.
        classes: Columns of the result.

    Returns:
        tuple: Values, names of the cases, patient of each.

    Shape: values ``(cases, classes)``, sorted by case; NaN where a case has
        no such row.
    """
    values = cases.pivot(index='case_id', columns='class', values=score)
    owners = cases.drop_duplicates('case_id').set_index('case_id')['patient_id']
    names = sorted(values.index)
    return (
        values.reindex(index=names, columns=list(classes)).to_numpy(float),
        names,
        owners[names].tolist(),
    )


def resample_cases(
    path: str | Path,
    score: str = 'dice',
    class_name: str | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Mean over cases, then classes, of a score, with resamples.

    Args:
        path: ``cases.csv``.
        score: Its column.
        class_name: One class; None takes the mean over classes.
        samples: Resamples.
        seed: Seed of the resampling.

    Raises:
        UserError: If the table lacks something.
    """
    cases = read_cases(path, [score])
    classes = sorted(set(cases['class']))
    if class_name is not None and class_name not in classes:
        raise UserError(f'no class {class_name!r} in {path}; it has {classes}')
    values, names, patients = matrix_of(
        cases, score, classes if class_name is None else [class_name]
    )
    weights = np.concatenate(
        [np.ones((1, len(names)), dtype=int), patient_weights(patients, samples, seed)]
    )
    return Resampled(
        source=str(path),
        values=mean_of_classes(class_means(values, weights)),
        content=dict(cases=names, classes=classes, patients=patients),
        patients=len(set(patients)),
    )


def _intervals(
    cases: pd.DataFrame,
    measures: Iterable[Measure],
    classes: Sequence[str],
    samples: int,
    seed: int,
) -> tuple[dict[str, dict[str, Interval]], dict[str, Interval]]:
    """Per score: intervals by class, and that of the mean over classes."""
    per_class, mean = {}, {}
    for measure in measures:
        values, _, patients = matrix_of(cases, measure.name, classes)
        single, mean[measure.name] = bootstrap_means(
            values, patients, samples, seed, measure.bounds
        )
        per_class[measure.name] = dict(zip(classes, single))
    return per_class, mean


def evaluate_cases(
    cases: pd.DataFrame,
    classes: Sequence[str],
    measures: Sequence[Measure],
    facts: Mapping,
    settings: Mapping,
    notes: Sequence[str] = (),
    samples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Summarise scored cases.

    Args:
        cases: A row per case and foreground class; columns of ``cases.csv``.
        classes: Names, background first.
        measures: Scores to summarise.
        facts: protocol, split_hash and data_root.
        settings: Further entries of ``metrics.json``.
        notes: What a reader has to know.
        samples: Resamples; 0 for no intervals.
        seed: Seed of the resampling.
    """
    foreground = list(classes[1:])
    per_class, mean = _intervals(cases, measures, foreground, samples, seed)
    single = cases.drop_duplicates('case_id')
    patients = single['patient_id'].nunique()
    what = f'{len(single)} cases'
    title = title_of(facts['protocol'], facts['split_hash'], what, patients)
    return Evaluation(
        title=f'{title}; mean [95 % interval over patients]',
        measures=tuple(measures),
        per_class=per_class,
        mean=mean,
        counts=_counts(cases, foreground),
        facts=dict(
            **facts, cases=len(single), patients=patients, classes=list(classes)
        ),
        settings=dict(
            **settings,
            volume_units=sorted(set(cases['volume_unit'])),
            interval=interval_settings(samples, seed, 'cases', patients),
        ),
        notes=[
            *_unmeasured(single),
            *notes,
            *(few_patients(patients) if samples else ()),
        ],
    )


def _counts(cases: pd.DataFrame, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    import pandas as pd

    counts = pd.crosstab(cases['class'], cases['status']).reindex(
        index=classes, columns=list(STATUSES), fill_value=0
    )
    return {
        name: {key: int(number) for key, number in row.items()}
        for name, row in counts.to_dict('index').items()
    }


def _unmeasured(single: pd.DataFrame) -> list[str]:
    """Say in how many cases, and why, distances were not measured."""
    reasons = single['distances'][single['distances'] != 'yes'].value_counts()
    return [
        f'distances not measured in {number} of {len(single)} cases: {reason}'
        for reason, number in reasons.sort_index().items()
    ]


def pool_results(
    folders: Sequence[str | Path], out: str | Path, samples: int = 2000, seed: int = 0
) -> None:
    """Join the test results of the splits of a cross-validation.

    ``cases.csv`` and ``metrics.json`` are written to ``out`` as if one
    evaluation had scored the test cases of all splits; means and intervals
    are those of the pooled cases.

    Args:
        folders: Evaluation folder of every split.
        out: Folder to write.
        samples: Resamples of the intervals.
        seed: Seed of the resampling.

    Raises:
        UserError: When results are missing, of a classifier, or of different
            data sets or classes, or when a case or patient was tested in two
            splits.
    """
    places = [Path(folder) for folder in folders]
    metrics = [read_metrics(folder) for folder in places]
    first = metrics[0]
    if 'cases' not in first:
        raise UserError(
            f'{folders[0]}: the test images of several splits are not pooled '
            'for classification, as the probabilities of different models '
            'have no common order; make a table of one split'
        )
    _require_alike(places, metrics)
    measures = list(measures_of(first))
    pooled = _pool_cases([folder / CASES for folder in places], measures)
    cases = _as_numbers(pooled, measures, out)
    content = _pooled_content(places, metrics, cases, samples, seed)
    write_results(out, {CASES: pooled, METRICS: content})


def _pooled_content(
    folders: Sequence[Path],
    metrics: Sequence[Mapping],
    cases: pd.DataFrame,
    samples: int,
    seed: int,
) -> dict:
    """Content of ``metrics.json`` of all splits together."""
    first = metrics[0]
    measures, classes = measures_of(first), list(first['per_class'])
    per_class, mean = _intervals(cases, measures.values(), classes, samples, seed)
    splits = [
        dict(
            protocol=m.get('protocol'),
            split_hash=m.get('split_hash'),
            folder=str(folder),
        )
        for folder, m in zip(folders, metrics)
    ]
    hashes = sorted(str(split['split_hash']) for split in splits)
    patients = cases['patient_id'].nunique()
    return dict(
        {key: value for key, value in first.items() if key != 'seen'},
        protocol=_pooled_protocol([str(s['protocol']) for s in splits]),
        split_hash=hashlib.sha256('\n'.join(hashes).encode()).hexdigest()[:12],
        splits=splits,
        **result_entry(join_facts([m.get('seen') for m in metrics])),
        cases=cases['case_id'].nunique(),
        patients=patients,
        mean={score: interval_entry(found) for score, found in mean.items()},
        per_class={
            name: {
                **{score: interval_entry(per_class[score][name]) for score in measures},
                **_summed_counts(name, metrics),
            }
            for name in classes
        },
        interval=interval_settings(samples, seed, 'cases', patients),
        volume_units=sorted(
            {unit for m in metrics for unit in m.get('volume_units') or ()}
        ),
        notes=few_patients(patients)
        + [
            f'{m.get("protocol")}: {note}'
            for m in metrics
            for note in m.get('notes') or ()
            # How few there are is another matter for all splits together.
            if note not in few_patients(m.get('patients', FEW_PATIENTS))
        ],
    )


def _summed_counts(name: str, metrics: Sequence[Mapping]) -> dict:
    """What was counted of a class in all splits, where every one tells."""
    counts = [m['per_class'][name].get('counts') for m in metrics]
    if None in counts:
        return {}
    return dict(counts={key: sum(c[key] for c in counts) for key in counts[0]})


def _require_alike(folders: Sequence[Path], metrics: Sequence[Mapping]) -> None:
    first = metrics[0]
    for folder, other in zip(folders, metrics):
        for what, found, expected in (
            ('data', other.get('data_root'), first.get('data_root')),
            ('classes', list(other['per_class']), list(first['per_class'])),
            ('scores', list(other['mean']), list(first['mean'])),
            ('policy', other.get('policy'), first.get('policy')),
        ):
            if found != expected:
                raise UserError(
                    f'the splits {folder} and {folders[0]} cannot be pooled: '
                    f'{what} {found} and {expected}; evaluate all splits in '
                    'the same way'
                )


def _pool_cases(paths: Sequence[Path], scores: Sequence[str]) -> pd.DataFrame:
    """Join tables of cases; a case or patient may be in one of them only."""
    import pandas as pd

    for path in paths:
        read_cases(path, scores)
    tables = [read_cases(path) for path in paths]
    seen: dict[tuple[str, str], Path] = {}
    for path, table in zip(paths, tables):
        for kind in ('case', 'patient'):
            for name in table[f'{kind}_id'].unique():
                other = seen.setdefault((kind, name), path)
                if other != path:
                    raise UserError(
                        f'{kind} {name} is in {other} and in {path}; the '
                        'test subsets of the splits of a cross-validation '
                        'must not overlap'
                    )
        if list(table) != list(tables[0]):
            raise UserError(
                f'{path} has the columns {list(table)}, {paths[0]} '
                f'{list(tables[0])}; evaluate both with one version'
            )
    return pd.concat(tables, ignore_index=True)


def _pooled_protocol(protocols: Sequence[str]) -> str:
    """Name what splits have in common: 'set-5fold' of 'set-5fold-fold0'."""
    found = [re.fullmatch(r'(.+)-fold\d+', name) for name in protocols]
    names = {match and match[1] for match in found}
    if len(names) == 1 and None not in names:
        return str(*names)
    return ' + '.join(dict.fromkeys(protocols))
