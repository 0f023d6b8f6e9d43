"""The sampler of slices, and how an epoch reaches the loader's workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sized
from itertools import chain, islice

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from medssl_mm.registry import DATA_SAMPLERS

# Keeps the draws of the order apart from those of the augmentation.
_ORDER_STREAM = 1
_SAMPLE_STREAM = 2
_COMPANION_STREAM = 3
# Failed exchanges after which an order counts as not separable.
_MOST_FAILURES = 32


class EpochIndex(int):
    """A sample's index that carries what its augmentation depends on.

    Workers of a data loader live through many epochs (persistent_workers)
    and hear nothing of them but the indices they are sent; so the index
    itself brings epoch and seed. Wrapper data sets compute with indices
    (``idx % length``, ``idx - offset``): the result keeps epoch, seed and
    the original index, so that a repeated slice is augmented anew.

    Args:
        value (int): Index into the data set.
        epoch (int): Epoch that the sample belongs to. Defaults to 0.
        seed (int): Seed of the run. Defaults to 0.
        origin (int | None): Index before any wrapper changed it. Defaults
            to None: value.
    """

    epoch: int
    seed: int
    origin: int

    def __new__(
        cls, value: int, epoch: int = 0, seed: int = 0, origin: int | None = None
    ) -> EpochIndex:
        """Make the index; an int is complete once it exists."""
        index = super().__new__(cls, value)
        index.epoch = epoch
        index.seed = seed
        index.origin = int(value) if origin is None else origin
        return index

    def _moved(self, value: int) -> EpochIndex:
        return EpochIndex(value, self.epoch, self.seed, self.origin)

    def __mod__(self, other: int) -> EpochIndex:
        return self._moved(int(self) % other)

    def __sub__(self, other: int) -> EpochIndex:
        return self._moved(int(self) - other)

    def __add__(self, other: int) -> EpochIndex:
        return self._moved(int(self) + other)

    def __reduce__(self) -> tuple:
        return EpochIndex, (int(self), self.epoch, self.seed, self.origin)

    def __repr__(self) -> str:
        return f'{int(self)}@epoch{self.epoch}'

    __str__ = int.__repr__


def sample_rng(index: int, seed: int = 0) -> np.random.Generator:
    """Random generator of one sample, from (seed, epoch, sample) alone.

    Args:
        index: An EpochIndex, or a plain index (epoch 0).
        seed: Seed for plain indices; an EpochIndex brings its own.
    """
    if isinstance(index, EpochIndex):
        return np.random.default_rng(
            (_SAMPLE_STREAM, index.seed, index.epoch, index.origin)
        )
    return np.random.default_rng((_SAMPLE_STREAM, seed, 0, int(index)))


def companion_index(index: int, seed: int, own: int, others: int) -> EpochIndex:
    """Index of the sample of another data set that goes with a sample.

    Drawn from (seed, epoch, sample) alone, as the augmentation is; that of the
    companion differs from the sample's.

    Args:
        index: An EpochIndex, or a plain index (epoch 0).
        seed: Seed for plain indices; an EpochIndex brings its own.
        own: Samples of the data set that the index is of.
        others: Samples of the other data set.
    """
    if not isinstance(index, EpochIndex):
        index = EpochIndex(index, 0, seed)
    rng = np.random.default_rng(
        (_COMPANION_STREAM, index.seed, index.epoch, index.origin)
    )
    origin = own + index.origin
    return EpochIndex(int(rng.integers(others)), index.epoch, index.seed, origin)


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler):
    """Shuffled, distributed, resumable order of slices.

    The order of an epoch is a function of (seed, epoch); rank ``r`` of ``w``
    takes positions ``r, r + w, ...``, so that consecutive pieces of
    ``w * batch_size`` positions are the global batches. Epochs are counted by
    ``set_epoch``, or, with ``infinite=True`` (for IterBasedTrainLoop), follow
    each other without end.

    Args:
        dataset (Sized): The data set.
        seed (int | None): Seed of order and augmentation, at least 0, equal
            on all processes. Defaults to None: drawn, and shared by them.
        shuffle (bool): Whether to shuffle. Defaults to True.
        infinite (bool): Whether the epochs follow each other without end.
            Defaults to False.
        neighbour_distance (int): Slices of one patient whose slice indices
            differ by less never share a global batch; 0 switches it off,
            2 separates direct neighbours. Defaults to 0.
        batch_size (int | None): Batch size per process, needed by
            neighbour_distance only; the loader's. Defaults to None.
        round_up (bool): Repeat samples so that every process has the same
            number. Defaults to True.

    Raises:
        ValueError: A setting is out of range, or neighbour_distance lacks
            what it needs.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int | None = None,
        shuffle: bool = True,
        infinite: bool = False,
        neighbour_distance: int = 0,
        batch_size: int | None = None,
        round_up: bool = True,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        self.size = len(dataset)
        if self.size == 0:
            raise ValueError('ResumableSampler: the data set is empty.')
        self.seed = sync_random_seed() if seed is None else seed
        if not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(
                f'ResumableSampler: seed must be an int of at least 0, got {seed!r}.'
            )
        if not isinstance(neighbour_distance, int) or neighbour_distance < 0:
            raise ValueError(
                'ResumableSampler: neighbour_distance must be an int of at least '
                f'0 (slices), got {neighbour_distance!r}.'
            )
        self.shuffle = shuffle
        self.infinite = infinite
        self.neighbour_distance = neighbour_distance
        self.round_up = round_up
        self.epoch = 0
        self._skipped = 0
        self._warned = False
        if neighbour_distance:
            self._prepare_neighbours(dataset, batch_size)

    def _prepare_neighbours(self, dataset: Sized, batch_size: int | None) -> None:
        if not self.shuffle:
            raise ValueError(
                'ResumableSampler: neighbour_distance changes the '
                'order, so it needs shuffle=True.'
            )
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                'ResumableSampler: neighbour_distance needs to know the batches; '
                'set batch_size to the batch size per process of the '
                f'loader, got {batch_size!r}.'
            )
        if not hasattr(dataset, 'sample_locations'):
            raise TypeError(
                'ResumableSampler: neighbour_distance needs a data set with '
                'sample_locations() (patient and slice of every sample), '
                f'got {type(dataset).__name__}; use a SliceDataset directly '
                'or set neighbour_distance=0.'
            )
        patients, slices = dataset.sample_locations()
        self._patients = np.asarray(patients)
        self._slices = np.asarray(slices)
        self._global_batch = batch_size * self.world_size
        if self.infinite and self.size < self._global_batch:
            raise ValueError(
                f'ResumableSampler: {self.size} samples do not fill one global '
                f'batch of {self._global_batch}; use a smaller batch size or '
                'neighbour_distance=0.'
            )

    @property
    def _stream_length(self) -> int:
        """Samples of one epoch over all ranks in an infinite stream."""
        if self.neighbour_distance:
            # Batches must not straddle two epochs, whose orders know nothing
            # of each other: an incomplete last batch is left out.
            return self.size - self.size % self._global_batch
        return self.size

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Order of all samples in one epoch, the same on every rank."""
        if not self.shuffle:
            return np.arange(self.size)
        rng = np.random.default_rng((_ORDER_STREAM, self.seed, epoch))
        order = rng.permutation(self.size)
        if self.neighbour_distance:
            order, conflict = separate_neighbours(
                order,
                self._patients,
                self._slices,
                self._global_batch,
                self.neighbour_distance,
            )
            if conflict and not self._warned:
                self._warned = True
                print_log(
                    'ResumableSampler: some batches hold neighbouring slices all '
                    f'the same: {conflict}. Use a smaller batch size, a '
                    'smaller neighbour_distance, or every n-th slice '
                    '(slice_step of the data set).',
                    logger='current',
                    level=logging.WARNING,
                )
        return order

    def _epoch_indices(self) -> Iterator[EpochIndex]:
        order = self.epoch_order(self.epoch)
        if self.round_up:
            total = len(self) * self.world_size
            order = np.resize(order, total)
        for value in order[self.rank :: self.world_size].tolist():
            yield EpochIndex(value, self.epoch, self.seed)

    def _infinite_indices(self, start: int) -> Iterator[EpochIndex]:
        length = self._stream_length
        position = self.rank + start * self.world_size
        while True:
            epoch, offset = divmod(position, length)
            order = self.epoch_order(epoch)[offset : length : self.world_size]
            for value in order.tolist():
                yield EpochIndex(value, epoch, self.seed)
            position += len(order) * self.world_size

    def __iter__(self) -> Iterator[EpochIndex]:
        """Indices of this rank."""
        start, self._skipped = self._skipped, 0
        if self.infinite:
            return self._infinite_indices(start)
        return islice(self._epoch_indices(), start, None)

    def __len__(self) -> int:
        """Samples of this rank in one epoch."""
        if self.infinite:
            return max(1, self._stream_length // self.world_size)
        if self.round_up:
            return -(-self.size // self.world_size)
        return len(range(self.rank, self.size, self.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration; an endless stream counts.

        Args:
            epoch: Number of the epoch, from 0.
        """
        if not self.infinite:
            self.epoch = epoch

    def skip(self, num_samples: int) -> None:
        """Let the next iteration start after samples that were already used.

        Args:
            num_samples: Samples of this rank, counted from the start of the
                stream (infinite) or of the epoch. No image is read.

        Raises:
            ValueError: Negative, or beyond the end of a finite epoch.
        """
        if num_samples < 0:
            raise ValueError(
                'ResumableSampler: skip takes a number of at least 0, got '
                f'{num_samples}.'
            )
        if not self.infinite and num_samples > len(self):
            raise ValueError(
                f'ResumableSampler: cannot skip {num_samples} samples, an epoch '
                f'has {len(self)} on this process. A loop that counts '
                'iterations over epochs (IterBasedTrainLoop) needs '
                'sampler=dict(..., infinite=True) to resume exactly.'
            )
        self._skipped = num_samples


