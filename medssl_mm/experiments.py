"""Result tables from a YAML file: which runs they need, and running them.

A table has rows (initial weights: a pretraining config, a checkpoint, or
neither for random initialisation), evaluations (segmentation or
classification configs), seeds and label fractions. Every combination becomes
up to three steps: pretrain, train, test. The folder of a step carries a hash
of its resolved config and of the steps it builds on, so a changed setting
never meets old results, and tables that share a step share its folder. An
evaluation with ``last_of: NAME`` instead of a config tests the last weights
of the models that evaluation NAME trains, instead of the best on validation.

Cross-validation (``splits: [NAME, ...]``): each seed does all steps on every
split, the pretraining too, and the test cases of the splits are pooled, so
that each patient is scored once per seed by a model that never saw it.
"""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from medssl_mm import cores
from medssl_mm.errors import UserError
from medssl_mm.files import locked, write_json
from medssl_mm.results import Run, pool_results

DONE = 'done.json'
POLL = 2  # seconds between looks at what another process is busy with
_TABLE_KEYS = {
    'name',
    'title',
    'runs_dir',
    'baseline',
    'seeds',
    'fractions',
    'processes',
    'amp',
    'rows',
    'evaluations',
    'weights_option',
    'fraction_options',
    'splits',
    'split_options',
    'validation',
    'note',
}
_ROW_KEYS = {
    'name',
    'title',
    'pretrain',
    'checkpoint',
    'options',
    'evaluation_options',
    'evaluations',
}
_EVALUATION_KEYS = {'name', 'title', 'config', 'options', 'last_of'}
_SPLIT_OPTIONS = {
    'pretrain': ('train_dataloader.dataset.split',),
    'evaluation': tuple(
        f'{loader}_dataloader.dataset.split' for loader in ('train', 'val', 'test')
    ),
}
_NO_VALIDATION = {
    'val_cfg': None,
    'val_dataloader': None,
    'val_evaluator': None,
    'default_hooks.checkpoint.save_best': None,
}


@dataclass(frozen=True)
class Row:
    """Initial weights of a table row.

    Args:
        name (str): Short name, used in folder names.
        title (str): Name in the table.
        pretrain (str, optional): Pretraining config.
        checkpoint (str, optional): Weights that exist already.
        options (dict): Settings changed in the pretraining config.
        evaluation_options (dict): Settings changed in the evaluation configs,
            after their own options.
        evaluations (tuple[str], optional): Names of the evaluations that the
            row has; None = all.
    """

    name: str
    title: str
    pretrain: str | None
    checkpoint: str | None
    options: dict
    evaluation_options: dict
    evaluations: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationConfig:
    """One way to evaluate initial weights.

    Args:
        name (str): Short name, used in folder names.
        title (str): Name in the table.
        config (str): Segmentation or classification config.
        options (dict): Settings changed in it.
        last_of (str, optional): Name of the evaluation whose trained models
            are tested with their last weights instead of the best ones on
            validation. Defaults to None.
    """

    name: str
    title: str
    config: str
    options: dict
    last_of: str | None = None


@dataclass(frozen=True)
class Table:
    """A result table as the YAML file describes it.

    Args:
        name (str): Name of the file and the folder of its results.
        title (str): Heading.
        baseline (str, optional): Name of the row the others are compared
            with.
        seeds (tuple[int]): Seeds; each pretrains, trains and evaluates anew.
        fractions (tuple[float]): Shares of the training patients, 0-1.
        processes (int): Processes per step; 0 starts tools/train.py without
            a launcher.
        amp (str, optional): Mixed precision of the training steps,
            'bfloat16' or 'float16'.
        rows (tuple[Row]): Initial weights.
        evaluations (tuple[EvaluationConfig]): Evaluations.
        runs_dir (Path): Folder of the steps.
        weights_option (str): Config key that takes the checkpoint.
        fraction_options (tuple[str]): Config keys that take the label
            fraction and the seed of its choice.
        note (str): Sentence shown below the table.
        splits (tuple[str]): Splits of a cross-validation. Defaults to (),
            which leaves the split to the configs.
        split_options (dict[str, tuple[str]]): Config keys that take the
            split, of 'pretrain' and of 'evaluation' configs. Defaults to the
            splits of the data loaders.
        validation (bool): Whether trainings validate and the best checkpoint
            is tested. False, for splits without a validation subset, tests
            the last one. Defaults to True.
    """

    name: str
    title: str
    baseline: str | None
    seeds: tuple[int, ...]
    fractions: tuple[float, ...]
    processes: int
    amp: str | None
    rows: tuple[Row, ...]
    evaluations: tuple[EvaluationConfig, ...]
    runs_dir: Path
    weights_option: str
    fraction_options: tuple[str, str]
    note: str
    splits: tuple[str, ...] = ()
    split_options: dict = field(default_factory=lambda: dict(_SPLIT_OPTIONS))
    validation: bool = True


