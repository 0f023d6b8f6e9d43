"""Predicting the embedding of another view."""

from torch import Tensor

from .contrastive import unit_rows


def latent_prediction(prediction: Tensor, target: Tensor) -> Tensor:
    r"""Negative cosine between predictions and embeddings to be predicted.

    .. math:: L = -\frac1N \sum_i \frac{p_i \cdot t_i}{|p_i| \, |t_i|}

    The loss of `Bootstrap Your Own Latent
    <https://arxiv.org/abs/2006.07733>`_, eq. (2), as :math:`L = l / 2 - 1`.
    Its two directions are two calls, or one with the rows of both. All is
    computed in float32 (float64 stays float64), whatever autocast says.

    Args:
        prediction (Tensor): What the online network predicts.
        target (Tensor): What the target network makes of the other view; it
            gets no gradient.

    Shape: ``(N, D)`` twice, neither normalised; further dimensions before D
        are averaged over, too. Returns a scalar, -1 (the same directions) to
        1; 0 for unrelated ones.

    Raises:
        ValueError: When the shapes differ.
    """
    if prediction.ndim < 2 or prediction.shape != target.shape:
        raise ValueError(
            'prediction and target must both be (N, D), got '
            f'{tuple(prediction.shape)} and {tuple(target.shape)}'
        )
    cosine = (unit_rows(prediction) * unit_rows(target.detach())).sum(dim=-1)
    return -cosine.mean()
