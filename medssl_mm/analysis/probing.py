"""What a linear model reads out of the features of each stage.

Logistic regression on standardised pooled features of a frozen network, to
convergence; the regularisation strength is chosen on the validation images.
"""

import csv
import io
import math
import warnings
from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from medssl_mm.console import wide_console
from medssl_mm.errors import UserError
from medssl_mm.files import whole_file, write_json, write_whole

# Numbers in the features of a small problem.
SMALL = 2_000_000
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
KINDS = ('auroc', 'f1')  # columns of Probe.drawn
POLICY = (
    'Features standardised with the training images. Minimised: mean log '
    'loss + strength / 2 * squared length of the weights (not of the '
    'intercept), one model per class (multi-label) or one multinomial model '
    '(single-label). Strength: the one with the largest macro AUROC on the '
    'validation images, the largest of equal ones. A class with one value '
    'only in the training or test images is left out of all means. '
    'Intervals: 95 % percentile bootstrap over patients.'
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
        from medssl_mm.evaluation.classification_scores import (
            count_patients,
            enough_patients,
        )

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
class Score:
    """A score and its 95 % interval; NaN: undefined.

    Args:
        value (float): Over all test images.
        low (float): 2.5th percentile of the resampled values.
        high (float): 97.5th percentile.
    """

    value: float
    low: float
    high: float


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
        auroc (Score): Macro AUROC on the test images.
        f1 (Score | None): Macro F1; None for several labels.
        per_class (dict[str, Score]): AUROC of the classes that count.
        left_out (dict[str, str]): The other classes, and why.
        data_notes (list[str]): What the images leave to be desired.
        notes (list[str]): Fits that did not converge.
        number (int): Which of the networks of that name. Defaults to 0.
        drawn (np.ndarray | None): Macro AUROC, and macro F1 where there is
            one, of every resample of the test patients. Defaults to None.

    Shape: drawn ``(resamples, 1 or 2)``.
    """

    checkpoint: str
    place: str
    fraction: float
    fraction_seed: int | None
    train_images: int
    strength: float
    at_end: bool
    val_auroc: float
    auroc: Score
    f1: Score | None
    per_class: dict[str, Score]
    left_out: dict[str, str]
    data_notes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    number: int = 0
    drawn: np.ndarray | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Summary:
    """What the probes of one name, stage and share of labels have in common.

    Args:
        checkpoint (str): Name of the network.
        place (str): Where in it.
        fraction (float): Share of the training patients, 0-1.
        probes (tuple[Probe]): Of every seed and every draw of the share.
        auroc (Score): Mean macro AUROC. The interval is that of the mean:
            every resample of patients scores all probes.
        f1 (Score | None): The same of macro F1; None for several labels.
    """

    checkpoint: str
    place: str
    fraction: float
    probes: tuple[Probe, ...]
    auroc: Score
    f1: Score | None

    def spread(self, kind: str) -> float:
        """Standard deviation over probes of 'auroc' or 'f1'; NaN for one."""
        values = [getattr(probe, kind).value for probe in self.probes]
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def summarize(probes: Sequence[Probe]) -> list[Summary]:
    """Join the probes of one name, stage and share of labels.

    Args:
        probes (Sequence[Probe]): All of the same test images and resamples.
    """
    groups = {}
    for probe in probes:
        key = probe.checkpoint, probe.place, probe.fraction
        groups.setdefault(key, []).append(probe)

    return [
        Summary(*key, tuple(group), *(_mean_score(group, kind) for kind in KINDS))
        for key, group in groups.items()
    ]


def difference(row: Summary, baseline: Summary, kind: str) -> Score | None:
    """Score minus that of the baseline, on the same resamples of patients.

    Args:
        row (Summary): Of the same stage and share of labels as ``baseline``,
            usually.
        baseline (Summary): What to compare with.
        kind (str): 'auroc' or 'f1'.

    Returns:
        Score | None: Difference of the means, and its interval; None when
        either has no such score.
    """
    scores = getattr(row, kind), getattr(baseline, kind)
    if None in scores:
        return None
    drawn = _drawn(row.probes, kind), _drawn(baseline.probes, kind)
    return _with_interval(
        scores[0].value - scores[1].value,
        None if drawn[0] is None or drawn[1] is None else drawn[0] - drawn[1],
    )


def _mean_score(probes, kind) -> Score | None:
    if getattr(probes[0], kind) is None:
        return None
    return _with_interval(
        float(np.mean([getattr(p, kind).value for p in probes])), _drawn(probes, kind)
    )


def _drawn(probes, kind) -> np.ndarray | None:
    """Mean over probes, of every resample."""
    if any(probe.drawn is None for probe in probes):
        return None
    return np.mean([p.drawn[:, KINDS.index(kind)] for p in probes], axis=0)


def _with_interval(value: float, drawn: np.ndarray | None) -> Score:
    from medssl_mm.evaluation.bootstrap import percentiles

    if drawn is None:
        return Score(value, math.nan, math.nan)
    low, high = percentiles(drawn[:, None])
    return Score(value, float(low[0]), float(high[0]))


def one_valued(
    classes: Sequence[str], targets: np.ndarray, what: str
) -> dict[str, str]:
    """Name the classes that all images have, or none.

    Args:
        classes (Sequence[str]): Names.
        targets (np.ndarray): Whether the image has the class.
        what (str): Kind of images, for the reason.

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
) -> Iterator[tuple[float, Callable, list[int]]]:
    """Fit logistic regressions, from the strongest regularisation on.

    Each starts from the one before, which converges to the same minimum (the
    problem is strictly convex up to the intercept) in fewer iterations.

    Args:
        features (np.ndarray): Standardised.
        targets (np.ndarray): Whether the image has the class; of a
            single-label set exactly one each.
        multi_label (bool): One model per class, or one for all.
        strengths (Sequence[float]): Factors of half the squared length of
            the weights, beside the mean loss.
        max_iter (int): Iterations of L-BFGS. Defaults to 2000.
        tolerance (float): Largest component of the gradient at the end.
            Defaults to 1e-6.

    Shape: features ``(N, D)``, float64; targets ``(N, C)``, bool.

    Yields:
        tuple[float, Callable, list[int]]: Strength; function from features
        to probabilities ``(N, C)``, to be used before the next one; classes
        (single-label: -1) whose fit has not converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    samples, count = targets.shape
    varied = [c for c in range(count) if 0 < targets[:, c].sum() < samples]
    if multi_label:
        problems = {c: targets[:, c].astype(int) for c in varied}
    else:
        problems = {-1: targets.argmax(1)}
    models = {
        name: LogisticRegression(max_iter=max_iter, tol=tolerance, warm_start=True)
        for name in problems
    }

    def predict(rows: np.ndarray) -> np.ndarray:
        # What no training image has cannot be told: probability 0.
        result = np.zeros((len(rows), count))
        for name, model in models.items():
            probabilities = model.predict_proba(rows)
            if multi_label:
                result[:, name] = probabilities[:, 1]
            else:
                result[:, model.classes_] = probabilities
        return result

    # Several threads at tiny products mostly wait for each other.
    threads = 1 if features.size < SMALL else None
    for strength in sorted(strengths, reverse=True):
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
        features (Mapping[str, np.ndarray]): Of 'train', 'val' and 'test'.
        data (ProbeData): Labels of the same images.
        checkpoint (str): For the result. Defaults to ''.
        place (str): For the result. Defaults to ''.
        fraction (float): For the result. Defaults to 1.0.
        fraction_seed (int, optional): For the result. Defaults to None.
        strengths (Sequence[float]): To choose from. Defaults to
            ``STRENGTHS``.
        max_iter (int): Iterations of a fit. Defaults to 2000.
        samples (int): Resamples for the interval; 0 for none. Defaults to
            2000.
        seed (int): Of the resampling. Defaults to 0.
        number (int): For the result. Defaults to 0.

    Shape: features ``(images, channels)``.

    Raises:
        UserError: When no class is left, or none to choose the strength by.
    """
    from sklearn.preprocessing import StandardScaler

    left_out = data.left_out()
    kept = np.array([name not in left_out for name in data.classes])
    where = f'{checkpoint} {place}'.strip() or 'probe'
    if not kept.any():
        raise UserError(
            f'{where}: no class has images with and without it both in '
            f'training and test ({_listed(left_out)}); use a larger fraction '
            'or another split'
        )
    data_notes, usable = _choosable(data, kept, len(strengths) > 1, where)
    # Double precision: in single, L-BFGS stops at its rounding errors.
    rows = {name: np.asarray(values, np.float64) for name, values in features.items()}
    scaler = StandardScaler().fit(rows['train'])
    rows = {name: scaler.transform(values) for name, values in rows.items()}
    best, chosen, failures = -math.inf, None, []
    for strength, predict, failed in fit_path(
        rows['train'],
        data.targets['train'],
        data.multi_label,
        strengths,
        max_iter,
    ):
        if failed:
            names = ', '.join(data.classes[c] for c in failed if c >= 0)
            failures.append(f'strength {strength:g}{f" ({names})" if names else ""}')
        quality = math.nan
        if usable.any():
            scores = _all_images(_predictions(predict(rows['val']), data, 'val'))
            quality = scores.auroc[0, usable].mean()
        if chosen is None or quality > best:
            best = quality
            chosen = strength, predict(rows['test'])
    notes = []
    if failures:
        notes.append(
            f'not converged after {max_iter} iterations: '
            f'{", ".join(failures)}; chosen: {chosen[0]:g}'
        )
    auroc, f1, per_class, about, drawn = _score(chosen[1], data, kept, samples, seed)
    return Probe(
        checkpoint=checkpoint,
        place=place,
        fraction=fraction,
        fraction_seed=fraction_seed,
        train_images=len(rows['train']),
        strength=chosen[0],
        at_end=len(strengths) > 1 and chosen[0] in (min(strengths), max(strengths)),
        val_auroc=float(best) if usable.any() else math.nan,
        auroc=auroc,
        f1=f1,
        per_class=per_class,
        left_out=left_out,
        data_notes=data_notes + about,
        notes=notes,
        number=number,
        drawn=drawn,
    )