@dataclass(frozen=True)
class Step:
    """One command of a table.

    Args:
        key (str): Unique folder name, with the hash.
        kind (str): 'pretrain', 'train' or 'test'.
        folder (Path): Where it writes.
        config (str): Config file.
        options (dict): Settings changed in it, without those that name files
            of earlier steps.
        needs (tuple[str]): Keys of the steps that come first.
        seed (int): Random seed.
        weights (str, optional): Key of the pretraining step, or a file.
        title (str): Name on screen.
        last (bool): Of a test: of the last weights, whatever validation says.
            Defaults to False.
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
    last: bool = False

    @property
    def done(self) -> bool:
        """Whether the step was finished."""
        return (self.folder / DONE).exists()


def _check_keys(entry, known: set, needed: set, where: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(f'{where}: expected key: value lines, got {entry!r}')
    unknown, missing = sorted(set(entry) - known), sorted(needed - set(entry))
    if unknown or missing:
        raise UserError(
            f'{where}: unknown keys {unknown}, missing keys {missing}; known '
            f'are {sorted(known)}'
        )


def _evaluation(
    entry, earlier: Sequence[EvaluationConfig], path: Path
) -> EvaluationConfig:
    where = f'{path}, evaluations'
    own = not isinstance(entry, dict) or 'last_of' not in entry
    _check_keys(entry, _EVALUATION_KEYS, {'name', 'config'} if own else {'name'}, where)
    name = str(entry['name'])
    title = str(entry.get('title', name))
    if own:
        return EvaluationConfig(
            name=name,
            title=title,
            config=str(entry['config']),
            options=dict(entry.get('options') or {}),
        )
    if 'config' in entry or 'options' in entry:
        raise UserError(
            f'{where}, {name}: give config and options, or '
            'last_of, whose config and options hold'
        )
    for other in earlier:
        if other.name == entry['last_of'] and other.last_of is None:
            return replace(other, name=name, title=title, last_of=other.name)
    raise UserError(
        f'{where}, {name}: no evaluation above is called '
        f'{entry["last_of"]!r} and trains'
    )


def load_table(path: str | Path) -> Table:
    """Read and check a table file.

    Raises:
        UserError: Says what is wrong where.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(f'table {path} does not exist') from error
    except yaml.YAMLError as error:
        raise UserError(f'table {path} is not YAML: {error}') from error
    _check_keys(content, _TABLE_KEYS, {'rows', 'evaluations'}, str(path))
    rows, evaluations = [], []
    for entry in content['rows']:
        where = (
            f'{path}, row {entry.get("name", entry)}'
            if isinstance(entry, dict)
            else f'{path}, rows'
        )
        _check_keys(entry, _ROW_KEYS, {'name'}, where)
        if entry.get('pretrain') and entry.get('checkpoint'):
            raise UserError(f'{where}: give pretrain or checkpoint, not both')
        rows.append(
            Row(
                name=str(entry['name']),
                title=str(entry.get('title', entry['name'])),
                pretrain=entry.get('pretrain'),
                checkpoint=entry.get('checkpoint'),
                options=dict(entry.get('options') or {}),
                evaluation_options=dict(entry.get('evaluation_options') or {}),
                evaluations=None
                if entry.get('evaluations') is None
                else tuple(entry['evaluations']),
            )
        )
    for entry in content['evaluations']:
        evaluations.append(_evaluation(entry, evaluations, path))
    for kind, entries in (('rows', rows), ('evaluations', evaluations)):
        for attribute in ('name', 'title'):
            names = [getattr(entry, attribute) for entry in entries]
            if len(set(names)) < len(names):
                raise UserError(
                    f'{path}: two {kind} have the same {attribute}; every '
                    'one needs its own'
                )
    known = [evaluation.name for evaluation in evaluations]
    for row in rows:
        unknown = set(row.evaluations or ()) - set(known)
        if unknown:
            raise UserError(
                f'{path}, row {row.name}: no evaluation is called '
                f'{", ".join(sorted(unknown))}; there are {known}'
            )
    baseline = content.get('baseline')
    if baseline is not None and baseline not in [row.name for row in rows]:
        raise UserError(
            f'{path}: baseline {baseline!r} is no row; rows are '
            f'{[row.name for row in rows]}'
        )
    fractions = tuple(float(f) for f in content.get('fractions') or [1.0])
    if not all(0 < fraction <= 1 for fraction in fractions):
        raise UserError(
            f'{path}: fractions are shares above 0 and up to 1, got {list(fractions)}'
        )
    seeds = tuple(content.get('seeds') or [0])
    if not all(isinstance(seed, int) for seed in seeds):
        raise UserError(f'{path}: seeds are whole numbers, got {list(seeds)}')
    processes = content.get('processes', 1)
    if not isinstance(processes, int) or processes < 0:
        raise UserError(f'{path}: processes must be 0 or more, got {processes!r}')
    amp = content.get('amp')
    if amp not in (None, 'bfloat16', 'float16'):
        raise UserError(
            f'{path}: amp must be bfloat16 or float16, or be left out, got {amp!r}'
        )
    splits, split_options = _read_splits(content, path)
    validation = content.get('validation', True)
    if not isinstance(validation, bool):
        raise UserError(f'{path}: validation must be true or false, got {validation!r}')
    return Table(
        name=str(content.get('name', path.stem)),
        title=str(content.get('title', path.stem)),
        baseline=baseline,
        seeds=seeds,
        fractions=fractions,
        processes=processes,
        amp=amp,
        rows=tuple(rows),
        evaluations=tuple(evaluations),
        runs_dir=Path(content.get('runs_dir', 'work_dirs/tables/runs')),
        weights_option=str(
            content.get('weights_option', 'model.backbone.init_cfg.checkpoint')
        ),
        fraction_options=tuple(
            content.get('fraction_options')
            or (
                'train_dataloader.dataset.fraction',
                'train_dataloader.dataset.fraction_seed',
            )
        ),
        note=str(content.get('note', '')),
        splits=splits,
        split_options=split_options,
        validation=validation,
    )


