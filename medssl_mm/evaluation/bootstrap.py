"""Patient-level bootstrap intervals and paired comparisons."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError

# Below this number of patients the percentile interval is too narrow to be
# taken at its word.
FEW_PATIENTS = 15


def few_patients(count: int, what: str = 'patient') -> list[str]:
    """Return the note on intervals over few patients, if it is called for.

    Args:
        count (int): Number of patients.
        what (str): What they are. Defaults to 'patient'.
    """
    if count >= FEW_PATIENTS:
        return []
    return [
        f'only {count} {what}{"s" * (count != 1)}: the intervals are too '
        'narrow; look at the single cases'
    ]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval.

    Args:
        mean (float): Value over all patients.
        low (float): 2.5th percentile of the resampled values.
        high (float): 97.5th percentile.
        count (int): Cases that count.
    """

    mean: float
    low: float
    high: float
    count: int


def draw_patients(
    patients: Sequence[str], samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw how often each patient is taken when patients are resampled.

    Args:
        patients (Sequence[str]): Patient of every case.
        samples (int): Number of resamples.
        seed (int): Seed of the draw.

    Shape: returns ``(samples, patients)``, integer, and the column of every
        case ``(cases,)``.
    """
    names, index = np.unique(np.asarray(patients), return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=samples
    )
    return draws, index


def patient_weights(patients: Sequence[str], samples: int, seed: int) -> np.ndarray:
    """Draw how often each case is taken when patients are resampled.

    All cases of a patient are taken together.

    Args:
        patients (Sequence[str]): Patient of every case.
        samples (int): Number of resamples.
        seed (int): Seed of the draw.

    Shape: returns ``(samples, cases)``, integer.
    """
    draws, index = draw_patients(patients, samples, seed)
    return draws[:, index]


def class_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over cases, NaN left out.

    Shape: values ``(cases, classes)``; weights ``(samples, cases)``. Returns
        ``(samples, classes)``, NaN where no case counts.
    """
    counted = ~np.isnan(values)
    total = weights @ np.where(counted, values, 0.0)
    number = weights @ counted.astype(float)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def mean_of_classes(means: np.ndarray) -> np.ndarray:
    """Mean over the last axis, NaN left out; NaN where nothing is left."""
    counted = ~np.isnan(means)
    number = counted.sum(-1)
    total = np.where(counted, means, 0.0).sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def bootstrap_means(
    values: np.ndarray, patients: Sequence[str], samples: int = 2000, seed: int = 0
) -> tuple[list[Interval], Interval]:
    """Means per class and over classes with 95 % patient-level intervals.

    Args:
        values (np.ndarray): One score per case and class; NaN: not counted.
        patients (Sequence[str]): Patient of every case.
        samples (int): Resamples; 0 gives no interval. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Shape: values ``(cases, classes)``.

    Returns:
        tuple[list[Interval], Interval]: Per class, and the mean of classes.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or len(values) != len(patients):
        raise ValueError(
            'values must be (cases, classes) with one patient per case, got '
            f'{values.shape} and {len(patients)} patients'
        )
    means = class_means(values, np.ones((1, len(values))))[0]
    low = high = np.full(values.shape[1] + 1, np.nan)
    if samples and len(values):
        drawn = class_means(values, patient_weights(patients, samples, seed))
        drawn = np.column_stack([drawn, mean_of_classes(drawn)])
        low, high = percentiles(drawn)
    counts = (~np.isnan(values)).sum(0)
    per_class = [
        Interval(float(mean), float(low[i]), float(high[i]), int(counts[i]))
        for i, mean in enumerate(means)
    ]
    overall = Interval(
        float(mean_of_classes(means)),
        float(low[-1]),
        float(high[-1]),
        int((~np.isnan(values)).any(1).sum()),
    )
    return per_class, overall


def percentiles(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile intervals of resampled values, NaN left out.

    Shape: drawn ``(samples, values)``; returns low and high ends
        ``(values,)``, NaN where nothing was drawn.
    """
    # A column without any value stays NaN, without numpy's warning.
    empty = np.isnan(drawn).all(0)
    filled = np.where(empty, 0.0, drawn)
    low, high = np.nanpercentile(filled, [2.5, 97.5], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


@dataclass(frozen=True)
class Difference:
    """Paired difference, second minus first.

    Args:
        first (float): Value of the first method.
        second (float): Value of the second method.
        difference (float): second - first.
        low (float): 2.5th percentile of the resampled difference.
        high (float): 97.5th percentile.
        share_above_zero (float): Share of resamples above zero, 0-1.
        patients (int): Number of patients.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    share_above_zero: float
    patients: int


def read_scores(
    path: str | Path, column: str = 'dice'
) -> tuple[dict[tuple[str, str], float], dict]:
    """Read one column of a per-case table.

    Args:
        path (str | Path): ``cases.csv`` written by ``VolumeMetric``.
        column (str): Name of the score. Defaults to 'dice'.

    Returns:
        tuple[dict, dict]: Score by (case, class), NaN where not counted; and
        patient by case.

    Raises:
        UserError: If the file is absent or lacks the column.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f'score table {path} does not exist; write it with '
            'tools/test.py and out_dir set'
        )
    scores, patients = {}, {}
    with path.open(newline='') as file:
        reader = csv.DictReader(file)
        needed = {'case_id', 'patient_id', 'class', column}
        absent = needed - set(reader.fieldnames or ())
        if absent:
            raise UserError(
                f'score table {path} lacks the columns {sorted(absent)}; it '
                f'has {reader.fieldnames}'
            )
        for row in reader:
            value = float(row[column]) if row[column] else np.nan
            scores[row['case_id'], row['class']] = value
            patients[row['case_id']] = row['patient_id']
    return scores, patients


@dataclass(frozen=True, eq=False)
class Resampled:
    """A score of one evaluation, and of resamples of its patients.

    Args:
        source (str): File it comes from, for messages.
        values (np.ndarray): Score of all patients, then of every resample;
            NaN where it is not defined.
        content (dict[str, object]): What was scored, such as cases and
            classes; equal for evaluations that may be compared.
        patients (int): Number of patients.

    Shape: values ``(1 + samples,)``.
    """

    source: str
    values: np.ndarray
    content: dict
    patients: int


def resample_cases(
    path: str | Path,
    column: str = 'dice',
    class_name: str | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Mean over cases, then classes, of a score, with resamples.

    Args:
        path (str | Path): ``cases.csv`` written by ``VolumeMetric``.
        column (str): Score. Defaults to 'dice'.
        class_name (str, optional): One class; None takes the mean over
            classes. Defaults to None.
        samples (int): Resamples. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Raises:
        UserError: If the table lacks something.
    """
    scores, patients = read_scores(path, column)
    cases = sorted({case for case, _ in scores})
    names = sorted({name for _, name in scores})
    content = dict(
        cases=cases, classes=names, patients=[patients[case] for case in cases]
    )
    if class_name is not None:
        if class_name not in names:
            raise UserError(f'no class {class_name!r} in {path}; it has {names}')
        names = [class_name]
    values = np.array(
        [[scores[case, name] for name in names] for case in cases], dtype=float
    )
    weights = np.concatenate(
        [
            np.ones((1, len(cases)), dtype=int),
            patient_weights(content['patients'], samples, seed),
        ]
    )
    return Resampled(
        source=str(path),
        values=mean_of_classes(class_means(values, weights)),
        content=content,
        patients=len(set(content['patients'])),
    )


def require_same_content(evaluations: Sequence[Resampled], advice: str) -> None:
    """Raise unless all evaluations scored the same cases and classes.

    Args:
        evaluations (Sequence[Resampled]): What is to be put together.
        advice (str): End of the message: what to do.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for what, expected in first.content.items():
            found = other.content.get(what)
            if found == expected:
                continue
            differing = sorted(set(map(str, found or ())) ^ set(map(str, expected)))[:3]
            raise UserError(
                f'{other.source} and {first.source} are not of the same '
                f'{what} (differing: {differing or "the order"}); {advice}'
            )


def compare(first: Sequence[Resampled], second: Sequence[Resampled]) -> Difference:
    """Compare two methods on the same patients by a paired bootstrap.

    Both are evaluated on the same resampled patients, so that the variation
    between patients cancels. Several evaluations of one method (seeds) are
    averaged within every resample.

    Args:
        first (Sequence[Resampled]): Evaluations of the first method.
        second (Sequence[Resampled]): The same of the second; all with one
            seed of the resampling.

    Returns:
        Difference: Second minus first.

    Raises:
        UserError: If they are not of the same cases and classes.
    """
    require_same_content([*first, *second], 'compare runs of one protocol')
    curves = [np.mean([part.values for part in arm], axis=0) for arm in (first, second)]
    change = curves[1] - curves[0]
    drawn = change[1:][~np.isnan(change[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (np.nan, np.nan)
    return Difference(
        first=float(curves[0][0]),
        second=float(curves[1][0]),
        difference=float(change[0]),
        low=float(low),
        high=float(high),
        share_above_zero=float((drawn > 0).mean()) if len(drawn) else np.nan,
        patients=first[0].patients,
    )


def paired_difference(
    first: Sequence[str | Path] | str | Path,
    second: Sequence[str | Path] | str | Path,
    column: str = 'dice',
    class_name: str | None = None,
    samples: int = 10000,
    seed: int = 0,
) -> Difference:
    """Compare two methods by their tables of cases; see :func:`compare`.

    Args:
        first (Sequence[str | Path] | str | Path): Table or tables of the
            first method.
        second (Sequence[str | Path] | str | Path): The same of the second.
        column (str): Score to compare. Defaults to 'dice'.
        class_name (str, optional): One class; None takes the mean over
            classes. Defaults to None.
        samples (int): Resamples. Defaults to 10000.
        seed (int): Seed of the resampling. Defaults to 0.

    Returns:
        Difference: Second minus first.

    Raises:
        UserError: If the tables are not of the same cases and classes.
    """
    arms = [
        [arm] if isinstance(arm, (str, Path)) else list(arm) for arm in (first, second)
    ]
    return compare(
        *(
            [resample_cases(path, column, class_name, samples, seed) for path in arm]
            for arm in arms
        )
    )
