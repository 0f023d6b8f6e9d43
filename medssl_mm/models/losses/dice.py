"""Soft Dice loss for decode heads."""

from typing import Any

from torch import Tensor, nn

from medssl_mm.functional.dice import soft_dice_loss
from medssl_mm.registry import MODELS


@MODELS.register_module()
class SoftDiceLoss(nn.Module):
    """Per-class soft Dice over the pixels of the whole batch.

    mmseg's ``DiceLoss`` pools all classes, background included, into one
    ratio per image and treats ``ignore_index`` as a class to leave out, so
    that a small organ hardly changes it. Here every class present counts the
    same (see :func:`medssl_mm.functional.dice.soft_dice_loss`). Over several
    processes each one averages the classes of its own batch.

    Args:
        loss_weight (float): Factor of this term. Defaults to 1.0.
        include_background (bool): Whether class 0 counts. Defaults to False.
        eps (float): Keeps the ratio defined. Defaults to 1e-5.
        loss_name (str): Key in the log; must start with ``loss_``. Defaults
            to 'loss_dice'.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        include_background: bool = False,
        eps: float = 1e-5,
        loss_name: str = 'loss_dice',
    ) -> None:
        super().__init__()
        if not loss_name.startswith('loss_'):
            raise ValueError(
                f'loss_name={loss_name!r} must start with "loss_", otherwise '
                'the term is logged but not trained on'
            )
        self.loss_weight = loss_weight
        self.include_background = include_background
        self.eps = eps
        self.loss_name = loss_name

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        ignore_index: int = 255,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the weighted loss.

        Shape: logits ``(N, C, H, W)``; target ``(N, H, W)``. Returns a
            scalar.
        """
        if weight is not None:
            raise ValueError(
                'SoftDiceLoss has no pixel weights; remove the sampler of '
                'the decode head'
            )
        return self.loss_weight * soft_dice_loss(
            logits, target, ignore_index, self.include_background, self.eps
        )
