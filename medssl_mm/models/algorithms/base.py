"""Common part of the pretraining algorithms; the one door to the host's."""

import copy
from collections.abc import Sequence

import torch
from mmselfsup.models.algorithms.base import BaseModel
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

LAST_STAGE = 4


class BaseAlgorithm(BaseModel):
    """An image encoder, a contrastive head and a list of further terms.

    Args:
        backbone (dict): Encoder of images. To use other stages than the last
            one its ``out_indices`` must count the stem as 0 and the residual
            stages from 1, as mmselfsup's ResNet does; it is set here to the
            stages that ``multi_level_head`` asks for.
        neck (dict): From the maps of the last stage to embeddings.
        head (dict): The contrastive loss.
        multi_level_head (dict, optional): Further terms, see
            :class:`medssl_mm.models.heads.MultiLevelHead`. Defaults to None.
        decorrelation (dict, optional): Decorrelates the map of a stage before
            neck and further terms get it, see
            :class:`medssl_mm.models.heads.DecorrelationHead`. Defaults to
            None.
        channels_last (bool): Whether images and weights are laid out with the
            channels innermost: faster convolutions, most of all in reduced
            precision. Defaults to False.
        data_preprocessor (dict, optional): The host's; None normalises
            nothing. Defaults to None.
        init_cfg (dict, optional): Initialisation of mmengine. To start from a
            checkpoint set that of the backbone: ``init_cfg=dict(
            type='medssl_mm.PretrainedBackbone', checkpoint=PATH)``. Defaults
            to None.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict,
        multi_level_head: dict | None = None,
        decorrelation: dict | None = None,
        channels_last: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        levels = multi_level_head['levels'] if multi_level_head else ()
        stages = [LAST_STAGE]
        backbone = copy.deepcopy(backbone)
        if levels:
            wanted = {level.get('stage', LAST_STAGE) for level in levels}
            stages = sorted({*wanted, LAST_STAGE})
            backbone['out_indices'] = stages
        super().__init__(
            backbone=backbone,
            neck=neck,
            head=head,
            data_preprocessor=copy.deepcopy(data_preprocessor),
            init_cfg=init_cfg,
        )
        # Last, so that further terms leave the random start of the encoder
        # as it is without them.
        self.multi_level_head = MODELS.build(multi_level_head) if levels else None
        self.stages = tuple(stages)
        self.decorrelation = MODELS.build(decorrelation) if decorrelation else None
        if self.decorrelation is not None:
            self._check_place(self.decorrelation)
            self.decorrelation.attach(self.backbone)
        self.channels_last = channels_last

    def apply_memory_format(self) -> None:
        """Lays the weights out as set; called when all parts are there."""
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def extract_feat(
        self, inputs: Sequence[Tensor] | Tensor, **kwargs
    ) -> tuple[Tensor, ...]:
        """Return the backbone's maps of the (first) view.

        Shape: ``(N, C, H, W)`` or a list of such views. Returns maps ``(N,
            C', H', W')``, the last one from the last stage.
        """
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        return self.backbone(self.lay_out(images))

    def _check_place(self, decorrelation: nn.Module) -> None:
        stage = decorrelation.stage
        seen = self.stages if decorrelation.for_levels else (LAST_STAGE,)
        if stage not in seen:
            raise UserError(
                f'decorrelation after stage {stage} would have no effect: '
                'nothing uses the map of that stage. Add a term on it to '
                'multi_level_head (and leave decorrelation.for_levels=True), '
                f'or set decorrelation.place="after_stage{LAST_STAGE}"'
            )

    def init_weights(self) -> None:
        """Initialise; the backbone loads weights of an ordinary network."""
        if self.decorrelation is None:
            super().init_weights()
            return
        with self.decorrelation.detached(self.backbone):
            super().init_weights()

    def encode(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        images: Tensor,
        decorrelation: nn.Module | None = None,
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Return the maps by stage, decorrelated if asked for, and embeddings.

        Shape: images ``(N, C, H, W)``. Returns ``{stage: (N, C', H', W')}``
            and ``(N, D)``, not normalised.
        """
        maps = backbone(images)
        if len(maps) != len(self.stages):
            raise UserError(
                f'backbone returned {len(maps)} maps, expected those of '
                f'stages {list(self.stages)}; leave its out_indices to the '
                'algorithm, or set [4] (0 = stem)'
            )
        maps = dict(zip(self.stages, maps))
        last = maps[LAST_STAGE]
        if decorrelation is not None:
            stage = decorrelation.stage
            whitened = decorrelation(maps[stage])
            if stage == LAST_STAGE:
                last = whitened
            if decorrelation.for_levels:
                maps[stage] = whitened
        return maps, neck([last])[0]

    def views(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Check and lay out the two views of a batch.

        Shape: two views ``(N, C, H, W)``. Returns the same.

        Raises:
            UserError: When there are not two views of the same N >= 2.
        """
        if isinstance(inputs, Tensor) or len(inputs) != 2:
            found = (
                'one tensor' if isinstance(inputs, Tensor) else f'{len(inputs)} view(s)'
            )
            raise UserError(
                f'{type(self).__name__} needs two views of every image '
                f'(query, key), got {found}; make them in the pipeline with '
                'medssl_mm.SliceViews'
            )
        first, second = inputs
        if first.ndim != 4 or len(first) != len(second):
            raise UserError(
                'both views must be (N, C, H, W) of the same N, got '
                f'{tuple(first.shape)} and {tuple(second.shape)}'
            )
        if len(first) < 2:
            raise UserError(
                'a batch of 1 image per process gives no batch statistics; '
                'set batch_size to 2 or more and drop_last=True in '
                'train_dataloader'
            )
        return self.lay_out(first), self.lay_out(second)

    def lay_out(self, images: Tensor) -> Tensor:
        """Return images in the memory layout of the weights.

        Shape: ``(N, C, H, W)``, kept.
        """
        if not self.channels_last:
            return images
        images = images.contiguous(memory_format=torch.channels_last)
        if images.shape[1] == 1:
            # One channel is contiguous in both layouts at once, and torch
            # then takes the other one for the whole stem: spell the strides.
            n, _, h, w = images.shape
            images = images.as_strided((n, 1, h, w), (h * w, 1, w, 1))
        return images
