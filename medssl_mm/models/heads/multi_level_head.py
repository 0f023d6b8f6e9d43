"""Further loss terms on the feature maps of chosen stages."""

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import torch
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.models.utils import DECODER, stated_by
from medssl_mm.registry import MODELS

KEY_SIDES = ('slow', 'same', 'both')


class Encoded(Protocol):
    """What an encoder makes of one view, as far as loss terms need it.

    Attributes:
        maps (Mapping[int | str, Tensor]): By the number of the stage, or
            ``'decoder'``, each ``(N, C, H, W)``.
        level_necks (Mapping[str, nn.Module]): The encoder's own necks.
    """

    maps: Mapping[int | str, Tensor]
    level_necks: Mapping[str, nn.Module]


@dataclass(eq=False)
class LevelContext:
    """What a term may need to know beside the two feature maps.

    It lives for one direction of one term in one step, what it is told to do
    :meth:`at_the_end` for both.

    Args:
        stage (int | str): Stage of the maps, 0 = stem, or ``'decoder'``.
        images (tuple[Tensor, Tensor]): The query's and the key's view, each
            ``(N, C, H, W)``, as the backbone saw them.
        data_samples (Sequence): One per image; its ``metainfo`` holds
            ``view_geometry``, a list with one mapping per view.
        order (tuple[int, int]): Which of those views are the query's and the
            key's. Defaults to (0, 1).
        pending (list[Callable]): What is done when all terms are computed.
            Defaults to nothing.
    """

    stage: int | str
    images: tuple[Tensor, Tensor]
    data_samples: Sequence
    order: tuple[int, int] = (0, 1)
    pending: list[Callable[[], None]] = field(default_factory=list)
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Compute at the first call, return the same at the next ones.

        What the two views share: they may pass different modules, a neck and
        its slow copy.

        Args:
            key (Hashable): What the result depends on.
            compute (Callable): Computes it.
        """
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def at_the_end(self, action: Callable[[], None]) -> None:
        """Do something when the terms of both directions are computed.

        What changes the state of a loss: the second direction must not see what
        the first one has learnt of the same images.

        Args:
            action (Callable): Does it.
        """
        self.pending.append(action)

    def view_matrices(self, view: int) -> Tensor:
        """Affine matrices from view pixels to source pixels.

        Args:
            view (int): 0 = the query's view, 1 = the key's view.

        Shape: returns ``(N, 2, 3)``, float64, on the images' device; use it
            with :mod:`medssl_mm.functional.geometry`.

        Raises:
            UserError: When the data samples do not hold the geometry.
        """
        place = self.order[view]
        matrices = []
        stated = stated_by(self.data_samples, 'view_geometry') or [None]
        for index, geometry in enumerate(stated):
            if geometry is None or len(geometry) <= place:
                raise UserError(
                    f'sample {index} of the batch has no view_geometry of '
                    f'view {place}; load the images with the view transforms '
                    'and the packing of medssl_mm, which keep it'
                )
            matrices.append(
                torch.as_tensor(geometry[place]['matrix'], dtype=torch.float64)
            )
        return torch.stack(matrices).to(self.images[view].device)


@MODELS.register_module()
class MultiLevelHead(BaseModule):
    """A list of loss terms, each on one stage of the backbone.

    A level is a dict of these entries:

    - ``stage`` (int | str): 0 = stem, 1 ... = stages, of a Vision Transformer
      blocks; see :mod:`medssl_mm.backbones`. ``'decoder'``: the map of the
      algorithm's ``decoder``.
    - ``loss`` (dict): Module called as ``loss(query, key, context)``. It
      returns a scalar, or a dict with the scalar ``loss`` and other scalars
      to be logged.
    - ``neck`` (dict, optional): Module called as ``neck(level, view,
      context)`` on the map ``(N, C, H, W)`` of view 0 (query) and of view 1
      (key); what it returns is given to the loss. Without a neck the loss
      gets the maps. An algorithm fills in ``in_channels`` when left out.
    - ``key_neck`` (str): ``'ema'``: the key's map passes a slowly following
      copy of the neck, without gradient, which is part of the key encoder;
      ``'shared'``: both maps pass the same neck, which learns from both.
      Defaults to 'ema' where there is a slow copy, else to 'shared'.
    - ``weight`` (float): Factor of the term. Defaults to 1.0.
    - ``name`` (str): Name in the log. Defaults to the class name of the loss
      in snake case without ``Loss``.

    Where keys come from is the algorithm's choice, ``key_side``:

    - ``'slow'``: the slow copy of the encoder. The query's map carries
      gradient to the backbone, the key's carries none.
    - ``'same'``: the encoder itself, of the other view. Both maps carry
      gradient unless the loss stops it, and pass the same neck.
    - ``'both'``: the slow copy, in both directions: both views are seen by
      both encoders, and a term is the mean of that with view 0 as the query
      and that with view 1 as the query.

    The maps are in the order of the batch and, under autocast, of reduced
    precision: losses compute in float32. A term is logged as
    ``loss_stage3_<name>``, weighted, its other scalars as
    ``stage3_<name>_<entry>``; ``chance_level``, the loss of a guess, is
    weighted like the loss. ``context`` is a :class:`LevelContext`.

    Args:
        levels (Sequence[dict]): The terms. Defaults to none.
        key_side (str): See above; algorithms set it. Defaults to 'slow'.
        last_stage (int): Number of the backbone's last stage; algorithms set
            it. Defaults to 4.
        has_decoder (bool): Whether the algorithm has one; algorithms set it.
            Defaults to False.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.

    Raises:
        UserError: When a level is wrong; the message says which.
    """

    def __init__(
        self,
        levels: Sequence[dict] = (),
        key_side: str = 'slow',
        last_stage: int = 4,
        has_decoder: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if key_side not in KEY_SIDES:
            raise UserError(f'key_side must be one of {KEY_SIDES}, got {key_side!r}')
        self.key_side = key_side
        self.last_stage = last_stage
        self.has_decoder = has_decoder
        self.stage_of: dict[str, int | str] = {}
        self.weight_of: dict[str, float] = {}
        self.losses = ModuleDict()
        self.necks = ModuleDict()
        self.shared_necks: set[str] = set()
        for index, level in enumerate(levels):
            self._add_level(index, **_checked(index, level))

    def _add_level(
        self,
        index: int,
        stage: int | str,
        loss: dict,
        neck: dict | None = None,
        key_neck: str | None = None,
        weight: float = 1.0,
        name: str | None = None,
    ) -> None:
        if stage == DECODER and not self.has_decoder:
            raise UserError(
                f'levels[{index}]: stage={DECODER!r} needs decoder of the algorithm, '
                'a decode head of mmseg; set it, or choose another stage'
            )
        if stage != DECODER and stage not in range(self.last_stage + 1):
            raise UserError(
                f'levels[{index}]: stage must be 0 (stem) to {self.last_stage}, '
                f'got {stage}'
            )
        if key_neck is None:
            key_neck = 'shared' if self.key_side == 'same' else 'ema'
        if key_neck not in ('ema', 'shared'):
            raise UserError(
                f'levels[{index}]: key_neck must be "ema" or "shared", got {key_neck!r}'
            )
        if (self.key_side, key_neck) == ('same', 'ema'):
            raise UserError(
                f'levels[{index}]: key_neck="ema" needs a slow copy of the encoder, '
                'which this algorithm does not have; leave key_neck out'
            )
        module = MODELS.build(loss)
        place = DECODER if stage == DECODER else f'stage{stage}'
        label = f'{place}_{name or _snake_case(type(module).__name__)}'
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
        """The stages of the backbone in use, ascending."""
        found = {stage for stage in self.stage_of.values() if isinstance(stage, int)}
        return tuple(sorted(found))

    @property
    def places(self) -> tuple[int | str, ...]:
        """Whose maps are in use: stages, ascending, and the decoder."""
        decoder = (DECODER,) if DECODER in self.stage_of.values() else ()
        return (*self.stages, *decoder)

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
        query: Encoded | Sequence[Encoded],
        key: Encoded | Sequence[Encoded],
        images: tuple[Tensor, Tensor],
        data_samples: Sequence,
    ) -> dict[str, Tensor]:
        """Compute all terms.

        Args:
            query: What the encoder that learns makes of view 0; with
                ``key_side='both'`` of each of the two views.
            key: What the key encoder makes of view 1, in the order of the
                query's; with ``key_side='both'`` of each of the two views.
            images: Both views.
            data_samples: One per image.

        Shape: maps ``(N, C, H, W)``. Returns scalars by log name.
        """
        pending = list[Callable[[], None]]()
        way = partial(
            self._one_way, images=images, data_samples=data_samples, pending=pending
        )
        if self.key_side != 'both':
            logs = way(cast(Encoded, query), cast(Encoded, key), order=(0, 1))
        else:
            queries, keys = cast(Sequence[Encoded], query), cast(Sequence[Encoded], key)
            there = way(queries[0], keys[1], order=(0, 1))
            back = way(queries[1], keys[0], order=(1, 0))
            logs = {name: (value + back[name]) / 2 for name, value in there.items()}
        for action in pending:
            action()
        return logs

    def _one_way(
        self,
        query_side: Encoded,
        key_side: Encoded,
        images: tuple[Tensor, Tensor],
        data_samples: Sequence,
        order: tuple[int, int],
        pending: list[Callable[[], None]],
    ) -> dict[str, Tensor]:
        logs = {}
        images = (images[order[0]], images[order[1]])
        for label, loss in self.losses.items():
            stage = self.stage_of[label]
            context = LevelContext(stage, images, data_samples, order, pending)
            query, key = query_side.maps[stage], key_side.maps[stage]
            if label in self.necks:
                query = self.necks[label](query, 0, context)
                if label in self.shared_necks:
                    key = self.necks[label](key, 1, context)
                else:
                    with torch.no_grad():
                        key = key_side.level_necks[label](key, 1, context)
            logs.update(self._logs(label, loss, loss(query, key, context)))
        return logs

    def _logs(
        self, label: str, loss: nn.Module, result: Tensor | Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Weight and name what a loss returned."""
        scalars = dict(result) if isinstance(result, Mapping) else dict(loss=result)
        weight = self.weight_of[label]
        logs = {f'loss_{label}': scalars.pop('loss') * weight}
        for entry, value in scalars.items():
            if 'loss' in entry:
                raise ValueError(
                    f'{type(loss).__name__} returned the log value '
                    f'{entry!r}: only names without "loss" are left out '
                    'of the sum of losses'
                )
            # That of a guess is comparable with the loss.
            logs[f'{label}_{entry}'] = (
                value * weight if entry == 'chance_level' else value
            )
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