def _read_splits(content: dict, path: Path) -> tuple[tuple, dict]:
    splits = content.get('splits') or []
    if not (
        isinstance(splits, list)
        and all(isinstance(name, str) for name in splits)
        and len(set(splits)) == len(splits)
    ):
        raise UserError(
            f'{path}: splits is a list of different split names, got {splits!r}'
        )
    given = content.get('split_options') or {}
    _check_keys(given, set(_SPLIT_OPTIONS), set(), f'{path}, split_options')
    for kind, keys in given.items():
        if not (
            isinstance(keys, list)
            and keys
            and all(isinstance(key, str) for key in keys)
        ):
            raise UserError(
                f'{path}, split_options: {kind} is a list of config keys '
                f'such as {list(_SPLIT_OPTIONS["pretrain"])}, got {keys!r}'
            )
    return tuple(splits), {
        kind: tuple(given.get(kind, keys)) for kind, keys in _SPLIT_OPTIONS.items()
    }


def select(
    table: Table,
    rows: Sequence[str] | None = None,
    evaluations: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    fractions: Sequence[float] | None = None,
    splits: Sequence[str] | None = None,
    baseline: str | None = None,
) -> Table:
    """Keep part of a table.

    Args:
        table (Table): Full table.
        rows (Sequence[str], optional): Names of rows. Defaults to all.
        evaluations (Sequence[str], optional): Names. Defaults to all.
        seeds (Sequence[int], optional): Seeds. Defaults to all.
        fractions (Sequence[float], optional): Fractions. Defaults to all.
        splits (Sequence[str], optional): Splits of the cross-validation.
            Defaults to all.
        baseline (str, optional): Name of the row the others are compared
            with. Defaults to that of the table.

    Raises:
        UserError: When a name is not in the table, or the baseline is not
            among the rows that are kept.
    """
    for kind, wanted, known in (
        (
            'baseline',
            [baseline] if baseline else None,
            [row.name for row in table.rows if rows is None or row.name in rows],
        ),
        ('row', rows, [row.name for row in table.rows]),
        ('evaluation', evaluations, [e.name for e in table.evaluations]),
        ('split', splits, list(table.splits)),
    ):
        unknown = sorted(set(wanted or ()) - set(known))
        if unknown:
            raise UserError(
                f'no {kind} {unknown} in table {table.name}; there are {known}'
            )
    return replace(
        table,
        baseline=baseline or table.baseline,
        rows=tuple(row for row in table.rows if rows is None or row.name in rows),
        evaluations=tuple(
            e for e in table.evaluations if evaluations is None or e.name in evaluations
        ),
        seeds=table.seeds if seeds is None else tuple(seeds),
        fractions=table.fractions if fractions is None else tuple(fractions),
        splits=tuple(name for name in table.splits if splits is None or name in splits),
    )


