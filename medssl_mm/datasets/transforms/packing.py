"""Last step: tensors and data samples in the form the hosts expect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement, PixelData

from medssl_mm.datasets.transforms.base import Transform
from medssl_mm.registry import TRANSFORMS

IDENTITY_KEYS = (
    'sample_idx',
    'case_id',
    'image_id',
    'patient_id',
    'slice_index',
    'img_path',
    'ori_shape',
    'img_shape',
)
LABELLED_KEYS = (
    *IDENTITY_KEYS,
    'spacing',
    'store_root',
    'img_padding_size',
    'protocol',
    'split_hash',
)


def _to_tensor(
    image: np.ndarray, channels: Sequence[str] | None = None, colour: bool = False
) -> torch.Tensor:
    """Turn an image into a float ``(C, H, W)`` tensor.

    Args:
        image: Grey ``(H, W)``; ``(H, W, C)`` of a store with C channels; RGB
            ``(H, W, 3)`` where allowed.
        channels: Names of the channels, where the store has several.
        colour: Whether RGB is allowed.

    Raises:
        ValueError: When the image has another shape.
    """
    if channels is not None:
        wanted = f'(H, W, {len(channels)}) with the channels {tuple(channels)}'
        fits = image.ndim == 3 and image.shape[2] == len(channels)
    elif colour and image.ndim == 3:
        wanted, fits = 'grey (H, W) or RGB (H, W, 3)', image.shape[2] == 3
    else:
        wanted, fits = 'one grey slice (H, W)', image.ndim == 2
    if not fits:
        raise ValueError(f'img must be {wanted} at packing, got shape {image.shape}.')
    if image.ndim == 2:
        image = image[..., None]
    return torch.from_numpy(
        np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32)
    )


def _set_meta(sample: BaseDataElement, results: dict, keys: Sequence[str]) -> None:
    # set_metainfo would deep-copy every value.
    for key in keys:
        if key in results:
            sample.set_field(results[key], key, field_type='metainfo')


@TRANSFORMS.register_module()
class PackViews(Transform):
    """Pack the views of a slice or image for a self-supervised algorithm.

    Required Keys: img (list of views, or one image). Added Keys: inputs
    (list of ``(1, H, W)`` float32 tensors; ``(3, H, W)`` for RGB, ``(C, H,
    W)`` for C channels), data_samples (an mmengine data element whose
    metainfo holds view_geometry, hidden_patches and the meta keys).

    Args:
        meta_keys (tuple[str]): Keys kept where present. Defaults to
            sample_idx, case_id, image_id, patient_id, slice_index, img_path,
            ori_shape, img_shape.
    """

    def __init__(self, meta_keys: Sequence[str] = IDENTITY_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the views."""
        images = results['img']
        if not isinstance(images, (list, tuple)):
            images = [images]
        sample = BaseDataElement()
        known = (*self.meta_keys, 'view_geometry', 'hidden_patches')
        _set_meta(sample, results, known)
        return dict(
            inputs=[
                _to_tensor(image, results.get('channels'), colour=True)
                for image in images
            ],
            data_samples=sample,
        )


@TRANSFORMS.register_module()
class PackSlice(Transform):
    """Pack a slice, and its label where loaded, for mmseg.

    Required Keys: img. Added Keys: inputs (``(1, H, W)`` float32 tensor,
    ``(C, H, W)`` for C channels), data_samples (mmseg's SegDataSample;
    gt_sem_seg ``(1, h, w)`` int64 in the size the label has then: the view's
    in training, the original one in evaluation).

    Args:
        meta_keys (tuple[str]): Keys kept where present. Defaults to
            sample_idx, case_id, image_id, patient_id, slice_index, img_path,
            ori_shape, img_shape, spacing, store_root, img_padding_size,
            protocol, split_hash.
    """

    def __init__(self, meta_keys: Sequence[str] = LABELLED_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the slice."""
        # Imported here: pretraining must not pay for mmseg.
        from mmseg.structures import SegDataSample

        sample = SegDataSample()
        if 'gt_seg_map' in results:
            label = torch.from_numpy(results['gt_seg_map'].astype(np.int64))
            sample.gt_sem_seg = PixelData(data=label[None])
        _set_meta(sample, results, self.meta_keys)
        inputs = _to_tensor(results['img'], results.get('channels'))
        return dict(inputs=inputs, data_samples=sample)


@TRANSFORMS.register_module()
class PackImage(Transform):
    """Pack an image, and its label where it is known, for mmpretrain.

    For several labels at once gt_score is set besides gt_label: from an
    image without any finding mmpretrain could not tell the number of
    classes.

    Required Keys: img; gt_label and gt_score as
    :class:`~medssl_mm.datasets.classification.ClassificationImages` sets
    them. Added Keys: inputs (``(1, H, W)`` or, for RGB, ``(3, H, W)``
    float32 tensor), data_samples (mmpretrain's DataSample).

    Args:
        meta_keys (tuple[str]): Keys kept where present. Defaults to those of
            :class:`PackSlice`.
    """

    def __init__(self, meta_keys: Sequence[str] = LABELLED_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the image."""
        # Imported here: pretraining must not pay for mmpretrain.
        from mmpretrain.structures import DataSample

        sample = DataSample()
        if results.get('gt_label') is not None:
            sample.set_gt_label(results['gt_label'])
        if results.get('gt_score') is not None:
            sample.set_gt_score(results['gt_score'])
        _set_meta(sample, results, self.meta_keys)
        inputs = _to_tensor(results['img'], colour=True)
        return dict(inputs=inputs, data_samples=sample)
