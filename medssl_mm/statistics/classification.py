"""Scores of predicted class probabilities, also of resampled images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .auroc import weighted_auroc
from .resampling import draw_patients, mean_of_classes

POLICY = (
    'AUROC of each class against the rest, F1 of each class, then the mean '
    'over classes. A class with one value only in the set has no AUROC; a '
    'class that is neither present nor predicted has no F1: such classes are '
    'listed and left out of the mean, whose number of classes is given; so '
    'are classes found, or absent, in fewer patients than asked for. With '
    'two exclusive classes the AUROC of both is that of the probability of '
    'the second. Decisions: probability of at least the threshold '
    '(multi-label), the most probable class (single-label). Accuracy is the '
    'share of right decisions: of image and class (multi-label), of images '
    '(single-label).'
)
# Weights of images in a block of resamples: 8 MB, which a cache holds.
_BLOCK = 1_000_000


def count_patients(patients: Sequence[str], has: np.ndarray) -> np.ndarray:
    """Count the patients with an image that has a class.

    Args:
        patients (Sequence[str]): Patient of every image.
        has (np.ndarray): Whether the image has the class.

    Shape: has ``(images, classes)``. Returns ``(classes,)``.
    """
    patients = np.array(patients)
    return np.array([len(set(patients[one])) for one in has.T])


def enough_patients(patients: Sequence[str], has: np.ndarray, least: int) -> np.ndarray:
    """Tell which classes are found, and absent, in enough patients.

    Args:
        patients (Sequence[str]): Patient of every image.
        has (np.ndarray): Whether the image has the class.
        least (int): Patients with it, and patients without, that are asked
            for.

    Shape: has ``(images, classes)``. Returns ``(classes,)``, bool.
    """
    return (
        np.minimum(count_patients(patients, has), count_patients(patients, ~has))
        >= least
    )


@dataclass(frozen=True, eq=False)
class Predictions:
    """True classes and predicted probabilities of a set of images.

    Args:
        classes (tuple[str]): Names.
        multi_label (bool): Whether an image may have any number of classes,
            not exactly one.
        image_ids (tuple[str]): Images.
        patients (tuple[str]): Patient of every image.
        targets (np.ndarray): Whether the image has the class.
        probabilities (np.ndarray): Predicted, 0-1.
        min_positive_patients (int): Patients in which a class must be found,
            and in which it must be absent, to count in means over classes.
            Defaults to 0, which counts all.

    Shape: targets ``(images, classes)``, bool; probabilities the same,
        float64.
    """

    classes: tuple[str, ...]
    multi_label: bool
    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    targets: np.ndarray
    probabilities: np.ndarray
    min_positive_patients: int = 0

    @cached_property
    def positive_patients(self) -> np.ndarray:
        """Patients with an image that has the class. Shape: ``(classes,)``."""
        return count_patients(self.patients, self.targets)

    @cached_property
    def counted(self) -> np.ndarray:
        """Whether a class counts in means. Shape: ``(classes,)``."""
        return enough_patients(self.patients, self.targets, self.min_positive_patients)

    @property
    def exclusive_pair(self) -> bool:
        """Whether there are two classes, of which every image has one."""
        return not self.multi_label and len(self.classes) == 2

    def decisions(self, threshold: float) -> np.ndarray:
        """Decide by threshold or largest. Shape: ``(images, classes)``."""
        if self.multi_label:
            return self.probabilities >= threshold
        best = self.probabilities.argmax(1)
        return best[:, None] == np.arange(len(self.classes))


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a set of images, or of many resamples of it; NaN: undefined.

    Args:
        auroc (np.ndarray): Of every class, 0-1.
        f1 (np.ndarray): Of every class, 0-1.
        accuracy (np.ndarray): 0-1.
        counted (np.ndarray): Whether a class counts in the means.

    Shape: auroc, f1 ``(..., classes)``; accuracy ``(...)``; counted
        ``(classes,)``.
    """

    auroc: np.ndarray
    f1: np.ndarray
    accuracy: np.ndarray
    counted: np.ndarray

    @property
    def macro_auroc(self) -> np.ndarray:
        """Mean over the counted classes that have an AUROC."""
        return mean_of_classes(self.auroc[..., self.counted])

    @property
    def macro_f1(self) -> np.ndarray:
        """Mean over the counted classes that have an F1."""
        return mean_of_classes(self.f1[..., self.counted])


def score(predictions: Predictions, threshold: float = 0.5) -> Scores:
    """Score all images once.

    Args:
        predictions (Predictions): What to score.
        threshold (float): Probability from which a class of a multi-label
            set counts as predicted. Defaults to 0.5.

    Returns:
        Scores: Without leading axis.
    """
    once = weighted_scores(
        predictions, np.ones((1, len(predictions.targets))), threshold
    )
    return Scores(once.auroc[0], once.f1[0], once.accuracy[0], once.counted)


def resampled_scores(
    predictions: Predictions, samples: int, seed: int, threshold: float = 0.5
) -> Scores:
    """Score resamples of the patients.

    Args:
        predictions (Predictions): All images.
        samples (int): Number of resamples.
        seed (int): Seed of the resampling.
        threshold (float): See :func:`score`. Defaults to 0.5.

    Returns:
        Scores: With ``samples`` as leading axis.
    """
    draws, index = draw_patients(predictions.patients, samples, seed)
    # Weights of all images at once may need more memory than there is.
    step = max(1, _BLOCK // len(index))
    parts = [
        weighted_scores(predictions, draws[first : first + step][:, index], threshold)
        for first in range(0, samples, step)
    ]
    return Scores(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ('auroc', 'f1', 'accuracy')
        ),
        predictions.counted,
    )


def weighted_scores(
    predictions: Predictions, weights: np.ndarray, threshold: float = 0.5
) -> Scores:
    """Score images that count several times, or not at all.

    Equal to scoring each image as often as its weight says.

    Args:
        predictions (Predictions): All images.
        weights (np.ndarray): Several weightings, 0 or more.
        threshold (float): See :func:`score`. Defaults to 0.5.

    Shape: weights ``(S, images)``; the scores have ``S`` as leading axis.
    """
    weights = np.asarray(weights, dtype=float)
    targets = predictions.targets
    decisions = predictions.decisions(threshold)
    auroc = np.empty((len(weights), len(predictions.classes)))
    pair = predictions.exclusive_pair
    for index in range(1 if pair else 0, auroc.shape[1]):
        auroc[:, index] = weighted_auroc(
            predictions.probabilities[:, index], targets[:, index], weights
        )
    if pair:
        auroc[:, 0] = auroc[:, 1]
    both = weights @ (targets & decisions)
    either = weights @ targets + weights @ decisions
    f1 = np.divide(2 * both, either, out=np.full(both.shape, np.nan), where=either > 0)
    right = (
        (targets == decisions).mean(1)
        if predictions.multi_label
        else (targets == decisions).all(1)
    )
    return Scores(auroc, f1, weights @ right / weights.sum(1), predictions.counted)
