"""What a linear model reads out of the features of each stage.

Logistic regression on standardised pooled features of a frozen network, to
convergence; the regularisation strength is chosen on the validation images.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from medssl_mm.errors import UserError
from medssl_mm.statistics import (
    Interval,
    Predictions,
    Resampled,
    Scores,
    few_patients,
    mean_over_seeds,
    paired_difference,
)
from medssl_mm.statistics.classification import (
    count_patients,
    enough_patients,
    resampled_scores,
    score,
)
from medssl_mm.statistics.compare import INTERVALS, spread
from medssl_mm.statistics.measures import AUROC, F1
from medssl_mm.statistics.resampling import intervals, mean_of_classes

# Numbers in the features of a small problem.
SMALL = 2_000_000
#: Inverse strengths of the linear protocol, in the terms of scikit-learn: 1e6 to
#: 1e-5 in steps of a quarter of a decade.
COSTS = tuple(10.0 ** (6 - step / 4) for step in range(45))
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
KINDS = ('auroc', 'f1')  # columns of Probe.drawn
POLICY = (
    'Features standardised with the training images. Minimised: mean log '
    'loss + strength / 2 * squared length of the weights (not of the '
    'intercept), one model per class (multi-label) or one multinomial model '
    '(single-label). Strength: the one with the largest macro AUROC on the '
    'validation images, the largest of equal ones. A class with one value '
    'only in the training or test images is left out of all means. '
    f'{INTERVALS}.'
)


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Labels of the images of the three subsets.

    Args:
        classes (tuple[str]): Names.
        multi_label (bool): Whether an image may have any number of classes.
        targets (Mapping): Of 'train', 'val' and 'test': whether the image
            has the class.
        patients (Sequence[str]): Patient of every test image.
        min_positive_patients (int): Test patients in which a class must be
            found, and in which it must be absent. Defaults to 0.

    Shape: targets ``(images, classes)``, bool.
    """

    classes: tuple[str, ...]
    multi_label: bool
    targets: Mapping[str, np.ndarray]
    patients: Sequence[str]
    min_positive_patients: int = 0

    def left_out(self) -> dict[str, str]:
        """Classes that cannot be fitted or judged, and why.

        They have one value only in training or test, or too few test
        patients.
        """
        test, least = self.targets['test'], self.min_positive_patients
        found = count_patients(self.patients, test)
        enough = enough_patients(self.patients, test, least)
        return {
            **{
                name: f'{number} test patients with it, {least} are asked for'
                for name, number, ok in zip(self.classes, found, enough)
                if not ok
            },
            **one_valued(self.classes, self.targets['test'], 'test'),
            **one_valued(self.classes, self.targets['train'], 'training'),
        }


@dataclass(frozen=True)
class Probe:
    """Result of one probe.

    Args:
        checkpoint (str): Name of the network.
        place (str): Where in it.
        fraction (float): Share of the training patients, 0-1.
        fraction_seed (int | None): Seed of that share.
        train_images (int): Images it was fitted on.
        strength (float): The chosen one.
        at_end (bool): Whether it is the smallest or largest there was.
        val_auroc (float): Macro AUROC on the validation images; NaN where
            it was not needed.
        auroc (Interval): Macro AUROC on the test images.
        f1 (Interval | None): Macro F1; None for several labels.
        per_class (dict[str, Interval]): AUROC of the classes that count.
        left_out (dict[str, str]): The other classes, and why.
        data_notes (list[str]): What the images leave to be desired.
        notes (list[str]): Fits that did not converge.
        number (int): Which of the networks of that name. Defaults to 0.
        drawn (np.ndarray | None): Macro AUROC, and macro F1 where there is
            one, of every resample of the test patients. Defaults to None.
        probabilities (np.ndarray | None): Of the classes, of the test images.
            Defaults to None.

    Shape: drawn ``(resamples, 1 or 2)``; probabilities ``(images, classes)``.
    """

    checkpoint: str
    place: str
    fraction: float
    fraction_seed: int | None
    train_images: int
    strength: float
    at_end: bool
    val_auroc: float
    auroc: Interval
    f1: Interval | None
    per_class: dict[str, Interval]
    left_out: dict[str, str]
    data_notes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    number: int = 0
    drawn: np.ndarray | None = field(default=None, repr=False, compare=False)
    probabilities: np.ndarray | None = field(default=None, repr=False, compare=False)

    def resampled(self, kind: str) -> Resampled:
        """Score 'auroc' or 'f1' of all test images, and of every resample."""
        found = getattr(self, kind)
        values = np.array([found.estimate])
        if self.drawn is not None:
            values = np.concatenate([values, self.drawn[:, KINDS.index(kind)]])
        name = f'{self.checkpoint} {self.place}'
        return Resampled(name, values, {}, found.units)


