"""Centred kernel alignment (CKA): similarity of two representations.

Rows of the two feature matrices belong to the same samples. Between 0
(unrelated) and 1 (equal up to rotation and scale); the biased estimate of
unrelated features is far above 0 when there are not many more samples than
channels, the unbiased one is 0 on average and may be slightly negative.

No matrix of samples by samples is ever stored: the kernels are walked
through in tiles of their upper triangle.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .precision import at_least_float32

TILE = 256

# Rows used for the median distance of larger sets: 8 million pairs.
MEDIAN_SAMPLES = 4096


@torch.no_grad()
def linear_cka(x: Tensor, y: Tensor, unbiased: bool = False) -> Tensor:
    """CKA with the linear kernel.

    ``HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))`` of `Similarity of Neural
    Network Representations Revisited <https://arxiv.org/abs/1905.00414>`_;
    unbiased: HSIC_1 of Song et al. (2012) as in `Do Wide and Deep Networks
    Learn the Same Things? <https://arxiv.org/abs/2010.15327>`_, eq. (3), over
    all samples at once. Goes through the channel products when they are
    cheaper than the sample products.

    Args:
        x (Tensor): Features of the first model.
        y (Tensor): Features of the second model for the same samples.
        unbiased (bool): Use the unbiased estimate. Defaults to False.

    Shape: ``(N, D)`` and ``(N, E)`` -> scalar, float64.

    Raises:
        ValueError: Shapes that do not fit, too few samples (2, unbiased 4),
            or constant features, for which CKA is undefined.
    """
    x, y = _prepare(x, y, unbiased)
    samples, size_x, size_y = len(x), x.shape[1], y.shape[1]
    channel_cost = size_x * size_y + size_x**2 + size_y**2
    with torch.autocast(x.device.type, enabled=False):
        # Among the samples, only the upper triangle is visited.
        if channel_cost < samples * (size_x + size_y) / 2:
            pairs = ((x, y), (x, x), (y, y))
            hsic = tuple(_CrossMoments(a, b).hsic(unbiased) for a, b in pairs)
        else:
            tiles = zip(_linear_tiles(x), _linear_tiles(y))
            hsic = _hsic_of_tiles(tiles, samples, unbiased, x)
    cross, own_x, own_y = hsic
    return _ratio(cross, own_x, own_y)


@torch.no_grad()
def rbf_cka(
    x: Tensor,
    y: Tensor,
    bandwidth: float = 0.8,
    relative: bool = True,
    unbiased: bool = False,
) -> Tensor:
    """CKA with the Gaussian kernel ``exp(-distance^2 / (2 sigma^2))``.

    Kornblith et al. (see ``linear_cka``) set sigma to a fraction of the
    median distance, which makes the result independent of the scale of the
    features. Differs from them in that the median is taken over distinct
    pairs, without the zeros of the diagonal, and over an even selection of
    ``MEDIAN_SAMPLES`` samples of larger sets.

    An absolute sigma (``relative=False``, as some published results used,
    0.8 among them) measures scale more than similarity: features far apart
    for it give 1 for any two models. See ``median_distance``.

    Args:
        x (Tensor): Features of the first model.
        y (Tensor): Features of the second model for the same samples.
        bandwidth (float): Sigma, as a fraction of the median distance or in
            feature units. Defaults to 0.8.
        relative (bool): Take the bandwidth as a fraction. Defaults to True.
        unbiased (bool): Use the unbiased estimate. Defaults to False.

    Shape: ``(N, D)`` and ``(N, E)`` -> scalar, float64.
    """
    if bandwidth <= 0:
        raise ValueError(f'bandwidth must be above 0, got {bandwidth}.')
    x, y = _prepare(x, y, unbiased)
    with torch.autocast(x.device.type, enabled=False):
        tiles = zip(
            _rbf_tiles(x, bandwidth, relative),
            _rbf_tiles(y, bandwidth, relative),
        )
        cross, own_x, own_y = _hsic_of_tiles(tiles, len(x), unbiased, x)
        return _ratio(cross, own_x, own_y)


@torch.no_grad()
def median_distance(x: Tensor) -> float:
    """Median distance of two samples, the unit of ``rbf_cka``'s bandwidth.

    Args:
        x (Tensor): Features.

    Shape: ``(N, D)``.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, _ = _prepare(x, x, unbiased=False)
        return _median_distance(_squared_tiles(_median_selection(x)))


