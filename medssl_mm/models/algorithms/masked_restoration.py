"""Pretraining by restoration of hidden patches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import UserError
from medssl_mm.functional.features import evaluation_mode
from medssl_mm.models.utils import stated_by
from medssl_mm.registry import MODELS

from .base import BaseAlgorithm


@MODELS.register_module()
class MaskedRestoration(BaseAlgorithm):
    """Restoration of hidden patches, alone.

    See :class:`medssl_mm.models.heads.RestorationHead`, and ``restoration`` of
    the other algorithms for the same beside their loss. With a light decoder the
    encoder alone is of use; with the decoder of the segmentation that follows,
    its weights can go on from the checkpoint, too, where they are called
    ``decode_head.*`` as in a segmentor.

    In training the backbone sees each batch whole as well, without gradient: the
    running statistics of its normalisation are those of whole images, which it is
    evaluated on. It costs a forward pass more.

    Args:
        backbone (dict): See :class:`BaseAlgorithm`.
        restoration (dict): Settings of the head.
        denoise (bool): Whether there are two views of one crop, of which the
            first, augmented one is seen and the second one restored. Defaults
            to False: the (first) view is both.
        **kwargs: ``channels_last``, ``data_preprocessor`` and ``init_cfg`` of
            :class:`BaseAlgorithm`.
    """

    key_side = 'same'

    def __init__(
        self, backbone: dict, restoration: dict, denoise: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            backbone=backbone,
            neck=dict(type='medssl_mm.PooledNeck'),
            head=None,
            restoration=restoration,
            **kwargs,
        )
        if self.multi_level_head is not None or self.decorrelation is not None:
            raise UserError(
                'MaskedRestoration has no second view of another crop, so neither '
                'multi_level_head nor decorrelation; set restoration of '
                'MultiLevelMoCo, MultiLevelSimCLR or MultiLevelBYOL instead'
            )
        self.denoise = denoise
        self.apply_memory_format()

    def loss(
        self,
        inputs: Sequence[Tensor] | Tensor,
        data_samples: Sequence = (),
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        """Compute the loss and log values.

        Shape: one view ``(N, C, H, W)``, or a list of views. Returns scalars.
        """
        views = [inputs] if isinstance(inputs, Tensor) else list(inputs)
        target = views[0]
        if self.denoise:
            _check_pair(views, data_samples)
            target = views[1]
        images = self.lay_out(views[0])
        logs = self.restoration(self.backbone, images, target, data_samples)
        self._see_whole(images)
        return logs

    @torch.no_grad()
    def _see_whole(self, images: Tensor) -> None:
        """Let the running statistics of the backbone follow, where they do."""
        norms = (m for m in self.backbone.modules() if isinstance(m, _BatchNorm))
        if any(norm.training and norm.track_running_stats for norm in norms):
            backbone_of(self.backbone).maps(images, self.stages)

    @torch.no_grad()
    def predict(
        self,
        inputs: Sequence[Tensor] | Tensor,
        data_samples: Sequence = (),
        **kwargs: Any,
    ) -> list[BaseDataElement]:
        """Compute the loss of held-out images, for a validation loop.

        Nothing changes: the backbone normalises by the statistics of the batch, as in
        training, the decoder by running ones.

        Shape: as of ``loss``. Returns one element whose ``loss`` holds the
            scalars, as the host's loops take them.
        """
        with evaluation_mode(self):
            return [BaseDataElement(loss=self.loss(inputs, data_samples))]


def _check_pair(views: Sequence[Tensor], data_samples: Sequence) -> None:
    same = len(views) == 2 and all(
        one is None or np.array_equal(one[0]['matrix'], one[1]['matrix'])
        for one in stated_by(data_samples, 'view_geometry')
    )
    if not same:
        raise UserError(
            f'denoise=True needs two views of one crop, got {len(views)} view(s)'
            + (' of different crops' if len(views) == 2 else '')
            + '; set num_views=2 and shared_crop=True in medssl_mm.CropViews, with a '
            'list of transforms for each view'
        )
