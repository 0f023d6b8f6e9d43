"""Tables and files of one evaluation of a classifier."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_whole

from .bootstrap import Interval, Resampled, few_patients, percentiles
from .classification_scores import (
    POLICY,
    Predictions,
    Scores,
    resampled_scores,
    score,
    weighted_scores,
)
from .report import (
    interval_cell,
    interval_entry,
    library_versions,
)

LIBRARIES = (
    'torchmetrics',
    'numpy',
    'torch',
    'onedl-mmengine',
    'onedl-mmpretrain',
    'medssl_mm',
)
# Positive patients below which a class is judged by chance.
FEW_POSITIVE = 5
TASKS = ('multi-label', 'single-label')
_PROBABILITY, _TARGET = 'probability_', 'target_'


@dataclass(frozen=True, eq=False)
class ClassificationEvaluation:
    """Predictions and what they were scored with.

    Args:
        predictions (Predictions): Of all images.
        protocol (str, optional): Name of the split.
        split_hash (str, optional): Hash of the split.
        data_root (str, optional): Folder of the data set.
        threshold (float): Probability from which a class of a multi-label
            set counts as predicted.
        bootstrap_samples (int): Resamples; 0 for no intervals.
        bootstrap_seed (int): Seed of the resampling.
    """

    predictions: Predictions
    protocol: str | None
    split_hash: str | None
    data_root: str | None
    threshold: float
    bootstrap_samples: int
    bootstrap_seed: int

    @property
    def num_patients(self) -> int:
        """Number of different patients."""
        return len(set(self.predictions.patients))

    @property
    def positives(self) -> np.ndarray:
        """Images that have the class. Shape: returns ``(classes,)``."""
        return self.predictions.targets.sum(0)

    @cached_property
    def scores(self) -> Scores:
        """Scores of all images."""
        return score(self.predictions, self.threshold)

    @cached_property
    def _resampled(self) -> Scores | None:
        if not self.bootstrap_samples:
            return None
        return resampled_scores(
            self.predictions,
            self.bootstrap_samples,
            self.bootstrap_seed,
            self.threshold,
        )

    @cached_property
    def intervals(self) -> dict[str, tuple[list[Interval], Interval]]:
        """Of 'auroc' and 'f1': per class, and of the mean over classes."""
        return {
            name: (self._intervals(name), self._intervals(f'macro_{name}')[0])
            for name in ('auroc', 'f1')
        }

    @cached_property
    def accuracy(self) -> Interval:
        """Accuracy over all images."""
        return self._intervals('accuracy')[0]

    def _intervals(self, name: str) -> list[Interval]:
        values = np.atleast_1d(getattr(self.scores, name))
        low = high = np.full(len(values), np.nan)
        if self._resampled is not None:
            drawn = getattr(self._resampled, name)
            low, high = percentiles(drawn.reshape(len(drawn), -1))
        images = len(self.predictions.image_ids)
        return [
            Interval(float(value), float(low[i]), float(high[i]), images)
            for i, value in enumerate(values)
        ]

    @cached_property
    def undefined(self) -> dict[str, dict[str, str]]:
        """Classes without 'auroc' or 'f1', and why."""
        images = len(self.predictions.image_ids)
        found = {'auroc': {}, 'f1': {}}
        for index, name in enumerate(self.predictions.classes):
            if np.isnan(self.scores.auroc[index]):
                kind = 'negative' if self.positives[index] else 'positive'
                found['auroc'][name] = f'no {kind} image among {images}'
            if np.isnan(self.scores.f1[index]):
                found['f1'][name] = 'neither present nor predicted'
        return found

    def num_classes(self, name: str) -> int:
        """Classes that the mean of 'auroc' or 'f1' is over."""
        counted = self.predictions.counted
        return int((~np.isnan(getattr(self.scores, name)[counted])).sum())

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        notes = []
        classes = self.predictions.classes
        for name, title in (('auroc', 'AUROC'), ('f1', 'F1')):
            reasons = self.undefined[name]
            if reasons:
                listed = ', '.join(f'{one} ({why})' for one, why in reasons.items())
                notes.append(
                    f'{title} undefined for {listed}; the mean is over '
                    f'{self.num_classes(name)} of {len(classes)} classes'
                )
        if self._resampled is not None:
            missing = np.isnan(self._resampled.auroc).mean(0)
            rare = [
                f'{name} {100 * share:.1f} %'
                for name, share in zip(classes, missing)
                if share and name not in self.undefined['auroc']
            ]
            if rare:
                notes.append(
                    'resamples in which a class has one value only, and that '
                    f'count without it: {", ".join(rare)}'
                )
        least = self.predictions.min_positive_patients
        found = list(
            zip(classes, self.predictions.positive_patients, self.predictions.counted)
        )
        rare = [
            f'{name} {count}'
            for name, count, counted in found
            if not counted and name not in self.undefined['auroc']
        ]
        if rare:
            notes.append(
                f'found, or absent, in fewer than {least} patients and not '
                f'in the means: {", ".join(rare)} (patients with)'
            )
        few = [
            f'{name} {count}'
            for name, count, counted in found
            if counted and 0 < count < FEW_POSITIVE
        ]
        if self.bootstrap_samples and few:
            notes.append(
                f'classes found in fewer than {FEW_POSITIVE} patients, whose '
                'own AUROC says little and whose interval is too narrow: '
                f'{", ".join(few)}'
            )
        if self.bootstrap_samples:
            notes += few_patients(self.num_patients)
        return notes

    def log_values(self) -> dict[str, float]:
        """Numbers for the training log; what is undefined is left out."""
        values = {
            'macro_AUROC': float(self.scores.macro_auroc),
            'AUROC_classes': self.num_classes('auroc'),
            'macro_F1': float(self.scores.macro_f1),
            'accuracy': float(self.scores.accuracy),
        }
        for name, value in zip(self.predictions.classes, self.scores.auroc):
            values[f'AUROC_{name.replace(" ", "_")}'] = float(value)
        return {name: value for name, value in values.items() if not np.isnan(value)}


def format_classification(evaluation: ClassificationEvaluation) -> str:
    """Lay out the result as a table of classes for screen and log.

    Args:
        evaluation (ClassificationEvaluation): Scored images.

    Returns:
        str: Table with a value and 95 % interval per class and score.
    """
    from rich.console import Console
    from rich.table import Table

    predictions = evaluation.predictions
    images = len(predictions.image_ids)
    table = Table(
        title=f'{evaluation.protocol or "no protocol"} '
        f'({evaluation.split_hash or "no split"}): {images} images, '
        f'{evaluation.num_patients} patients; [95 % interval over patients]',
        title_justify='left',
    )
    table.add_column('class')
    for header in ('AUROC', 'F1', 'positive', 'patients', 'negative'):
        table.add_column(header, justify='right')
    per_class = [evaluation.intervals[name][0] for name in ('auroc', 'f1')]
    for index, name in enumerate(predictions.classes):
        positive = int(evaluation.positives[index])
        table.add_row(
            name,
            *(interval_cell(part[index], 3) for part in per_class),
            str(positive),
            str(predictions.positive_patients[index]),
            str(images - positive),
        )
    table.add_section()
    defined = [evaluation.num_classes(name) for name in ('auroc', 'f1')]
    table.add_row(
        f'mean of {" / ".join(map(str, dict.fromkeys(defined)))} classes',
        *(interval_cell(evaluation.intervals[name][1], 3) for name in ('auroc', 'f1')),
        '',
        '',
        '',
    )
    table.add_row('accuracy', interval_cell(evaluation.accuracy, 3), *[''] * 4)
    buffer = io.StringIO()
    console = Console(file=buffer, width=150, color_system=None)
    console.print(table)
    for note in evaluation.notes():
        console.print(f'note: {note}', highlight=False)
    return buffer.getvalue().rstrip()


def classification_summary(evaluation: ClassificationEvaluation) -> dict:
    """Everything but the single images, ready for JSON; NaN becomes null."""
    predictions = evaluation.predictions
    images = len(predictions.image_ids)
    mean, per_class = {}, {}
    for name, (single, overall) in evaluation.intervals.items():
        mean[name] = dict(interval_entry(overall), classes=evaluation.num_classes(name))
        for one, item in zip(predictions.classes, single):
            per_class.setdefault(one, {})[name] = interval_entry(item)
    for one, positive, patients in zip(
        predictions.classes, evaluation.positives, predictions.positive_patients
    ):
        per_class[one]['counts'] = dict(
            positive=int(positive),
            negative=images - int(positive),
            positive_patients=int(patients),
        )
    mean['accuracy'] = interval_entry(evaluation.accuracy)
    return dict(
        protocol=evaluation.protocol,
        split_hash=evaluation.split_hash,
        data_root=evaluation.data_root,
        task=TASKS[not predictions.multi_label],
        images=images,
        patients=evaluation.num_patients,
        classes=list(predictions.classes),
        mean=mean,
        per_class=per_class,
        undefined=evaluation.undefined,
        threshold=evaluation.threshold if predictions.multi_label else None,
        min_positive_patients=predictions.min_positive_patients,
        policy=POLICY,
        interval=dict(
            kind='95 % percentile bootstrap',
            resampled='patients, with all their images',
            samples=evaluation.bootstrap_samples,
            seed=evaluation.bootstrap_seed,
        ),
        notes=evaluation.notes(),
        versions=library_versions(LIBRARIES),
    )


def write_classification(
    evaluation: ClassificationEvaluation, out_dir: Path
) -> list[Path]:
    """Write ``predictions.csv`` and ``metrics.json``.

    Args:
        evaluation (ClassificationEvaluation): Scored images.
        out_dir (Path): Folder, made if absent.

    Returns:
        list[Path]: The two files.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / 'predictions.csv', out_dir / 'metrics.json']
    table = io.StringIO(newline='')
    _write_rows(table, evaluation.predictions)
    write_whole(paths[0], table.getvalue())
    write_whole(
        paths[1],
        json.dumps(classification_summary(evaluation), indent=1, allow_nan=False),
    )
    return paths