class StreamingCKA:
    """Exact linear CKA of several layers over a set of any size.

    Batches are added one by one and forgotten; what is kept are channel
    products, whose size does not depend on the number of samples. Equal to
    ``linear_cka`` on all samples at once (biased or unbiased; both can be
    read from one pass), which the mean over batches is not.

    For fewer samples than channels ``linear_cka`` on the collected features
    is cheaper; here it costs ``D x E`` values for each pair of layers.

    Args:
        num_layers_x (int): Layers of the first model.
        num_layers_y (int, optional): Layers of the second model. Defaults to
            None: as many as of the first.
        pairs (str): 'all' for each layer with each, 'matched' for layer i
            with layer i only. Defaults to 'all'.
        dtype (torch.dtype): Precision of products and sums. float32 is
            faster and good to about 1e-5. Defaults to float64.

    Example:
        >>> cka = StreamingCKA(num_layers_x=2)
        >>> for _ in range(3):
        ...     layers = [torch.randn(8, 4), torch.randn(8, 6)]
        ...     cka.update(layers, layers)
        >>> cka.compute().shape
        torch.Size([2, 2])
    """

    def __init__(
        self,
        num_layers_x: int,
        num_layers_y: int | None = None,
        pairs: str = 'all',
        dtype: torch.dtype = torch.float64,
    ) -> None:
        num_layers_y = num_layers_y or num_layers_x
        if pairs not in ('all', 'matched'):
            raise ValueError(f"pairs must be 'all' or 'matched', got {pairs!r}.")
        if pairs == 'matched' and num_layers_x != num_layers_y:
            raise ValueError(
                "pairs='matched' takes as many layers of one model as of the "
                f'other, got {num_layers_x} and {num_layers_y}.'
            )
        self.num_layers = (num_layers_x, num_layers_y)
        self.dtype = dtype
        self._pairs = [
            (i, j)
            for i in range(num_layers_x)
            for j in range(num_layers_y)
            if pairs == 'all' or i == j
        ]
        self.num_samples = 0
        self._shifts: list[list[Tensor]] | None = None
        self._moments: dict[tuple, _CrossMoments] = {}

    @torch.no_grad()
    def update(self, layers_x: Sequence[Tensor], layers_y: Sequence[Tensor]) -> None:
        """Add a batch.

        Args:
            layers_x (Sequence[Tensor]): Features of each layer of the first
                model.
            layers_y (Sequence[Tensor]): The same of the second model for the
                same samples.

        Shape: each ``(N, D_layer)``, the same N.
        """
        layers = (list(layers_x), list(layers_y))
        self._check(layers)
        if self._shifts is None:
            # CKA ignores a constant offset; numbers near zero keep digits.
            self._shifts = [[x.to(self.dtype).mean(0) for x in side] for side in layers]
        xs, ys = (
            [x.to(self.dtype) - shift for x, shift in zip(side, shifts)]
            for side, shifts in zip(layers, self._shifts)
        )
        self.num_samples += len(xs[0])
        with torch.autocast(xs[0].device.type, enabled=False):
            for key, a, b in self._products(xs, ys):
                batch = _CrossMoments(a, b)
                if key in self._moments:
                    self._moments[key].add(batch)
                else:
                    self._moments[key] = batch

    def compute(self, unbiased: bool = False) -> Tensor:
        """CKA of the samples so far.

        Args:
            unbiased (bool): Use the unbiased estimate. Defaults to False.

        Shape: ``(num_layers_x, num_layers_y)``, float64; nan for pairs that
            were not asked for.

        Raises:
            ValueError: Too few samples, or a layer with constant features.
        """
        _check_samples(self.num_samples, unbiased)
        result = torch.full(self.num_layers, float('nan'), dtype=torch.float64)
        hsic = {key: value.hsic(unbiased) for key, value in self._moments.items()}
        for i, j in self._pairs:
            result[i, j] = _ratio(
                hsic['cross', i, j],
                hsic['x', i],
                hsic['y', j],
                (f'layer {i} of the first', f'layer {j} of the second'),
            )
        return result

    def _products(
        self, xs: list[Tensor], ys: list[Tensor]
    ) -> Iterator[tuple[tuple, Tensor, Tensor]]:
        for name, side in (('x', xs), ('y', ys)):
            for index, layer in enumerate(side):
                yield (name, index), layer, layer
        for i, j in self._pairs:
            yield ('cross', i, j), xs[i], ys[j]

    def _check(self, layers: tuple[list[Tensor], list[Tensor]]) -> None:
        numbers = tuple(len(side) for side in layers)
        if numbers != self.num_layers:
            raise ValueError(
                f'expected {self.num_layers} layers of the two models, got {numbers}.'
            )
        shapes = [tuple(x.shape) for side in layers for x in side]
        if any(len(shape) != 2 for shape in shapes) or (
            len({shape[0] for shape in shapes}) != 1
        ):
            raise ValueError(
                'features must be (N, D) with the same N in all layers, got '
                f'{shapes}; pool feature maps first.'
            )
        if self._shifts is None:
            return
        sizes = [len(shift) for side in self._shifts for shift in side]
        if [shape[1] for shape in shapes] != sizes:
            raise ValueError(
                f'the layers had {sizes} channels before, now '
                f'{[shape[1] for shape in shapes]}.'
            )


