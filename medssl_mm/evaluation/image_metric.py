"""Predicted class probabilities to scores with patient intervals."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.logging import print_log

from medssl_mm.errors import UserError
from medssl_mm.registry import METRICS
from medssl_mm.results.images import TASKS, ClassificationEvaluation
from medssl_mm.statistics import Predictions

from .gathered_metric import GatheredMetric, common_value

# Differences between two runs of one image in other batches stay far below.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class ImageResult:
    """Prediction of one image.

    Args:
        image_id (str): Image.
        patient_id (str): Its patient.
        labels (tuple[int]): True classes.
        probabilities (np.ndarray): Of every class, float32.
        data_root (str, optional): Folder of the data set.
        protocol (str, optional): Name of the split.
        split_hash (str, optional): Hash of the split.
    """

    image_id: str
    patient_id: str
    labels: tuple[int, ...]
    probabilities: np.ndarray
    data_root: str | None
    protocol: str | None
    split_hash: str | None


@METRICS.register_module()
class ClassificationMetric(GatheredMetric):
    """AUROC, F1 and accuracy with 95 % patient-bootstrap intervals.

    See :data:`medssl_mm.statistics.classification.POLICY` for classes that
    have one value only. Intervals are percentiles of the score over resamples
    of patients, all images of a patient together.

    Args:
        task (str, optional): 'multi-label' or 'single-label'. Defaults to
            that of the data set.
        threshold (float): Probability from which a class of a multi-label
            set counts as predicted, for F1 and accuracy. Defaults to 0.5.
        min_positive_patients (int): Patients in which a class must be found,
            and in which it must be absent, to count in the means over
            classes; the other classes are listed. The AUROC of one or two
            patients is chance. Defaults to 0: every class counts that has a
            score.
        **kwargs: As :class:`.GatheredMetric`; ``out_dir`` gets
            ``predictions.csv`` and ``metrics.json``, ``prefix`` defaults to
            'classification'.

    Raises:
        ValueError: If a setting is out of range.
    """

    default_prefix = 'classification'

    def __init__(
        self,
        task: str | None = None,
        threshold: float = 0.5,
        min_positive_patients: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if task is not None and task not in TASKS:
            raise ValueError(
                f'task={task!r} must be one of {TASKS}, or None '
                'for that of the data set'
            )
        if not 0 < threshold < 1:
            raise ValueError(f'threshold={threshold} must be between 0 and 1')
        if min_positive_patients < 0:
            raise ValueError(
                f'min_positive_patients={min_positive_patients} must not be negative'
            )
        self.task = task
        self.threshold = threshold
        self.min_positive_patients = min_positive_patients

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the probabilities and labels of a batch."""
        for sample in data_samples:
            self.require_keys(
                sample,
                ('image_id', 'pred_score', 'gt_label'),
                'serve a labelled data set of this package, packed with its meta keys',
            )
            self.results.append(
                ImageResult(
                    image_id=str(sample['image_id']),
                    patient_id=str(sample.get('patient_id', sample['image_id'])),
                    labels=tuple(sample['gt_label'].tolist()),
                    probabilities=sample['pred_score'].float().cpu().numpy(),
                    data_root=sample.get('store_root'),
                    protocol=sample.get('protocol'),
                    split_hash=sample.get('split_hash'),
                )
            )

    def compute_metrics(self, results: list[ImageResult]) -> dict:
        """Score all images, show the table, write the files.

        Returns:
            dict: ``macro_AUROC`` and ``AUROC_classes``, the number of classes
            it is over; ``macro_F1``, ``accuracy``, ``AUROC_<class>``.
        """
        if not results:
            raise UserError('nothing was predicted: the data set is empty')
        images = self._unique(results)
        evaluation = ClassificationEvaluation(
            predictions=self._predictions(images),
            protocol=common_value(images, 'protocol'),
            split_hash=common_value(images, 'split_hash'),
            data_root=common_value(images, 'data_root'),
            threshold=self.threshold,
            bootstrap_samples=self.bootstrap_samples,
            bootstrap_seed=self.bootstrap_seed,
            seen=self.seen,
        )
        _require_any(evaluation)
        if self.bootstrap_samples:
            print_log('\n' + evaluation.text(), logger='current')
        else:
            for note in evaluation.notes():
                print_log(note, logger='current', level=logging.WARNING)
        if self.out_dir is not None:
            paths = evaluation.write(self.out_dir)
            print_log('Written: ' + ', '.join(map(str, paths)), logger='current')
        return evaluation.log_values()

    def _unique(self, results: list[ImageResult]) -> list[ImageResult]:
        """Sort by image and drop the copies that fill up batches."""
        found: dict[str, ImageResult] = {}
        for result in results:
            known = found.setdefault(result.image_id, result)
            if known is result:
                continue
            if (known.labels, known.patient_id) != (
                result.labels,
                result.patient_id,
            ) or not np.allclose(
                known.probabilities,
                result.probabilities,
                rtol=0,
                atol=_SAME,
                equal_nan=True,
            ):
                raise UserError(
                    f'image {result.image_id} was predicted twice with '
                    'different results; remove random transforms from the '
                    'test pipeline and give each image a name of its own'
                )
        if self.dataset_size is not None and len(found) < self.dataset_size:
            raise UserError(
                f'{len(found)} different images of {self.dataset_size} were '
                'predicted; evaluate all of them: set drop_last=False in the '
                'data loader, and give each image a name of its own'
            )
        return [found[name] for name in sorted(found)]

    def _predictions(self, images: list[ImageResult]) -> Predictions:
        meta = self.dataset_meta or {}
        classes = self.classes or meta.get('classes')
        if not classes:
            raise UserError(
                'ClassificationMetric needs the class names; set '
                'METAINFO of the data set or classes='
            )
        task = self.task or meta.get('task')
        if task not in TASKS:
            raise UserError(
                f'ClassificationMetric needs to know the task, one of '
                f'{TASKS}, found {task!r}; set task= of the metric or the '
                'metainfo of the data set'
            )
        multi_label = task == TASKS[0]
        targets = np.zeros((len(images), len(classes)), dtype=bool)
        for row, image in zip(targets, images):
            _check(image, classes, multi_label)
            row[list(image.labels)] = True
        return Predictions(
            classes=tuple(classes),
            multi_label=multi_label,
            image_ids=tuple(image.image_id for image in images),
            patients=tuple(image.patient_id for image in images),
            targets=targets,
            probabilities=np.stack([image.probabilities for image in images]).astype(
                float
            ),
            min_positive_patients=self.min_positive_patients,
        )