def _choosable(data, kept, needed, where) -> tuple[list[str], np.ndarray]:
    """Tell which classes the validation images can compare strengths by."""
    missing = one_valued(data.classes, data.targets['val'], 'validation')
    usable = kept & np.array([name not in missing for name in data.classes])
    missing = {
        name: why for (name, why) in missing.items() if kept[data.classes.index(name)]
    }
    if needed and not usable.any():
        raise UserError(
            f'{where}: AUROC is undefined on the validation images '
            f'({_listed(missing)}), so no regularisation strength can be '
            'chosen; use another split, or give one --strengths'
        )
    notes = []
    if needed and missing:
        notes.append(f'strength chosen without {_listed(missing)}')
    return notes, usable


def _predictions(probabilities, data, subset, patients=None):
    from medssl_mm.evaluation.classification_scores import Predictions

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


def _all_images(predictions):
    from medssl_mm.evaluation.classification_scores import weighted_scores

    return weighted_scores(predictions, np.ones((1, len(predictions.targets))))


def _score(probabilities, data, kept, samples, seed):
    """Score the test images, and resamples of them for the intervals."""
    from medssl_mm.evaluation.bootstrap import (
        few_patients,
        mean_of_classes,
        percentiles,
    )
    from medssl_mm.evaluation.classification_scores import resampled_scores

    def columns(scores):
        """Macro AUROC, macro F1 if it counts, AUROC of every class kept."""
        parts = [mean_of_classes(scores.auroc[:, kept])]
        if not data.multi_label:
            parts.append(mean_of_classes(scores.f1[:, kept]))
        return np.column_stack([*parts, scores.auroc[:, kept]])

    names = [n for n, keep in zip(data.classes, kept) if keep]
    predictions = _predictions(probabilities, data, 'test', data.patients)
    values = columns(_all_images(predictions))[0]
    low = high = np.full(len(values), math.nan)
    notes, drawn = [], None
    if samples:
        drawn = columns(resampled_scores(predictions, samples, seed))
        low, high = percentiles(drawn)
        shares = np.isnan(drawn[:, -len(names) :]).mean(0)
        rare = [
            f'{name} {100 * share:.1f} %' for name, share in zip(names, shares) if share
        ]
        if rare:
            notes.append(
                'resamples in which a class has one value only, and that '
                f'count without it: {", ".join(rare)}'
            )
        notes += few_patients(len(set(predictions.patients)), 'test patient')
    scored = [Score(*map(float, three)) for three in zip(values, low, high)]
    auroc = scored.pop(0)
    f1 = None if data.multi_label else scored.pop(0)
    macro = None if drawn is None else drawn[:, : 1 if f1 is None else 2]
    return auroc, f1, dict(zip(names, scored)), notes, macro


