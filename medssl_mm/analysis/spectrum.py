"""Spectra of the features of models.

Singular values of the covariance as in fig. 2 of `Understanding Dimensional
Collapse in Contrastive Self-supervised Learning
<https://arxiv.org/abs/2110.09348>`_; the covariance is symmetric, so they are
its eigenvalues.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.features import (
    collect_features,
    evaluation_mode,
    spectrum_figures,
)
from medssl_mm.functional.spectrum import lidar


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
        stride (int, optional): Pixels of the image per cell of the map that
            the samples are from. Defaults to None: not stated.
        images (int, optional): Their number. Defaults to None: not stated.
        normalisation (str): Of the network: which statistics. Defaults to '':
            not stated.
    """

    label: str
    place: str
    num_samples: int
    singular_values: list[float]
    figures: dict[str, float]
    stride: int | None = None
    images: int | None = None
    normalisation: str = ''


def stated(
    spectra: Iterable[Spectrum],
    strides: Mapping[str, int],
    images: int,
    normalisation: str = '',
) -> list[Spectrum]:
    """Add to spectra what they are of.

    Args:
        spectra: Of one model.
        strides: Of the backbone's maps by place, the last one last; what comes after
            the backbone has that of the last map.
        images: Their number.
        normalisation: Which statistics. Defaults to '': not stated.
    """
    last = list(strides.values())[-1]
    return [
        replace(
            one,
            stride=strides.get(one.place, last),
            images=images,
            normalisation=normalisation,
        )
        for one in spectra
    ]


def require_comparable(spectra: Iterable[Spectrum]) -> None:
    """Refuse spectra of one place that differ in more than the model.

    What a model normalises by may differ, random weights as initialised and
    calibrated, but is stated for all or for none.

    Raises:
        UserError: Names the place, and two models of other stride or samples, or
            of which one does not state its normalisation.
    """
    first: dict[str, Spectrum] = {}
    for one in spectra:
        other = first.setdefault(one.place, one)
        for name in ('stride', 'images', 'num_samples'):
            values = getattr(other, name), getattr(one, name)
            if values[0] != values[1]:
                raise UserError(
                    f'the spectra of {one.place} do not compare: {name} is {values[0]} '
                    f'in {other.label} and {values[1]} in {one.label}'
                )
        if bool(other.normalisation) != bool(one.normalisation):
            silent = one if other.normalisation else other
            raise UserError(
                f'the spectra of {one.place} do not compare: {silent.label} does not '
                'state its normalisation, others do; state it by medssl_mm.analysis.'
                'stated'
            )


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
    other_views: Sequence[Iterable] = (),
) -> list[Spectrum]:
    """Measure the spectra of the features of a model.

    Args:
        model: Set to evaluation meanwhile.
        forward: From a batch to features by place, of that model.
        batches: Whatever ``forward`` takes.
        label: Name of the model.
        per_side: Side of the grid of positions taken of a map.
        other_views: The same images in other views, for the figure ``lidar`` of
            features that are one vector per image. Defaults to none.

    Returns:
        list[Spectrum]: One per place.
    """
    vectors: dict[str, list[Tensor]] = {}

    def vectors_of(batch: object) -> Mapping[str, Tensor]:
        found = forward(batch)
        return {place: x for place, x in found.items() if x.ndim == 2}

    with evaluation_mode(model):
        rows = collect_features(forward, batches, per_side)
        for view in other_views:
            for place, features in collect_features(vectors_of, view).items():
                vectors.setdefault(place, [rows[place]]).append(features)
    spectra = [
        feature_spectrum(label, place, features) for place, features in rows.items()
    ]
    for spectrum in spectra:
        if spectrum.place in vectors:
            views = torch.stack(vectors[spectrum.place], dim=1)
            spectrum.figures['lidar'] = float(lidar(views))
    return spectra