def resolved_config(config: str, options: dict) -> dict:
    """Read a config with options applied, as the hash of a step sees it."""
    import medssl_mm.registry  # noqa: F401  (the config prefixes of hosts)
    from medssl_mm.engine import launch

    content = launch.load_config(config, options)
    content.pop('work_dir', None)
    if content.get('default_scope') == 'mmselfsup':
        # Says nothing that the loaders do not say, and was not in the hashes
        # of the pretrainings that are finished.
        content.pop('slices', None)
        content.pop('images', None)
    return content.to_dict()


def _digest(*content) -> str:
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _check_split(config: str, settings: dict, split: str) -> None:
    """Refuse a config that reads another split besides: it could leak."""

    def walk(place, where):
        if isinstance(place, dict):
            children = place.items()
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


def _options_of(table: Table, kind: str, options: dict, split: str | None) -> dict:
    """Options of a row ('pretrain') or evaluation, and those of the table."""
    options = dict(options)
    keys = table.split_options[kind] if split is not None else ()
    if kind == 'evaluation' and not table.validation:
        options.update(_NO_VALIDATION)
        keys = [key for key in keys if not key.startswith('val_dataloader.')]
    options.update({key: split for key in keys})
    return options


def plan(
    table: Table, resolve: Callable[[str, dict], dict] = resolved_config
) -> tuple[dict[str, Step], list[tuple[Run, list[tuple[str, ...]]]]]:
    """Work out the steps of a table.

    Args:
        table (Table): What is wanted.
        resolve (Callable): Turns a config and options into the settings that
            the hash covers. Defaults to :func:`resolved_config`.

    Returns:
        tuple: Steps by key, in an order that can be run; and per table row
        its :class:`Run` and, for every seed, the keys of its test steps: one,
        or one of each split.

    Raises:
        UserError: When a config reads another split than that of the table.
    """
    steps, results, resolved = {}, [], {}

    def settings(config, options):
        known = _digest(config, options)
        if known not in resolved:
            resolved[known] = resolve(config, options)
        return resolved[known]

    def add(kind, name, config, options, needs, seed, weights, title, last=False):
        # The processes are part of it: they change the global batch.
        key = f'{name}-' + _digest(
            kind,
            settings(config, options),
            list(needs),
            seed,
            weights,
            (table.processes, table.amp) if kind != 'test' else None,
        )
        steps.setdefault(
            key,
            Step(
                key=key,
                kind=kind,
                folder=table.runs_dir / key,
                config=config,
                options=options,
                needs=tuple(needs),
                seed=seed,
                weights=weights,
                title=title,
                last=last,
            ),
        )
        return key

    def add_test(evaluation, row, fraction, seed, split):
        place = '' if split is None else f'{_file_name(split)}-'
        spoken = '' if split is None else f'{split}, '
        weights, needs = row.checkpoint, []
        if row.pretrain:
            options = _options_of(table, 'pretrain', row.options, split)
            if split is not None:
                _check_split(row.pretrain, settings(row.pretrain, options), split)
            weights = add(
                'pretrain',
                f'pretrain-{row.name}-{place}seed{seed}',
                row.pretrain,
                options,
                (),
                seed,
                None,
                f'pretrain {row.title}, {spoken}seed {seed}',
            )
            needs = [weights]
        options = _options_of(
            table, 'evaluation', {**evaluation.options, **row.evaluation_options}, split
        )
        if fraction != 1:
            share, share_seed = table.fraction_options
            options.update({share: fraction, share_seed: seed})
        if split is not None:
            content = settings(evaluation.config, options)
            _check_split(evaluation.config, content, split)
            _check_poolable(table, evaluation.config, content)
        name = f'{row.name}-{100 * fraction:g}pct-{place}seed{seed}'
        title = f'{row.title}, {100 * fraction:g} % labels, {spoken}seed {seed}'
        trained = evaluation.last_of or evaluation.name
        train = add(
            'train',
            f'train-{trained}-{name}',
            evaluation.config,
            options,
            needs,
            seed,
            weights,
            f'train {evaluation.last_of or evaluation.title}, {title}',
        )
        return add(
            'test',
            f'test-{evaluation.name}-{name}',
            evaluation.config,
            options,
            [train],
            seed,
            None,
            f'test {evaluation.title}, {title}',
            evaluation.last_of is not None,
        )

    for evaluation in table.evaluations:
        for fraction in table.fractions:
            for row in table.rows:
                if row.evaluations and evaluation.name not in row.evaluations:
                    continue
                tests, folders = [], []
                for seed in table.seeds:
                    keys = tuple(
                        add_test(evaluation, row, fraction, seed, split)
                        for split in table.splits or (None,)
                    )
                    tests.append(keys)
                    folders.append(
                        steps[keys[0]].folder
                        if len(keys) == 1
                        else table.runs_dir
                        / (
                            f'pooled-{evaluation.name}-{row.name}-'
                            f'{100 * fraction:g}pct-seed{seed}-'
                            f'{_digest(keys)}'
                        )
                    )
                results.append(
                    (
                        Run(
                            group=evaluation.title,
                            label=row.title,
                            fraction=fraction,
                            folders=tuple(folders),
                        ),
                        tests,
                    )
                )
    order = {'pretrain': 0, 'train': 1, 'test': 2}
    ordered = sorted(steps.values(), key=lambda step: order[step.kind])
    return {step.key: step for step in ordered}, results


