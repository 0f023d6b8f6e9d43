"""Loss and class weights of a linear classifier, of one or several labels."""

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_weights(targets: Tensor, multi_label: bool = False) -> Tensor:
    """Weights by which rare classes count as much as frequent ones.

    Of exclusive classes ``(N / n_c) / sum of N / n_c``: with 21 % positives
    [0.21, 0.79]. Of several labels at once each class is such a pair of its
    own, without and with it.

    Args:
        targets (Tensor): Whether an image has a class.
        multi_label (bool): Whether an image may have any number of them.
            Defaults to False.

    Shape: targets ``(N, C)``. Returns ``(C,)``, or ``(2, C)`` for several
        labels: absent, present. float64.

    Raises:
        ValueError: Some class has no image, or (several labels) all.
    """
    counts = targets.double().sum(0)
    pair = torch.stack([len(targets) - counts, counts]) if multi_label else counts
    if (pair == 0).any():
        raise ValueError(f'every class needs images with it, found {counts.tolist()}')
    inverse = len(targets) / pair
    return inverse / inverse.sum(0)


def weighted_loss_sum(
    logits: Tensor,
    targets: Tensor,
    multi_label: bool = False,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the weighted cross-entropies, and sum of the weights.

    Their quotient is the loss. Both are given, because the weights of a batch
    that is shared among processes must be summed before they divide.

    Args:
        logits (Tensor): Of every class.
        targets (Tensor): Whether an image has a class.
        multi_label (bool): Whether an image may have any number of them:
            then each class has a binary cross-entropy. Defaults to False.
        weights (Tensor, optional): As of :func:`balanced_weights`. Defaults
            to None: all 1.

    Shape: logits, targets ``(N, C)``; weights ``(C,)`` or ``(2, C)``. Returns
        two scalars.
    """
    known = targets.to(logits.dtype)
    if multi_label:
        losses = F.binary_cross_entropy_with_logits(logits, known, reduction='none')
        if weights is None:
            share = torch.ones_like(losses)
        else:
            absent, present = weights.to(logits)
            share = torch.where(known > 0, present, absent)
    else:
        losses = -(logits.log_softmax(1) * known).sum(1)
        share = (
            torch.ones_like(losses) if weights is None else known @ weights.to(logits)
        )
    return (share * losses).sum(), share.sum()
