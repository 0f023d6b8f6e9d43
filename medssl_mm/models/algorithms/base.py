"""Common part of the pretraining algorithms; the one door to the host's."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from mmselfsup.models.algorithms.base import BaseModel
from mmselfsup.registry import MODELS as HOST_MODELS
from torch import Tensor

from medssl_mm.backbones import Backbone, backbone_of
from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import world_size
from medssl_mm.models.heads.decorrelation_head import LAST, PROJECTION, stage_of
from medssl_mm.models.utils import (
    DECODER,
    ForeachEMA,
    StageDecoder,
    hoist_state,
    with_channels,
)
from medssl_mm.registry import MODELS

from .encoder import Encoder


class BaseAlgorithm(BaseModel):
    """An image encoder, a contrastive head and a list of further terms.

    Args:
        backbone (dict): Encoder of images, of a family that
            :mod:`medssl_mm.backbones` knows. Its own choice of outputs does
            not matter.
        neck (dict): From the map of the last stage to embeddings. Its
            ``in_channels``, and ``hid_channels`` as well, are those of the
            map when left out; the same holds for the necks of
            ``multi_level_head`` and ``num_channels`` of ``decorrelation``.
        head (dict): The contrastive loss.
        multi_level_head (dict, optional): Further terms, see
            :class:`medssl_mm.models.heads.MultiLevelHead`. Defaults to None.
        decorrelation (dict, optional): Decorrelates the map of a stage before
            neck and further terms get it, see
            :class:`medssl_mm.models.heads.DecorrelationHead`. Defaults to
            None.
        restoration (dict, optional): Hidden patches of the first view are restored
            from the same backbone's maps besides, see
            :class:`medssl_mm.models.heads.RestorationHead`. Defaults to None.
        decoder (dict, optional): A decode head of mmseg, without channels and
            classes, on the maps of the stages. Loss terms see its map as ``stage=
            'decoder'``; its weights go on in a segmentor, where they are called
            ``decode_head.*`` as in the checkpoint. Defaults to None.
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

    #: Where the keys of loss terms come from, see ``MultiLevelHead``.
    key_side = 'slow'
    #: Whether the loss of an image needs others of its batch.
    compares_images = False
    #: Which of ``encoders`` evaluation takes unless told otherwise.
    evaluated = 'online'

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        head: dict | None,
        multi_level_head: dict | None = None,
        decorrelation: dict | None = None,
        restoration: dict | None = None,
        decoder: dict | None = None,
        channels_last: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            backbone=copy.deepcopy(backbone),
            data_preprocessor=copy.deepcopy(data_preprocessor),
            init_cfg=init_cfg,
        )
        places = backbone_of(self.backbone)
        self.neck = HOST_MODELS.build(
            with_channels(neck, lambda: places.channels[places.last], HOST_MODELS)
        )
        self.head: Any = HOST_MODELS.build(head) if head else None
        # Last, so that further terms leave the random start of the encoder
        # as it is without them.
        self.multi_level_head = self._build_levels(multi_level_head, places, decoder)
        self.decorrelation = self._build_decorrelation(decorrelation, places, neck)
        levels = self.multi_level_head
        wanted = levels.stages if levels is not None else ()
        self.stages = tuple(sorted({*wanted, places.last}))
        self._check_place(places)
        if self._inside_backbone:
            self.decorrelation.attach(self.backbone)
        self.decoder = self._build_decoder(decoder, places, bool(restoration))
        self.restoration = self._build_restoration(restoration, places)
        self.channels_last = channels_last

    def apply_memory_format(self) -> None:
        """Lays the weights out as set; called when all parts are there."""
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def extract_feat(
        self, inputs: Sequence[Tensor] | Tensor, **kwargs: Any
    ) -> tuple[Tensor, ...]:
        """Return the backbone's maps of the (first) view.

        Of the stages that loss terms see and of the last one.

        Shape: ``(N, C, H, W)`` or a list of such views. Returns maps ``(N,
            C', H', W')``, the last one from the last stage.
        """
        images = inputs if isinstance(inputs, Tensor) else inputs[0]
        maps = backbone_of(self.backbone).maps(self.lay_out(images), self.stages)
        return tuple(maps.values())

    def _build_levels(
        self, settings: dict | None, places: Backbone, decoder: dict | None
    ) -> Any:
        if not settings or not settings.get('levels'):
            return None
        levels = []
        for level in settings['levels']:
            stage = level.get('stage')
            if level.get('neck') and stage in places.names:
                level = dict(level, neck=_told(level['neck'], places, stage))
            elif level.get('neck') and stage == DECODER and decoder:
                level = dict(level, neck=_told_of(level['neck'], decoder['channels']))
            levels.append(level)
        return MODELS.build(
            dict(
                settings,
                levels=levels,
                key_side=self.key_side,
                last_stage=places.last,
                has_decoder=bool(decoder),
            )
        )

    def _build_decorrelation(
        self, settings: dict | None, places: Backbone, neck: dict
    ) -> Any:
        if not settings:
            return None
        place = settings.get('place', LAST)
        stage = stage_of(place, places.last)
        if stage in places.names:
            settings = _told(settings, places, stage)
        elif place == PROJECTION and 'out_channels' in neck:
            settings = _told_of(settings, neck['out_channels'])
        elif place == PROJECTION and 'num_channels' not in settings:
            raise UserError(
                'decorrelation of the projection: the neck does not state its '
                'out_channels; set decorrelation.num_channels to the length of its '
                'embeddings'
            )
        return MODELS.build(settings)

    def _build_decoder(
        self, settings: dict | None, places: Backbone, restores: bool
    ) -> Any:
        if not settings:
            return None
        if restores:
            raise UserError(
                'decoder and restoration both bring a decoder, and one of them can be '
                'the one that goes on; leave one of them out'
            )
        levels = self.multi_level_head
        if levels is None or DECODER not in levels.places:
            raise UserError(
                'decoder would have no effect: nothing uses its map; add a term with '
                f'stage={DECODER!r} to multi_level_head, or leave decoder out'
            )
        if self.decorrelation is not None and self._inside_backbone:
            raise UserError(
                'decoder sees the maps of the backbone as they are; put the '
                'decorrelation after it, or leave one of them out'
            )
        hoist_state(self, 'decoder')  # decode_head.*, as in a segmentor
        return StageDecoder(settings, _channels_of_stages(places))

    def _build_restoration(self, settings: dict | None, places: Backbone) -> Any:
        if not settings:
            return None
        if self.decorrelation is not None and self._inside_backbone:
            raise UserError(
                'restoration sees the maps of the backbone as they are; put the '
                'decorrelation after it, or leave one of them out'
            )
        # The decoder of fine-tuning is called so, there and in checkpoints.
        hoist_state(self, 'restoration')
        return MODELS.build(
            dict(
                settings,
                map_channels=_channels_of_stages(places),
                image_channels=places.in_channels,
            )
        )

    def restored(self, images: Tensor, data_samples: Sequence) -> dict[str, Tensor]:
        """Terms of the restoration, where there is one.

        Shape: the first view ``(N, C, H, W)``. Returns scalars.
        """
        if self.restoration is None:
            return {}
        return self.restoration(self.backbone, images, images, data_samples)

    def _check_place(self, places: Backbone) -> None:
        if self.decorrelation is None:
            return
        stage = self.decorrelation.stage
        seen = self.stages if self.decorrelation.for_levels else (places.last,)
        if stage is not None and stage not in seen:
            raise UserError(
                f'decorrelation after stage {stage} would have no effect: '
                'nothing uses the map of that stage. Add a term on it to '
                'multi_level_head (and leave decorrelation.for_levels=True), '
                'or set decorrelation.place="last"'
            )

    @property
    def _inside_backbone(self) -> bool:
        return self.decorrelation is not None and self.decorrelation.inside_backbone

    def init_weights(self) -> None:
        """Initialise; the backbone loads weights of an ordinary network."""
        if self._inside_backbone:
            with self.decorrelation.detached(self.backbone):
                super().init_weights()
        else:
            super().init_weights()
        for part in self.children():
            if isinstance(part, ForeachEMA):
                part.look_again()

    @property
    def encoder(self) -> Encoder:
        """The encoder that learns; its parts are those of the algorithm."""
        levels = self.multi_level_head
        return Encoder(
            self.backbone,
            self.neck,
            self.stages,
            self.decorrelation,
            None if levels is None else levels.followed_necks(),
            self.decoder,
        )

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders by name.

        'online' is the one that learns, 'target' its slow copy, where there
        is one.
        """
        return {'online': self.encoder}

    def views(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Check and lay out the two views of a batch.

        Shape: two views ``(N, C, H, W)``. Returns the same.

        Raises:
            UserError: When there are not two views of the same N, or only one image
                to train on, or to compare.
        """
        if isinstance(inputs, Tensor) or len(inputs) != 2:
            found = (
                'one tensor' if isinstance(inputs, Tensor) else f'{len(inputs)} view(s)'
            )
            raise UserError(
                f'{type(self).__name__} needs two views of every image '
                f'(query, key), got {found}; make them in the pipeline with '
                'medssl_mm.CropViews'
            )
        first, second = inputs
        if first.ndim != 4 or len(first) != len(second):
            raise UserError(
                'both views must be (N, C, H, W) of the same N, got '
                f'{tuple(first.shape)} and {tuple(second.shape)}'
            )
        if self.training and len(first) < 2:
            raise UserError(
                'a batch of 1 image per process gives no batch statistics; '
                'set batch_size to 2 or more and drop_last=True in '
                'train_dataloader'
            )
        if self.compares_images and len(first) * world_size() < 2:
            raise UserError(
                f'{type(self).__name__} compares the images of a batch, and a '
                'validation batch of 1 image has no other one; set another '
                'batch_size, or drop_last=True, in val_dataloader'
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


def _told(settings: dict, places: Backbone, stage: int) -> dict:
    """Settings of a part that gets the map of a stage, with its channels."""
    return _told_of(settings, places.channels[stage])


def _told_of(settings: dict, channels: int) -> dict:
    return with_channels(settings, lambda: channels, MODELS)


def _channels_of_stages(places: Backbone) -> dict[int, int]:
    """Those that decoders see: all but the stem."""
    return {number: count for number, count in places.channels.items() if number}
