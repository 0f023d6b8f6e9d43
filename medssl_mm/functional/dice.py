"""Soft Dice loss over the classes that a batch contains."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def soft_dice_loss(
    logits: Tensor,
    target: Tensor,
    ignore_index: int = 255,
    include_background: bool = False,
    eps: float = 1e-5,
) -> Tensor:
    r"""One minus the mean soft Dice of the classes present in the batch.

    .. math:: L = 1 - \frac{1}{|C|} \sum_{c \in C}
        \frac{2 \sum_i p_{ic} y_{ic} + \epsilon}
             {\sum_i p_{ic} + \sum_i y_{ic} + \epsilon}

    with the softmax ``p``, the one-hot target ``y``, ``i`` running over all
    pixels of the whole batch that are not ignored, and ``C`` the classes that
    occur there. Every class weighs the same however few pixels it has; a
    class that is absent is left to the cross-entropy, because its Dice says
    nothing about how wrong the prediction is.

    Args:
        logits (Tensor): Class scores before the softmax.
        target (Tensor): Class index per pixel.
        ignore_index (int): Pixels with this label do not count. Defaults to
            255.
        include_background (bool): Whether class 0 counts. Defaults to False.
        eps (float): Keeps the ratio defined. Defaults to 1e-5.

    Shape: logits ``(N, C, *)`` with ``C >= 2``, float; target ``(N, *)``,
        integer. Returns a scalar, float32 at least; zero (with a zero
        gradient) when no counted class is present.

    Raises:
        ValueError: If the shapes do not fit or a label is out of range.
    """
    _check_shapes(logits, target)
    num_classes = logits.shape[1]
    counted = target != ignore_index
    labels = target.masked_fill(~counted, 0)
    if labels.numel() and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f'target holds labels {int(labels.min())} to {int(labels.max())},'
            f' expected 0 to {num_classes - 1} or ignore_index={ignore_index}'
        )
    # Sums over many pixels lose small organs in half precision.
    with torch.autocast(logits.device.type, enabled=False):
        prob = at_least_float32(logits).softmax(1) * counted.unsqueeze(1)
        one_hot = F.one_hot(labels.long(), num_classes).movedim(-1, 1)
        one_hot = one_hot * counted.unsqueeze(1)  # (N, C, *)
        prob = prob.transpose(0, 1).flatten(1)  # (C, pixels)
        one_hot = one_hot.transpose(0, 1).flatten(1).to(prob.dtype)
        size = one_hot.sum(1)
        dice = (2 * (prob * one_hot).sum(1) + eps) / (prob.sum(1) + size + eps)
        present = size > 0
        if not include_background:
            present[0] = False
        present = present.to(dice.dtype)
        return ((1 - dice) * present).sum() / present.sum().clamp(min=1)


def _check_shapes(logits: Tensor, target: Tensor) -> None:
    if (
        logits.ndim < 3
        or logits.shape[1] < 2
        or target.shape != logits.shape[:1] + logits.shape[2:]
    ):
        raise ValueError(
            'logits must be (N, C, *) with at least two classes and target '
            f'(N, *), got {tuple(logits.shape)} and {tuple(target.shape)}'
        )
