"""Further loss terms on the feature maps of chosen stages."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor
from torch.nn import Module

from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS

STAGES = range(5)  # 0 = stem, 1-4 = residual stages


@dataclass(frozen=True)
class LevelContext:
    """What a term may need to know beside the two feature maps.

    Args:
        stage (int): Stage of the maps, 0 = stem.
        images (tuple[Tensor, Tensor]): The query's and the key's view, each
            ``(N, C, H, W)``, as the backbone saw them.
        data_samples (Sequence): One per image; its ``metainfo`` holds
            ``view_geometry``, a list with one mapping per view.
    """

    stage: int
    images: tuple[Tensor, Tensor]
    data_samples: Sequence

    def view_matrices(self, view: int) -> Tensor:
        """Affine matrices from view pixels to source pixels.

        Args:
            view (int): 0 = the query's view, 1 = the key's view.

        Shape: returns ``(N, 2, 3)``, float64, on the images' device; use it
            with :mod:`medssl_mm.functional.geometry`.

        Raises:
            UserError: When the data samples do not hold the geometry.
        """
        matrices = []
        for index, sample in enumerate(self.data_samples or [None]):
            geometry = getattr(sample, 'metainfo', {}).get('view_geometry')
            if geometry is None or len(geometry) <= view:
                raise UserError(
                    f'sample {index} of the batch has no view_geometry of '
                    f'view {view}; load the images with the view transforms '
                    'and the packing of medssl_mm, which keep it'
                )
            matrices.append(
                torch.as_tensor(geometry[view]['matrix'], dtype=torch.float64)
            )
        return torch.stack(matrices).to(self.images[view].device)


@MODELS.register_module()
class MultiLevelHead(BaseModule):
    """A list of loss terms, each on one stage of the backbone.

    A level is a dict of these entries:

    - ``stage`` (int): 0 = stem, 1-4 = residual stages.
    - ``loss`` (dict): Module called as ``loss(query, key, context)``. It
      returns a scalar, or a dict with the scalar ``loss`` and other scalars
      to be logged.
    - ``neck`` (dict, optional): Module called as ``neck(level, view,
      context)`` on the map ``(N, C, H, W)`` of view 0 (query) and of view 1
      (key); what it returns is given to the loss. Without a neck the loss
      gets the maps.
    - ``key_neck`` (str): ``'ema'``: the key's map passes a slowly following
      copy of the neck, without gradient, which is part of the key encoder;
      ``'shared'``: both maps pass the same neck, which learns from both.
      Defaults to 'ema'.
    - ``weight`` (float): Factor of the term. Defaults to 1.0.
    - ``name`` (str): Name in the log. Defaults to the class name of the loss
      in snake case without ``Loss``.

    The query's map carries gradient to the backbone, the key's map comes from
    the key encoder and carries none. Both are in the order of the batch and,
    under autocast, of reduced precision: losses compute in float32. A term is
    logged as ``loss_stage3_<name>``, weighted, its other scalars as
    ``stage3_<name>_<entry>``; ``chance_level``, the loss of a guess, is weighted
    like the loss. ``context`` is a :class:`LevelContext`.

    Args:
        levels (Sequence[dict]): The terms. Defaults to none.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.

    Raises:
        UserError: When a level is wrong; the message says which.
    """

    def __init__(
        self, levels: Sequence[dict] = (), init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.stage_of: dict[str, int] = {}
        self.weight_of: dict[str, float] = {}
        self.losses = ModuleDict()
        self.necks = ModuleDict()
        self.shared_necks: set[str] = set()
        for index, level in enumerate(levels):
            self._add_level(index, **_checked(index, level))

    def _add_level(
        self,
        index: int,
        stage: int,
        loss: dict,
        neck: dict | None = None,
        key_neck: str = 'ema',
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        if stage not in STAGES:
            raise UserError(
                f'levels[{index}]: stage must be 0 (stem) to 4, got {stage}'
            )
        if key_neck not in ('ema', 'shared'):
            raise UserError(
                f'levels[{index}]: key_neck must be "ema" or "shared", got {key_neck!r}'
            )
        module = MODELS.build(loss)
        label = f'stage{stage}_{name or _snake_case(type(module).__name__)}'
        if label in self.losses:
            raise UserError(
                f'levels[{index}]: there is another term {label}; give one '
                'of them a name'
            )
        self.losses[label] = module
        self.stage_of[label] = stage
        self.weight_of[label] = weight
        if neck is not None:
            self.necks[label] = MODELS.build(neck)
            if key_neck == 'shared':
                self.shared_necks.add(label)

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages in use, ascending."""
        return tuple(sorted(set(self.stage_of.values())))

    def followed_necks(self) -> ModuleDict:
        """Return the necks of which the key encoder holds a slow copy."""
        return ModuleDict(
            {
                label: neck
                for label, neck in self.necks.items()
                if label not in self.shared_necks
            }
        )

    def forward(
        self,
        query_maps: Mapping[int, Tensor],
        key_maps: Mapping[int, Tensor],
        key_necks: Mapping[str, Module],
        images: tuple[Tensor, Tensor],
        data_samples: Sequence,
    ) -> dict[str, Tensor]:
        """Compute all terms.

        Args:
            query_maps: Feature maps of the query encoder by stage.
            key_maps: Feature maps of the key encoder by stage, without
                gradient, in the order of the query's.
            key_necks: The slow copies of :meth:`followed_necks`.
            images: The query's and the key's view.
            data_samples: One per image.

        Shape: maps ``(N, C, H, W)``. Returns scalars by log name.
        """
        logs = {}
        for label, loss in self.losses.items():
            stage = self.stage_of[label]
            context = LevelContext(stage, images, data_samples)
            query, key = query_maps[stage], key_maps[stage]
            if label in self.necks:
                query = self.necks[label](query, 0, context)
                if label in self.shared_necks:
                    key = self.necks[label](key, 1, context)
                else:
                    with torch.no_grad():
                        key = key_necks[label](key, 1, context)
            result = loss(query, key, context)
            scalars = dict(result) if isinstance(result, Mapping) else dict(loss=result)
            logs[f'loss_{label}'] = scalars.pop('loss') * self.weight_of[label]
            for entry, value in scalars.items():
                if 'loss' in entry:
                    raise ValueError(
                        f'{type(loss).__name__} returned the log value '
                        f'{entry!r}: only names without "loss" are left out '
                        'of the sum of losses'
                    )
                if entry == 'chance_level':  # comparable with the loss
                    value = value * self.weight_of[label]
                logs[f'{label}_{entry}'] = value
        return logs


def _checked(index: int, level: dict) -> dict:
    known = {'stage', 'loss', 'neck', 'key_neck', 'weight', 'name'}
    level = dict(level)
    wrong = [key for key in level if key not in known]
    missing = [key for key in ('stage', 'loss') if key not in level]
    if wrong or missing:
        raise UserError(
            f'levels[{index}]: missing {missing or "nothing"}, unknown '
            f'{wrong or "nothing"}; a level has stage and loss, and may have '
            'neck, key_neck, weight and name'
        )
    return level


def _snake_case(class_name: str) -> str:
    """Turns FeatureMSELoss into feature_mse."""
    words = re.findall(
        r'[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+', class_name.removesuffix('Loss')
    )
    return '_'.join(words).lower()
