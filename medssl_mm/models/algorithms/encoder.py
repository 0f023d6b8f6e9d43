"""From images to feature maps and an embedding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmengine.model import ModuleDict
from torch import Tensor, nn

from medssl_mm.backbones import backbone_of


@dataclass(frozen=True)
class EncoderOutput:
    """What an encoder makes of the images of one view.

    Args:
        maps (dict[int, Tensor]): By the number of the stage, each ``(N, C,
            H, W)``; decorrelated if asked for.
        embedding (Tensor): ``(N, D)``, not normalised.
        level_necks (nn.ModuleDict): The encoder's own necks of loss terms;
            those of a slow copy are slow copies.
    """

    maps: dict[int, Tensor]
    embedding: Tensor
    level_necks: nn.ModuleDict


class Encoder(nn.ModuleList):
    """Backbone, neck and, if there is one, decorrelation between the two.

    A list of these parts in that order and of the necks of loss terms, so
    that the names in the state dict of a slow copy are those of checkpoints
    written by mmselfsup and by this package: 0 = backbone, 1 = neck, then
    decorrelation and necks, where there are any.

    Args:
        backbone (nn.Module): Of a family that ``backbone_of`` knows.
        neck (nn.Module): Takes ``[map]`` and returns ``[embeddings]``.
        stages (Iterable[int]): Stages whose maps are wanted.
        decorrelation (nn.Module, optional): Applied to the map of its
            ``stage``. Defaults to None.
        level_necks (nn.ModuleDict, optional): Necks of loss terms, passed
            on. Defaults to None.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        stages: Iterable[int],
        decorrelation: nn.Module | None = None,
        level_necks: nn.ModuleDict | None = None,
    ) -> None:
        parts = [backbone, neck]
        if decorrelation is not None:
            parts.append(decorrelation)
        if level_necks:
            parts.append(level_necks)
        super().__init__(parts)
        self.stages = tuple(stages)
        self.has_decorrelation = decorrelation is not None
        self.has_level_necks = bool(level_necks)

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
        return self[-1] if self.has_level_necks else ModuleDict()

    def forward(self, images: Tensor) -> EncoderOutput:
        """Encode the images of one view.

        Shape: ``(N, C, H, W)``.
        """
        backbone = backbone_of(self.backbone)
        maps = backbone.maps(images, {*self.stages, backbone.last})
        last = maps[backbone.last]
        decorrelation = self.decorrelation
        if decorrelation is not None:
            stage = decorrelation.stage
            stage = backbone.last if stage is None else stage
            whitened = decorrelation(maps[stage])
            if stage == backbone.last:
                last = whitened
            if decorrelation.for_levels:
                maps[stage] = whitened
        return EncoderOutput(maps, self.neck([last])[0], self.level_necks)
