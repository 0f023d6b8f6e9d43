"""Features of an encoder at its stages, for monitors and analysis.

Nothing here changes the model: it computes in evaluation mode, without
gradient, and every module returns to the mode that it had.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

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
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation; give each part its own mode back.

    Args:
        module (nn.Module): With whatever mixture of modes in it.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def captured(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of modules during a forward pass.

    Args:
        modules (Mapping[str, nn.Module]): By the names of the outputs.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name):
        def hook(module, args, output):
            outputs[name] = output

        return hook

    handles = [
        module.register_forward_hook(keep(name)) for name, module in modules.items()
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def encoder_features(
    backbone: nn.Module,
    neck: nn.Module,
    images: Tensor,
    decorrelation: nn.Module | None = None,
) -> dict[str, Tensor]:
    """Features at all places of a contrastive encoder.

    ``stage1`` ... (modules ``layer1`` ... of the backbone, and ``stageN`` of
    its last map in any case), ``decorrelated`` (the map after the
    decorrelation, if there is one), ``pooled`` (the mean over the positions
    of the map that the neck gets) and ``projection``.

    Args:
        backbone (nn.Module): Returns a sequence of maps.
        neck (nn.Module): Takes ``[map]`` and returns ``[embeddings]``.
        images (Tensor): As the backbone takes them.
        decorrelation (nn.Module, optional): Has the number of its ``stage``.
            Defaults to None.

    Shape: images ``(N, C, H, W)`` -> maps ``(N, C', H', W')``, pooled and
        projection ``(N, D)``.
    """
    layers = {
        f'stage{number}': layer
        for number in range(1, 5)
        if isinstance(layer := getattr(backbone, f'layer{number}', None), nn.Module)
    }
    with captured(layers) as features:
        maps = backbone(images)
    features = dict(features)
    features.setdefault('stage4', maps[-1])
    last = features['stage4']
    if decorrelation is not None:
        place = f'stage{decorrelation.stage}'
        level = last if place == 'stage4' else features.get(place)
        if level is not None:
            features['decorrelated'] = decorrelation(level)
            if place == 'stage4':
                last = features['decorrelated']
    features['pooled'] = last.mean(dim=(2, 3))
    features['projection'] = neck([last])[0]
    return features


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
