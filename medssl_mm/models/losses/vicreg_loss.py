"""Variance, invariance and covariance of two views, of images or places."""

from typing import Any

import torch
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.geometry import source_centres, take_rows
from medssl_mm.functional.precision import at_least_float32
from medssl_mm.functional.vicreg import vicreg
from medssl_mm.registry import MODELS

MATCHINGS = ('location', 'feature')


@MODELS.register_module()
class VICRegLoss(nn.Module):
    """Keeps two views alike, and their channels alive and uncorrelated.

    See :func:`medssl_mm.functional.vicreg.vicreg`. The head of
    :class:`medssl_mm.models.algorithms.MultiLevelVICReg`, or the loss of a level
    behind a :class:`medssl_mm.models.necks.BarlowTwinsNeck` and the like. As a level
    without a neck it sees every position of the maps as a sample: with
    ``invariance_weight=0`` a soft decorrelation of the map that is kept.

    Args:
        invariance_weight (float): Of the squared difference. Defaults to 25.
        variance_weight (float): Of the hinge on standard deviations. Defaults to 25.
        covariance_weight (float): Of the squared covariances. Defaults to 1.
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.weights = dict(
            invariance_weight=invariance_weight,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
        )
        if min(self.weights.values()) < 0:
            raise UserError(f'weights must not be negative, got {self.weights}')

    def forward(
        self, query: Tensor, key: Tensor, context: Any = None
    ) -> dict[str, Tensor]:
        """Compare embeddings ``(N, D)``, or the positions of maps ``(N, C, H, W)``.

        Returns the scalar ``loss`` and the three terms without their weights.
        """
        if query.ndim == 4:
            query, key = (view.flatten(2).mT.flatten(0, 1) for view in (query, key))
        loss, terms = vicreg(query, key, **self.weights)
        return dict(loss=loss, **terms)


@MODELS.register_module()
class VICRegLocalLoss(VICRegLoss):
    """The criterion of VICReg between matched places of two views.

    The local part of `VICRegL <https://arxiv.org/abs/2210.01571>`_: of
    each view the places whose partner is nearest, as many as ``matched_share`` says,
    and their partners. ``'location'`` takes the centres of cells in the source image,
    ``'feature'`` the projected vectors themselves; both directions are averaged and
    both ways of matching added. Statistics are those of the images of a batch, for
    each rank of nearness.

    For a level of :class:`medssl_mm.models.heads.MultiLevelHead` with a
    :class:`medssl_mm.models.necks.PlaceProjector` and ``key_neck='shared'``.

    Args:
        matching (tuple[str]): How places are matched. Defaults to both.
        matched_share (float): Share of the places that are taken (0-1), 20 of 49 in
            the paper. Defaults to 0.4.
        **weights: Those of :class:`VICRegLoss`.
    """

    def __init__(
        self,
        matching: tuple[str, ...] = MATCHINGS,
        matched_share: float = 0.4,
        **weights: float,
    ) -> None:
        super().__init__(**weights)
        if not matching or set(matching) - set(MATCHINGS):
            raise UserError(
                f'matching must be of {list(MATCHINGS)}, got {list(matching)}'
            )
        if not 0 < matched_share <= 1:
            raise UserError(f'matched_share must be in (0, 1], got {matched_share}')
        self.matching = tuple(matching)
        self.matched_share = matched_share

    def forward(
        self, query: Tensor, key: Tensor, context: Any = None
    ) -> dict[str, Tensor]:
        """Compare the projected maps ``(N, D, H, W)`` of the two views."""
        if query.ndim != 4 or key.ndim != 4:
            raise UserError(
                'VICRegLocalLoss needs projected maps (N, D, H, W), got '
                f'{tuple(query.shape)}; put medssl_mm.PlaceProjector before it'
            )
        rows = [view.flatten(2).mT for view in (query, key)]  # (N, R, D)
        found = []
        for how in self.matching:
            distance = (
                self._feature_distance(rows)
                if how == 'feature'
                else self._location_distance((query, key), context)
            )
            for one, other, d in (
                (rows[0], rows[1], distance),
                (rows[1], rows[0], distance.mT),
            ):
                found.append(self._nearest(one, other, d))
        logs: dict[str, Tensor] = {}
        for pair in found:
            loss, terms = vicreg(pair[0], pair[1], **self.weights)
            for name, value in dict(loss=loss, **terms).items():
                # Mean of the two directions, sum over the ways of matching.
                logs[name] = logs.get(name, 0) + value / 2
        return logs

    def _nearest(
        self, one: Tensor, other: Tensor, distance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The places of one view that have the nearest partners, and these."""
        nearest, partner = distance.min(dim=2)
        count = max(1, round(self.matched_share * nearest.shape[1]))
        chosen = nearest.topk(count, dim=1, largest=False).indices
        partner = partner.gather(1, chosen)
        return take_rows(one, chosen), take_rows(other, partner)

    @torch.no_grad()
    def _feature_distance(self, rows: list[Tensor]) -> Tensor:
        with torch.autocast(rows[0].device.type, enabled=False):
            first, second = map(at_least_float32, rows)
            return torch.cdist(first, second)

    @torch.no_grad()
    def _location_distance(self, maps: tuple[Tensor, Tensor], context: Any) -> Tensor:
        """Between the centres of cells, in pixels of the source image."""
        centres = []
        for view, (level, image) in enumerate(zip(maps, context.images, strict=True)):
            matrix = context.view_matrices(view)
            (height, width), (rows, columns) = image.shape[2:], level.shape[2:]
            centres.append(source_centres(matrix, (height, width), (rows, columns)))
        first, second = centres
        return torch.cdist(first, second, compute_mode='donot_use_mm_for_euclid_dist')
