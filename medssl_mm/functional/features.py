"""Features of an encoder at its stages, for monitors and analysis.

Nothing here changes the model: it computes in evaluation mode, without
gradient, and every module returns to the mode that it had.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from .spectrum import (
    alpha_req,
    covariance_eigenvalues,
    effective_rank,
    rankme,
    std_of_l2_normalized,
)

FIGURES = ('effective_rank', 'rankme', 'alpha_req', 'std_of_l2_normalized')


@contextmanager
def in_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Set the mode of a module; give each part its own mode back.

    Args:
        module (nn.Module): With whatever mixture of modes in it.
        training (bool): Training mode, else evaluation mode.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, before in modes:
            part.training = before


def evaluation_mode(module: nn.Module) -> AbstractContextManager[None]:
    """Set a module to evaluation; give each part its own mode back.

    Args:
        module (nn.Module): With whatever mixture of modes in it.
    """
    return in_mode(module, training=False)


def device_of(network: nn.Module) -> torch.device:
    """Where the weights of a network are; without weights, the CPU."""
    return next((p.device for p in network.parameters()), torch.device('cpu'))


def grid_rows(features: Tensor, per_side: int = 7) -> Tensor:
    """Take an even grid of positions of a map as samples.

    Always the same positions, and no mean over several, which would change
    the spectrum.

    Args:
        features (Tensor): Features.
        per_side (int): Rows and columns of the grid, at most those of the
            map. Defaults to 7.

    Shape: ``(N, C, H, W)`` -> ``(N * rows * columns, C)``; ``(N, D)`` is
        kept.
    """
    if features.ndim == 2:
        return features
    rows, columns = (
        ((torch.arange(count, device=features.device) + 0.5) * size / count).long()
        for size in features.shape[2:]
        for count in [min(per_side, size)]
    )
    chosen = features[:, :, rows][:, :, :, columns]
    return chosen.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def collect_features(
    forward: Callable[[object], Mapping[str, Tensor]],
    batches: Iterable,
    per_side: int = 7,
) -> dict[str, Tensor]:
    """Samples of the features of several batches, on the CPU in float32.

    Args:
        forward (Callable): From a batch to features by place.
        batches (Iterable): Whatever ``forward`` takes.
        per_side (int): See ``grid_rows``. Defaults to 7.

    Shape: features ``(N, C, H, W)`` or ``(N, D)`` -> ``(samples, C)``.
    """
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        for place, features in forward(batch).items():
            rows = grid_rows(features, per_side).float().cpu()
            parts.setdefault(place, []).append(rows)
    return {place: torch.cat(rows) for place, rows in parts.items()}


@torch.no_grad()
def spectrum_figures(rows: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Eigenvalues of the covariance, and the figures ``FIGURES``.

    Shape: ``(N, D)`` -> ``(D,)``, largest first, and one number each.
    """
    values = covariance_eigenvalues(rows)
    numbers = (
        effective_rank(values),
        rankme(rows),
        alpha_req(values),
        std_of_l2_normalized(rows),
    )
    return values, {name: float(number) for name, number in zip(FIGURES, numbers)}


def collapse_of(
    figures: Mapping[str, float],
    num_samples: int,
    num_channels: int,
    rank_share: float = 0.01,
    std_share: float = 0.1,
) -> str:
    """Say in words what has collapsed; empty when nothing has.

    Complete collapse (all samples agree): the mean spread of the unit-length
    features is below ``std_share`` of ``1 / sqrt(D)``, that of features
    spread evenly. Dimensional collapse: the effective rank is below
    ``rank_share`` of what is possible, min(N, D), or below 2.

    Args:
        figures (Mapping[str, float]): From ``spectrum_figures``.
        num_samples (int): N.
        num_channels (int): D.
        rank_share (float): 0-1. Defaults to 0.01.
        std_share (float): 0-1. Defaults to 0.1.
    """
    even = num_channels**-0.5
    std = figures['std_of_l2_normalized']
    if std < std_share * even:
        return (
            f'complete collapse: std_of_l2_normalized {std:.3g} is below '
            f'{std_share:g} of {even:.3g}, the value of features spread evenly'
        )
    possible = min(num_samples, num_channels)
    limit = max(2.0, rank_share * possible)
    rank = figures['effective_rank']
    if rank < limit:
        return (
            f'dimensional collapse: effective_rank {rank:.2f} of {possible} '
            f'possible is below {limit:.2f}'
        )
    return ''
