"""What runs leave behind, joined over seeds and splits, and compared.

The files are ``metrics.json``, ``cases.csv`` and ``predictions/`` of
:class:`medssl_mm.VolumeMetric`, ``metrics.json`` and ``predictions.csv`` of
:class:`medssl_mm.ClassificationMetric`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError
from medssl_mm.provenance import sentences
from medssl_mm.statistics import Interval, Resampled, mean_over_seeds, paired_difference
from medssl_mm.statistics.classification import names_patients
from medssl_mm.statistics.compare import Difference, holm, spread
from medssl_mm.statistics.measures import AUROC, Measure, compared_measure, measures_of

from .evaluation import read_metrics
from .images import resample_predictions
from .volumes import CASES, read_cases, resample_cases

if TYPE_CHECKING:
    import pandas as pd

# Of the long frame of scores.
COLUMNS = (
    'group',
    'row',
    'fraction',
    'seed',
    'split',
    'case',
    'patient',
    'class',
    'metric',
    'value',
)


@dataclass(frozen=True)
class Run:
    """One arm of a comparison: the evaluations of one method, all seeds.

    Args:
        group (str): What is compared with each other, e.g. the decoder.
        label (str): What differs within a group, e.g. the initial weights.
        folders (tuple[Path]): Folder with ``metrics.json`` and ``cases.csv``
            or ``predictions.csv`` of every seed; for several splits see
            :func:`pool_results`.
        fraction (float): Share of the training patients, 0-1. Defaults to 1.
        seeds (tuple[int]): Seed of every folder. Defaults to (): not known.
        compared_with (str, optional): Group of the baseline. Defaults to None: its
            own.
        iterations (int, optional): Length of the training that is evaluated, where
            scores are drawn against it. Defaults to None.
    """

    group: str
    label: str
    folders: tuple[Path, ...]
    fraction: float = 1.0
    seeds: tuple[int, ...] = ()
    compared_with: str | None = None
    iterations: int | None = None

    @property
    def numbers(self) -> Sequence[int]:
        """Seed of every folder, or its place where seeds are not known."""
        return self.seeds or range(len(self.folders))


@dataclass(frozen=True)
class TableRow:
    """One row of a result table; scores over all seeds of a run.

    Args:
        run (Run): Where the numbers come from.
        measure (Measure): What the score is.
        score (Interval): Over patients and, where there are several, seeds.
        spread (float): Standard deviation of the score over seeds; NaN for
            one seed.
        difference (Difference): Score minus the baseline's, paired by patient
            and seed; not measured for the baseline itself.
        patients (int): Patients that were scored.
        protocol (str): Name of the split.
        split_hash (str): Hash of the split; of all of them where the test
            cases of several are pooled.
        splits (int): Splits whose test cases are pooled. Defaults to 1.
        undefined (tuple[str]): Classes without a score. Defaults to ().
        others (Mapping[Measure, Interval]): Scores that have a column of
            their own beside the compared one. Defaults to none.
        holm (float): p of the difference, adjusted for all comparisons of the
            table. Defaults to NaN: not compared.
        seen (tuple[str]): What the networks have seen of the test cases, or that
            it is not known, in words. Defaults to ().
        by_image (bool): Whether every image is a patient of its own. Defaults to
            False.
        cost (float): Time of pretraining as a multiple of that of the baseline.
            Defaults to NaN: not known.
    """

    run: Run
    measure: Measure
    score: Interval
    spread: float
    difference: Difference
    patients: int
    protocol: str
    split_hash: str
    splits: int = 1
    undefined: tuple[str, ...] = ()
    others: Mapping[Measure, Interval] = field(default_factory=dict)
    holm: float = math.nan
    seen: tuple[str, ...] = ()
    by_image: bool = False
    cost: float = math.nan


def collect_scores(runs: Sequence[Run]) -> pd.DataFrame:
    """Put the scores of all runs into one long data frame.

    Returns:
        pandas.DataFrame: A row per score, with the columns :data:`COLUMNS`.
        Of volumes the scores of every case and class; of images, whose scores
        are of all images together, those of every class and 'mean', with
        empty case and patient. NaN: not counted.

    Raises:
        UserError: When results are missing.
    """
    import pandas as pd

    parts = [
        _long_form(Path(folder)).assign(
            group=run.group, row=run.label, fraction=run.fraction, seed=seed
        )
        for run in runs
        for seed, folder in zip(run.numbers, run.folders)
    ]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _long_form(folder: Path) -> pd.DataFrame:
    import pandas as pd

    metrics = read_metrics(folder)
    if (folder / CASES).is_file():
        measures = list(measures_of(metrics))
        cases = read_cases(folder / CASES, measures).rename(
            columns=dict(case_id='case', patient_id='patient')
        )
        found = cases.melt(['case', 'patient', 'class'], measures, 'metric')
    else:
        entries = [('mean', metrics['mean']), *metrics['per_class'].items()]
        found = pd.DataFrame(
            [
                ('', '', name, score, entry['mean'])
                for name, scores in entries
                for score, entry in scores.items()
                if isinstance(entry, dict) and 'mean' in entry
            ],
            columns=['case', 'patient', 'class', 'metric', 'value'],
        ).astype(dict(value=float))
    return found.assign(split=str(metrics.get('protocol')))


def resample(
    folder: str | Path, measure: Measure, samples: int = 2000, seed: int = 0
) -> Resampled:
    """Score of one evaluation, and of resamples of its patients.

    Raises:
        UserError: When the files of the score are absent or damaged.
    """
    if measure.name == AUROC.name:
        return resample_predictions(folder, samples, seed)
    return resample_cases(Path(folder) / CASES, measure.name, None, samples, seed)


def _one_measure(runs: Sequence[Run], found: Mapping[Path, dict]) -> Measure:
    measures = {
        compared_measure(found[folder]): folder
        for run in runs
        for folder in run.folders
    }
    if len(measures) > 1:
        raise UserError(
            'a table compares one kind of score, got '
            + ' and '.join(
                f'{measure.title} ({folder})' for measure, folder in measures.items()
            )
            + '; make two tables'
        )
    return next(iter(measures))


def _one_split(run: Run, seen: dict, found: Mapping[Path, dict]) -> tuple[str, str]:
    """Protocol and hash of a run; all runs of a group must share them."""
    hashes = {
        (str(found[folder].get('protocol')), str(found[folder].get('split_hash')))
        for folder in run.folders
    }
    # A label fraction is a split of its own, with the same test set.
    known = seen.setdefault((run.group, run.fraction), (hashes, run))
    if len(hashes) > 1 or known[0] != hashes:
        raise UserError(
            f'{run.folders[0]} ({sorted(hashes)}) and '
            f'{known[1].folders[0]} ({sorted(known[0])}) were evaluated '
            f'on different splits{_how_splits_differ(hashes | known[0])}; compare runs '
            'of one split only'
        )
    return next(iter(hashes))


def _how_splits_differ(splits: Collection[tuple[str, str]]) -> str:
    """Say so where only images or labels do: the second part of the hash."""
    parts = {(name, *digest.partition('-')[::2]) for name, digest in splits}
    if len({part[:2] for part in parts}) > 1:
        return ''
    if all(part[2] for part in parts):
        return (
            ': the cases have the same names, but images or labels are others (were '
            'labels corrected, or is it another data set?); test both again on what '
            'is there now (tools/test.py)'
        )
    return (
        ': the cases have the same names, but one result is of before split hashes '
        'told their images and labels, so nothing says that these are the same; test '
        'it again (tools/test.py)'
    )


def summarize(
    runs: Sequence[Run], baseline: str | None = None, samples: int = 2000
) -> list[TableRow]:
    """Turn runs into table rows.

    Args:
        runs: Arms, in the order of the table.
        baseline: Label that the others of its group and fraction are compared
            with.
        samples: Resamples of the intervals.

    Returns:
        list[TableRow]: One per run.

    Raises:
        UserError: When results of one group are of different splits, those
            of the table of different measures, or the baseline is not among
            the runs.
    """
    if baseline is not None and all(run.label != baseline for run in runs):
        raise UserError(
            f'no run is labelled {baseline!r} (the baseline); there are '
            f'{sorted({run.label for run in runs})}'
        )
    found = {folder: read_metrics(folder) for run in runs for folder in run.folders}
    measure = _one_measure(runs, found)
    scored = {
        id(run): [resample(folder, measure, samples) for folder in run.folders]
        for run in runs
    }
    baselines = {
        (run.group, run.fraction): run
        for run in reversed(runs)
        if run.label == baseline
    }
    seen: dict = {}
    rows = [
        _row(
            run,
            measure,
            scored[id(run)],
            _difference(
                run,
                baselines.get((run.compared_with or run.group, run.fraction)),
                scored,
            ),
            _one_split(run, seen, found),
            [found[folder] for folder in run.folders],
            samples,
        )
        for run in runs
    ]
    adjusted = holm([row.difference.p for row in rows])
    return [replace(row, holm=p) for row, p in zip(rows, adjusted)]


def _names_patients(content: Mapping) -> bool:
    return 'images' not in content or names_patients(
        content['patients'], content['images']
    )


def _difference(
    run: Run, baseline: Run | None, scored: Mapping[int, list[Resampled]]
) -> Difference:
    if baseline is None or baseline is run:
        return Difference()
    known = bool(run.seeds and baseline.seeds)
    return paired_difference(
        scored[id(baseline)],
        scored[id(run)],
        (baseline.seeds, run.seeds) if known else None,
    )


def _row(
    run: Run,
    measure: Measure,
    parts: list[Resampled],
    difference: Difference,
    split: tuple[str, str],
    results: Sequence[Mapping],
    samples: int,
) -> TableRow:
    score, metrics = mean_over_seeds(parts, measure.bounds), results[0]
    return TableRow(
        run=run,
        measure=measure,
        score=score,
        spread=spread([part.values[0] for part in parts]),
        difference=difference,
        patients=score.units,
        by_image=not _names_patients(parts[0].content),
        protocol=split[0],
        split_hash=split[1],
        splits=len(metrics.get('splits') or [None]),
        undefined=tuple((metrics.get('undefined') or {}).get(measure.name, ())),
        others={
            column: mean_over_seeds(
                [resample(folder, column, samples) for folder in run.folders],
                column.bounds,
            )
            for column in measures_of(metrics).values()
            if column.column
        },
        seen=tuple(
            dict.fromkeys(
                line for one in results for line in sentences(one.get('seen'))
            )
        ),
    )


def class_means(runs: Sequence[Run]) -> pd.DataFrame:
    """Mean score of every class of every run, over its seeds.

    Args:
        runs: Arms, all scored by one measure.

    Returns:
        pandas.DataFrame: A row per run, a column per class, as in
        ``metrics.json``; NaN where a class has no score.
    """
    import pandas as pd

    rows = []
    for run in runs:
        metrics = [read_metrics(folder) for folder in run.folders]
        name = compared_measure(metrics[0]).name
        seeds = [
            {
                one: math.nan if scores[name]['mean'] is None else scores[name]['mean']
                for one, scores in found['per_class'].items()
            }
            for found in metrics
        ]
        rows.append(pd.DataFrame(seeds).mean())
    return pd.DataFrame(rows, index=[f'{run.group}, {run.label}' for run in runs])