@dataclass(frozen=True)
class Summary:
    """What the probes of one name, stage and share of labels have in common.

    Args:
        checkpoint (str): Name of the network.
        place (str): Where in it.
        fraction (float): Share of the training patients, 0-1.
        probes (tuple[Probe]): Of every seed and every draw of the share.
        auroc (Interval): Mean macro AUROC. The interval is that of the mean:
            every resample of patients scores all probes.
        f1 (Interval | None): The same of macro F1; None for several labels.
    """

    checkpoint: str
    place: str
    fraction: float
    probes: tuple[Probe, ...]
    auroc: Interval
    f1: Interval | None

    def resampled(self, kind: str) -> list[Resampled]:
        """Score 'auroc' or 'f1' of every probe, with resamples."""
        return [probe.resampled(kind) for probe in self.probes]

    def spread(self, kind: str) -> float:
        """Standard deviation over probes of 'auroc' or 'f1'; NaN for one."""
        return spread([getattr(probe, kind).estimate for probe in self.probes])


def summarize(probes: Sequence[Probe]) -> list[Summary]:
    """Join the probes of one name, stage and share of labels.

    Args:
        probes: All of the same test images and resamples.
    """
    groups: dict[tuple[str, str, float], list[Probe]] = {}
    for probe in probes:
        key = probe.checkpoint, probe.place, probe.fraction
        groups.setdefault(key, []).append(probe)

    return [
        Summary(
            *key,
            tuple(group),
            mean_over_seeds(
                [probe.resampled('auroc') for probe in group], AUROC.bounds
            ),
            None
            if group[0].f1 is None
            else mean_over_seeds([probe.resampled('f1') for probe in group], F1.bounds),
        )
        for key, group in groups.items()
    ]


def difference(row: Summary, baseline: Summary, kind: str) -> Interval | None:
    """Score minus that of the baseline, on the same resamples of patients.

    Args:
        row: Of the same stage and share of labels as ``baseline``, usually.
        baseline: What to compare with.
        kind: 'auroc' or 'f1'.

    Returns:
        Interval | None: Difference of the means; None when either has no
        such score.
    """
    if getattr(row, kind) is None or getattr(baseline, kind) is None:
        return None
    return paired_difference(baseline.resampled(kind), row.resampled(kind))


def one_valued(
    classes: Sequence[str], targets: np.ndarray, what: str
) -> dict[str, str]:
    """Name the classes that all images have, or none.

    Args:
        classes: Names.
        targets: Whether the image has the class.
        what: Kind of images, for the reason.

    Shape: targets ``(images, classes)``, bool.
    """
    counts, images = targets.sum(0), len(targets)
    return {
        name: f'{count} of {images} {what} images'
        for name, count in zip(classes, counts.tolist())
        if count in (0, images)
    }


