"""What samples are labelled with, given the labels of an image set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medssl_mm.datasets.image_sets import column_of
from medssl_mm.errors import UserError
from medssl_mm.store.images import MULTI_LABEL, SINGLE_LABEL, UNCERTAIN, UNKNOWN

ZEROS, ONES, SMOOTH = 'zeros', 'ones', 'smooth'
SMOOTHED = (0.55, 0.85)  # between these the targets of uncertain findings are drawn


@dataclass(frozen=True)
class LabelRules:
    """Chooses and rewrites the labels of an image set.

    At most one of ``findings``, ``finding`` and ``single_label`` may be given;
    names may be any that :func:`.image_sets.column_of` knows.

    Args:
        uncertain (str): What an uncertain finding counts as: 'zeros' absent,
            'ones' present, 'smooth' present with a target drawn between 0.55 and
            0.85. Defaults to 'zeros'.
        findings (Sequence[str] | None): Only these, several at once.
        finding (str | None): Only this one: absent or present.
        single_label (Sequence[str] | None): Images with one of these and no other
            finding of the set, which is their class.

    Raises:
        ValueError: Unknown value, or more than one choice.
    """

    uncertain: str = ZEROS
    findings: Sequence[str] | None = None
    finding: str | None = None
    single_label: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.uncertain not in (ZEROS, ONES, SMOOTH):
            raise ValueError(
                f'uncertain must be {ZEROS!r}, {ONES!r} or {SMOOTH!r}, got '
                f'{self.uncertain!r}.'
            )
        given = {
            name: value
            for name in ('findings', 'finding', 'single_label')
            if (value := getattr(self, name)) is not None
        }
        if len(given) > 1:
            raise ValueError(f'give one of {", ".join(given)}, not all of them.')
        for name, value in given.items():
            if not value or name != 'finding' and isinstance(value, str):
                kind = 'a name' if name == 'finding' else 'a list of names'
                raise ValueError(f'{name} must be {kind}, got {value!r}.')

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LabelRules:
        """Take the rules out of the settings of a data set."""
        return cls(
            **{
                name: settings[name]
                for name in cls.__dataclass_fields__
                if settings.get(name) is not None
            }
        )

    @property
    def chosen(self) -> Sequence[str] | None:
        """The findings that were asked for; None: all classes as they are."""
        if self.finding is not None:
            return [self.finding]
        return self.findings if self.single_label is None else self.single_label

    def classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of the classes of the samples."""
        if self.finding is not None:
            return (f'no {self.finding}', self.finding)
        return tuple(classes if self.chosen is None else self.chosen)

    def task(self, task: str) -> str:
        """'multi-label' or 'single-label', of the samples."""
        if self.findings is not None:
            return MULTI_LABEL
        return task if self.chosen is None else SINGLE_LABEL

    def apply(
        self, labels: np.ndarray, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rewrite the labels of images.

        Args:
            labels (np.ndarray): Class indices ``(N,)``, or 0, 1, 2 (uncertain) per
                class ``(N, C)``; -1 where nothing is known.
            classes (Sequence[str]): Those of the set.

        Returns:
            tuple: labels of the samples, without uncertain ones; whether an image
            has any label by these rules ``(N,)``.

        Raises:
            UserError: The set has no such finding, or one label per image where
                several are needed.
        """
        kept = np.ones(len(labels), bool)
        if labels.ndim > 1:
            labels = np.where(
                labels == UNCERTAIN, self.uncertain != ZEROS, labels
            ).astype(labels.dtype)
        if self.chosen is None:
            return labels, kept
        columns = [column_of(name, classes) for name in self.chosen]
        unknown = (labels == UNKNOWN).reshape(len(labels), -1).any(1)
        if self.single_label is not None:
            return self._single(labels, columns, unknown, classes)
        if labels.ndim == 1:
            labels = (labels[:, None] == np.arange(len(classes))).astype(labels.dtype)
        labels = labels[:, columns]
        labels[unknown] = UNKNOWN
        return labels if self.finding is None else labels[:, 0], kept

    def _single(
        self,
        labels: np.ndarray,
        columns: Sequence[int],
        unknown: np.ndarray,
        classes: Sequence[str],
    ) -> tuple[np.ndarray, np.ndarray]:
        if labels.ndim == 1:
            raise UserError(
                'single_label chooses among images of several labels; this set has one '
                f'per image ({", ".join(classes[:8])})'
            )
        chosen = labels[:, columns]
        single = (labels.sum(1) == 1) & (chosen.sum(1) == 1)
        found = np.where(unknown, UNKNOWN, chosen.argmax(1)).astype(labels.dtype)
        return found, single | unknown

    def target(
        self, label: np.ndarray, classes: Sequence[str], rng: np.random.Generator
    ) -> np.ndarray | None:
        """Soft target of an image with 'smooth'; None where the label says all.

        Args:
            label (np.ndarray): Of the set ``(C,)``.
            classes (Sequence[str]): Those of the set.
            rng (np.random.Generator): One of the image's own: a target is the same
                in every epoch.

        Shape: one per class of the samples, float32.
        """
        if self.uncertain != SMOOTH or label.ndim != 1 or self.single_label is not None:
            return None
        soft = np.where(label == UNCERTAIN, rng.uniform(*SMOOTHED, len(label)), label)
        if self.chosen is not None:
            soft = soft[[column_of(name, classes) for name in self.chosen]]
        if self.finding is not None:
            soft = np.array([1 - soft[0], soft[0]])
        return soft.astype(np.float32)