def _listed(reasons: Mapping[str, str]) -> str:
    return ', '.join(f'{name} ({why})' for name, why in reasons.items())


# --------------------------------------------------------------------------
# Tables and figures
# --------------------------------------------------------------------------


def probe_notes(probes: Sequence[Probe]) -> list[str]:
    """Say once what a reader of the numbers has to know."""
    notes = []
    for probe in probes:
        about = list(probe.data_notes)
        if probe.left_out:
            about.insert(
                0,
                f'left out {_listed(probe.left_out)}; means are over the '
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
    return list(dict.fromkeys(notes))


def _kinds(probes: Sequence[Probe]) -> dict[str, str]:
    """Name the scores that the probes have."""
    kinds = {'auroc': 'macro AUROC'}
    if any(probe.f1 for probe in probes):
        kinds['f1'] = 'macro F1'
    return kinds


def _layout(probes: Sequence[Probe]) -> tuple[dict, list, list, list]:
    """Rows by name, stage and share; the names, the stages, the shares."""
    rows = {(r.checkpoint, r.place, r.fraction): r for r in summarize(probes)}
    return rows, *(list(dict.fromkeys(key[part] for key in rows)) for part in range(3))


def _baselines(rows: Iterable[Summary], name: str | None) -> dict[tuple, Summary]:
    """Find what the rows of a stage and share are compared with."""
    return {(r.place, r.fraction): r for r in rows if r.checkpoint == name}


def _compared(row: Summary, baselines: Mapping, kind: str) -> Score | None:
    baseline = baselines.get((row.place, row.fraction))
    if baseline is None or baseline.checkpoint == row.checkpoint:
        return None
    return difference(row, baseline, kind)


def _text(score: Score | None, sign: str = '') -> str:
    if score is None:
        return ''
    value, low, high = (
        f'{number:{sign}.3f}' for number in (score.value, score.low, score.high)
    )
    return value if math.isnan(score.low) else f'{value} [{low}, {high}]'


def markdown_table(probes: Sequence[Probe], baseline: str | None = None) -> str:
    """Write a table per share of labels, a row per name, a column per stage.

    Args:
        probes (Sequence[Probe]): The results.
        baseline (str, optional): Name that the others are compared with.
            Defaults to None.
    """
    rows, names, places, fractions = _layout(probes)
    baselines = _baselines(rows.values(), baseline)
    lines = []
    for kind, title in _kinds(probes).items():
        for fraction in fractions:
            lines += [
                f'{title}, {100 * fraction:g} % of the labels',
                '',
                f'| checkpoint | {" | ".join(places)} |',
                '| --- ' * (1 + len(places)) + '|',
            ]
            for name in names:
                cells = []
                for place in places:
                    row = rows.get((name, place, fraction))
                    cell = '–' if row is None else _text(getattr(row, kind))
                    against = row and _compared(row, baselines, kind)
                    cells.append(f'{cell}, {_text(against, "+")}' if against else cell)
                lines.append(f'| {name} | {" | ".join(cells)} |')
            lines.append('')
    lines += [f'{note}.\n' for note in probe_notes(probes)]
    return '\n'.join(lines)


def print_probes(
    probes: Sequence[Probe], console=None, baseline: str | None = None
) -> None:
    """Print a row per name, stage and share of labels.

    Of several seeds, or draws of the share, the mean and its interval, and
    the standard deviation.

    Args:
        probes (Sequence[Probe]): The results.
        console (rich.console.Console, optional): Defaults to a new one.
        baseline (str, optional): Name that the others are compared with.
            Defaults to None.
    """
    from rich.table import Table

    console = console or wide_console()
    rows = summarize(probes)
    baselines = _baselines(rows, baseline)
    kinds = _kinds(probes)
    several = any(len(row.probes) > 1 for row in rows)
    table = Table(title='Linear probes; [95 % interval over patients]')
    table.add_column('checkpoint', overflow='fold')
    headings = ['stage', 'labels', 'images', 'fits' if several else 'strength']
    for kind in kinds.values():
        headings += [kind, 'SD'] if several else [kind]
        headings += [f'against {baseline}'] if baselines else []
    for name in headings:
        table.add_column(name, justify='right', no_wrap=True)
    for row in rows:
        images = sorted({probe.train_images for probe in row.probes})
        cells = []
        for kind in kinds:
            score, spread = getattr(row, kind), row.spread(kind)
            cells.append(_text(score))
            if several:
                cells.append('' if math.isnan(spread) else f'{spread:.3f}')
            if baselines:
                cells.append(_text(_compared(row, baselines, kind), '+'))
        table.add_row(
            row.checkpoint,
            row.place,
            f'{100 * row.fraction:g} %',
            '-'.join(map(str, dict.fromkeys((images[0], images[-1])))),
            str(len(row.probes)) if several else f'{row.probes[0].strength:g}',
            *cells,
        )
    console.print(table)
    for note in probe_notes(probes):
        console.print(f'note: {note}', highlight=False)


def draw_probes(probes: Sequence[Probe]):
    """Draw the scores against the stage, a line per name.

    A panel per share of labels (and, single-label, a row for F1). Of several
    seeds or draws, the line is the mean and the dots are the single ones.

    Args:
        probes (Sequence[Probe]): The results.

    Returns:
        matplotlib.figure.Figure: To be saved.
    """
    from matplotlib.figure import Figure

    from medssl_mm.reporting import COLOURS

    rows, names, places, fractions = _layout(probes)
    kinds = _kinds(probes)
    figure = Figure(
        figsize=(1.5 + 3.2 * len(fractions), 0.4 + 3.4 * len(kinds)),
        layout='constrained',
    )
    panels = figure.subplots(len(kinds), len(fractions), sharey='row', squeeze=False)
    for kind, line in zip(kinds, panels):
        for fraction, axes in zip(fractions, line):
            for index, name in enumerate(names):
                # Side by side, so that the bars can be told apart.
                shift = 0.06 * (index - (len(names) - 1) / 2)
                _draw_line(
                    axes,
                    [rows.get((name, place, fraction)) for place in places],
                    kind,
                    shift,
                    COLOURS[index % len(COLOURS)],
                    name,
                )
            if kind == 'auroc':
                axes.axhline(0.5, color='0.6', linewidth=0.8, linestyle=':')
            axes.set_xticks(range(len(places)), places)
            axes.set_title(f'{100 * fraction:g} % of the labels', fontsize=9)
        line[0].set_ylabel(kinds[kind])
    several = any(len(row.probes) > 1 for row in rows.values())
    figure.supxlabel(
        'bars: 95 % interval over test patients'
        + ('; dots: single seeds and draws' if several else ''),
        fontsize=8,
    )
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=min(4, len(names)))
    return figure