def fit_path(
    features: np.ndarray,
    targets: np.ndarray,
    multi_label: bool,
    strengths: Sequence[float],
    max_iter: int = 2000,
    tolerance: float = 1e-6,
    weakest_first: bool = False,
    models: dict[int, Any] | None = None,
) -> Iterator[tuple[float, Callable, list[int]]]:
    """Fit logistic regressions, from the strongest regularisation on.

    Each starts from the one before, which converges to the same minimum (the
    problem is strictly convex up to the intercept) in fewer iterations.

    Args:
        features: Standardised.
        targets: Whether the image has the class; of a single-label set exactly
            one each.
        multi_label: One model per class, or one for all.
        strengths: Factors of half the squared length of the weights, beside the
            mean loss.
        max_iter: Iterations of L-BFGS.
        tolerance: Largest component of the gradient at the end.
        weakest_first: Whether to go from the weakest regularisation on instead.
        models: Fitted ones, by class (single-label: -1), that the first fits start
            from; gets those of this path.

    Shape: features ``(N, D)``, float64; targets ``(N, C)``, bool.

    Yields:
        tuple[float, Callable, list[int]]: Strength; function from features
        to probabilities ``(N, C)``, to be used before the next one; classes
        (single-label: -1) whose fit has not converged.
    """
    samples, count = targets.shape
    varied = [c for c in range(count) if 0 < targets[:, c].sum() < samples]
    if multi_label:
        problems = {c: targets[:, c].astype(int) for c in varied}
    else:
        problems = {-1: targets.argmax(1)}
    models = {} if models is None else models
    for name, problem in problems.items():
        # Weights of other classes are no start.
        if not np.array_equal(
            getattr(models.get(name), 'classes_', ()), np.unique(problem)
        ):
            models[name] = LogisticRegression(
                max_iter=max_iter, tol=tolerance, warm_start=True
            )

    def predict(rows: np.ndarray) -> np.ndarray:
        # What no training image has cannot be told: probability 0.
        result = np.zeros((len(rows), count))
        for name in problems:
            model = models[name]
            probabilities = model.predict_proba(rows)
            if multi_label:
                result[:, name] = probabilities[:, 1]
            else:
                result[:, model.classes_] = probabilities
        return result

    # Several threads at tiny products mostly wait for each other.
    threads = 1 if features.size < SMALL else None
    for strength in sorted(strengths, reverse=not weakest_first):
        failed = []
        for name, problem in problems.items():
            models[name].C = 1 / (strength * samples)
            with (
                threadpool_limits(threads),
                warnings.catch_warnings(record=True) as caught,
            ):
                warnings.simplefilter('always', ConvergenceWarning)
                models[name].fit(features, problem)
            if any(issubclass(w.category, ConvergenceWarning) for w in caught):
                failed.append(name)
        yield strength, predict, failed


class _Chosen(NamedTuple):
    """The fit that does best on the validation images."""

    strength: float
    quality: float  # macro AUROC there; NaN where it was not needed
    probabilities: np.ndarray  # of the test images
    notes: list[str]


def _choose(
    rows: Mapping[str, np.ndarray],
    data: ProbeData,
    usable: np.ndarray,
    strengths: Sequence[float],
    max_iter: int,
) -> _Chosen:
    best: _Chosen | None = None
    failures: list[str] = []
    for strength, predict, failed in fit_path(
        rows['train'], data.targets['train'], data.multi_label, strengths, max_iter
    ):
        if failed:
            names = ', '.join(data.classes[c] for c in failed if c >= 0)
            failures.append(f'strength {strength:g}{f" ({names})" if names else ""}')
        quality = math.nan
        if usable.any():
            scores = score(_predictions(predict(rows['val']), data, 'val'))
            quality = float(scores.auroc[usable].mean())
        if best is None or quality > best.quality:
            best = _Chosen(strength, quality, predict(rows['test']), [])
    assert best is not None, 'there is a strength at least'
    if failures:
        best.notes.append(
            f'not converged after {max_iter} iterations: '
            f'{", ".join(failures)}; chosen: {best.strength:g}'
        )
    return best


def run_probe(
    features: Mapping[str, np.ndarray],
    data: ProbeData,
    checkpoint: str = '',
    place: str = '',
    fraction: float = 1.0,
    fraction_seed: int | None = None,
    strengths: Sequence[float] = STRENGTHS,
    max_iter: int = 2000,
    samples: int = 2000,
    seed: int = 0,
    number: int = 0,
) -> Probe:
    """Fit, choose, and score one probe.

    Args:
        features: Of 'train', 'val' and 'test'.
        data: Labels of the same images.
        checkpoint: For the result.
        place: For the result.
        fraction: For the result.
        fraction_seed: For the result.
        strengths: To choose from.
        max_iter: Iterations of a fit.
        samples: Resamples for the interval; 0 for none.
        seed: Of the resampling.
        number: For the result.

    Shape: features ``(images, channels)``.

    Raises:
        UserError: When no class is left, or none to choose the strength by.
    """
    left_out = data.left_out()
    kept = np.array([name not in left_out for name in data.classes])
    where = f'{checkpoint} {place}'.strip() or 'probe'
    if not kept.any():
        raise UserError(
            f'{where}: no class has images with and without it both in '
            f'training and test ({listed(left_out)}); use a larger fraction '
            'or another split'
        )
    data_notes, usable = _choosable(data, kept, len(strengths) > 1, where)
    # Double precision: in single, L-BFGS stops at its rounding errors.
    rows = {name: np.asarray(values, np.float64) for name, values in features.items()}
    scaler = StandardScaler().fit(rows['train'])
    rows = {name: scaler.transform(values) for name, values in rows.items()}
    chosen = _choose(rows, data, usable, strengths, max_iter)
    scored = score_probe(chosen.probabilities, data, samples, seed)
    return Probe(
        checkpoint=checkpoint,
        place=place,
        fraction=fraction,
        fraction_seed=fraction_seed,
        train_images=len(rows['train']),
        strength=chosen.strength,
        at_end=len(strengths) > 1
        and chosen.strength in (min(strengths), max(strengths)),
        val_auroc=chosen.quality,
        left_out=left_out,
        notes=chosen.notes,
        number=number,
        probabilities=chosen.probabilities,
        **{**scored, 'data_notes': data_notes + scored['data_notes']},
    )


