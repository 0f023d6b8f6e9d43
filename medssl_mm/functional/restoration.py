"""Masked restoration: hidden patches, a network that sees the rest, the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError

from .precision import at_least_float32

# Settings by which networks of the hosts and of timm compute parts of themselves
# once more in the backward pass.
_RECOMPUTING = ('with_cp', 'use_checkpoint', 'grad_checkpointing')
_WRAPPERS = ('mmengine.runner.activation_checkpointing', 'torch.utils.checkpoint')


def hidden_at(hidden: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring hidden patches to the resolution of an image or a map.

    A cell that covers several patches is hidden when all of them are.

    Args:
        hidden (Tensor): Whether each patch is hidden.
        size (tuple[int, int]): Height and width.

    Shape: hidden ``(N, h, w)``, bool. Returns ``(N, 1, *size)``, bool.

    Raises:
        ValueError: When neither grid divides the other.
    """
    grid = hidden.shape[-2:]
    mask = hidden[:, None]
    for dim, (patches, cells) in enumerate(zip(grid, size), 2):
        if cells % patches == 0:
            mask = mask.repeat_interleave(cells // patches, dim)
        elif patches % cells == 0:
            mask = mask.unflatten(dim, (cells, patches // cells)).all(dim + 1)
        else:
            raise ValueError(
                f'{grid[0]} x {grid[1]} patches do not fit a map of {size[0]} x '
                f'{size[1]} cells: choose patches whose side is a multiple of the '
                'stride of every stage, or divides it, and images of whole patches'
            )
    return mask


def masked_l1(prediction: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute error of the hidden pixels, in at least float32.

    Args:
        prediction (Tensor): Of the image.
        target (Tensor): The image, on the scale that its pipeline gave it: a
            rule that no blank image upsets, as its own deviation would.
        hidden (Tensor): Whether each patch is hidden; as many in every image.

    Shape: both ``(N, C, H, W)``, hidden ``(N, h, w)``. Returns a scalar; 0 when
        nothing is hidden.
    """
    mask = hidden_at(hidden, (target.shape[-2], target.shape[-1])).to(
        torch.promote_types(target.dtype, torch.float32)
    )
    error = (at_least_float32(prediction) - at_least_float32(target)).abs() * mask
    return error.sum() / (mask.sum() * target.shape[1]).clamp(min=1)


def mean_of_visible(images: Tensor, hidden: Tensor) -> Tensor:
    """Mean of the visible pixels of each image and channel.

    Shape: images ``(N, C, H, W)``, hidden ``(N, h, w)``. Returns ``(N, C, 1, 1)``.
    """
    visible = ~hidden_at(hidden, (images.shape[-2], images.shape[-1]))
    images = at_least_float32(images) * visible
    return images.sum((2, 3), keepdim=True) / visible.sum((2, 3), keepdim=True).clamp(
        min=1
    )


@contextmanager
def sparse(network: nn.Module, hidden: Tensor) -> Iterator[None]:
    """Let a convolutional network see the visible cells alone, at every layer.

    Every convolution and pooling returns 0 at the hidden cells of its map, and batch
    normalisation takes its statistics from the visible ones: with dense
    operations that is the sparse convolution of `Designing BERT for
    Convolutional Networks <https://arxiv.org/abs/2301.03580>`_. Without it the
    visible parts grow into the hidden ones, layer by layer, and the statistics
    are those of images that are mostly empty.

    Args:
        network (nn.Module): Of 2D convolutions and batch normalisation.
        hidden (Tensor): Whether each patch of its images is hidden.

    Shape: hidden ``(N, h, w)``, bool.

    Raises:
        UserError: Its batch normalisation takes images apart, or it is computed once
            more in the backward pass.
    """
    _refuse_recomputation(network)
    masks: dict[tuple[int, int], Tensor] = {}

    def visible(level: Tensor) -> Tensor:
        size = (level.shape[-2], level.shape[-1])
        if size not in masks:
            masks[size] = ~hidden_at(hidden, size)
        return masks[size]

    def hide(module: nn.Module, inputs: object, level: Tensor) -> Tensor:
        return level * visible(level)

    handles, normalised = [], list[tuple[nn.Module, Any]]()
    for module in network.modules():
        if _spreads(module):
            handles.append(module.register_forward_hook(hide))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            if getattr(module, 'num_splits', 1) > 1:
                # Visible cells are many or few, and not apart by image.
                raise UserError(
                    f'{type(module).__name__} normalises parts of a batch, sparse '
                    "masking the visible cells of all images; take masking='zero', "
                    "or norm_cfg=dict(type='BN') for the backbone"
                )
            # On the instance, where it stands before the method of the class.
            replaced = partial(_normalise_visible, module.forward, visible)
            normalised.append((module, vars(module).get('forward')))
            vars(module)['forward'] = replaced
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, before in normalised:
            del vars(module)['forward']
            if before is not None:  # another wrapper's
                vars(module)['forward'] = before


@contextmanager
def own_statistics(network: nn.Module, evaluated: bool = False) -> Iterator[None]:
    """Normalise batches by their own statistics and keep the running ones as they are.

    For passes over images that are not as those that the network sees later:
    what evaluation normalises by stays that of whole images.

    Args:
        network (nn.Module): With batch normalisation.
        evaluated (bool): Also layers in evaluation mode, whose running statistics
            are those of whole images. Defaults to False: they normalise by them.

    Raises:
        UserError: The network is computed once more in the backward pass.
    """
    _refuse_recomputation(network)
    norms = [
        module
        for module in network.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    before = [(norm.training, norm.track_running_stats) for norm in norms]
    for norm in norms:
        norm.training = norm.training or evaluated
        norm.track_running_stats = norm.track_running_stats and not norm.training
    try:
        yield
    finally:
        for norm, (training, tracks) in zip(norms, before, strict=True):
            norm.training, norm.track_running_stats = training, tracks


def _refuse_recomputation(network: nn.Module) -> None:
    """Refuse parts that are computed again when this context has been left.

    They would be computed of all cells then, and move the running statistics.
    """
    if not torch.is_grad_enabled():
        return
    for name, module in network.named_modules():
        setting = next((s for s in _RECOMPUTING if getattr(module, s, None)), None)
        # A wrapper has the name of what it wraps, but globals of its own.
        forward = vars(module).get('forward')
        wrapper = getattr(forward, '__globals__', {}).get('__name__')
        if setting is None and wrapper in _WRAPPERS:
            setting = 'activation_checkpointing'
        if setting is None:
            continue
        raise UserError(
            f'{setting} is on in {name or "the backbone"} ({type(module).__name__}): '
            'such parts are computed once more in the backward pass, where nothing is '
            'hidden any more, so that gradients and running statistics would be wrong; '
            'for masked restoration set with_cp=False in the backbone, and leave it '
            'out of activation_checkpointing'
        )


def _spreads(module: nn.Module) -> bool:
    """Whether a layer takes visible cells into hidden ones.

    Pooling is known by its name: networks bring classes of their own.
    """
    if isinstance(module, nn.Conv2d):
        return True
    names = [kind.__name__ for kind in type(module).mro()]
    pools = any('Pool2d' in name for name in names)
    return pools and not any('Adaptive' in name for name in names)


def _normalise_visible(
    normalise: Callable[[Tensor], Tensor],
    visible: Callable[[Tensor], Tensor],
    level: Tensor,
) -> Tensor:
    """Normalise the visible cells alone; the others become 0."""
    mask = visible(level).expand_as(level).transpose(0, 1)
    by_channel = level.transpose(0, 1)
    # As many cells in every channel: (1, C, cells, 1) for the normalisation.
    cells = by_channel[mask].view(1, len(by_channel), -1, 1)
    result = torch.zeros_like(by_channel, dtype=cells.dtype)
    found = normalise(cells)
    return (
        result.to(found.dtype)
        .masked_scatter(mask, found.flatten())
        .transpose(0, 1)
        .contiguous(memory_format=_layout_of(level))
    )


def _layout_of(level: Tensor) -> torch.memory_format:
    if level.is_contiguous(memory_format=torch.channels_last) and level.shape[1] > 1:
        return torch.channels_last
    return torch.contiguous_format


def resized(prediction: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a prediction to the size of its image, as segmentations are.

    Shape: ``(N, C, h, w)`` -> ``(N, C, *size)``, at least float32.
    """
    return F.interpolate(
        at_least_float32(prediction), size, mode='bilinear', align_corners=False
    )
