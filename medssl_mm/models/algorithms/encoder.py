"""From images to feature maps and an embedding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.model import ModuleDict
from torch import Tensor, nn

from medssl_mm.backbones import backbone_of
from medssl_mm.models.utils import DECODER, StageDecoder


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder makes of the images of one view.

    Args:
        maps (dict[int | str, Tensor]): By the number of the stage, each ``(N, C,
            H, W)``; decorrelated if asked for. That of the decoder, where there is
            one, is called ``'decoder'``.
        embedding (Tensor): ``(N, D)``, not normalised.
        level_necks (nn.ModuleDict): The encoder's own necks of loss terms;
            those of a slow copy are slow copies.
    """

    maps: dict[int | str, Tensor]
    embedding: Tensor
    level_necks: nn.ModuleDict


class Encoder(nn.ModuleList):
    """Backbone, neck and, if there are any, decorrelation and decoder.

    A list of these parts and of the necks of loss terms, so that the names in the
    state dict of a slow copy are those of checkpoints written by mmselfsup and by
    this package: 0 = backbone, 1 = neck, then decorrelation, necks and decoder,
    where there are any.

    Args:
        backbone (nn.Module): Of a family that ``backbone_of`` knows.
        neck (nn.Module): Takes ``[map]`` and returns ``[embeddings]``.
        stages (Iterable[int]): Stages whose maps are wanted.
        decorrelation (nn.Module, optional): Applied to the map of its
            ``stage``, or to the embedding. Defaults to None.
        level_necks (nn.ModuleDict, optional): Necks of loss terms, passed
            on. Defaults to None.
        decoder (StageDecoder, optional): Sees the maps of the stages as that of a
            segmentor does, before any decorrelation. Defaults to None.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        stages: Iterable[int],
        decorrelation: nn.Module | None = None,
        level_necks: nn.ModuleDict | None = None,
        decoder: StageDecoder | None = None,
    ) -> None:
        parts = [backbone, neck]
        if decorrelation is not None:
            parts.append(decorrelation)
        if level_necks:
            parts.append(level_necks)
        if decoder is not None:
            parts.append(decoder)
        super().__init__(parts)
        self.stages = tuple(stages)
        self.has_decorrelation = decorrelation is not None
        self.has_level_necks = bool(level_necks)
        self.has_decoder = decoder is not None

    @property
    def backbone(self) -> nn.Module:
        """The backbone."""
        return self[0]

    @property
    def neck(self) -> nn.Module:
        """The neck."""
        return self[1]

    @property
    def decorrelation(self) -> Any:
        """The decorrelation, None when there is none."""
        return self[2] if self.has_decorrelation else None

    @property
    def level_necks(self) -> Any:
        """The necks of loss terms; empty when there are none."""
        if not self.has_level_necks:
            return ModuleDict()
        return self[3 if self.has_decorrelation else 2]

    @property
    def decoder(self) -> Any:
        """The decoder, None when there is none."""
        return self[-1] if self.has_decoder else None

    def forward(self, images: Tensor) -> EncoderOutput:
        """Encode the images of one view.

        Shape: ``(N, C, H, W)``.
        """
        backbone = backbone_of(self.backbone)
        decoded = self.decoder.stages if self.has_decoder else ()
        found = backbone.maps(images, {*self.stages, *decoded, backbone.last})
        last, maps = found[backbone.last], dict[int | str, Tensor](found.items())
        if self.has_decoder:
            maps[DECODER] = self.decoder.decode(found)
        decorrelation = self.decorrelation
        if decorrelation is not None and not decorrelation.on_projection:
            stage = decorrelation.stage
            stage = backbone.last if stage is None else stage
            whitened = decorrelation(maps[stage])
            if stage == backbone.last:
                last = whitened
            if decorrelation.for_levels:
                maps[stage] = whitened
        embedding = self.neck([last])[0]
        if decorrelation is not None and decorrelation.on_projection:
            embedding = decorrelation(embedding)
        return EncoderOutput(maps, embedding, self.level_necks)