def separate_neighbours(
    order: np.ndarray,
    patients: np.ndarray,
    slices: np.ndarray,
    batch: int,
    distance: int,
) -> tuple[np.ndarray, str]:
    """Rearrange an order so that no batch holds neighbouring slices.

    Goes through the order and puts every sample into the first batch with a
    free place and no neighbour of it; what is left over changes places with
    samples of other batches. Deterministic, and close to the given order.

    Args:
        order: A permutation of the samples ``(N, )``.
        patients: Patient of every sample, as a number ``(N, )``.
        slices: Slice index of every sample ``(N, )``.
        batch: Samples per batch.
        distance: Smallest allowed difference of slice indices.

    Returns:
        The new order, and the reason when it could not be fully separated
        (else an empty string).
    """
    batches = _Batches(patients.tolist(), slices.tolist(), batch, distance)
    left = [sample for sample in order.tolist() if not batches.place(sample)]
    # Hopeless data (one patient, big batches) must not cost a search per
    # sample.
    crowded: list[int] = []
    for sample in left:
        if len(crowded) >= _MOST_FAILURES or not batches.exchange(sample):
            crowded.append(sample)
    for sample in crowded:
        batches.put(sample, batches.open[0])
    reason = batches.crowding(crowded[0]) if crowded else ''
    return np.array(list(chain(*batches.samples)), dtype=order.dtype), reason


