"""Scores of predicted class probabilities, also of resampled images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medssl_mm.errors import similar

from .auroc import weighted_auroc
from .measures import ACCURACY, AUROC, F1, RECALL, Measure
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


def names_patients(patients: Sequence[str], images: Sequence[str]) -> bool:
    """Whether patients have names of their own.

    Where none are named, every image counts as a patient, called as it is; equal
    images count once, under the name of the first of them. So it is, too, where
    there is one image of each patient, called as the patient.
    """
    return not set(patients) <= set(images)


def count_patients(patients: Sequence[str], has: np.ndarray) -> np.ndarray:
    """Count the patients with an image that has a class.

    Args:
        patients: Patient of every image.
        has: Whether the image has the class.

    Shape: has ``(images, classes)``. Returns ``(classes,)``.
    """
    names = np.array(patients)
    return np.array([len(set(names[one])) for one in has.T])


def enough_patients(patients: Sequence[str], has: np.ndarray, least: int) -> np.ndarray:
    """Tell which classes are found, and absent, in enough patients.

    Args:
        patients: Patient of every image.
        has: Whether the image has the class.
        least: Patients with it, and patients without, that are asked for.

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
        folds (np.ndarray, optional): Of a cross-validation, which of the networks
            predicted the image: their probabilities have no common order, so that
            the AUROC is of pairs of images of one fold. Defaults to None: one
            network.

    Shape: targets ``(images, classes)``, bool; probabilities the same,
        float64; folds ``(images,)``.
    """

    classes: tuple[str, ...]
    multi_label: bool
    image_ids: tuple[str, ...]
    patients: tuple[str, ...]
    targets: np.ndarray
    probabilities: np.ndarray
    min_positive_patients: int = 0
    folds: np.ndarray | None = None

    @cached_property
    def has_patients(self) -> bool:
        """Whether patients have names of their own, see :func:`names_patients`."""
        return names_patients(self.patients, self.image_ids)

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


Compute = Callable[[Predictions, np.ndarray, float], np.ndarray]


@dataclass(frozen=True)
class ImageScore:
    """A score of classified images.

    Args:
        measure (Measure): What it is called and how it is shown.
        compute (Callable): From predictions, weights of the images ``(S,
            images)`` and the threshold of decisions to ``(S, classes)``, or to
            ``(S,)`` for a score that has no classes; NaN: undefined.
        why (Callable, optional): From predictions and a class to the reason
            why it is undefined; None: the score has no classes.
    """

    measure: Measure
    compute: Compute
    why: Callable[[Predictions, int], str] | None


# In the order of the tables.
SCORES: dict[str, ImageScore] = {}


def image_score(
    measure: Measure, why: Callable[[Predictions, int], str] | None = None
) -> Callable[[Compute], Compute]:
    """Add a score; decorates its function, see :class:`ImageScore`.

    It is then in ``metrics.json`` and in the tables of evaluations, with
    intervals. In a module of one's own, the config imports that.

    Raises:
        ValueError: If there is a score of that name.
    """
    if measure.name in SCORES:
        raise ValueError(
            f'there is an image score {measure.name!r} already; give the new one '
            'another name'
        )

    def add(compute: Compute) -> Compute:
        SCORES[measure.name] = ImageScore(measure, compute, why)
        return compute

    return add


def _one_valued(predictions: Predictions, index: int) -> str:
    kind = 'negative' if predictions.targets[:, index].any() else 'positive'
    return f'no {kind} image among {len(predictions.targets)}'


@image_score(AUROC, _one_valued)
def auroc(
    predictions: Predictions, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Area under the ROC curve of each class against the rest."""
    found = np.empty((len(weights), len(predictions.classes)))
    pair = predictions.exclusive_pair
    for index in range(1 if pair else 0, found.shape[1]):
        found[:, index] = weighted_auroc(
            predictions.probabilities[:, index],
            predictions.targets[:, index],
            weights,
            predictions.folds,
        )
    if pair:
        found[:, 0] = found[:, 1]
    return found


@image_score(F1, lambda predictions, index: 'neither present nor predicted')
def f1(predictions: Predictions, weights: np.ndarray, threshold: float) -> np.ndarray:
    """F1 of each class."""
    targets, decisions = predictions.targets, predictions.decisions(threshold)
    both = weights @ (targets & decisions)
    either = weights @ targets + weights @ decisions
    return np.divide(
        2 * both, either, out=np.full(both.shape, np.nan), where=either > 0
    )


@image_score(RECALL, lambda predictions, index: 'no image of it')
def recall(
    predictions: Predictions, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of the images of each class that are found."""
    targets = predictions.targets
    found = weights @ (targets & predictions.decisions(threshold))
    there = weights @ targets
    return np.divide(found, there, out=np.full(found.shape, np.nan), where=there > 0)


@image_score(ACCURACY)
def accuracy(
    predictions: Predictions, weights: np.ndarray, threshold: float
) -> np.ndarray:
    """Share of right decisions."""
    right = predictions.targets == predictions.decisions(threshold)
    shares = right.mean(1) if predictions.multi_label else right.all(1)
    return weights @ shares / weights.sum(1)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a set of images, or of many resamples of it.

    ``scores.auroc`` is the score of that name, NaN where undefined;
    ``scores.macro_auroc`` its mean over the counted classes that have one.

    Args:
        found (Mapping[str, np.ndarray]): By the names of :data:`SCORES`.
        counted (np.ndarray): Whether a class counts in the means.

    Shape: scores of classes ``(..., classes)``, others ``(...)``; counted
        ``(classes,)``.
    """

    found: Mapping[str, np.ndarray]
    counted: np.ndarray

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith('_') or name == 'found':  # while it is unpickled
            raise AttributeError(name)
        score = name.removeprefix('macro_')
        if score not in self.found:
            raise AttributeError(f'there is no score {score!r}{similar(score, SCORES)}')
        if score == name:
            return self.found[score]
        return mean_of_classes(self.found[score][..., self.counted])


def score(predictions: Predictions, threshold: float = 0.5) -> Scores:
    """Score all images once.

    Args:
        predictions: What to score.
        threshold: Probability from which a class of a multi-label set counts as
            predicted.

    Returns:
        Scores: Without leading axis.
    """
    once = weighted_scores(
        predictions, np.ones((1, len(predictions.targets))), threshold
    )
    return Scores({name: one[0] for name, one in once.found.items()}, once.counted)


def resampled_scores(
    predictions: Predictions, samples: int, seed: int, threshold: float = 0.5
) -> Scores:
    """Score resamples of the patients.

    Args:
        predictions: All images.
        samples: Number of resamples.
        seed: Seed of the resampling.
        threshold: See :func:`score`.

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
        {name: np.concatenate([part.found[name] for part in parts]) for name in SCORES},
        predictions.counted,
    )


def weighted_scores(
    predictions: Predictions, weights: np.ndarray, threshold: float = 0.5
) -> Scores:
    """Score images that count several times, or not at all.

    Equal to scoring each image as often as its weight says.

    Args:
        predictions: All images.
        weights: Several weightings, 0 or more.
        threshold: See :func:`score`.

    Shape: weights ``(S, images)``; the scores have ``S`` as leading axis.
    """
    weights = np.asarray(weights, dtype=float)
    return Scores(
        {
            name: score.compute(predictions, weights, threshold)
            for name, score in SCORES.items()
        },
        predictions.counted,
    )