def score_probe(
    probabilities: np.ndarray, data: ProbeData, samples: int, seed: int
) -> dict[str, Any]:
    """Score the test images; returns what of a :class:`Probe` comes of it.

    Args:
        probabilities: Of the classes, of the test images.
        data: Their labels.
        samples: Resamples for the intervals; 0 for none.
        seed: Of the resampling.

    Shape: probabilities ``(images, classes)``.
    """
    left_out = data.left_out()
    kept = np.array([name not in left_out for name in data.classes])
    auroc, f1, per_class, notes, drawn = _score(
        probabilities, data, kept, samples, seed
    )
    return dict(auroc=auroc, f1=f1, per_class=per_class, data_notes=notes, drawn=drawn)


def _choosable(
    data: ProbeData, kept: np.ndarray, needed: bool, where: str
) -> tuple[list[str], np.ndarray]:
    """Tell which classes the validation images can compare strengths by."""
    missing = one_valued(data.classes, data.targets['val'], 'validation')
    usable = kept & np.array([name not in missing for name in data.classes])
    missing = {
        name: why for (name, why) in missing.items() if kept[data.classes.index(name)]
    }
    if needed and not usable.any():
        raise UserError(
            f'{where}: AUROC is undefined on the validation images '
            f'({listed(missing)}), so no regularisation strength can be '
            'chosen; use another split, or give one --strengths'
        )
    notes = []
    if needed and missing:
        notes.append(f'strength chosen without {listed(missing)}')
    return notes, usable


def _predictions(
    probabilities: np.ndarray,
    data: ProbeData,
    subset: str,
    patients: Sequence[str] | None = None,
) -> Predictions:
    targets = data.targets[subset]
    blank = ('',) * len(targets)
    return Predictions(
        data.classes,
        data.multi_label,
        blank,
        blank if patients is None else tuple(patients),
        targets,
        probabilities,
    )


def _score(
    probabilities: np.ndarray,
    data: ProbeData,
    kept: np.ndarray,
    samples: int,
    seed: int,
) -> tuple[
    Interval, Interval | None, dict[str, Interval], list[str], np.ndarray | None
]:
    """Score the test images, and resamples of them for the intervals."""

    def columns(scores: Scores) -> np.ndarray:
        """Macro AUROC, macro F1 if it counts, AUROC of every class kept."""
        parts = [mean_of_classes(scores.auroc[..., kept])[..., None]]
        if not data.multi_label:
            parts.append(mean_of_classes(scores.f1[..., kept])[..., None])
        return np.concatenate([*parts, scores.auroc[..., kept]], axis=-1)

    names = [n for n, keep in zip(data.classes, kept) if keep]
    predictions = _predictions(probabilities, data, 'test', data.patients)
    patients = len(set(predictions.patients))
    notes: list[str] = []
    drawn = None
    if samples:
        drawn = columns(resampled_scores(predictions, samples, seed))
        shares = np.isnan(drawn[:, -len(names) :]).mean(0)
        rare = [
            f'{name} {100 * share:.1f} %' for name, share in zip(names, shares) if share
        ]
        if rare:
            notes.append(
                'resamples in which a class has one value only, and that '
                f'count without it: {", ".join(rare)}'
            )
        notes += few_patients(patients, 'test patient')
    scored = intervals(
        columns(score(predictions)), drawn, patients, patients, AUROC.bounds
    )
    auroc = scored.pop(0)
    f1 = None if data.multi_label else scored.pop(0)
    macro = None if drawn is None else drawn[:, : 1 if f1 is None else 2]
    return auroc, f1, dict(zip(names, scored)), notes, macro


