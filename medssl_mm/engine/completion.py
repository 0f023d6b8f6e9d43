"""Fills in what a config leaves to its data: classes, channels, grey values.

A config names its data once, and :func:`complete` puts the rest where the
hosts want it, before anything is built; the config that a run writes into its
work directory therefore holds every number. What a config says itself stays.

- ``slices`` (or ``images``) completes the data set of every loader:
  ``slices = dict(type='medssl_mm.ACDCSlices', data_root=..., split=...)``.
  Data sets of hooks (probes) that name no data are completed likewise.
- ``data_root`` and ``split``, for data of one's own: the same, with
  ``medssl_mm.SliceDataset`` or ``medssl_mm.ClassificationImages``, which take
  classes as they are.
- a step ``dict(type='medssl_mm.NormalizeByStore')`` of a pipeline becomes
  the normalisation that fits the store, or ``normalize`` of the config.
- ``num_classes`` of heads, the type of a classification head, and the
  channels of images and stages that heads, necks and loss terms take.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from medssl_mm.backbones import Backbone, backbone_of, stated_channels
from medssl_mm.errors import InstallError, UserError
from medssl_mm.models.heads.decorrelation_head import LAST
from medssl_mm.registry import DATASETS, MODELS
from medssl_mm.store.header import DATASET_FILE, IMAGES, SLICES
from medssl_mm.store.images import MULTI_LABEL
from medssl_mm.store.known import KNOWN, StoreFacts, read_facts

__all__ = [
    'NORMALIZE',
    'MapChannels',
    'complete',
    'fill_stage_channels',
    'normalization_of',
]

NORMALIZE = 'medssl_mm.NormalizeByStore'
# Abdomen, from fat to vessels in the arterial phase: -200 to 300 HU. The usual
# soft-tissue window (level 40, width 400) cuts the latter off.
CT_WINDOW = dict(type='medssl_mm.CTWindow', level=50, width=500)
_GENERIC = ('medssl_mm.SliceDataset', 'medssl_mm.ClassificationImages')
# Arguments of a backbone that load weights, which have no influence on shapes.
_WEIGHTS = ('init_cfg', 'pretrained', 'checkpoint_path')


def normalization_of(facts: StoreFacts) -> dict:
    """Choose the step that maps the grey values of a store to 0-1.

    Hounsfield units are windowed, 8-bit values divided by 255; others, such
    as MR, have no unit: percentiles of each case become 0 and 1.
    """
    if facts.units == 'HU':
        return dict(CT_WINDOW)
    if facts.eight_bit and facts.modality != 'MR':
        return dict(type='medssl_mm.ShiftScale', mean=0.0, std=255.0)
    return dict(type='medssl_mm.PercentileNormalize')


def complete(config: Config) -> None:
    """Fill in what depends on the data; the config is changed.

    A config whose data sets are not this package's, or that leaves nothing
    open, is not changed, and no store is looked for.

    Raises:
        UserError: No data is named, the store is missing and its data set
            unknown, or the store has another number of classes than a head.
    """
    _Completion(config).run()


class MapChannels:
    """Channels of a backbone's maps; unless its config states them, it is built.

    Nothing is filled in for a backbone that cannot be built, or is of no
    known family: who builds the model says what is wrong with it.

    Args:
        settings (dict): Config of the backbone.
        scope (str): Where types without prefix are looked up.
    """

    def __init__(self, settings: dict, scope: str) -> None:
        self.settings = settings
        self.scope = scope
        self.stated = stated_channels(settings)

    @cached_property
    def _network(self) -> Any:
        settings = copy.deepcopy(
            {k: v for k, v in self.settings.items() if k not in _WEIGHTS}
        )
        with (
            DefaultScope.overwrite_default_scope(self.scope),
            torch.random.fork_rng(devices=[]),
        ):
            try:
                return MODELS.build(settings)
            except InstallError:
                raise
            except Exception:
                return None

    @cached_property
    def _backbone(self) -> Backbone | None:
        try:
            return None if self._network is None else backbone_of(self._network)
        except InstallError:
            raise
        except Exception:
            return None

    @cached_property
    def stages(self) -> Mapping[int, int]:
        """By the number of the place; empty where they are not known."""
        if self.stated:
            return self.stated
        return {} if self._backbone is None else self._backbone.channels

    @cached_property
    def outputs(self) -> tuple[int, ...]:
        """Of what the backbone returns; empty where that is not known."""
        # Bare types with heads are those of mmseg and mmpretrain: all stages, or
        # the last one, which is what their heads ask for.
        if self.stated and '.' not in self.settings['type']:
            if 'out_indices' not in self.settings:
                return tuple(self.stated.values())[1:]
        if self._backbone is None:
            # A pretrained encoder as backbone says so itself.
            return tuple(getattr(self._network, 'output_channels', ()))
        return self._backbone.output_channels

    def fill(self, settings: dict, key: str, stage: int | None = None) -> None:
        """Set a key, unless it is there, to the channels of a stage's map.

        Args:
            settings (dict): Config of what gets the map; it is changed.
            key (str): Of the number of channels.
            stage (int, optional): Number of the stage. Defaults to None: the
                last one.
        """
        if key not in settings and self.stages:
            number = max(self.stages) if stage is None else stage
            # A stage that there is not is refused by the model.
            if number in self.stages:
                settings[key] = self.stages[number]


def fill_stage_channels(maps: MapChannels, content: Any) -> None:
    """Tell necks, loss terms and decorrelation how many channels they get.

    Args:
        maps (MapChannels): Of the backbone.
        content: Config of a model, or any part of it; it is changed.
    """
    for entry in _dicts(content):
        neck, stage = entry.get('neck'), entry.get('stage')
        if isinstance(neck, dict) and isinstance(stage, int):
            maps.fill(neck, 'in_channels', stage)
        if entry.get('type') == 'medssl_mm.DecorrelationHead':
            number = str(entry.get('place', LAST)).removeprefix('after_stage')
            if number == LAST or number.isdecimal():
                maps.fill(
                    entry, 'num_channels', None if number == LAST else int(number)
                )


def _dicts(content: Any) -> Iterator[dict]:
    if isinstance(content, dict):
        yield content
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for value in content:
            yield from _dicts(value)


def _has_step(content: Any) -> bool:
    return any(entry.get('type') == NORMALIZE for entry in _dicts(content))


def _with_step(content: Any, step: Callable[[], dict]) -> Any:
    """Copy a config with the placeholder replaced."""
    if isinstance(content, dict):
        if content.get('type') == NORMALIZE:
            return step()
        return type(content)(
            {key: _with_step(value, step) for key, value in content.items()}
        )
    if isinstance(content, (list, tuple)):
        return type(content)(_with_step(value, step) for value in content)
    return content


def _decode_heads(model: dict) -> Iterator[tuple[str, dict]]:
    """Decode heads of a model with their keys."""
    for key in ('decode_head', 'auxiliary_head'):
        heads = model.get(key) or []
        for head in heads if isinstance(heads, list) else [heads]:
            yield key, head


class _Completion:
    """One config being completed; facts of stores are read when needed."""

    def __init__(self, config: Config) -> None:
        self.content = config._cfg_dict
        self.name = config.filename or 'the config'
        self.scope = self.content.get('default_scope') or 'mmengine'
        self._facts: dict[tuple, StoreFacts] = {}

    def run(self) -> None:
        self._name_data()
        model = self.content.get('model') or {}
        has_backbone = isinstance(model.get('backbone'), dict)
        if has_backbone:
            maps = MapChannels(model['backbone'], self.scope)
            fill_stage_channels(maps, self.content)
            self._fill_model_channels(model, maps)
        datasets = list(self._datasets())
        if not datasets:
            return
        main = datasets[0]
        self._fill_normalization(datasets, main)
        if has_backbone:
            self._fill_image_channels(model['backbone'], maps, main)
            self._fill_classes(model, main)

    # -- data

    def _datasets(self) -> Iterator[dict]:
        """Data sets of this package: those of the loaders come first."""
        loaders = [f'{name}_dataloader' for name in ('train', 'val', 'test')]
        places = [self.content.get(name) for name in loaders]
        places += [v for k, v in self.content.items() if k not in loaders]
        for place in places:
            for entry in _dicts(place):
                if 'data_root' in entry and self._class_of(entry) is not None:
                    yield entry

    def _class_of(self, dataset: dict) -> Any:
        name = dataset.get('type')
        if not isinstance(name, str) or not name.startswith('medssl_mm.'):
            return None
        found = DATASETS.get(name)
        return found if hasattr(found, 'classes_by_settings') else None

    def _name_data(self) -> None:
        own = {
            key: self.content.pop(key)
            for key in ('data_root', 'split')
            if key in self.content
        }
        keys = [key for key in ('slices', 'images') if self.content.get(key)]
        named = dict(self.content[keys[0]]) if keys else {}
        if 'data_root' in own:
            named = own
            for key in keys:
                del self.content[key]
        else:
            named.update(own)
        for loader in ('train', 'val', 'test'):
            place = self.content.get(f'{loader}_dataloader')
            for entry in _dicts(place):
                if self._class_of(entry) is not None:
                    self._complete_dataset(entry, named, own, f'{loader}_dataloader')
        for place in ('default_hooks', 'custom_hooks'):
            for entry in _dicts(self.content.get(place)):
                # One with a data_root looks at data of its own.
                if self._class_of(entry) is not None and not entry.get('data_root'):
                    self._complete_dataset(entry, named, {}, place)

    def _complete_dataset(
        self, dataset: dict, named: dict, own: dict, loader: str
    ) -> None:
        root = dataset.get('data_root')
        if 'data_root' in own and root not in (None, own['data_root']):
            raise UserError(
                f'{self.name}: data_root is {own["data_root"]!r}, but the data set '
                f'of {loader} has its own, {root!r}; take one of the two away'
            )
        if dataset['type'] in _GENERIC and 'type' in named:
            dataset['type'] = named['type']
        for key, value in named.items():
            if key != 'type' and value is not None:
                dataset.setdefault(key, value)
        if dataset.get('data_root') is None:
            raise UserError(
                f'{self.name} names no data; add data_root = "DIR" and '
                'split = "NAME" to it, or --cfg-options data_root=DIR split=NAME'
            )

    def facts(self, dataset: dict) -> StoreFacts:
        """What is known of the data of a data set."""
        key = (dataset['type'], dataset['data_root'])
        if key not in self._facts:
            self._facts[key] = self._find_facts(dataset)
        return self._facts[key]

    def _find_facts(self, dataset: dict) -> StoreFacts:
        root, found = Path(dataset['data_root']), self._class_of(dataset)
        if not (root / DATASET_FILE).is_file():
            known = KNOWN.get(found.known or root.name)
            if known is not None:
                return known
        try:
            return read_facts(root)
        except UserError as error:
            raise UserError(
                f'{self.name} takes classes, channels and normalisation from '
                f'its data: {error}. Where there is no data, use the config '
                'that the training wrote into its work directory: it holds them.'
            ) from None

    # -- settings

    def _fill_normalization(self, datasets: list[dict], main: dict) -> None:
        given = self.content.get('normalize')
        if given is not None and not _has_step(given):
            step = given.copy
        else:
            step = None
        for dataset in datasets:
            if _has_step(dataset.get('pipeline')):
                dataset['pipeline'] = _with_step(
                    dataset['pipeline'],
                    step or (lambda: normalization_of(self.facts(dataset))),  # noqa: B023
                )
        for key, value in list(self.content.items()):
            if _has_step(value):
                self.content[key] = _with_step(
                    value, step or (lambda: normalization_of(self.facts(main)))
                )

    def _fill_image_channels(
        self, backbone: dict, maps: MapChannels, main: dict
    ) -> None:
        if isinstance(backbone.get('in_channels'), int):
            self._check_image_channels(backbone['in_channels'], main)
        elif 'in_channels' not in backbone and 'type' in backbone:
            channels = self.facts(main).channels
            # Three is what all backbones take unless told otherwise, and not
            # every one can be told.
            if maps.stated or self._takes(backbone['type'], 'in_channels', 'kwargs'):
                backbone['in_channels'] = channels
            elif channels != 3:
                raise UserError(
                    f'{self.name}: the images of {main["data_root"]} have {channels} '
                    f'channel(s), but model.backbone of type {backbone["type"]} takes '
                    'three and has no in_channels; choose another backbone (for '
                    'EfficientNet there is medssl_mm.EfficientNetAnyChannels)'
                )

    def _check_image_channels(self, given: int, main: dict) -> None:
        if not (Path(main['data_root']) / DATASET_FILE).is_file():
            return  # a config that was completed before
        facts = self.facts(main)
        channels = facts.channels
        # Grey may have become colour in a step of one's own.
        if channels != given and (channels, given) != (1, 3) and facts.kind == SLICES:
            raise UserError(
                f'{self.name}: model.backbone.in_channels={given}, but the images '
                f'of {main["data_root"]} have {channels} channel(s); leave '
                'in_channels out'
            )

    def _fill_model_channels(self, model: dict, maps: MapChannels) -> None:
        if 'multi_level_head' in model and isinstance(model.get('neck'), dict):
            maps.fill(model['neck'], 'in_channels')
        if 'decode_head' in model:
            for name, head in _decode_heads(model):
                self._fill_decode_head(name, head, maps)
        elif self._classifies(model) and 'in_channels' not in model['head']:
            if maps.outputs:
                model['head']['in_channels'] = maps.outputs[-1]

    def _fill_decode_head(self, name: str, head: dict, maps: MapChannels) -> None:
        skip = 'c1_channels' in head  # the connection of DeepLabv3+
        wanted = {'in_channels', *(['c1_in_channels'] if skip else [])}
        if wanted <= set(head) or not maps.outputs:
            return
        index = head.get('in_index', -1)
        try:
            channels = (
                maps.outputs[index]
                if isinstance(index, int)
                else [maps.outputs[i] for i in index]
            )
        except IndexError:
            raise UserError(
                f'{self.name}: model.{name} has in_index={index}, but model.backbone '
                f'returns {len(maps.outputs)} map(s); set its out_indices'
            ) from None
        head.setdefault('in_channels', channels)
        if skip:
            head.setdefault('c1_in_channels', maps.outputs[0])

    def _takes(self, kind: str, *arguments: str) -> bool:
        """Whether a class names one of some arguments."""
        with DefaultScope.overwrite_default_scope(self.scope):
            found = MODELS.get(kind)
        if found is None:  # who builds it says what is wrong
            return True
        return not set(arguments).isdisjoint(inspect.signature(found).parameters)

    def _classifies(self, model: dict) -> bool:
        """Whether the head is one of classes; that of a pretraining is not."""
        head = model.get('head')
        if not isinstance(head, dict) or 'multi_level_head' in model:
            return False
        return 'type' not in head or self._takes(head['type'], 'num_classes')

    def _fill_classes(self, model: dict, main: dict) -> None:
        if 'decode_head' in model:
            heads = [head for _, head in _decode_heads(model)]
        elif self._classifies(model):
            heads = [model['head']]
        else:
            return
        if all('num_classes' in head and 'type' in head for head in heads):
            if not (Path(main['data_root']) / DATASET_FILE).is_file():
                return
        facts = self.facts(main)
        classes = self._class_of(main).classes_by_settings(facts.classes, main)
        task = self._class_of(main).task_by_settings(facts.task, main)
        for head in heads:
            if 'type' not in head and facts.kind == IMAGES:
                head['type'] = (
                    'MultiLabelLinearClsHead'
                    if task == MULTI_LABEL
                    else 'LinearClsHead'
                )
            if head.setdefault('num_classes', len(classes)) != len(classes):
                raise UserError(
                    f'{self.name}: a head has num_classes={head["num_classes"]}, '
                    f'but {main["data_root"]} has {len(classes)} classes: '
                    f'{", ".join(classes)}; leave num_classes out'
                )
