"""Scores of classified images: ``predictions.csv``, read, resampled, summarised."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.provenance import result_entry, sentences
from medssl_mm.statistics import Interval, Predictions, Resampled, Scores, few_patients
from medssl_mm.statistics.classification import POLICY, SCORES, resampled_scores, score
from medssl_mm.statistics.resampling import intervals

from .evaluation import (
    METRICS,
    Evaluation,
    interval_settings,
    library_versions,
    title_of,
)
from .files import read_csv

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = 'predictions.csv'
LIBRARIES = ('numpy', 'torch', 'onedl-mmengine', 'onedl-mmpretrain', 'medssl_mm')
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
        seen (Mapping, optional): What the network has seen of the images, see
            :mod:`medssl_mm.provenance`. Defaults to None.
    """

    predictions: Predictions
    protocol: str | None
    split_hash: str | None
    data_root: str | None
    threshold: float
    bootstrap_samples: int
    bootstrap_seed: int
    seen: Mapping | None = None

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
        """Of scores with classes: per class, and of the mean over classes."""
        return {
            name: (self._intervals(name), self._intervals(f'macro_{name}')[0])
            for name, one in SCORES.items()
            if one.why
        }

    def _intervals(self, name: str) -> list[Interval]:
        drawn = None
        if self._resampled is not None:
            drawn = getattr(self._resampled, name)
            drawn = drawn.reshape(len(drawn), -1)
        return intervals(
            np.atleast_1d(getattr(self.scores, name)),
            drawn,
            len(self.predictions.image_ids),
            self.num_patients,
            SCORES[name.removeprefix('macro_')].measure.bounds,
        )

    @cached_property
    def undefined(self) -> dict[str, dict[str, str]]:
        """By score the classes without it, and why."""
        return {
            name: {
                title: one.why(self.predictions, index)
                for index, title in enumerate(self.predictions.classes)
                if np.isnan(self.scores.found[name][index])
            }
            for name, one in SCORES.items()
            if one.why
        }

    def num_classes(self, name: str) -> int:
        """Classes that the mean of a score is over."""
        counted = self.predictions.counted
        return int((~np.isnan(self.scores.found[name][counted])).sum())

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        notes = [
            *sentences(self.seen),
            *self._undefined_notes(),
            *self._resampling_notes(),
        ]
        least, undefined = self.predictions.min_positive_patients, self.undefined
        found = list(
            zip(
                self.predictions.classes,
                self.predictions.positive_patients,
                self.predictions.counted,
            )
        )
        rare = [
            f'{name} {count}'
            for name, count, counted in found
            if not counted and name not in undefined['auroc']
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
        if not self.predictions.has_patients:
            notes.append(
                'every image counts as a patient of its own: where several are of one '
                'person, intervals are too narrow'
            )
        return notes

    def _undefined_notes(self) -> Iterator[str]:
        for name, reasons in self.undefined.items():
            if reasons:
                listed = ', '.join(f'{one} ({why})' for one, why in reasons.items())
                yield (
                    f'{SCORES[name].measure.title} undefined for {listed}; the mean '
                    f'is over {self.num_classes(name)} of '
                    f'{len(self.predictions.classes)} classes'
                )

    def _resampling_notes(self) -> Iterator[str]:
        if self._resampled is None:
            return
        missing = np.isnan(self._resampled.auroc).mean(0)
        rare = [
            f'{name} {100 * share:.1f} %'
            for name, share in zip(self.predictions.classes, missing)
            if share and name not in self.undefined['auroc']
        ]
        if rare:
            yield (
                'resamples in which a class has one value only, and that '
                f'count without it: {", ".join(rare)}'
            )

    def summary(self) -> Evaluation:
        """The same, as it is shown and written."""
        predictions = self.predictions
        images = len(predictions.image_ids)
        unit = 'patients' if predictions.has_patients else 'images'
        return Evaluation(
            title=title_of(
                self.protocol,
                self.split_hash,
                f'{images} images',
                self.num_patients,
                predictions.has_patients,
            )
            + f'; [95 % interval over {unit}]',
            measures=tuple(SCORES[name].measure for name in self.intervals),
            per_class={
                name: dict(zip(predictions.classes, single))
                for name, (single, _) in self.intervals.items()
            },
            mean={name: mean for name, (_, mean) in self.intervals.items()},
            counts=self._counts(),
            facts=dict(
                protocol=self.protocol,
                split_hash=self.split_hash,
                data_root=self.data_root,
                **result_entry(self.seen),
                task=TASKS[not predictions.multi_label],
                images=images,
                patients=self.num_patients,
                classes=list(predictions.classes),
            ),
            settings=dict(
                undefined=self.undefined,
                threshold=self.threshold if predictions.multi_label else None,
                min_positive_patients=predictions.min_positive_patients,
                policy=POLICY,
                interval=interval_settings(
                    self.bootstrap_samples,
                    self.bootstrap_seed,
                    'images',
                    self.num_patients,
                    predictions.has_patients,
                ),
                versions=library_versions(LIBRARIES),
            ),
            notes=self.notes(),
            num_classes={name: self.num_classes(name) for name in self.intervals},
            overall={
                one.measure: self._intervals(name)[0]
                for name, one in SCORES.items()
                if not one.why
            },
        )

    def _counts(self) -> dict[str, dict[str, int]]:
        images, predictions = len(self.predictions.image_ids), self.predictions
        return {
            name: dict(
                positive=int(positive),
                negative=images - int(positive),
                positive_patients=int(patients),
            )
            for name, positive, patients in zip(
                predictions.classes, self.positives, predictions.positive_patients
            )
        }

    def text(self) -> str:
        """Lay the result out as a table of classes for screen and log."""
        images = len(self.predictions.image_ids)
        return self.summary().text(
            dict(
                positive=self.positives,
                patients=self.predictions.positive_patients,
                negative=images - self.positives,
            )
        )

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``predictions.csv`` and ``metrics.json``."""
        return self.summary().write(
            folder, PREDICTIONS, prediction_table(self.predictions)
        )

    def log_values(self) -> dict[str, float]:
        """Numbers for the training log; what is undefined is left out."""
        values = {}
        for name, one in SCORES.items():
            if one.measure.logged:
                macro = 'macro_' if one.why else ''
                value = getattr(self.scores, f'{macro}{name}')
                values[f'{macro}{one.measure.title}'] = float(value)
        values['AUROC_classes'] = self.num_classes('auroc')
        for name, value in zip(self.predictions.classes, self.scores.auroc):
            values[f'AUROC_{name.replace(" ", "_")}'] = float(value)
        return {name: value for name, value in values.items() if not np.isnan(value)}


def prediction_table(predictions: Predictions) -> pd.DataFrame:
    """Arrange predictions as in ``predictions.csv``.

    Returns:
        pandas.DataFrame: A row per image; text.
    """
    import pandas as pd

    columns: dict[str, Any] = dict(
        image_id=predictions.image_ids, patient_id=predictions.patients
    )
    if predictions.multi_label:
        for name, column in zip(predictions.classes, predictions.targets.T):
            columns[f'{_TARGET}{name}'] = column.astype(int)
    else:
        names = np.array(predictions.classes, dtype=object)
        columns['target'] = names[predictions.targets.argmax(1)]
    for name, column in zip(predictions.classes, predictions.probabilities.T):
        # Enough digits to get the same 32-bit number back.
        columns[f'{_PROBABILITY}{name}'] = [format(value, '.9g') for value in column]
    return pd.DataFrame(columns)


def read_predictions(path: str | Path) -> Predictions:
    """Read ``predictions.csv`` of :class:`medssl_mm.ClassificationMetric`.

    Args:
        path: The file, or the folder it is in.

    Returns:
        Predictions: In the order of the file.

    Raises:
        UserError: If it is absent or of another form.
    """
    path = Path(path)
    path = path / PREDICTIONS if path.is_dir() else path
    if not path.is_file():
        raise UserError(
            f'{path} does not exist; write it with tools/test.py and a '
            'classification config'
        )
    table = read_csv(path)
    classes = [
        name.removeprefix(_PROBABILITY)
        for name in table
        if name.startswith(_PROBABILITY)
    ]
    multi_label = 'target' not in table
    targets = [f'{_TARGET}{name}' for name in classes] if multi_label else ['target']
    probabilities = [f'{_PROBABILITY}{name}' for name in classes]
    expected = ['image_id', 'patient_id', *targets, *probabilities]
    if list(table) != expected or not classes or not len(table):
        raise UserError(
            f'{path} is not a table of medssl_mm.ClassificationMetric: '
            f'expected the columns {_first(expected)} and at least one row, '
            f'found {_first(list(table))} and {len(table)} row(s); evaluate the '
            'model again'
        )
    try:
        labels, values = _parse(table, classes, multi_label)
    except ValueError as error:
        raise UserError(
            f'{path} is damaged: {error}; evaluate the model again'
        ) from error
    return Predictions(
        classes=tuple(classes),
        multi_label=multi_label,
        image_ids=tuple(table['image_id']),
        patients=tuple(table['patient_id']),
        targets=labels,
        probabilities=values.astype(float),
    )


def _parse(
    table: pd.DataFrame, classes: Sequence[str], multi_label: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Targets and probabilities of the text of a table."""
    if table.isna().any(axis=None):
        raise ValueError('rows differ in length')

    def columns(prefix: str) -> np.ndarray:
        return table[[f'{prefix}{name}' for name in classes]].to_numpy(object)

    values = columns(_PROBABILITY).astype(np.float32)
    if multi_label:
        return columns(_TARGET).astype(float) > 0, values
    labels = table['target'].to_numpy(object)[:, None] == np.array(
        classes, dtype=object
    )
    if not labels.any(1).all():
        raise ValueError('a target is none of the classes')
    return labels, values


def resample_predictions(
    path: str | Path, samples: int = 2000, seed: int = 0
) -> Resampled:
    """Macro AUROC of stored predictions, with resamples of the patients.

    The mean is over the classes that counted in the evaluation, as
    ``metrics.json`` beside the file tells.

    Args:
        path: ``predictions.csv``, or its folder.
        samples: Resamples.
        seed: Seed of the resampling.

    Raises:
        UserError: If the file is absent or of another form.
    """
    file = Path(path)
    file = file / PREDICTIONS if file.is_dir() else file
    predictions = read_predictions(file)
    summary = file.with_name(METRICS)
    if summary.is_file():
        predictions = replace(
            predictions, min_positive_patients=_least_patients(summary)
        )
    values = np.atleast_1d(score(predictions).macro_auroc)
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