def _file_name(split: str) -> str:
    # A split may also be the path of its file.
    return Path(split).name.removesuffix('.json')


def last_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that a training run wrote last."""
    pointer = folder / 'last_checkpoint'
    if not pointer.exists():
        return None
    path = Path(pointer.read_text(encoding='utf-8').strip())
    # The folder may have been moved since: the name is what counts.
    for candidate in (path, folder / path.name):
        if candidate.exists():
            return candidate
    return None


def best_checkpoint(folder: Path) -> Path | None:
    """Find the checkpoint that validation chose; None without validation."""
    found = sorted(folder.glob('best_*.pth'), key=lambda p: p.stat().st_mtime)
    return found[-1] if found else None


def drop_superseded(folder: Path) -> list[Path]:
    """Delete the checkpoints of a finished training that no step reads.

    The last one and the best one stay.

    Args:
        folder (Path): Working folder of the training.

    Returns:
        list[Path]: What was deleted; nothing when the last one is unknown.
    """
    last = last_checkpoint(folder)
    if last is None:
        return []
    kept = {last.name, getattr(best_checkpoint(folder), 'name', None)}
    superseded = sorted(
        path
        for pattern in ('epoch_*.pth', 'iter_*.pth', 'best_*.pth')
        for path in folder.glob(pattern)
        if path.name not in kept
    )
    for path in superseded:
        path.unlink()
    return superseded


def chosen_checkpoint(step: Step, table: Table) -> Path | None:
    """Find the checkpoint of a training step that later steps start from."""
    best = None
    if table.validation or step.kind == 'pretrain':
        best = best_checkpoint(step.folder)
    return best or last_checkpoint(step.folder)


def _checkpoint_for(step: Step, needed: Step, table: Table) -> Path | None:
    return (
        last_checkpoint(needed.folder)
        if step.last
        else chosen_checkpoint(needed, table)
    )


def tools_folder() -> Path:
    """Find the tools: beside the package, or in it when installed."""
    package = Path(__file__).resolve().parent
    for folder in (package.parent / 'tools', package / '.mim' / 'tools'):
        if (folder / 'train.py').exists():
            return folder
    raise UserError(
        f'the tools are neither in {package.parent} nor in {package}/.mim; '
        'install the package again'
    )


def command_of(step: Step, table: Table, steps: dict[str, Step]) -> list[str]:
    """Write the command line of a step.

    Checkpoints of earlier steps appear as ``<key>`` until these are finished.
    """
    tools = tools_folder()

    def checkpoint_of(key):
        return str(_checkpoint_for(step, steps[key], table) or f'<{key}>')

    options = dict(step.options)
    arguments = []
    if step.kind == 'test':
        arguments.append(checkpoint_of(step.needs[0]))
        options['test_evaluator.out_dir'] = str(step.folder)
    else:
        arguments += ['--resume', '--seed', str(step.seed)]
        if table.amp:
            arguments += ['--amp', table.amp]
        if step.kind == 'train' and step.weights:
            options[table.weights_option] = (
                checkpoint_of(step.weights) if step.weights in steps else step.weights
            )
    arguments += ['--work-dir', str(step.folder)]
    if options:
        arguments.append('--cfg-options')
        arguments += [f'{key}={_literal(value)}' for key, value in options.items()]
    name = 'test' if step.kind == 'test' else 'train'
    if table.processes:
        start = ['bash', str(tools / f'dist_{name}.sh'), step.config]
        if name == 'test':  # dist_test.sh CONFIG CHECKPOINT N
            start += [arguments.pop(0), str(table.processes)]
        else:
            start.append(str(table.processes))
    else:
        start = [sys.executable, str(tools / f'{name}.py'), step.config]
    return start + arguments


def _literal(value) -> str:
    return value if isinstance(value, str) else repr(value)


class StepRunner:
    """Starts the processes of steps, and ends them.

    Args:
        table (Table): The table.
        steps (dict[str, Step]): From :func:`plan`.
        keep_checkpoints (bool): Whether all checkpoints of a finished
            training stay, not only the last and the best. Defaults to False.
    """

    def __init__(
        self, table: Table, steps: dict[str, Step], keep_checkpoints: bool = False
    ) -> None:
        self.table = table
        self.steps = steps
        self.keep_checkpoints = keep_checkpoints
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False
        self._change = threading.Lock()

    def __call__(
        self, step: Step, environment: dict[str, str], begun: Callable[[Path], None]
    ) -> bool:
        """Run one step; its output goes to ``run.log`` in its folder.

        Args:
            step (Step): The step.
            environment (dict[str, str]): Added to that of this process.
            begun (Callable): Takes the log's path when the step starts.

        Returns:
            bool: Whether it is done now; False while another process is at it.

        Raises:
            UserError: When it fails, with the end of the log.
        """
        with locked(step.folder) as lock:
            if lock is None:
                return False
            if not step.done:
                self._run(step, environment, lock, begun)
        return True

    def stop(self) -> None:
        """End what runs, and start nothing more."""
        with self._change:
            self._stopped = True
            for process in self._processes:
                process.terminate()

    def _execute(self, command, environment, lock, output) -> int:
        with self._change:
            if self._stopped:
                return -signal.SIGTERM
            # The step holds the lock as well: it may outlive this process.
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                pass_fds=[lock],
                env={'PYTHON': sys.executable, **os.environ, **environment},
            )
            self._processes.add(process)
        try:
            return process.wait()
        finally:
            with self._change:
                self._processes.discard(process)

    def _run(self, step, environment, lock, begun) -> None:
        _check_needed(step, self.table, self.steps)
        command = command_of(step, self.table, self.steps)
        log = step.folder / 'run.log'
        begun(log)
        started = time.monotonic()
        with log.open('a', encoding='utf-8') as output:
            output.write(f'$ {shlex.join(command)}\n')
            output.flush()
            code = self._execute(command, environment, lock, output)
        if step.kind == 'test':
            finished = (step.folder / 'metrics.json').exists()
        else:
            finished = last_checkpoint(step.folder) is not None
        if code or not finished:
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
            raise UserError(
                f'{step.title} failed with exit code {code}; run the table '
                f'again to resume it. End of {log}:\n  ' + '\n  '.join(lines[-12:])
            )
        write_json(
            step.folder / DONE,
            dict(
                key=step.key,
                title=step.title,
                command=command,
                seconds=round(time.monotonic() - started, 1),
            ),
        )
        if not self.keep_checkpoints:
            drop_superseded(step.folder)


def _check_needed(step: Step, table: Table, steps: dict[str, Step]) -> None:
    for needed in map(steps.get, step.needs):
        if _checkpoint_for(step, needed, table) is None:
            raise UserError(
                f'{step.title} needs the weights of "{needed.title}", which '
                f'is finished, but {needed.folder} holds no checkpoint any '
                f'more; put it back, or delete {needed.folder / DONE} and '
                'run the table again to train it anew'
            )


@contextmanager
def _ended_like_an_interrupt() -> Iterator[None]:
    # A plain SIGTERM would leave the processes of the steps behind.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def run_steps(
    table: Table,
    steps: dict[str, Step],
    jobs: int = 1,
    devices: Sequence[str] = (),
    report: Callable[[str], None] = print,
    keep_checkpoints: bool = False,
) -> list[str]:
    """Run what is not finished, each step after those it needs.

    Steps that another process runs are left to it, so that several processes
    share the work. Ctrl-C and SIGTERM end the steps; after SIGKILL they go on,
    and the next process waits for them.

    Args:
        table (Table): The table.
        steps (dict[str, Step]): From :func:`plan`.
        jobs (int): Steps that run at the same time; they share the cores
            (:func:`medssl_mm.cores.job_environment`). Defaults to 1.
        devices (Sequence[str]): Per job the GPUs it may see, e.g. '0,1'.
            Defaults to (), which leaves the environment alone.
        report (Callable): Takes a line for the screen. Defaults to print.
        keep_checkpoints (bool): Whether all checkpoints of the trainings that
            end now stay, not only the last and the best. Defaults to False.

    Returns:
        list[str]: Messages of the steps that failed; steps that need them
        are left out, all others run.
    """
    waiting = [step for step in steps.values() if not step.done]
    finished = {step.key for step in steps.values() if step.done}
    total, errors, running, free = len(steps), [], {}, list(range(jobs))
    failed, elsewhere, told = set(), [], set()
    report(f'{total} steps, {len(finished)} finished before')
    run_step = StepRunner(table, steps, keep_checkpoints)

    def start(pool, step):
        slot = free.pop()
        environment = cores.job_environment(jobs, slot, table.processes)
        if devices:
            environment['CUDA_VISIBLE_DEVICES'] = devices[slot % len(devices)]
        number = len(finished) + len(failed) + len(running) + 1
        future = pool.submit(
            run_step,
            step,
            environment,
            lambda log: report(f'[{number}/{total}] {step.title} (log: {log})'),
        )
        running[future] = (step, slot, time.monotonic())

    def end(future):
        step, slot, started = running.pop(future)
        free.append(slot)
        error = future.exception()
        seconds = time.monotonic() - started
        if error is None and not future.result():
            elsewhere.append(step)
            if step.key not in told:
                told.add(step.key)
                report(f'  another process is at it: {step.title}')
        elif error is None:
            finished.add(step.key)
            report(f'  done in {seconds:.0f} s: {step.title}')
        elif isinstance(error, (UserError, OSError)):
            failed.add(step.key)
            errors.append(str(error))
            report(f'  FAILED after {seconds:.0f} s: {step.title}')
        else:
            raise error

    with _ended_like_an_interrupt(), ThreadPoolExecutor(jobs) as pool:
        try:
            while True:
                for step in list(waiting):
                    if set(step.needs) & failed:
                        failed.add(step.key)
                        waiting.remove(step)
                    elif free and set(step.needs) <= finished:
                        waiting.remove(step)
                        start(pool, step)
                if not running and not elsewhere:
                    break
                if running:
                    before = len(finished) + len(failed)
                    ended = wait(
                        running,
                        POLL if elsewhere and free else None,
                        return_when=FIRST_COMPLETED,
                    ).done
                    for future in ended:
                        end(future)
                    again = not ended or before < len(finished) + len(failed)
                else:
                    time.sleep(POLL)
                    again = True
                if again:  # what was busy before may be free now
                    waiting = [*elsewhere, *waiting]
                    elsewhere.clear()
        except BaseException:
            run_step.stop()
            raise
    return errors


def finished_runs(
    results: list[tuple[Run, list[tuple[str, ...]]]], steps: dict[str, Step]
) -> list[Run]:
    """Keep the table rows with at least one finished seed.

    A seed is finished when the tests of all its splits are; these are then
    pooled into the folder of the seed.
    """
    runs = []
    for run, tests in results:
        folders = []
        for folder, keys in zip(run.folders, tests, strict=True):
            if not all(steps[key].done for key in keys):
                continue
            if len(keys) > 1:
                pool_results([steps[key].folder for key in keys], folder)
            folders.append(folder)
        if folders:
            runs.append(replace(run, folders=tuple(folders)))
    return runs
