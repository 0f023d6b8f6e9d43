"""What runs leave behind, read, joined over seeds and splits, compared.

The files are ``metrics.json``, ``cases.csv`` and ``predictions/`` of
:class:`medssl_mm.VolumeMetric`, ``metrics.json`` and ``predictions.csv`` of
:class:`medssl_mm.ClassificationMetric`, and the
``vis_data/scalars.json`` of a training run.
"""

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_json, write_whole


@dataclass(frozen=True)
class Measure:
    """The score that a table compares.

    Args:
        name (str): In ``metrics.json`` and ``table.csv``.
        title (str): In headings.
        file (str): What an evaluation leaves behind to resample.
        definition (str): What the number is, for captions.
        axis (str): The same, short, for figures.
        classes (str): What the number of one class is.
    """

    name: str
    title: str
    file: str
    definition: str
    axis: str
    classes: str


DICE = Measure(
    'dice',
    'Dice',
    'cases.csv',
    'Dice per volume, averaged over cases, then over classes',
    'Dice per volume, mean over classes',
    'mean over cases that contain the class or for which it was predicted',
)
AUROC = Measure(
    'auroc',
    'AUROC',
    'predictions.csv',
    'Area under the ROC curve of every class against the rest, averaged over classes',
    'AUROC, mean over classes',
    'against the rest',
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
    """

    group: str
    label: str
    folders: tuple[Path, ...]
    fraction: float = 1.0


@dataclass(frozen=True)
class TableRow:
    """One row of a result table; scores over all seeds of a run.

    Args:
        run (Run): Where the numbers come from.
        measure (Measure): What the score is.
        score (tuple): Mean, low and high end of the 95 % interval.
        hd95 (tuple): The same in mm; NaN where distances were not measured.
        spread (float): Standard deviation of the score over seeds; NaN for
            one seed.
        difference (tuple, optional): Score minus the baseline's, paired by
            patient: mean, low, high. None for the baseline itself.
        patients (int): Patients that were scored.
        protocol (str): Name of the split.
        split_hash (str): Hash of the split; of all of them where the test
            cases of several are pooled.
        splits (int): Splits whose test cases are pooled. Defaults to 1.
        undefined (tuple[str]): Classes without a score. Defaults to ().
    """

    run: Run
    measure: Measure
    score: tuple[float, float, float]
    hd95: tuple[float, float, float]
    spread: float
    difference: tuple[float, float, float] | None
    patients: int
    protocol: str
    split_hash: str
    splits: int = 1
    undefined: tuple[str, ...] = ()


def read_metrics(folder: str | Path) -> dict:
    """Read ``metrics.json`` of an evaluation folder.

    Raises:
        UserError: When it is absent or cannot be read.
    """
    path = Path(folder) / 'metrics.json'
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
        metrics['mean'][measure_of(metrics).name]['mean']
    except FileNotFoundError as error:
        raise UserError(
            f'{path} does not exist; evaluate the run with tools/test.py and '
            'out_dir of its metric set to that folder'
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a result of medssl_mm.VolumeMetric or '
            f'ClassificationMetric ({error}); evaluate the run again'
        ) from error
    return metrics


def measure_of(metrics: dict) -> Measure:
    """Tell by ``metrics.json`` what was measured."""
    return AUROC if AUROC.name in metrics['mean'] else DICE


def pool_results(
    folders: Sequence[str | Path], out: str | Path, samples: int = 2000, seed: int = 0
) -> None:
    """Join the test results of the splits of a cross-validation.

    ``cases.csv`` and ``metrics.json`` are written to ``out`` as if one
    evaluation had scored the test cases of all splits; means and intervals
    are those of the pooled cases.

    Args:
        folders (Sequence[str | Path]): Evaluation folder of every split.
        out (str | Path): Folder to write.
        samples (int): Resamples of the intervals. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Raises:
        UserError: When results are missing, of a classifier, or of different
            data sets or classes, or when a case or patient was tested in two
            splits.
    """
    from medssl_mm.evaluation import bootstrap
    from medssl_mm.evaluation.report import interval_entry

    folders = [Path(folder) for folder in folders]
    metrics = [read_metrics(folder) for folder in folders]
    first = metrics[0]
    if measure_of(first) is AUROC:
        raise UserError(
            f'{folders[0]}: the test images of several splits are not pooled '
            'for classification, as the probabilities of different models '
            'have no common order; make a table of one split'
        )
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
    table = _pool_cases([folder / 'cases.csv' for folder in folders])
    out = Path(out)
    write_whole(out / 'cases.csv', table)

    names, per_class, mean = list(first['per_class']), {}, {}
    for score in first['mean']:
        scores, owners = bootstrap.read_scores(out / 'cases.csv', score)
        cases = sorted({case for case, _ in scores})
        values = np.array(
            [[scores.get((case, name), math.nan) for name in names] for case in cases]
        )
        single, overall = bootstrap.bootstrap_means(
            values, [owners[case] for case in cases], samples, seed
        )
        mean[score] = interval_entry(overall)
        for name, interval in zip(names, single):
            per_class.setdefault(name, {})[score] = interval_entry(interval)
    for name in names:
        counts = [m['per_class'][name].get('counts') for m in metrics]
        if None not in counts:
            per_class[name]['counts'] = {
                key: sum(count[key] for count in counts) for key in counts[0]
            }
    splits = [
        dict(
            protocol=m.get('protocol'),
            split_hash=m.get('split_hash'),
            folder=str(folder),
        )
        for folder, m in zip(folders, metrics)
    ]
    hashes = sorted(str(split['split_hash']) for split in splits)
    write_json(
        out / 'metrics.json',
        dict(
            first,
            protocol=_pooled_protocol([str(s['protocol']) for s in splits]),
            split_hash=hashlib.sha256('\n'.join(hashes).encode()).hexdigest()[:12],
            splits=splits,
            cases=len(cases),
            patients=len({owners[case] for case in cases}),
            mean=mean,
            per_class=per_class,
            interval=dict(first.get('interval') or {}, samples=samples, seed=seed),
            volume_units=sorted(
                {unit for m in metrics for unit in m.get('volume_units') or ()}
            ),
            notes=[
                f'{m.get("protocol")}: {note}'
                for m in metrics
                for note in m.get('notes') or ()
            ],
        ),
    )


def _pool_cases(paths: Sequence[Path]) -> str:
    """Join per-case tables; a case or patient may be in one of them only."""
    from medssl_mm.evaluation.bootstrap import read_scores

    header, lines, seen = None, [], {'case': {}, 'patient': {}}
    for path in paths:
        _, owners = read_scores(path)
        for kind, names in (('case', owners), ('patient', owners.values())):
            for name in names:
                other = seen[kind].setdefault(name, path)
                if other != path:
                    raise UserError(
                        f'{kind} {name} is in {other} and in {path}; the '
                        'test subsets of the splits of a cross-validation '
                        'must not overlap'
                    )
        with path.open(newline='', encoding='utf-8') as file:
            names, *entries = csv.reader(file)
        header = header or names
        if names != header:
            raise UserError(
                f'{path} has the columns {names}, {paths[0]} '
                f'{header}; evaluate both with one version'
            )
        lines += entries
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows([header, *lines])
    return buffer.getvalue()


def _pooled_protocol(protocols: Sequence[str]) -> str:
    """Name what splits have in common: 'set-5fold' of 'set-5fold-fold0'."""
    found = [re.fullmatch(r'(.+)-fold\d+', name) for name in protocols]
    if all(found) and len({match[1] for match in found}) == 1:
        return found[0][1]
    return ' + '.join(dict.fromkeys(protocols))


def read_scalars(work_dir: str | Path) -> dict[str, np.ndarray]:
    """Read the logged curves of a training run, resumed parts joined.

    Args:
        work_dir (str | Path): Work directory of the run.

    Returns:
        dict[str, np.ndarray]: Per name an array ``(points, 2)`` of step and
        value, sorted by step; where a resumed run logged a step again, the
        later value counts.

    Raises:
        UserError: When no log is found.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(
            f'{work_dir} holds no */vis_data/scalars.json; give the work '
            'directory of a training run'
        )
    points = {}
    for path in files:
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed run
            step = entry.get('step', entry.get('iter'))
            for name, value in entry.items():
                if (
                    step is not None
                    and name not in ('step', 'iter')
                    and isinstance(value, (int, float))
                ):
                    points.setdefault(name, {})[step] = value
    return {
        name: np.array(sorted(values.items()), dtype=float)
        for name, values in points.items()
    }


def seed_mean(
    paths: Sequence[Path], column: str = 'dice', samples: int = 2000, seed: int = 0
):
    """Mean over cases, classes and seeds with its 95 % patient interval.

    Every resample of patients is evaluated for all seeds and averaged, so the
    interval is about patients; the spread over seeds is given beside it.

    Args:
        paths (Sequence[Path]): ``cases.csv`` or ``predictions.csv`` of every
            seed.
        column (str): Score in ``cases.csv``. Defaults to 'dice'.
        samples (int): Resamples. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Returns:
        tuple: (mean, low, high); list of the mean of every seed; number of
        patients. NaN where the score was not measured.
    """
    from medssl_mm.evaluation import bootstrap

    parts = [_resample(path, column, samples, seed) for path in paths]
    bootstrap.require_same_content(
        parts, 'seeds of one run must be evaluated on one split'
    )
    curve = np.mean([part.values for part in parts], axis=0)
    drawn = curve[1:][~np.isnan(curve[1:])]
    low, high = (
        np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (math.nan, math.nan)
    )
    return (
        (float(curve[0]), float(low), float(high)),
        [float(part.values[0]) for part in parts],
        parts[0].patients,
    )


def _resample(path: Path, column: str, samples: int, seed: int = 0):
    from medssl_mm.evaluation import bootstrap, classification_report

    if Path(path).name == AUROC.file:
        return classification_report.resample_predictions(path, samples, seed)
    return bootstrap.resample_cases(path, column, None, samples, seed)


def summarize(
    runs: Sequence[Run], baseline: str | None = None, samples: int = 2000
) -> list[TableRow]:
    """Turn runs into table rows.

    Args:
        runs (Sequence[Run]): Arms, in the order of the table.
        baseline (str, optional): Label that the others of its group and
            fraction are compared with. Defaults to None.
        samples (int): Resamples of the intervals. Defaults to 2000.

    Returns:
        list[TableRow]: One per run.

    Raises:
        UserError: When results of one group are of different splits, those
            of the table of different measures, or the baseline is not among
            the runs.
    """
    from medssl_mm.evaluation import bootstrap

    if baseline is not None and all(run.label != baseline for run in runs):
        raise UserError(
            f'no run is labelled {baseline!r} (the baseline); there are '
            f'{sorted({run.label for run in runs})}'
        )
    measures = {
        measure_of(read_metrics(folder)): folder
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
    (measure,) = measures
    tables = {
        id(run): [Path(folder) / measure.file for folder in run.folders] for run in runs
    }
    rows = []
    seen = {}
    for run in runs:
        metrics = [read_metrics(folder) for folder in run.folders]
        hashes = {(str(m.get('protocol')), str(m.get('split_hash'))) for m in metrics}
        # A label fraction is a split of its own, with the same test set.
        known = seen.setdefault((run.group, run.fraction), (hashes, run))
        if len(hashes) > 1 or known[0] != hashes:
            raise UserError(
                f'{run.folders[0]} ({sorted(hashes)}) and '
                f'{known[1].folders[0]} ({sorted(known[0])}) were evaluated '
                'on different splits; compare runs of one split only'
            )
        paths = tables[id(run)]
        score, per_seed, patients = seed_mean(paths, 'dice', samples)
        hd95 = (math.nan,) * 3
        if measure is DICE:
            hd95, _, _ = seed_mean(paths, 'hd95', samples)
        difference = None
        other = next(
            (
                r
                for r in runs
                if r.label == baseline
                and (r.group, r.fraction) == (run.group, run.fraction)
            ),
            None,
        )
        if other is not None and other is not run:
            change = bootstrap.compare(
                *(
                    [_resample(path, 'dice', samples) for path in arm]
                    for arm in (tables[id(other)], paths)
                )
            )
            difference = (change.difference, change.low, change.high)
        ((protocol, split_hash),) = hashes
        rows.append(
            TableRow(
                run=run,
                measure=measure,
                score=score,
                hd95=hd95,
                spread=float(np.std(per_seed, ddof=1))
                if len(per_seed) > 1
                else math.nan,
                difference=difference,
                patients=patients,
                protocol=protocol,
                split_hash=split_hash,
                splits=len(metrics[0].get('splits') or [None]),
                undefined=tuple(
                    (metrics[0].get('undefined') or {}).get(measure.name, ())
                ),
            )
        )
    return rows