def _write_rows(file, predictions: Predictions) -> None:
    writer = csv.writer(file, lineterminator='\n')
    targets = (
        [f'{_TARGET}{name}' for name in predictions.classes]
        if predictions.multi_label
        else ['target']
    )
    writer.writerow(
        [
            'image_id',
            'patient_id',
            *targets,
            *(f'{_PROBABILITY}{name}' for name in predictions.classes),
        ]
    )
    for image, patient, target, probability in zip(
        predictions.image_ids,
        predictions.patients,
        predictions.targets,
        predictions.probabilities,
    ):
        writer.writerow(
            [
                image,
                patient,
                *(
                    map(int, target)
                    if predictions.multi_label
                    else [predictions.classes[int(target.argmax())]]
                ),
                # Enough digits to get the same 32-bit number back.
                *(format(value, '.9g') for value in probability),
            ]
        )


def read_predictions(path: str | Path) -> Predictions:
    """Read ``predictions.csv`` of :class:`medssl_mm.ClassificationMetric`.

    Args:
        path (str | Path): The file, or the folder it is in.

    Returns:
        Predictions: In the order of the file.

    Raises:
        UserError: If it is absent or of another form.
    """
    path = Path(path)
    path = path / 'predictions.csv' if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f'{path} does not exist; write it with tools/test.py and a '
            'classification config'
        )
    with path.open(newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    classes = [
        name.removeprefix(_PROBABILITY)
        for name in header
        if name.startswith(_PROBABILITY)
    ]
    multi_label = 'target' not in header
    targets = [f'{_TARGET}{name}' for name in classes] if multi_label else ['target']
    expected = [
        'image_id',
        'patient_id',
        *targets,
        *(f'{_PROBABILITY}{name}' for name in classes),
    ]
    if header != expected or not classes or not rows:
        raise UserError(
            f'{path} is not a table of medssl_mm.ClassificationMetric: '
            f'expected the columns {_first(expected)} and at least one row, '
            f'found {_first(header)} and {len(rows)} row(s); evaluate the '
            'model again'
        )
    first, last = 2, 2 + len(targets)
    try:
        labels = [row[first:last] for row in rows]
        values = np.array([row[last:] for row in rows], dtype=np.float32)
        if not multi_label:
            labels = [[name == label for name in classes] for (label,) in labels]
            if not all(map(any, labels)):
                raise ValueError('a target is none of the classes')
        labels = np.array(labels, dtype=float)
        if values.shape != (len(rows), len(classes)):
            raise ValueError('rows differ in length')
    except ValueError as error:
        raise UserError(
            f'{path} is damaged: {error}; evaluate the model again'
        ) from error
    return Predictions(
        classes=tuple(classes),
        multi_label=multi_label,
        image_ids=tuple(row[0] for row in rows),
        patients=tuple(row[1] for row in rows),
        targets=labels.astype(bool),
        probabilities=values.astype(float),
    )


def resample_predictions(
    path: str | Path, samples: int = 2000, seed: int = 0
) -> Resampled:
    """Macro AUROC of stored predictions, with resamples of the patients.

    The mean is over the classes that counted in the evaluation, as
    ``metrics.json`` beside the file tells.

    Args:
        path (str | Path): ``predictions.csv``.
        samples (int): Resamples. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Raises:
        UserError: If the file is absent or of another form.
    """
    predictions = read_predictions(path)
    summary = Path(path).with_name('metrics.json')
    if summary.is_file():
        predictions = replace(
            predictions, min_positive_patients=_least_patients(summary)
        )
    everything = np.ones((1, len(predictions.image_ids)))
    values = weighted_scores(predictions, everything).macro_auroc
    if samples:
        values = np.concatenate(
            [values, resampled_scores(predictions, samples, seed).macro_auroc]
        )
    return Resampled(
        source=str(path),
        values=values,
        content=dict(
            images=predictions.image_ids,
            classes=predictions.classes,
            patients=predictions.patients,
            labels=[
                f'{image}: {np.flatnonzero(row).tolist()}'
                for image, row in zip(predictions.image_ids, predictions.targets)
            ],
        ),
        patients=len(set(predictions.patients)),
    )


def _least_patients(summary: Path) -> int:
    try:
        return json.loads(summary.read_text()).get('min_positive_patients', 0)
    except ValueError as error:
        raise UserError(
            f'{summary} is damaged ({error}); evaluate the model again'
        ) from error


def _first(names: Sequence[str], count: int = 6) -> str:
    rest = len(names) - count
    return ', '.join(names[:count]) + (f', and {rest} more' * (rest > 0))