class _Batches:
    """Batches that are being filled with samples which are no neighbours."""

    def __init__(
        self, patients: list[int], slices: list[int], batch: int, distance: int
    ) -> None:
        self.patients, self.slices, self.distance = patients, slices, distance
        number = -(-len(patients) // batch)
        self.samples: list[list[int]] = [[] for _ in range(number)]
        # Free places of each batch.
        self._free = [batch] * (number - 1) + [len(patients) - batch * (number - 1)]
        # Per batch: patient -> slice indices already in it.
        self._taken: list[dict[int, list[int]]] = [{} for _ in range(number)]
        self._first_open = 0

    @property
    def open(self) -> list[int]:
        """Batches with a free place."""
        return [n for n, free in enumerate(self._free) if free]

    def _fits(self, sample: int, which: int) -> bool:
        here = self.slices[sample]
        for other in self._taken[which].get(self.patients[sample], ()):
            if abs(other - here) < self.distance:
                return False
        return True

    def put(self, sample: int, which: int) -> None:
        """Add a sample to a batch."""
        self.samples[which].append(sample)
        self._free[which] -= 1
        taken = self._taken[which].setdefault(self.patients[sample], [])
        taken.append(self.slices[sample])

    def _drop(self, sample: int, which: int) -> None:
        self.samples[which].remove(sample)
        self._free[which] += 1
        self._taken[which][self.patients[sample]].remove(self.slices[sample])

    def place(self, sample: int) -> bool:
        """Put a sample into the first open batch without a neighbour of it."""
        free, number = self._free, len(self.samples)
        while self._first_open < number and not free[self._first_open]:
            self._first_open += 1
        for which in range(self._first_open, number):
            if free[which] and self._fits(sample, which):
                self.put(sample, which)
                return True
        return False

    def exchange(self, sample: int) -> bool:
        """Make a place by moving one other sample to an open batch."""
        targets = self.open
        for which, batch in enumerate(self.samples):
            blockers = [other for other in batch if self._near(sample, other)]
            if len(blockers) > 1:
                continue
            for other in blockers or batch:
                for goal in targets:
                    if goal != which and self._fits(other, goal):
                        self._drop(other, which)
                        self.put(other, goal)
                        self.put(sample, which)
                        return True
        return False

    def _near(self, sample: int, other: int) -> bool:
        return (
            self.patients[other] == self.patients[sample]
            and abs(self.slices[other] - self.slices[sample]) < self.distance
        )

    def crowding(self, sample: int) -> str:
        """Say why a sample could not be kept apart."""
        near = sum(self._near(sample, other) for other in range(len(self.patients)))
        return (
            f'a patient has {near} samples less than {self.distance} slices from '
            f'slice {self.slices[sample]}, and an epoch only {len(self.samples)} '
            'batches to spread them over'
        )
