r"""How far few labels move the outputs of a model from those of many labels.

The Kolmogorov-Smirnov distance of `Intermediate Layers Matter in Momentum
Contrastive Self Supervised Learning <https://arxiv.org/abs/2110.14805>`_,
between the output probabilities on the same test images of two models that
were fine-tuned alike on few and on many labels: the largest difference of
their cumulative distributions,

.. math:: D = \sup_x |F_{few}(x) - F_{many}(x)|

0 when both are distributed alike, 1 when they do not overlap. It compares
distributions, not images: two models may agree in it and not in any image,
and two that give every image the same output agree perfectly; so it is to be
read beside a score such as AUROC. The samples are the same images, so the
usual p-value would be wrong and is not given; the spread over seeds is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import ks_2samp

from medssl_mm.statistics.compare import spread


@dataclass(frozen=True, eq=False)
class Comparison:
    """Few against many labels, for one method.

    Args:
        label (str): Name of the method.
        few (tuple[np.ndarray]): Output probabilities of the model with few
            labels, one array per seed.
        many (tuple[np.ndarray]): The same with many labels.

    Shape: arrays ``(images, classes)``, the same for all.
    """

    label: str
    few: tuple[np.ndarray, ...]
    many: tuple[np.ndarray, ...]

    @property
    def distances(self) -> np.ndarray:
        """Kolmogorov-Smirnov distances. Shape: ``(seeds, classes)``."""
        return np.stack(
            [ks_distances(few, many) for few, many in zip(self.few, self.many)]
        )


def ks_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance of every column, by scipy.

    Args:
        first: Outputs of the first model.
        second: Outputs of the second.

    Shape: ``(N, C)`` and ``(M, C)``; returns ``(C,)``, 0-1.

    Raises:
        ValueError: If the columns differ in number or a value is not finite.
    """
    if first.ndim != 2 or second.ndim != 2 or (first.shape[1] != second.shape[1]):
        raise ValueError(
            'first and second must be (samples, classes) with the same '
            f'classes, got {first.shape} and {second.shape}'
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError(
            'the outputs hold NaN or infinity, which have no '
            'place in a distribution; evaluate the model again'
        )
    # The exact method costs much for the p-value, which is not used.
    return np.array(
        [
            ks_2samp(first[:, c], second[:, c], method='asymp').statistic
            for c in range(first.shape[1])
        ]
    )


def summarize(comparisons: Sequence[Comparison], classes: Sequence[str]) -> dict:
    """Distances of every method and class, ready for JSON.

    Standard deviations over seeds are null for one seed.
    """

    def entry(values: np.ndarray) -> dict:
        return dict(
            mean=float(values.mean()),
            sd_over_seeds=spread(values) if len(values) > 1 else None,
            seeds=values.tolist(),
        )

    return {
        comparison.label: dict(
            mean=entry(comparison.distances.mean(1)),
            per_class={
                name: entry(comparison.distances[:, index])
                for index, name in enumerate(classes)
            },
        )
        for comparison in comparisons
    }
