"""Spectra of the features of models.

Singular values of the covariance as in fig. 2 of `Understanding Dimensional
Collapse in Contrastive Self-supervised Learning
<https://arxiv.org/abs/2110.09348>`_; the covariance is symmetric, so they are
its eigenvalues.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from medssl_mm.functional.features import (
    collect_features,
    evaluation_mode,
    spectrum_figures,
)


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one model at one place.

    Args:
        label (str): Name of the model.
        place (str): Where in it.
        num_samples (int): Samples (image positions, or images).
        singular_values (list[float]): Of the covariance, largest first.
        figures (dict[str, float]): See
            :mod:`medssl_mm.functional.spectrum`.
    """

    label: str
    place: str
    num_samples: int
    singular_values: list[float]
    figures: dict[str, float]


def feature_spectrum(label: str, place: str, features: Tensor) -> Spectrum:
    """Measure the spectrum of features.

    Args:
        label: Name of the model.
        place: Where in it.
        features: Finite.

    Shape: features ``(samples, channels)``.
    """
    values, figures = spectrum_figures(features)
    return Spectrum(label, place, len(features), values.tolist(), figures)


def place_spectra(
    model: nn.Module,
    forward: Callable[[object], Mapping[str, Tensor]],
    batches: Iterable,
    label: str,
    per_side: int = 7,
) -> list[Spectrum]:
    """Measure the spectra of the features of a model.

    Args:
        model: Set to evaluation meanwhile.
        forward: From a batch to features by place, of that model.
        batches: Whatever ``forward`` takes.
        label: Name of the model.
        per_side: Side of the grid of positions taken of a map.

    Returns:
        list[Spectrum]: One per place.
    """
    with evaluation_mode(model):
        rows = collect_features(forward, batches, per_side)
    return [
        feature_spectrum(label, place, features) for place, features in rows.items()
    ]
