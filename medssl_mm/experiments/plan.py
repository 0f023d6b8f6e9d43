"""Plans: the steps of a table, each with a folder that carries a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import medssl_mm.registry  # noqa: F401  (the config prefixes of hosts)
from medssl_mm.aliases import with_former_names
from medssl_mm.engine import launch
from medssl_mm.errors import UserError
from medssl_mm.experiments.table import WEIGHTS_OPTION, EvaluationConfig, Row, Table
from medssl_mm.results import Run
from medssl_mm.texts import AT

__all__ = ['DONE', 'NO_VALIDATION', 'Step', 'plan', 'resolved_config']

DONE = 'done.json'
_KINDS = ('pretrain', 'train', 'test')
NO_VALIDATION = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.save_best': None,
}


@dataclass(frozen=True)
class Step:
    """One command of a table.

    Args:
        key (str): Unique folder name, with the hash.
        kind (str): 'pretrain', 'train' or 'test'; 'frozen' has its own command.
        folder (Path): Where it writes.
        config (str): Config file.
        options (dict): Settings changed in it, without those that name files
            of earlier steps.
        needs (tuple[str]): Keys of the steps that come first.
        seed (int): Random seed.
        weights (str, optional): Key of the pretraining step, or a file.
        title (str): Name on screen.
        weights_options (tuple[str]): Config keys that take the weights besides that
            of the table. Defaults to ().
        last (bool): Of a test: of the last weights, whatever validation says.
            Defaults to False.
        best (bool): Of a training: whether it keeps the best weights on
            validation, which are then what counts. Defaults to False.
        command (tuple[str]): Of kind 'frozen'.
        outputs (tuple[str]): Of kind 'frozen': files that it writes; it is done
            when all are there.
        allow_seen (bool): Whether it scores cases that its weights have seen, as
            the table says that they have. Defaults to False.
        row (str): Of a pretraining: name of the table row. Defaults to ''.
        epoch (int, optional): Of the checkpoint of the pretraining that a training
            starts from. Defaults to None: the last, or the best.
        keeps (tuple[int]): Of a pretraining: epochs whose checkpoints stay.
            Defaults to ().
        choices (tuple[tuple[str, dict]]): Of a step after a search: the trainings
            that validation chooses from, and the settings that each was tried with.
            A training takes the settings of the chosen one, a test its weights.
            Defaults to ().
        monitor (str): Of a training of a search: the score it is judged by.
            Defaults to ''.
    """

    key: str
    kind: str
    folder: Path
    config: str
    options: dict
    needs: tuple[str, ...]
    seed: int
    weights: str | None
    title: str
    weights_options: tuple[str, ...] = ()
    last: bool = False
    best: bool = False
    command: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    allow_seen: bool = False
    row: str = ''
    epoch: int | None = None
    keeps: tuple[int, ...] = ()
    choices: tuple[tuple[str, dict], ...] = ()
    monitor: str = ''

    @property
    def done(self) -> bool:
        """Whether the step was finished."""
        return all((self.folder / name).exists() for name in self.outputs or (DONE,))


def resolved_config(config: str, options: dict) -> dict:
    """Read a config with options applied, as the hash of a step sees it."""
    content = launch.load_config(config, options)
    content.pop('work_dir', None)
    if content.get('default_scope') == 'mmselfsup':
        # Says nothing that the loaders do not say, and was not in the hashes
        # of the pretrainings that are finished.
        content.pop('slices', None)
        content.pop('images', None)
        # Every pretraining has this hook; methods without a target skip it.
        hooks = content.get('default_hooks') or {}
        if hooks.get('target_update') == dict(type='medssl_mm.TargetUpdateHook'):
            hooks.pop('target_update')
    # How workers start and how long ranks wait changes no result: hashed as it
    # was when the first tables were run.
    environment = content.get('env_cfg')
    if environment is not None:
        content.env_cfg = dict(
            cudnn_benchmark=environment.get('cudnn_benchmark', False),
            mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
        )
    return with_former_names(content.to_dict())


def _digest(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_split(config: str, settings: dict, split: str) -> None:
    """Refuse a config that reads another split besides: it could leak."""

    def walk(place: Any, where: str) -> None:
        if isinstance(place, dict):
            children: Iterable = place.items()
        elif isinstance(place, (list, tuple)):
            children = enumerate(place)
        else:
            return
        for key, value in children:
            if key == 'split' and isinstance(value, str) and value != split:
                raise UserError(
                    f'{config} reads the split {value!r} at {where}.split '
                    f'while the table evaluates {split!r}; add that key to '
                    'split_options, or remove it by options'
                )
            walk(value, f'{where}.{key}')

    for name, content in settings.items():
        if name.endswith('_dataloader') or name == 'custom_hooks':
            walk(content, name)


def _check_poolable(table: Table, config: str, settings: dict) -> None:
    """Refuse to cross-validate a classifier before it is trained."""
    metric = (settings.get('test_evaluator') or {}).get('type')
    if len(table.splits) > 1 and metric == 'medssl_mm.ClassificationMetric':
        raise UserError(
            f'{config} is of a classifier, whose AUROC cannot be pooled over '
            f'the {len(table.splits)} splits of the table; give one split'
        )


def _options_of(
    table: Table, kind: str, options: dict, split: str | None, validates: bool = True
) -> dict:
    """Options of a row ('pretrain') or evaluation, and those of the table."""
    options = dict(options)
    keys = table.split_options[kind] if split is not None else ()
    if kind == 'evaluation' and not validates:
        options.update(NO_VALIDATION)
        keys = [key for key in keys if not key.startswith('val_dataloader.')]
    options.update({key: split for key in keys})
    return options


def plan(
    table: Table, resolve: Callable[[str, dict], dict] = resolved_config
) -> tuple[dict[str, Step], list[tuple[Run, list[tuple[str, ...]]]]]:
    """Work out the steps of a table.

    Args:
        table: What is wanted.
        resolve: Turns a config and options into the settings that the hash
            covers. Defaults to :func:`resolved_config`.

    Returns:
        tuple: Steps by key, in an order that can be run; and per table row
        its :class:`Run` and, for every seed, the keys of its test steps: one,
        or one of each split.

    Raises:
        UserError: When a config reads another split than that of the table.
    """
    planner = _Planner(table, resolve)
    results = [
        planner.results_of(evaluation, row, fraction)
        for evaluation in table.evaluations
        for fraction in table.fractions
        for row in table.rows
        if not row.evaluations or evaluation.name in row.evaluations
    ]
    ordered = sorted(planner.steps.values(), key=lambda step: _KINDS.index(step.kind))
    return {step.key: step for step in ordered}, results


class _Planner:
    """The steps of a table that are planned so far."""

    def __init__(self, table: Table, resolve: Callable[[str, dict], dict]) -> None:
        self.table = table
        self.steps: dict[str, Step] = {}
        self._resolve = resolve
        self._resolved: dict[str, dict] = {}
        self._contents: dict[str, str] = {}

    def results_of(
        self, evaluation: EvaluationConfig, row: Row, fraction: float
    ) -> tuple[Run, list[tuple[str, ...]]]:
        """Plan one cell of the table: all seeds and splits."""
        tests, folders = [], []
        for seed in self.table.seeds:
            keys = tuple(
                self._test(evaluation, row, fraction, seed, split)
                for split in self.table.splits or (None,)
            )
            tests.append(keys)
            pooled = (
                f'pooled-{evaluation.name}-{row.name}-{100 * fraction:g}pct-'
                f'seed{seed}-{_digest(keys)}'
            )
            folders.append(
                self.steps[keys[0]].folder
                if len(keys) == 1
                else self.table.runs_dir / pooled
            )
        run = Run(
            group=evaluation.title,
            label=row.title,
            fraction=fraction,
            folders=tuple(folders),
            seeds=tuple(self.table.seeds),
            compared_with=evaluation.compared_with,
            iterations=evaluation.iterations,
        )
        return run, tests

    def _settings(self, config: str, options: dict) -> dict:
        known = _digest(config, options)
        if known not in self._resolved:
            self._resolved[known] = self._resolve(config, options)
        return self._resolved[known]

    def _add(self, name: str, **settings: Any) -> str:
        """Add a step, unless it is there; return its key."""
        settings = dict(needs=(), weights=None, last=False) | settings
        kind = settings['kind']
        # The processes are part of it: they change the global batch.
        key = f'{name}-' + _digest(
            kind,
            self._settings(settings['config'], settings['options']),
            list(settings['needs']),
            settings['seed'],
            settings['weights'],
            (self.table.processes, self.table.amp) if kind != 'test' else None,
            *self._further(settings),
        )
        folder = self.table.runs_dir / key
        if kind == 'train' and self.table.validation:
            content = self._settings(settings['config'], settings['options'])
            settings['best'] = _keeps_best(content)
        self.steps.setdefault(key, Step(key=key, folder=folder, **settings))
        return key

    def _further(self, settings: Mapping[str, Any]) -> list:
        """What else the key of a step is of, where it is not as by default."""
        weights, epoch = settings['weights'], settings.get('epoch')
        found: list[Any] = [] if epoch is None else [epoch]
        if weights is None:
            return found
        keys = [self.table.weights_option, *settings.get('weights_options', ())]
        if keys != [WEIGHTS_OPTION]:
            found.append(keys)
        if weights not in self.steps:
            # Of a file what it holds: it may be another one under its name.
            found.append(self._content(weights))
        return found

    def _content(self, weights: str) -> str:
        if weights not in self._contents:
            from medssl_mm.encoders import weights_digest

            path = Path(weights)
            self._contents[weights] = weights_digest(path) if path.is_file() else ''
        return self._contents[weights]

    def _pretrain(self, row: Row, seed: int, split: str | None) -> str:
        place = '' if split is None else f'{_file_name(split)}-'
        spoken = '' if split is None else f'{split}, '
        assert row.pretrain is not None, 'only such rows are pretrained'
        options = _options_of(self.table, 'pretrain', row.options, split)
        if split is not None:
            settings = self._settings(row.pretrain, options)
            _check_split(row.pretrain, settings, split)
        name = row.pretraining or row.name
        title = row.title if row.epoch is None else row.title.rpartition(AT)[0]
        return self._add(
            f'pretrain-{name}-{place}seed{seed}',
            kind='pretrain',
            config=row.pretrain,
            options=options,
            seed=seed,
            title=f'pretrain {title}, {spoken}seed {seed}',
            row=name,
            keeps=row.epochs,
        )

    def _evaluation_options(
        self,
        evaluation: EvaluationConfig,
        row: Row,
        fraction: float,
        seed: int,
        split: str | None,
    ) -> dict:
        options = {**evaluation.options, **row.evaluation_options}
        validates = self.table.validates(fraction)
        options = _options_of(self.table, 'evaluation', options, split, validates)
        if fraction != 1:
            share, share_seed = self.table.fraction_options
            options.update({share: fraction, share_seed: seed})
        if split is not None:
            settings = self._settings(evaluation.config, options)
            _check_split(evaluation.config, settings, split)
            _check_poolable(self.table, evaluation.config, settings)
        return options

    def _test(
        self,
        evaluation: EvaluationConfig,
        row: Row,
        fraction: float,
        seed: int,
        split: str | None,
    ) -> str:
        """Plan a test and what it needs; return the key of the test."""
        pretrained = self._pretrain(row, seed, split) if row.pretrain else None
        place = '' if split is None else f'{_file_name(split)}-'
        spoken = '' if split is None else f'{split}, '
        name = f'{row.name}-{100 * fraction:g}pct-{place}seed{seed}'
        title = f'{row.title}, {100 * fraction:g} % labels, {spoken}seed {seed}'
        options = self._evaluation_options(evaluation, row, fraction, seed, split)
        common = dict(config=evaluation.config, seed=seed)
        training = dict(
            common,
            kind='train',
            weights=pretrained or row.checkpoint,
            weights_options=row.weights_options,
            epoch=row.epoch,
        )
        start = (pretrained,) if pretrained else ()
        title_of = f'train {evaluation.trained_title or evaluation.title}, {title}'
        train_name = f'train-{evaluation.last_of or evaluation.name}-{name}'
        trained = tuple(
            self._add(
                train_name,
                needs=start,
                title=title_of + _spoken(tried),
                options={**options, **tried},
                monitor=evaluation.monitor,
                **training,
            )
            for tried in evaluation.search or ({},)
        )
        choices = tuple(zip(trained, evaluation.search))
        if evaluation.refit is not None:
            refit = self._add(
                train_name,
                needs=(*start, *trained),
                title=f'{title_of}, with what was chosen',
                options={**options, **evaluation.refit},
                choices=choices,
                **training,
            )
            trained, choices = (refit,), ()
        return self._add(
            f'test-{evaluation.name}-{name}',
            kind='test',
            needs=trained,
            title=f'test {evaluation.title}, {title}',
            last=evaluation.last_of is not None,
            options=options,
            choices=choices,
            **common,
        )


def _keeps_best(settings: dict) -> bool:
    hook = (settings.get('default_hooks') or {}).get('checkpoint') or {}
    return bool(settings.get('val_cfg') is not None and hook.get('save_best'))


def _spoken(options: Mapping[str, Any]) -> str:
    """Settings of a search for a title: ' (lr 0.1, weight_decay 0)'."""
    shown = [f'{k.rpartition(".")[2]} {v:g}' for k, v in options.items()]
    return f' ({", ".join(shown)})' if shown else ''


def _file_name(split: str) -> str:
    # A split may also be the path of its file.
    return Path(split).name.removesuffix('.json')
