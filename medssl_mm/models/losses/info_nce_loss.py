"""InfoNCE against a queue of keys."""

from torch import Tensor, nn

from medssl_mm.functional.contrastive import info_nce
from medssl_mm.registry import MODELS


@MODELS.register_module()
class InfoNCELoss(nn.Module):
    """Finds the own key among the keys of a queue.

    See :func:`medssl_mm.functional.contrastive.info_nce`.

    Args:
        temperature (float): Divisor of the dot products. Defaults to 0.2.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        self.temperature = temperature

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        queue: Tensor,
        masked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss and the share of samples told apart.

        Shape: query, key ``(N, D)``, normalised; queue ``(K, D)``; masked ``(N,
            K)``, bool, what is no negative. Returns two scalars: loss, and share
            of samples whose own key is nearest.
        """
        loss, top1 = info_nce(
            query, key, queue, self.temperature, return_top1=True, masked=masked
        )
        return loss, top1