def _draw_line(axes, rows, kind, shift, colour, label) -> None:
    points = []
    for place, row in enumerate(rows):
        score = Score(*[math.nan] * 3) if row is None else getattr(row, kind)
        middle = score.value
        points.append(
            [
                middle,
                *(
                    0 if math.isnan(end) else end
                    # Resamples may all lie on one side of the value.
                    for end in (max(middle - score.low, 0), max(score.high - middle, 0))
                ),
            ]
        )
        if row is not None and len(row.probes) > 1:
            axes.plot(
                [place + shift] * len(row.probes),
                [getattr(probe, kind).value for probe in row.probes],
                '.',
                color=colour,
                markersize=3,
                alpha=0.6,
            )
    middle, *ends = np.array(points).T
    axes.errorbar(
        np.arange(len(rows)) + shift,
        middle,
        yerr=ends,
        color=colour,
        marker='o',
        markersize=4,
        capsize=2,
        linewidth=1.2,
        label=label,
    )


def write_probes(
    probes: Sequence[Probe],
    folder: str | Path,
    settings: Mapping,
    baseline: str | None = None,
) -> list[Path]:
    """Write ``probe.json``, ``probe.csv``, ``probe.md`` and ``probe.png``.

    Args:
        probes (Sequence[Probe]): The results.
        folder (str | Path): Made if need be.
        settings (Mapping): What they were made with; plain data.
        baseline (str, optional): Name that the others are compared with.
            Defaults to None.

    Returns:
        list[Path]: The four files.
    """
    folder = Path(folder)
    paths = [folder / f'probe.{kind}' for kind in ('json', 'csv', 'png', 'md')]
    rows = summarize(probes)
    baselines = _baselines(rows, baseline)
    content = dict(
        **settings,
        policy=POLICY,
        notes=probe_notes(probes),
        means=[_mean_content(row, baselines) for row in rows],
        probes=[_content(probe) for probe in probes],
    )
    write_json(paths[0], plain(content))
    write_whole(paths[1], _table(probes))
    with whole_file(paths[2]) as temporary:
        draw_probes(probes).savefig(temporary, dpi=150)
    write_whole(paths[3], markdown_table(probes, baseline))
    return paths


