"""Crops and resizes of a slice (and its label), with their exact geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from medssl_mm.datasets.transforms.base import (
    by_channel,
    check_number,
    check_probability,
    check_range,
    check_size,
    get_rng,
    sample_image,
)
from medssl_mm.functional.geometry import crop_matrix
from medssl_mm.registry import TRANSFORMS


class ViewGeometry(dict):
    """Where a view lies in its source slice; read only.

    Keys: box ``(x0, y0, x1, y1)`` in source pixels, pixel ``i`` covering
    ``[i, i + 1]``; flip (bool, left-right, applied last); rotation (degrees
    by which the box is turned about its centre, counter-clockwise as
    displayed); source_shape and view_shape ``(height, width)``; matrix
    ``(2, 3)`` float64, from view pixel centres (x, y) to source pixel
    centres.
    """

    def __deepcopy__(self, memo: dict) -> ViewGeometry:
        # Data samples deep-copy their meta information several times per
        # step; these values are never changed.
        return self


def _fill_value(image: np.ndarray, pad_value: float | str) -> float:
    return float(image.min()) if pad_value == 'minimum' else pad_value


def _check_pad_value(owner: str, pad_value: float | str) -> float | str:
    if pad_value == 'minimum':
        return pad_value
    if isinstance(pad_value, str):
        raise ValueError(
            f"{owner}: pad_value must be a number or 'minimum', got {pad_value!r}."
        )
    return check_number(owner, 'pad_value', pad_value)


def warp_view(image: np.ndarray, geometry: dict, pad_value: float) -> np.ndarray:
    """Sample a view bilinearly, in one warp, without aliasing.

    Where the view is at least twice as coarse as the source, the region is
    first averaged over whole blocks of source pixels.

    Args:
        image: Source slice ``(H, W)``, or RGB ``(H, W, 3)``, float32.
        geometry: See :class:`ViewGeometry`.
        pad_value: Value outside the slice, for turned views.

    Shape: returns ``view_shape`` (and the 3 of RGB) float32.
    """
    matrix = geometry['matrix']
    height, width = geometry['view_shape']
    x0, y0, x1, y1 = geometry['box']
    block = int(min((x1 - x0) / width, (y1 - y0) / height))
    if block >= 2:
        corners = np.array(
            [
                [-0.5, -0.5],
                [width - 0.5, -0.5],
                [-0.5, height - 0.5],
                [width - 0.5, height - 0.5],
            ]
        )
        reach = corners @ matrix[:, :2].T + matrix[:, 2]
        left, columns = _whole_blocks(reach[:, 0], image.shape[1], block)
        top, rows = _whole_blocks(reach[:, 1], image.shape[0], block)
        image = cv2.resize(
            image[top : top + rows * block, left : left + columns * block],
            (columns, rows),
            interpolation=cv2.INTER_AREA,
        )
        # Centre of block j is source pixel left + block * j + (block-1)/2.
        matrix = matrix.copy()
        matrix[0, 2] -= left + (block - 1) / 2
        matrix[1, 2] -= top + (block - 1) / 2
        matrix /= block
    # An upright box within the slice leaves it by at most half a pixel: the
    # edge is continued. Others show what is outside.
    border = cv2.BORDER_CONSTANT if _shows_outside(geometry) else cv2.BORDER_REPLICATE
    return cv2.warpAffine(
        image,
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=border,
        borderValue=(pad_value,) * 4,
    )


def warp_label(label: np.ndarray, geometry: dict, pad_value: int) -> np.ndarray:
    """Sample a view of a label map by its nearest pixels.

    Shape: label ``(H, W)`` uint8. Returns ``view_shape`` uint8.
    """
    matrix = geometry['matrix']
    height, width = geometry['view_shape']
    columns, rows = np.arange(width), np.arange(height)[:, None]
    x, y = (
        np.rint(line[0] * columns + line[1] * rows + line[2]).astype(np.int32)
        for line in matrix
    )
    source_height, source_width = label.shape
    view = label[np.clip(y, 0, source_height - 1), np.clip(x, 0, source_width - 1)]
    if _shows_outside(geometry):
        outside = (x < 0) | (x >= source_width) | (y < 0) | (y >= source_height)
        view[outside] = pad_value
    return view


def _shows_outside(geometry: dict) -> bool:
    x0, y0, x1, y1 = geometry['box']
    height, width = geometry['source_shape']
    return bool(geometry['rotation']) or min(x0, y0, width - x1, height - y1) < -1e-6


def _whole_blocks(reach: np.ndarray, length: int, block: int) -> tuple[int, int]:
    """Start and number of blocks that cover the reached part of an axis."""
    # One block more on each side feeds the bilinear kernel at the edges.
    start = max(0, math.floor(reach.min()) - block)
    stop = min(length, math.ceil(reach.max()) + block + 1)
    number = min(math.ceil(max(stop - start, 1) / block), length // block)
    return max(0, min(start, length - number * block)), number


def _check_label_shape(owner: str, results: dict, key: str, image: np.ndarray) -> None:
    """Refuse a label map that lies on another grid than its image."""
    if results[key].shape != image.shape[:2]:
        raise ValueError(
            f'{owner}: {key} has shape {results[key].shape} but img '
            f'{image.shape[:2]} in {results.get("img_path")}; put {owner} '
            'before anything that resizes only one of them.'
        )


class _RandomSliceWarp(BaseTransform):
    """A random view of a slice and of its label maps, cut in one warp.

    Subclasses draw the view in ``sample``.
    """

    def __init__(
        self, size: int | Sequence[int], pad_value: float | str, seg_pad_value: int
    ) -> None:
        self.owner = type(self).__name__
        self.size = check_size(self.owner, 'size', size)
        self.pad_value = _check_pad_value(self.owner, pad_value)
        self.seg_pad_value = int(
            check_number(self.owner, 'seg_pad_value', seg_pad_value, 0, 255)
        )

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        raise NotImplementedError

    def geometry(
        self, shape: tuple[int, int], box: tuple, flip: bool, rotation: float
    ) -> ViewGeometry:
        """Describe the view of ``size`` that shows a box of the slice."""
        return ViewGeometry(
            box=box,
            flip=flip,
            rotation=rotation,
            source_shape=(int(shape[0]), int(shape[1])),
            view_shape=self.size,
            matrix=crop_matrix(box, self.size, flip, rotation),
        )

    def apply(
        self, image: np.ndarray, geometry: dict, channels: Sequence[str] | None = None
    ) -> np.ndarray:
        """Cut the view out of a float32 slice, or out of each named channel."""

        def cut(plane: np.ndarray, _: int = 0) -> np.ndarray:
            return warp_view(plane, geometry, _fill_value(plane, self.pad_value))

        return by_channel(image, cut) if channels else cut(image)

    def transform(self, results: dict) -> dict:
        """Draw a view and cut it from image and labels."""
        image = sample_image(results, self.owner, colour=True)
        geometry = self.sample(image.shape[:2], get_rng(results, self.owner))
        results['img'] = self.apply(image, geometry, results.get('channels'))
        results['img_shape'] = self.size
        results['geometry'] = geometry
        for key in results.get('seg_fields', ()):
            _check_label_shape(self.owner, results, key, image)
            results[key] = warp_label(results[key], geometry, self.seg_pad_value)
        return results


@TRANSFORMS.register_module()
class RandomSliceCrop(_RandomSliceWarp):
    """Random resized crop, flip and rotation of a slice, in one warp.

    The box has a random share of the slice's area and a random aspect ratio
    and lies anywhere in the slice; its position is not rounded to pixels.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img
    (float32), img_shape; every label map named in seg_fields is cropped alike
    (nearest pixel). Added Keys: geometry (:class:`ViewGeometry`).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        scale (tuple[float, float]): Smallest and largest share of the
            area, 0-1. Defaults to (0.2, 1.0).
        ratio (tuple[float, float]): Smallest and largest width over height
            of the box, above 0. Defaults to (3/4, 4/3).
        flip_prob (float): Probability of a left-right flip. Defaults to 0.5.
        rotation (float): Largest turn, degrees, either way. Defaults to 0.0.
        pad_value (float | str): Grey value outside the slice (only turned
            boxes reach there); 'minimum' takes the slice's. Defaults to 0.0,
            which is air in a window.
        seg_pad_value (int): Label outside the slice. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: Sequence[float] = (0.2, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        rotation: float = 0.0,
        pad_value: float | str = 0.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__(size, pad_value, seg_pad_value)
        owner = self.owner
        self.scale = check_range(owner, 'scale', scale, 0.0, 1.0, above=0.0)
        self.ratio = check_range(owner, 'ratio', ratio, above=0.0)
        self.flip_prob = check_probability(owner, 'flip_prob', flip_prob)
        self.rotation = check_number(owner, 'rotation', rotation, 0.0, 180.0)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        box = self._sample_box(shape, rng)
        flip = bool(rng.random() < self.flip_prob)
        rotation = 0.0
        if self.rotation:
            rotation = float(rng.uniform(-self.rotation, self.rotation))
        return self.geometry(shape, box, flip, rotation)

    def _sample_box(
        self, shape: tuple[int, int], rng: np.random.Generator
    ) -> tuple[float, float, float, float]:
        height, width = shape
        low, high = (math.log(n) for n in self.ratio)
        # Not every share and ratio fits; ten tries nearly always find one.
        for share, aspect, left, top in rng.random((10, 4)).tolist():
            area = (
                height
                * width
                * (self.scale[0] + share * (self.scale[1] - self.scale[0]))
            )
            shape_ratio = math.exp(low + aspect * (high - low))
            box_width = math.sqrt(area * shape_ratio)
            box_height = math.sqrt(area / shape_ratio)
            if box_width <= width and box_height <= height:
                x0 = left * (width - box_width)
                y0 = top * (height - box_height)
                return x0, y0, x0 + box_width, y0 + box_height
        # The largest centred box whose aspect ratio is allowed.
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        box_width = min(width, height * aspect)
        box_height = min(height, width / aspect)
        x0, y0 = (width - box_width) / 2, (height - box_height) / 2
        return x0, y0, x0 + box_width, y0 + box_height

    def __repr__(self) -> str:
        return (
            f'RandomSliceCrop(size={self.size}, scale={self.scale}, '
            f'ratio={self.ratio}, flip_prob={self.flip_prob}, '
            f'rotation={self.rotation}, pad_value={self.pad_value!r}, '
            f'seg_pad_value={self.seg_pad_value})'
        )


@TRANSFORMS.register_module()
class RandomSliceAffine(_RandomSliceWarp):
    """Zoom, turn and shift a slice around the view that evaluation shows.

    Without the random part the whole slice fits into the view with its
    aspect ratio kept, as by :class:`ResizeSlice`, but centred. So structures
    have the size in training that they have in evaluation, on average; crops
    of a share of the area show them larger and stretched.

    Required Keys: img (grey, RGB or channels), rng. Modified Keys: img (float32),
    img_shape; label maps named in seg_fields alike (nearest pixel). Added
    Keys: geometry (:class:`ViewGeometry`; the box may reach beyond the
    slice).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        zoom (tuple[float, float]): Range of the magnification, drawn on a
            logarithmic scale; 1 fits the slice. Defaults to (0.8, 1.25).
        rotation (float): Largest turn, degrees, either way. Defaults to 15.0.
        shift (float): Largest shift along each axis, either way, as a share
            of the view. Defaults to 0.1.
        flip_prob (float): Probability of a left-right flip. Defaults to 0.0:
            a flip turns left into right organs.
        pad_value (float | str): Grey value outside the slice; 'minimum' takes
            the slice's. Defaults to 0.0, which is air in a window.
        seg_pad_value (int): Label outside the slice. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        zoom: Sequence[float] = (0.8, 1.25),
        rotation: float = 15.0,
        shift: float = 0.1,
        flip_prob: float = 0.0,
        pad_value: float | str = 0.0,
        seg_pad_value: int = 255,
    ) -> None:
        super().__init__(size, pad_value, seg_pad_value)
        owner = self.owner
        self.zoom = check_range(owner, 'zoom', zoom, above=0.0)
        self.rotation = check_number(owner, 'rotation', rotation, 0.0, 180.0)
        self.shift = check_number(owner, 'shift', shift, 0.0, 1.0)
        self.flip_prob = check_probability(owner, 'flip_prob', flip_prob)

    def sample(self, shape: tuple[int, int], rng: np.random.Generator) -> ViewGeometry:
        """Draw one view of a slice of ``shape`` (height, width)."""
        height, width = shape
        view_height, view_width = self.size
        zoom, turn, right, down, flip = rng.random(5).tolist()
        low, high = (math.log(n) for n in self.zoom)
        # Source pixels per view pixel.
        step = max(height / view_height, width / view_width) / math.exp(
            low + zoom * (high - low)
        )
        half_width, half_height = step * view_width / 2, step * view_height / 2
        x = width / 2 + (2 * right - 1) * self.shift * 2 * half_width
        y = height / 2 + (2 * down - 1) * self.shift * 2 * half_height
        return self.geometry(
            shape,
            (x - half_width, y - half_height, x + half_width, y + half_height),
            flip < self.flip_prob,
            (2 * turn - 1) * self.rotation,
        )

    def __repr__(self) -> str:
        return (
            f'RandomSliceAffine(size={self.size}, zoom={self.zoom}, '
            f'rotation={self.rotation}, shift={self.shift}, '
            f'flip_prob={self.flip_prob}, pad_value={self.pad_value!r}, '
            f'seg_pad_value={self.seg_pad_value})'
        )


@TRANSFORMS.register_module()
class ResizeSlice(BaseTransform):
    """Resize a slice to a fixed size, keeping its shape by padding.

    For evaluation label maps are left alone: mmseg turns the prediction back
    to the original grid (padding cut off, then resized to ori_shape), so
    metrics are taken there. Load the label after this step. For training
    without random steps, load it before and set ``resize_labels``.

    Required Keys: img (grey, RGB or channels). Modified Keys: img (float32),
    img_shape, label maps on request. Added Keys: img_padding_size ([left,
    right, top, bottom] in pixels).

    Args:
        size (int | tuple[int, int]): Result in pixels, (height, width).
        keep_aspect (bool): Fit into size and pad right and below; False
            stretches. Defaults to True.
        pad_value (float | str): Grey value of the padding; 'minimum' takes
            the slice's. Defaults to 0.0, which is air in a window.
        resize_labels (bool): Resize loaded label maps, too (nearest pixel).
            Defaults to False.
        seg_pad_value (int): Label of the padding. Defaults to 255, which
            mmseg ignores.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        keep_aspect: bool = True,
        pad_value: float | str = 0.0,
        resize_labels: bool = False,
        seg_pad_value: int = 255,
    ) -> None:
        self.size = check_size('ResizeSlice', 'size', size)
        if not isinstance(keep_aspect, bool):
            raise TypeError(
                f'ResizeSlice: keep_aspect must be True or False, got {keep_aspect!r}.'
            )
        self.keep_aspect = keep_aspect
        self.pad_value = _check_pad_value('ResizeSlice', pad_value)
        self.resize_labels = bool(resize_labels)
        self.seg_pad_value = int(
            check_number('ResizeSlice', 'seg_pad_value', seg_pad_value, 0, 255)
        )

    def transform(self, results: dict) -> dict:
        """Resize and pad."""
        labels = results.get('seg_fields', ())
        if labels and not self.resize_labels:
            raise ValueError(
                'ResizeSlice: the label is already loaded and would no '
                'longer fit the image; put LoadSliceLabel after ResizeSlice '
                '(evaluation), or set resize_labels=True or use '
                'RandomSliceAffine (training).'
            )
        image = sample_image(results, 'ResizeSlice', colour=True)
        for key in labels:
            _check_label_shape('ResizeSlice', results, key, image)
        height, width = image.shape[:2]
        new_height, new_width = self.size
        if self.keep_aspect:
            factor = min(new_height / height, new_width / width)
            new_height = max(1, round(height * factor))
            new_width = max(1, round(width * factor))
        right, bottom = self.size[1] - new_width, self.size[0] - new_height

        def fit(plane: np.ndarray, _: int = 0) -> np.ndarray:
            if (new_height, new_width) != (height, width):
                shrinks = new_height < height or new_width < width
                plane = cv2.resize(
                    plane,
                    (new_width, new_height),
                    interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
                )
            if right or bottom:
                plane = cv2.copyMakeBorder(
                    plane,
                    0,
                    bottom,
                    0,
                    right,
                    cv2.BORDER_CONSTANT,
                    value=(_fill_value(plane, self.pad_value),) * 4,
                )
            return plane

        image = by_channel(image, fit) if results.get('channels') else fit(image)
        for key in labels:
            label = cv2.resize(
                results[key],
                (new_width, new_height),
                interpolation=cv2.INTER_NEAREST_EXACT,
            )
            results[key] = np.pad(
                label, ((0, bottom), (0, right)), constant_values=self.seg_pad_value
            )
        results['img'] = image
        results['img_shape'] = self.size
        results['img_padding_size'] = [0, right, 0, bottom]
        return results

    def __repr__(self) -> str:
        return (
            f'ResizeSlice(size={self.size}, '
            f'keep_aspect={self.keep_aspect}, '
            f'pad_value={self.pad_value!r}, '
            f'resize_labels={self.resize_labels}, '
            f'seg_pad_value={self.seg_pad_value})'
        )