class _CrossMoments:
    """Sums over samples from which HSIC of two linear kernels follows.

    With ``a_i``, ``b_i`` the features and ``p_i``, ``q_i`` their squared
    lengths: the sums of ``a``, ``b``, ``a b^T``, ``q a``, ``p b``, ``p``,
    ``q`` and ``p q``. They add up over batches.
    """

    def __init__(self, a: Tensor, b: Tensor) -> None:
        lengths_a, lengths_b = a.square().sum(1), b.square().sum(1)
        self.samples = len(a)
        self.sums = [
            a.sum(0),
            b.sum(0),
            a.T @ b,
            lengths_b @ a,
            lengths_a @ b,
            lengths_a.sum(),
            lengths_b.sum(),
            lengths_a @ lengths_b,
        ]

    def add(self, other: '_CrossMoments') -> None:
        self.samples += other.samples
        for own, new in zip(self.sums, other.sums):
            own += new

    def hsic(self, unbiased: bool) -> Tensor:
        n = self.samples
        a, b, product, qa, pb, p, q, pq = (x.double() for x in self.sums)
        if not unbiased:
            return (product - torch.outer(a, b) / n).square().sum()
        # Kernel sums with the diagonal left out.
        trace = product.square().sum() - pq
        sum_a, sum_b = a @ a - p, b @ b - q
        rows = a @ product @ b - a @ qa - b @ pb + pq
        return _song(n, trace, sum_a, sum_b, rows)


def _hsic_of_tiles(
    tiles: Iterator[tuple[tuple[int, Tensor], tuple[int, Tensor]]],
    samples: int,
    unbiased: bool,
    like: Tensor,
) -> tuple[Tensor, ...]:
    """HSIC of (K, L), (K, K) and (L, L) in one walk over the tiles.

    A tile holds rows ``start`` to ``start + height`` of a symmetric kernel
    from column ``start`` on.
    """
    products = torch.zeros(3, dtype=torch.float64, device=like.device)
    row_sums = torch.zeros(2, samples, dtype=torch.float64, device=like.device)
    for (start, tile_x), (_, tile_y) in tiles:
        height = len(tile_x)
        stop = start + height
        if unbiased:
            tile_x.diagonal().zero_()
            tile_y.diagonal().zero_()
        both = ((tile_x, tile_y), (tile_x, tile_x), (tile_y, tile_y))
        for index, (left, right) in enumerate(both):
            product = left * right
            # Entries beyond the square on the diagonal stand for two.
            products[index] += 2 * product.sum(dtype=torch.float64)
            products[index] -= product[:, :height].sum(dtype=torch.float64)
        for index, tile in enumerate((tile_x, tile_y)):
            row_sums[index, start:stop] += tile.sum(1, dtype=torch.float64)
            row_sums[index, stop:] += tile[:, height:].sum(0, dtype=torch.float64)
    pairs = ((0, 1), (0, 0), (1, 1))
    totals = row_sums.sum(1)
    if unbiased:
        return tuple(
            _song(
                samples,
                products[index],
                totals[i],
                totals[j],
                row_sums[i] @ row_sums[j],
            )
            for index, (i, j) in enumerate(pairs)
        )
    # Centring only the row sums equals centring both kernels.
    return tuple(
        products[index]
        - 2 / samples * (row_sums[i] @ row_sums[j])
        + totals[i] * totals[j] / samples**2
        for index, (i, j) in enumerate(pairs)
    )


def _song(n: int, trace: Tensor, sum_k: Tensor, sum_l: Tensor, rows: Tensor) -> Tensor:
    """Unbiased HSIC from sums over kernels without their diagonals."""
    total = trace + sum_k * sum_l / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows
    return total / (n * (n - 3))


