"""Variance, invariance and covariance, with further loss terms on chosen stages."""

from typing import Any

from torch import Tensor

from medssl_mm.registry import MODELS

from .simclr import MultiLevelSimCLR


@MODELS.register_module()
class MultiLevelVICReg(MultiLevelSimCLR):
    """Two views kept alike without negatives, plus a list of further terms.

    Method of `VICReg <https://arxiv.org/abs/2105.04906>`_; with a term of
    :class:`medssl_mm.models.losses.VICRegLocalLoss` that of `VICRegL
    <https://arxiv.org/abs/2210.01571>`_. One encoder makes both views, as in
    :class:`MultiLevelSimCLR`; the variance of each channel over the batch, instead of
    negatives or a slow copy, keeps the embeddings from collapsing.

    Logged beside the loss terms: ``invariance``, ``variance`` and ``covariance``
    without their weights, see :func:`medssl_mm.functional.vicreg.vicreg`.

    Args:
        backbone (dict): See :class:`BaseAlgorithm`.
        neck (dict): The expander; see :class:`BaseAlgorithm`.
        head (dict): Called as ``head(view_a, view_b)``; returns the ``loss`` and what
            is logged by name, as :class:`medssl_mm.models.losses.VICRegLoss`.
        joint_views (bool): See :class:`MultiLevelSimCLR`. Defaults to False: each view
            has batch statistics of its own, as in the published code.
        **kwargs: Those of :class:`MultiLevelSimCLR`.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        joint_views: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, neck, head, joint_views, **kwargs)

    def compare(
        self, first: Tensor, second: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The loss of the embeddings of both views, and its three terms.

        Shape: ``(N, D)`` twice. Returns scalars by name.
        """
        found = dict(self.head(first, second))
        return dict(loss_vicreg=found.pop('loss')), found