def _check(image: ImageResult, classes: Sequence[str], multi_label: bool) -> None:
    """Raise unless labels and probabilities fit the classes."""
    shape = image.probabilities.shape
    if shape != (len(classes),):
        raise UserError(
            f'image {image.image_id}: the model gives probabilities of shape '
            f'{shape}, the data set has {len(classes)} classes; set '
            f'model.head.num_classes={len(classes)}'
        )
    if not ((image.probabilities >= 0) & (image.probabilities <= 1)).all():
        raise UserError(
            f'image {image.image_id}: the probabilities '
            f'{image.probabilities.tolist()} are not all between 0 and 1; '
            'training may have diverged: lower the learning rate'
        )
    wrong = [label for label in image.labels if not 0 <= label < len(classes)]
    if wrong:
        raise UserError(
            f'image {image.image_id} has the label {wrong[0]}, expected 0 to '
            f'{len(classes) - 1}; only images with known labels can be '
            'evaluated (-1 is unknown): choose a labelled subset'
        )
    if not multi_label and len(image.labels) != 1:
        raise UserError(
            f'image {image.image_id} has {len(image.labels)} labels, a '
            'single-label set has one per image; set task="multi-label" of '
            'the metric'
        )


def _require_any(evaluation: ClassificationEvaluation) -> None:
    """Raise when no class has both values: there is nothing to choose by."""
    predictions = evaluation.predictions
    has_score = ~np.isnan(evaluation.scores.auroc)
    if has_score[predictions.counted].any():
        return
    if has_score.any():
        found = ', '.join(
            f'{name} {count}'
            for name, count in zip(predictions.classes, predictions.positive_patients)
        )
        raise UserError(
            f'no class is found in {predictions.min_positive_patients} '
            f'patients and absent in as many, so no mean can be given '
            f'(patients with: {found}); lower min_positive_patients or use a '
            'larger subset'
        )
    reasons = evaluation.undefined['auroc']
    name, reason = next(iter(reasons.items()))
    raise UserError(
        f'AUROC is undefined for every class in the '
        f'{len(evaluation.predictions.image_ids)} images of '
        f'{evaluation.protocol or "the data set"} ({name}: {reason}), so no '
        'score can be given; use a split whose val and test subsets hold '
        'images with and without a class: make them larger or stratified '
        'when preparing the data'
    )