def _content(probe: Probe) -> dict:
    content = asdict(probe)
    del content['drawn']
    return content


def _mean_content(row: Summary, baselines: Mapping) -> dict:
    content = dict(checkpoint=row.checkpoint, place=row.place, fraction=row.fraction)
    for kind in KINDS:
        content[kind] = getattr(row, kind)
        content[f'{kind}_difference'] = _compared(row, baselines, kind)
    return {
        name: asdict(value) if isinstance(value, Score) else value
        for name, value in content.items()
        if value is not None
    }


def _table(probes: Sequence[Probe]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(
        [
            'checkpoint',
            'number',
            'place',
            'fraction',
            'fraction_seed',
            'train_images',
            'strength',
            'val_auroc',
            'score',
            'class',
            'value',
            'low',
            'high',
        ]
    )
    for probe in probes:
        scores = [('auroc', 'mean', probe.auroc)]
        if probe.f1:
            scores.append(('f1', 'mean', probe.f1))
        scores += [('auroc', n, s) for n, s in probe.per_class.items()]
        for kind, name, score in scores:
            numbers = (probe.val_auroc, score.value, score.low, score.high)
            val, *rest = (
                '' if math.isnan(number) else f'{number:.6f}' for number in numbers
            )
            seed = probe.fraction_seed
            writer.writerow(
                [
                    probe.checkpoint,
                    probe.number,
                    probe.place,
                    probe.fraction,
                    '' if seed is None else seed,
                    probe.train_images,
                    f'{probe.strength:g}',
                    val,
                    kind,
                    name,
                    *rest,
                ]
            )
    return buffer.getvalue()


def plain(value):
    """Copy nested data; NaN becomes None, which JSON can hold."""
    if isinstance(value, Mapping):
        return {name: plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
