"""Several augmented views of one slice or image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmengine.dataset import Compose

from medssl_mm.datasets.transforms.base import (
    Transform,
    check_number,
    check_probability,
    get_rng,
    sample_image,
)
from medssl_mm.datasets.transforms.crop import RandomCropView
from medssl_mm.datasets.transforms.warp import Box, ViewGeometry
from medssl_mm.errors import UserError
from medssl_mm.registry import TRANSFORMS
from medssl_mm.store import open_store
from medssl_mm.store.header import SLICES


def overlap_share(box_a: Box, box_b: Box) -> float:
    """Common area of two boxes over the area of the smaller one, 0-1."""
    width = min(box_a[2], box_b[2]) - max(box_a[0], box_b[0])
    height = min(box_a[3], box_b[3]) - max(box_a[1], box_b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box_a, box_b)]
    return width * height / min(areas)


def _check_views(owner: str, num_views: int) -> int:
    if not isinstance(num_views, int) or num_views < 1:
        raise ValueError(
            f'{owner}: num_views must be an int of at least 1, got {num_views!r}.'
        )
    return num_views


def _pipelines(owner: str, transforms: Sequence, num_views: int) -> list[Compose]:
    """One pipeline per view, from one list of steps or one list per view."""
    transforms = list(transforms)
    if not any(isinstance(step, (list, tuple)) for step in transforms):
        transforms = [transforms] * num_views
    elif len(transforms) != num_views or not all(
        isinstance(steps, (list, tuple)) for steps in transforms
    ):
        raise ValueError(
            f'{owner}: transforms must be one list of steps, or one list per '
            f'view ({num_views}), got {len(transforms)} entries.'
        )
    return [Compose(list(steps)) for steps in transforms]


class NeighbourSlice:
    """Shows another slice of the volume that lies near.

    Positives from neighbouring slices, as in `Contrastive learning of global and local
    features for medical image segmentation with limited annotations
    <https://arxiv.org/abs/2006.10511>`_, by distance instead of by share of the volume.

    Args:
        steps (Sequence): Transforms that load and prepare a slice, as the pipeline did
            up to here.
        max_mm (float, optional): Largest distance along the volume in mm. Every slice
            within it, the own one included, is as likely.
        max_slices (int, optional): The same in slices, for volumes whose spacing is
            not known. One of the two is given.
    """

    def __init__(
        self,
        steps: Sequence,
        max_mm: float | None = None,
        max_slices: int | None = None,
    ) -> None:
        if (max_mm is None) == (max_slices is None):
            raise UserError(
                'CropViews: neighbours needs max_mm or, where the spacing of slices is '
                f'not known, max_slices, got max_mm={max_mm} and '
                f'max_slices={max_slices}'
            )
        if max_slices is not None and (
            not isinstance(max_slices, int) or max_slices < 1
        ):
            raise UserError(
                'CropViews: neighbours.max_slices must be an int of at least 1, got '
                f'{max_slices!r}'
            )
        self.max_slices = max_slices
        self.max_mm = (
            None
            if max_mm is None
            else check_number('CropViews', 'neighbours.max_mm', max_mm, 0.0)
        )
        if not steps:
            raise UserError(
                'CropViews: neighbours.steps must load and normalise a slice as the '
                'pipeline does before the views, such as [dict(type='
                "'medssl_mm.LoadSlice'), dict(type='medssl_mm.NormalizeByStore')]"
            )
        self.steps = Compose(list(steps))

    def __call__(self, results: dict, rng: np.random.Generator) -> np.ndarray:
        """Draw and prepare a slice; ``(H, W)`` or ``(H, W, C)``."""
        case, index = results['case_id'], results['slice_index']
        count = open_store(results['store_root'], SLICES).case(case).shape[0]
        reach = self._reach(case, results.get('spacing'))
        low, high = max(0, index - reach), min(count - 1, index + reach)
        chosen = int(rng.integers(low, high + 1))
        return self.steps({**results, 'slice_index': chosen})['img']

    def _reach(self, case: str, spacing: Sequence[float] | None) -> int:
        """How many slices up and down it may be."""
        if self.max_mm is None:
            assert self.max_slices is not None, 'refused by __init__'
            return self.max_slices
        if spacing is None:
            raise UserError(
                f'case {case}: the distance of its slices is not known, so that '
                'neighbours in mm cannot be found; import it with its spacing, set '
                'neighbours.max_slices instead of max_mm, or leave out neighbours of '
                'CropViews'
            )
        # The rounding of a spacing such as 3.0000001 must not cost a slice.
        return int(self.max_mm / spacing[0] + 1e-6)


@TRANSFORMS.register_module()
class CropViews(Transform):
    """Cut several views from one slice and augment each on its own.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img (list
    of float32 views), img_shape. Added Keys: view_geometry (list of
    :class:`~.warp.ViewGeometry`, one per view).

    Args:
        crop (dict): Crop of every view, a RandomCropView.
        transforms (list): Steps after the crop, the same for all views; or
            one list of steps per view, for methods with unlike views.
            Defaults to ().
        num_views (int): Number of views. Defaults to 2.
        shared_crop (bool): All views show the same crop with the same flip
            and rotation, so that they differ in grey values alone and
            location (x, y) means the same in each. Defaults to False.
        min_overlap (float): Least common area of every view with the first,
            over the smaller box (0-1; turns left out of account). Views are
            drawn anew, at most 20 times, then take the first view's box.
            Defaults to 0.0.
        neighbours (dict, optional): ``steps`` and ``max_mm`` or ``max_slices`` of a
            :class:`NeighbourSlice`: all views but the first are of slices so near.
            Needs case_id, slice_index, store_root and, for mm, spacing. Defaults to
            None.
    """

    max_tries = 20

    def __init__(
        self,
        crop: dict,
        transforms: Sequence = (),
        num_views: int = 2,
        shared_crop: bool = False,
        min_overlap: float = 0.0,
        neighbours: dict | None = None,
    ) -> None:
        self.neighbours = neighbours
        self._neighbour = None if neighbours is None else NeighbourSlice(**neighbours)
        self.num_views = _check_views(self.owner, num_views)
        self.crop = TRANSFORMS.build(crop) if isinstance(crop, dict) else crop
        if not isinstance(self.crop, RandomCropView):
            raise TypeError(
                'CropViews: crop must be a medssl_mm.RandomCropView, which '
                f'keeps the geometry of a view, got {crop!r}.'
            )
        self.transforms = _pipelines(self.owner, transforms, num_views)
        self.shared_crop = bool(shared_crop)
        self.min_overlap = check_probability(self.owner, 'min_overlap', min_overlap)

    def _sample_geometry(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> list[ViewGeometry]:
        first = self.crop.sample(shape, rng)
        views = [first]
        while len(views) < self.num_views:
            view = first
            if not self.shared_crop:
                for _ in range(self.max_tries):
                    view = self.crop.sample(shape, rng)
                    if overlap_share(first['box'], view['box']) >= self.min_overlap:
                        break
                else:
                    view = first
            views.append(view)
        return views

    def transform(self, results: dict) -> dict:
        """Make the views."""
        image = sample_image(results, self.owner, colour=True)
        rng = get_rng(results, self.owner)
        views = self._sample_geometry(image.shape[:2], rng)
        images: list[np.ndarray] = []
        cut = None
        for geometry, pipeline in zip(views, self.transforms):
            if self._neighbour is not None and images:
                image = self._neighbour(results, rng)
            if cut is None or self._neighbour or geometry is not views[0]:
                cut = self.crop.apply(image, geometry, results.get('channels'))
            view = dict(results)
            view['img'] = cut.copy() if self.shared_crop else cut
            images.append(pipeline(view)['img'])
        results['img'] = images
        results['img_shape'] = self.crop.size
        results['view_geometry'] = views
        return results


@TRANSFORMS.register_module()
class ImageViews(Transform):
    """Augment one image several times, each time anew.

    Unlike :class:`CropViews` it cuts nothing itself and keeps no geometry,
    so it serves steps that know none.

    Required Keys: img, rng. Modified Keys: img (list of views), img_shape
    (of the first view).

    Args:
        transforms (list): Steps of every view; or one list of steps per
            view, for methods with unlike views.
        num_views (int): Number of views. Defaults to 2.
    """

    def __init__(self, transforms: Sequence, num_views: int = 2) -> None:
        self.num_views = _check_views(self.owner, num_views)
        self.transforms = _pipelines(self.owner, transforms, num_views)

    def transform(self, results: dict) -> dict:
        """Make the views."""
        views = []
        for pipeline in self.transforms:
            view = dict(results, img=results['img'].copy())
            views.append(pipeline(view))
        results['img'] = [view['img'] for view in views]
        results['img_shape'] = tuple(results['img'][0].shape[:2])
        return results
