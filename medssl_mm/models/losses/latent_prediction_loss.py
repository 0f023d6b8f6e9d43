"""Predicting the embedding of the other view."""

from torch import Tensor, nn

from medssl_mm.functional.latent import latent_prediction
from medssl_mm.registry import MODELS


@MODELS.register_module()
class LatentPredictionLoss(nn.Module):
    """Negative cosine; for ``loss`` of the host's ``LatentPredictHead``.

    See :func:`medssl_mm.functional.latent.latent_prediction`.
    """

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Compare ``(N, D)`` and ``(N, D)``; the target gets no gradient."""
        return latent_prediction(prediction, target)
