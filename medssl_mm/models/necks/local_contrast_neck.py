"""Vectors of regions that two views of an image have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError
from medssl_mm.functional.contrastive import unit_rows
from medssl_mm.functional.geometry import (
    mutual_nearest,
    overlap_points,
    patch_std,
    sample_map,
    source_centres,
)
from medssl_mm.registry import MODELS

Number = TypeVar('Number', int, float)

MATCHINGS = ('overlap', 'aligned', 'location', 'feature')


@dataclass(frozen=True)
class LocalRegions:
    """Regions of one view; those of the other view have the same order.

    Args:
        features (Tensor): ``(N, R, D)``, not normalised.
        valid (Tensor): ``(N, R)`` bool, which regions count. A pair counts
            if both of its regions do.
    """

    features: Tensor
    valid: Tensor


@MODELS.register_module()
class LocalContrastNeck(BaseModule):
    """Projects regions that are matched between two views.

    A neck of :class:`medssl_mm.models.heads.MultiLevelHead` for maps of any
    stage. Regions are taken from the map first and projected then, by two
    1x1 convolutions with a ReLU between them, so that the cost hardly depends
    on the size of the map. Region ``i`` of one view and region ``i`` of the
    other one are a pair by ``matching``:

    - ``'overlap'``: places in the box that the two crops have in common,
      interpolated from either map by the views' geometry: a grid, or random
      points, drawn once for both views. Handles crops, flips and turns.
    - ``'aligned'``: the cells of a grid over the view, by index. Both views
      must show the same crop (``shared_crop=True`` of CropViews).
    - ``'location'``: the query's cells, each with the key's cell whose centre
      is nearest in the source image. As in `VICRegL
      <https://arxiv.org/abs/2210.01571>`_, here mutually nearest.
    - ``'feature'``: the query's cells, each with the key's cell of the most
      similar backbone features (cosine). As in `DenseCL
      <https://arxiv.org/abs/2011.09157>`_, here mutually nearest. Without
      geometry.

    Mutually, because a key cell that served two queries would be the negative
    of both. The match is computed once per step, for the whole batch.

    Args:
        in_channels (int): Channels of the map.
        hid_channels (int): Channels between the convolutions. Defaults to
            256.
        out_channels (int): Length of a region's vector. Defaults to 128.
        matching (str): See above. Defaults to 'overlap'.
        grid_size (int, optional): Regions per side; the map is averaged over
            them, or with 'overlap' interpolated. None takes the map's own
            cells (not with 'overlap'). Defaults to 4.
        sampling (str): ``'grid'``, or ``'points'`` at random (only with
            'overlap'). Defaults to 'grid'.
        num_points (int): Number of random points. Defaults to 16.
        samples_per_side (int): A region of the grid of 'overlap' is the mean
            of this many places per side. Defaults to 1.
        min_overlap (float): Images whose crops have less in common are left
            out: area over that of the smaller crop, 0-1 (only 'overlap').
            Defaults to 0.1.
        max_distance (float): Largest distance of the centres, in sides of
            the larger of the two cells (only 'location'). Defaults to 0.5.
        edge_margin (float): Cells left out at the views' edges (only
            'overlap'): 0.5 keeps to places between cell centres; with 0 the
            map is continued half a cell beyond them. Defaults to 0.0.
        mask_uniform (float, optional): Regions where the grey values of
            either view's image have a standard deviation below this, within
            one cell, do not count: air looks the same everywhere. In units of
            the network's input; above the noise that is added to it.
            Defaults to None, which counts all.
        norm_cfg (dict, optional): Normalisation between the convolutions, for
            example ``dict(type='BN')``. Defaults to None.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.
    """

    def __init__(
        self,
        in_channels: int,
        hid_channels: int = 256,
        out_channels: int = 128,
        matching: str = 'overlap',
        grid_size: int | None = 4,
        sampling: str = 'grid',
        num_points: int = 16,
        samples_per_side: int = 1,
        min_overlap: float = 0.1,
        max_distance: float = 0.5,
        edge_margin: float = 0.0,
        mask_uniform: float | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.matching = _one_of('matching', matching, MATCHINGS)
        self.sampling = _one_of('sampling', sampling, ('grid', 'points'))
        if matching != 'overlap' and sampling == 'points':
            raise UserError(
                f"sampling='points' needs matching='overlap', got {matching!r}"
            )
        if grid_size is None and matching == 'overlap':
            raise UserError(
                "grid_size=None (the map's own cells) does not "
                "go with matching='overlap'; set a number"
            )
        self.grid_size = (
            None if grid_size is None else _at_least('grid_size', grid_size, 1)
        )
        self.num_points = _at_least('num_points', num_points, 1)
        self.samples_per_side = _at_least('samples_per_side', samples_per_side, 1)
        self.min_overlap = _at_least('min_overlap', min_overlap, 0)
        self.max_distance = _at_least('max_distance', max_distance, 0)
        self.edge_margin = _at_least('edge_margin', edge_margin, 0)
        self.mask_uniform = (
            None if mask_uniform is None else _at_least('mask_uniform', mask_uniform, 0)
        )
        norm = [build_norm_layer(norm_cfg, hid_channels)[1]] if norm_cfg else []
        self.projector = nn.Sequential(
            nn.Conv2d(in_channels, hid_channels, 1, bias=not norm),
            *norm,
            nn.ReLU(inplace=True),
            nn.Conv2d(hid_channels, out_channels, 1),
        )

    def forward(self, level: Tensor, view: int, context: Any) -> LocalRegions:
        """Take the regions of one view and project them.

        Args:
            level: Map of the view's image.
            view: 0 = the query's, to be called first; 1 = the key's.
            context: See :class:`medssl_mm.models.heads.LevelContext`.

        Shape: level ``(N, C, H, W)``.
        """
        if level.ndim != 4:
            raise UserError(
                'LocalContrastNeck needs a map (N, C, H, W), got '
                f'{tuple(level.shape)}; leave out any pooling '
                'before it'
            )
        if self.matching == 'overlap':
            regions, valid = self._overlap(level, view, context)
        else:
            regions, valid = self._cells(level, view, context)
        # (N, C, R) as a map of width 1.
        projected = self.projector(regions[..., None])[..., 0]
        return LocalRegions(projected.mT, valid)

    def _overlap(self, level: Tensor, view: int, context: Any) -> tuple[Tensor, Tensor]:
        """Return the map at the common places, and which of them count."""
        shape = context.images[view].shape[2:]
        stride = [side / cell for side, cell in zip(shape, level.shape[2:])]
        points, valid = self._once(
            context, lambda: self._match_overlap(stride, context)
        )
        found = sample_map(level, points[view], shape)  # (N, C, P)
        per_region = found.shape[2] // valid.shape[1]
        return found.unflatten(2, (-1, per_region)).mean(dim=3), valid

    def _match_overlap(
        self, stride: list[float], context: Any
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        shapes = [image.shape[2:] for image in context.images]
        matrices = [context.view_matrices(view) for view in (0, 1)]
        margin = self.edge_margin * stride[0], self.edge_margin * stride[1]
        points, valid, share = overlap_points(
            matrices, shapes, self._positions(matrices[0]), (margin, margin)
        )
        valid = valid & (share >= self.min_overlap)[:, None]
        if self.mask_uniform is not None:
            for image, places, shape in zip(context.images, points, shapes):
                spread = sample_map(
                    patch_std(image, _cells_of(shape, stride)), places, shape
                )
                valid = valid & (spread[:, 0] >= self.mask_uniform)
        if self.sampling == 'grid':
            per_region = self.samples_per_side**2
            valid = valid.unflatten(1, (-1, per_region)).all(dim=2)
        return points, valid

    def _positions(self, matrices: Tensor) -> Tensor:
        """Places in the common box, ``(P, 2)`` or ``(N, P, 2)``, 0-1."""
        if self.sampling == 'points':
            return torch.rand(len(matrices), self.num_points, 2, device=matrices.device)
        # The places of one region are neighbours in the list.
        assert self.grid_size is not None, 'refused by __init__'
        size, fine = self.grid_size, self.samples_per_side
        steps = (
            torch.arange(size * fine, dtype=matrices.dtype, device=matrices.device)
            + 0.5
        ) / (size * fine)
        y, x = torch.meshgrid(steps, steps, indexing='ij')
        grid = torch.stack([x, y], dim=-1).view(size, fine, size, fine, 2)
        return grid.transpose(1, 2).reshape(-1, 2)

    def _cells(self, level: Tensor, view: int, context: Any) -> tuple[Tensor, Tensor]:
        """Return the cells of the query or their partners of the key."""
        shapes = [image.shape[2:] for image in context.images]
        if self.grid_size is not None:
            level = F.adaptive_avg_pool2d(level, self.grid_size)
            cells = [(self.grid_size, self.grid_size)] * 2
        else:
            stride = [side / cell for side, cell in zip(shapes[view], level.shape[2:])]
            cells = [_cells_of(shape, stride) for shape in shapes]
        regions = level.flatten(2)  # (N, C, R)
        if self.matching == 'feature':
            return self._by_feature(regions, cells, view, context)
        index, valid = self._once(
            context, lambda: self._match_cells(shapes, cells, context)
        )
        if view == 1 and index is not None:
            regions = _pick(regions, index)
        return regions, valid

    def _match_cells(
        self, shapes: list[tuple[int, int]], cells: list[tuple[int, int]], context: Any
    ) -> tuple[Tensor | None, Tensor]:
        """Match by the views' geometry."""
        matrices = [context.view_matrices(view) for view in (0, 1)]
        textured = self._textured(cells, context)
        if self.matching == 'aligned':
            same = (matrices[0] - matrices[1]).abs().amax(dim=(1, 2)) < 1e-6
            if shapes[0] != shapes[1] or not same.all():
                raise UserError(
                    "matching='aligned' needs two views of the same crop, "
                    f'flip and turn, but {int((~same).sum())} of {len(same)} '
                    'images have views that differ; set shared_crop=True in '
                    "medssl_mm.CropViews, or matching='overlap'"
                )
            return None, textured[0] & textured[1]
        centres, sides = [], []
        for matrix, shape, number in zip(matrices, shapes, cells):
            centres.append(source_centres(matrix, shape, number))
            area = torch.linalg.det(matrix[:, :, :2]).abs() * (
                shape[0] / number[0] * shape[1] / number[1]
            )
            sides.append(area.sqrt())
        distance = torch.cdist(
            centres[0], centres[1], compute_mode='donot_use_mm_for_euclid_dist'
        )
        index, mutual = mutual_nearest(distance)
        nearest = distance.amin(dim=2) / torch.maximum(*sides)[:, None]
        valid = mutual & (nearest <= self.max_distance) & textured[0]
        return index, valid & textured[1].gather(1, index)

    def _by_feature(
        self, regions: Tensor, cells: list[tuple[int, int]], view: int, context: Any
    ) -> tuple[Tensor, Tensor]:
        """Match by the features; known when the key's map comes."""
        directions = unit_rows(regions.detach().mT)  # (N, R, C)
        query, textured = self._once(
            context,
            lambda: (directions if view == 0 else None, self._textured(cells, context)),
        )
        if view == 0:
            return regions, textured[0]
        if query is None:
            raise UserError(
                "matching='feature' needs the query's map first: "
                'call the neck with view 0, then with view 1, '
                'and the same context'
            )
        with torch.autocast(regions.device.type, enabled=False):
            index, mutual = mutual_nearest(-query @ directions.mT)
        valid = mutual & textured[1].gather(1, index)
        return _pick(regions, index), valid

    def _textured(self, cells: list[tuple[int, int]], context: Any) -> list[Tensor]:
        """Which cells of either view's image are not uniform, ``(N, R)``."""
        if self.mask_uniform is None:
            return [
                image.new_ones((len(image), height * width), dtype=torch.bool)
                for image, (height, width) in zip(context.images, cells)
            ]
        return [
            patch_std(image, number).flatten(1) >= self.mask_uniform
            for image, number in zip(context.images, cells)
        ]

    @torch.no_grad()
    def _once(self, context: Any, compute: Callable) -> Any:
        """Compute at the first of the two calls for the views of a step."""
        return context.once(
            (
                self.matching,
                self.grid_size,
                self.sampling,
                self.num_points,
                self.samples_per_side,
                self.min_overlap,
                self.max_distance,
                self.edge_margin,
                self.mask_uniform,
            ),
            compute,
        )


def _cells_of(shape: tuple[int, int], stride: list[float]) -> tuple[int, int]:
    """Size of the map of an image, ``(height, width)``."""
    height, width = (max(round(side / step), 1) for side, step in zip(shape, stride))
    return height, width


def _pick(regions: Tensor, index: Tensor) -> Tensor:
    """Reorder the regions of every image; ``(N, C, R)``, ``(N, R)``."""
    return regions.gather(2, index[:, None].expand(-1, regions.shape[1], -1))


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UserError(f'{name} must be one of {list(choices)}, got {value!r}')
    return value


def _at_least(name: str, value: Number, low: int) -> Number:
    if isinstance(value, bool) or not value >= low:
        raise UserError(f'{name} must be at least {low}, got {value!r}')
    return value