def _linear_tiles(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    return _tiles(len(x), lambda rows, rest: x[rows] @ x[rest].T)


def _rbf_tiles(
    x: Tensor, bandwidth: float, relative: bool
) -> Iterator[tuple[int, Tensor]]:
    tiles: Iterable[tuple[int, Tensor]] = _squared_tiles(x)
    sigma = bandwidth
    if relative and len(x) <= MEDIAN_SAMPLES:
        tiles = list(tiles)  # the distances serve the median and the kernel
        sigma *= _median_distance(tiles)
    elif relative:
        sigma *= _median_distance(_squared_tiles(_median_selection(x)))
    # For a wide kernel all entries are close to 1 and only their small
    # differences count. HSIC does not see a constant: take K - 1, which
    # keeps the digits.
    wide = sigma**2 > 2 * float(x.square().sum(1).mean())
    for start, squared in tiles:
        exponent = squared.mul_(-0.5 / sigma**2)
        yield start, exponent.expm1_() if wide else exponent.exp_()


def _squared_tiles(x: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Squared distances; exact zeros of each sample to itself."""
    lengths = x.square().sum(1)

    def squared_distances(rows: slice, rest: slice) -> Tensor:
        squared = torch.addmm(
            lengths[rows, None] + lengths[None, rest],
            x[rows],
            x[rest].T,
            alpha=-2,
        ).clamp_min_(0)
        squared.diagonal().zero_()
        return squared

    return _tiles(len(x), squared_distances)


def _tiles(
    samples: int, kernel: Callable[[slice, slice], Tensor]
) -> Iterator[tuple[int, Tensor]]:
    """Rows of the upper triangle, ``TILE`` at a time."""
    for start in range(0, samples, TILE):
        rows = slice(start, min(start + TILE, samples))
        yield start, kernel(rows, slice(start, samples))


def _median_selection(x: Tensor) -> Tensor:
    """Evenly spaced rows of a set that is too large for all its pairs."""
    if len(x) <= MEDIAN_SAMPLES:
        return x
    index = torch.linspace(0, len(x) - 1, MEDIAN_SAMPLES, device=x.device)
    return x[index.long()]


def _median_distance(tiles: Iterable[tuple[int, Tensor]]) -> float:
    pairs = []
    for _, squared in tiles:
        height = len(squared)
        above = torch.triu_indices(height, height, 1, device=squared.device)
        pairs.append(squared[above[0], above[1]])
        pairs.append(squared[:, height:].flatten())
    squares = torch.cat(pairs)
    # Equal features come out as zero or, by rounding of their squares, nearly so.
    noise = 16 * torch.finfo(squares.dtype).eps * float(squares.max())
    square = float(squares.median())
    if not square > noise:
        raise ValueError(
            'half of the samples or more have the same features: the median '
            'distance is 0 and cannot set the bandwidth; pass a bandwidth in '
            'feature units with relative=False.'
        )
    return square**0.5


def _prepare(x: Tensor, y: Tensor, unbiased: bool) -> tuple[Tensor, Tensor]:
    """Check, centre (which changes no CKA but keeps digits), float32 up."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(
            'features must be (N, D) and (N, E) of the same N samples, got '
            f'{tuple(x.shape)} and {tuple(y.shape)}; pool feature maps first.'
        )
    _check_samples(len(x), unbiased)
    result = []
    for name, features in (('x', x), ('y', y)):
        features = at_least_float32(features)
        mean = features.mean(0)
        noise = 16 * torch.finfo(features.dtype).eps * mean.abs()
        features = features - mean
        spread = features.abs().amax(0)
        if not spread.isfinite().all():
            raise ValueError(f'the features {name} are not all finite.')
        # A channel that does not vary is no reason to refuse the others.
        constant = spread <= noise
        if constant.all():
            raise _constant(f'the features {name}')
        result.append(features.masked_fill(constant, 0))
    return result[0], result[1]


def _check_samples(samples: int, unbiased: bool) -> None:
    least = 4 if unbiased else 2
    if samples < least:
        raise ValueError(
            f'{"unbiased" if unbiased else "biased"} CKA takes {least} '
            f'samples or more, got {samples}.'
        )


def _ratio(
    cross: Tensor,
    own_x: Tensor,
    own_y: Tensor,
    names: tuple[str, str] = ('x', 'y'),
) -> Tensor:
    for own, name in zip((own_x, own_y), names):
        if not own > 0:
            raise _constant(f'the features {name}')
    return cross / (own_x * own_y).sqrt()


def _constant(name: str) -> ValueError:
    return ValueError(
        f'CKA is undefined: {name} do not vary over the samples, or all lie '
        'further apart than the bandwidth reaches.'
    )
