"""How alike the features of two networks are, by centred kernel alignment.

Stage by stage before and after fine-tuning (feature reuse), and block by
block of any two networks.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from medssl_mm.errors import UserError
from medssl_mm.functional.cka import StreamingCKA, linear_cka, median_distance, rbf_cka

Progress = Callable[[int], None]  # takes the steps done since the last call
BATCH = 1024
# Sigma in units of the median distance. Below, the kernel is near 1 on the
# diagonal and 0 elsewhere, whatever the features; above, it is the linear one.
NARROW, WIDE = 0.25, 4.0


def _silent(steps: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Kernel:
    """Which alignment is computed.

    Args:
        bandwidth (float): Of the Gaussian kernel, see
            :func:`medssl_mm.functional.cka.rbf_cka`. Defaults to 0.8.
        relative (bool): Whether it is a fraction of the median distance.
            Defaults to True.
        unbiased (bool): Whether the unbiased estimates are computed as well.
            Defaults to False.
    """

    bandwidth: float = 0.8
    relative: bool = True
    unbiased: bool = False

    @property
    def estimates(self) -> tuple[str, ...]:
        """Names of the values: 'linear', 'rbf', and the unbiased ones."""
        names = ('linear', 'rbf')
        if not self.unbiased:
            return names
        return (*names, *(f'{name}_unbiased' for name in names))

    def value(self, estimate: str, x: Tensor, y: Tensor) -> float:
        """Compute one of the ``estimates``."""
        name, _, unbiased = estimate.partition('_')
        if name == 'linear':
            return float(linear_cka(x, y, bool(unbiased)))
        return float(rbf_cka(x, y, self.bandwidth, self.relative, bool(unbiased)))


@dataclass(frozen=True)
class Reuse:
    """Similarity of one stage before and after fine-tuning.

    Args:
        method (str): Name.
        place (str): Stage.
        images (int): Images compared.
        values (dict[str, float]): Of all images, by estimate.
        median_distances (tuple[float, float]): Median distance of two
            images before and after; NaN when most images agree.
        bandwidth_ratios (tuple[float, float]): Sigma of the Gaussian kernel
            in units of these.
        subsets (dict[str, list[float]]): Of every random subset, by
            estimate; empty without subsets.
        number (int): Which of the pairs of that name. Defaults to 0.
    """

    method: str
    place: str
    images: int
    values: dict[str, float]
    median_distances: tuple[float, float]
    bandwidth_ratios: tuple[float, float]
    subsets: dict[str, list[float]] = field(default_factory=dict)
    number: int = 0

    def spread(self, estimate: str) -> tuple[float, float]:
        """Mean and standard deviation over subsets; NaN without any."""
        values = self.subsets.get(estimate, ())
        if not values:
            return math.nan, math.nan
        deviation = np.std(values, ddof=1) if len(values) > 1 else math.nan
        return float(np.mean(values)), float(deviation)


def random_subsets(images: int, size: int, count: int, seed: int) -> list[np.ndarray]:
    """Draw subsets without replacement, each anew from all images.

    Args:
        images: Number of images.
        size: Images of a subset.
        count: Number of subsets.
        seed: Of the draw.

    Shape: each ``(size,)``, row numbers, ascending; none at all unless there
        are more images than a subset has.
    """
    if images <= size:
        return []
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(images, size, replace=False)) for _ in range(count)]


def feature_reuse(
    method: str,
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
    kernel: Kernel,
    subsets: Sequence[np.ndarray] = (),
    device: str = 'cpu',
    progress: Progress = _silent,
    number: int = 0,
) -> list[Reuse]:
    """Compare the stages of a network before and after fine-tuning.

    The linear values are exact over all images, computed batch by batch.

    Args:
        method: Name of the method.
        before: Features by stage.
        after: The same stages, for the same images in the same order.
        kernel: What is computed.
        subsets: Rows of random subsets.
        device: Where.
        progress: Called with 1 after every subset of a stage and after all
            images of a stage. Defaults to nothing.
        number: For the results.

    Shape: features ``(images, channels)``.

    Returns:
        list[Reuse]: One per stage.

    Raises:
        UserError: When the features of a stage do not vary, or there are
            too few images.
    """
    places = list(before)
    with _explained(f'{method} (layers: {", ".join(places)})'):
        exact = _stream(
            [before[place] for place in places],
            [after[place] for place in places],
            'matched',
            kernel.unbiased,
            device,
        )
    return [
        _compare(
            method,
            place,
            {name: float(matrix[index, index]) for name, matrix in exact.items()},
            (_tensor(before[place], device), _tensor(after[place], device)),
            kernel,
            subsets,
            progress,
            number,
        )
        for index, place in enumerate(places)
    ]


def _compare(
    method: str,
    place: str,
    values: dict[str, float],
    sides: tuple[Tensor, Tensor],
    kernel: Kernel,
    subsets: Sequence[np.ndarray],
    progress: Progress,
    number: int,
) -> Reuse:
    """Compare one stage, whose linear values are known."""
    x, y = sides
    chosen: dict[str, list[float]] = {n: [] for n in kernel.estimates if len(subsets)}
    with _explained(f'{method}, {place}'):
        for name in kernel.estimates:
            if name not in values:
                values[name] = kernel.value(name, x, y)
        progress(1)
        for rows in subsets:
            picked = torch.from_numpy(rows).to(x.device)
            for name, drawn in chosen.items():
                drawn.append(kernel.value(name, x[picked], y[picked]))
            progress(1)
    first, second = _typical(x), _typical(y)

    def ratio(distance: float) -> float:
        return kernel.bandwidth / (1 if kernel.relative else distance)

    return Reuse(
        method=method,
        place=place,
        images=len(x),
        values={name: values[name] for name in kernel.estimates},
        median_distances=(first, second),
        bandwidth_ratios=(ratio(first), ratio(second)),
        subsets=chosen,
        number=number,
    )


def by_stage(results: Sequence[Reuse]) -> dict[tuple[str, str], list[Reuse]]:
    """Group results by method and stage: the seeds of each."""
    groups: dict[tuple[str, str], list[Reuse]] = {}
    for result in results:
        groups.setdefault((result.method, result.place), []).append(result)
    return groups


def layer_similarity(
    first: Mapping[str, np.ndarray],
    second: Mapping[str, np.ndarray],
    estimate: str,
    kernel: Kernel,
    device: str = 'cpu',
    progress: Progress = _silent,
) -> np.ndarray:
    """Compare each layer of one network with each of another.

    Args:
        first: Features by layer.
        second: The same of the second network, for the same images.
        estimate: 'linear', 'rbf', 'linear_unbiased' or 'rbf_unbiased'.
        kernel: Bandwidth of the Gaussian kernel.
        device: Where.
        progress: Called with the number of pairs done since the last call.
            Defaults to nothing.

    Shape: features ``(images, channels)``; returns ``(layers of the first,
        layers of the second)``, float64.

    Raises:
        UserError: When the features of a layer do not vary, or there are
            too few images.
    """
    images = len(next(iter(first.values())))
    widest = max(
        values.shape[1] for side in (first, second) for values in side.values()
    )
    if estimate.startswith('linear') and images > widest:
        with _explained(f'layers {", ".join(first)}'):
            matrices = _stream(
                list(first.values()),
                list(second.values()),
                'all',
                estimate != 'linear',
                device,
                progress,
            )
        return matrices[estimate].numpy()
    # Fewer images than channels: products of images are cheaper.
    seconds = {name: _tensor(v, device) for name, v in second.items()}
    matrix = np.empty((len(first), len(second)))
    for row, (one, values) in enumerate(first.items()):
        x = _tensor(values, device)
        for column, (other, y) in enumerate(seconds.items()):
            with _explained(f'layers {one} and {other}'):
                matrix[row, column] = kernel.value(estimate, x, y)
            progress(1)
    return matrix


def bandwidth_notes(results: Sequence[Reuse], kernel: Kernel) -> list[str]:
    """Say where an absolute bandwidth makes the values meaningless."""
    if kernel.relative:
        return []
    ratios = [r for result in results for r in result.bandwidth_ratios]
    notes = [
        f'absolute bandwidth {kernel.bandwidth:g} is {min(ratios):.3g} to '
        f'{max(ratios):.3g} times the median distance of two images'
    ]
    narrow = _where(results, lambda ratio: ratio < NARROW)
    wide = _where(results, lambda ratio: ratio > WIDE)
    if narrow:
        notes.append(
            f'below {NARROW:g} the Gaussian kernel sees no two images as '
            'neighbours, and its biased CKA tends to 1 for any two networks: ' + narrow
        )
    if wide:
        notes.append(
            f'above {WIDE:g} the Gaussian kernel tends to the linear one: ' + wide
        )
    return notes


def _where(results: Sequence[Reuse], test: Callable[[float], bool]) -> str:
    return ', '.join(
        f'{result.method} {result.place}'
        for result in results
        if any(test(ratio) for ratio in result.bandwidth_ratios)
    )


def _stream(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    pairs: str,
    unbiased: bool,
    device: str,
    progress: Progress = _silent,
) -> dict[str, Tensor]:
    """Linear CKA of all images, batch by batch."""
    cka = StreamingCKA(len(first), len(second), pairs)
    images, total, told = len(first[0]), len(first) * len(second), 0
    for start in range(0, images, BATCH):
        cka.update(
            *(
                [_tensor(v[start : start + BATCH], device) for v in side]
                for side in (first, second)
            )
        )
        done = total * min(start + BATCH, images) // images
        progress(done - told)
        told = done
    result = dict(linear=cka.compute())
    if unbiased:
        result['linear_unbiased'] = cka.compute(unbiased=True)
    return result


def _tensor(values: np.ndarray, device: str) -> Tensor:
    # A copy: memory-mapped arrays cannot be written to, tensors could be.
    return torch.from_numpy(np.array(values, np.float32)).to(device)


def _typical(x: Tensor) -> float:
    try:
        return median_distance(x)
    except ValueError:
        return math.nan


@contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UserError(f'{where}: {error}') from error