def listed(reasons: Mapping[str, str]) -> str:
    """Write names with their reasons: 'a (why), b (why)'."""
    return ', '.join(f'{name} ({why})' for name, why in reasons.items())


@dataclass(frozen=True, eq=False)
class LinearFit:
    """A linear model that was chosen by validation and fitted anew.

    Args:
        probabilities (np.ndarray): Of the test images.
        cost (float): The chosen one.
        quality (dict[float, float]): Score on the validation images by cost.
        failed (tuple[float]): Costs whose fit has not converged.
        converged (bool): Whether the final fit has.

    Shape: probabilities ``(images, classes)``.
    """

    probabilities: np.ndarray
    cost: float
    quality: dict[float, float]
    failed: tuple[float, ...]
    converged: bool


def fit_linear(
    features: Mapping[str, np.ndarray],
    data: ProbeData,
    costs: Sequence[float] = COSTS,
    by: Literal['auroc', 'accuracy', 'recall'] = 'auroc',
    standardise: bool = False,
    softmax: bool = False,
    max_iter: int = 1000,
    tolerance: float = 1e-4,
    weakest_first: bool = False,
) -> LinearFit:
    """Choose the cost on the validation images, then fit train and val anew.

    The protocol of `How Well Do Self-Supervised Models Transfer?
    <https://arxiv.org/abs/2011.13377>`_. Minimised is the sum of the log loss
    times the cost, plus half the squared length of the weights. Of equal costs
    the largest is taken.

    Args:
        features: Of 'train', 'val' and 'test'.
        data: Labels of the same images.
        costs: To choose from. Defaults to :data:`COSTS`.
        by: Score on the validation images: macro AUROC; of a single-label set
            also accuracy, or mean per-class accuracy ('recall'). Defaults to
            'auroc'.
        standardise: Whether features are standardised with the training
            images. Defaults to False.
        softmax: Whether two classes get a row of weights each, as older
            scikit-learn did; the same as one row at twice the cost. Defaults to
            False.
        max_iter: Iterations of a fit. Defaults to 1000.
        tolerance: Largest component of the gradient at the end. Defaults to
            1e-4.
        weakest_first: Whether fits go from the largest cost down, each from the
            weights of the one before, and the final one from the weights of the
            last, as published numbers were made; else from the smallest cost up,
            and the final one from 0. Differs where fits do not converge. Defaults
            to False.

    Shape: features ``(images, channels)``.

    Raises:
        UserError: No class can be learnt, or none tells costs apart.
    """
    left_out = data.left_out()
    kept = np.array([name not in left_out for name in data.classes])
    if not kept.any():
        raise UserError(
            'linear: no class has images with and without it both in training and '
            f'test ({listed(left_out)}); use another split'
        )
    _, usable = _choosable(data, kept, len(costs) > 1 and by == 'auroc', 'linear')
    rows = {name: np.asarray(values, np.float64) for name, values in features.items()}
    if standardise:
        scaler = StandardScaler().fit(rows['train'])
        rows = {name: scaler.transform(values) for name, values in rows.items()}
    models: dict[int, Any] | None = {} if weakest_first else None
    factor = 2 if softmax and len(data.classes) == 2 and not data.multi_label else 1

    def path(
        inputs: np.ndarray, targets: np.ndarray, costs: Sequence[float]
    ) -> Iterator[tuple[float, Callable, list[int]]]:
        by_strength = {1 / (factor * cost * len(inputs)): cost for cost in costs}
        for strength, predict, failed in fit_path(
            inputs,
            targets,
            data.multi_label,
            list(by_strength),
            max_iter,
            tolerance,
            weakest_first,
            models,
        ):
            yield by_strength[strength], predict, failed

    quality, failures = dict[float, float](), []
    for cost, predict, failed in path(rows['train'], data.targets['train'], costs):
        found = score(_predictions(predict(rows['val']), data, 'val'))
        if by == 'auroc':
            value = found.auroc[usable].mean()
        else:
            value = found.accuracy if by == 'accuracy' else found.macro_recall
        quality[cost] = float(value)
        if failed:
            failures.append(cost)
    chosen = max(quality, key=lambda cost: (quality[cost], cost))
    inputs = np.concatenate([rows['train'], rows['val']])
    targets = np.concatenate([data.targets['train'], data.targets['val']])
    _, predict, failed = next(path(inputs, targets, [chosen]))
    return LinearFit(
        predict(rows['test']), chosen, quality, tuple(failures), not failed
    )
