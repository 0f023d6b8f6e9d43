"""NT-Xent among the embeddings of a batch."""

from torch import Tensor, nn

from medssl_mm.functional.contrastive import nt_xent
from medssl_mm.registry import MODELS


@MODELS.register_module()
class NTXentLoss(nn.Module):
    """Finds the other view among all embeddings of the batch.

    See :func:`medssl_mm.functional.contrastive.nt_xent`.

    Args:
        temperature (float): Divisor of the cosines. Defaults to 0.1.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f'temperature must be positive, got {temperature}')
        self.temperature = temperature

    def forward(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the loss and the share of embeddings told apart.

        Shape: ``(N, D)`` twice, not normalised. Returns two scalars: loss, and
            share of embeddings nearest to their partner.
        """
        loss, top1 = nt_xent(view_a, view_b, self.temperature, return_top1=True)
        return loss, top1
