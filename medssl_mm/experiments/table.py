"""Tables: what their YAML files may say, and what it means.

Every key is checked before anything is planned. A table, a row or an
evaluation may name its data, ``data: curvas``: its config is then put on that
data set, as ``CONFIG.py+curvas`` (see ``configs/README.md``). A store of one's
own is ``data: {data_root: DIR, split: NAME}``. A row with ``epochs:`` becomes a row for
the checkpoint of each of these epochs of its one pretraining.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
)

from medssl_mm.errors import UserError
from medssl_mm.experiments.resources import SlurmSettings
from medssl_mm.files import config_path
from medssl_mm.schema import Entry, Text, read_yaml
from medssl_mm.texts import AT

__all__ = ['EvaluationConfig', 'Row', 'Table', 'load_table', 'select']

#: Config key of a backbone's weights.
WEIGHTS_OPTION = 'model.backbone.init_cfg.checkpoint'
# Seconds without a line after which a step is taken for hanging. Trainings write one
# every few iterations; the fits of a linear probe may take an hour.
SILENCE = 7200.0
SPLIT_OPTIONS = {
    'pretrain': ('train_dataloader.dataset.split',),
    'evaluation': tuple(
        f'{loader}_dataloader.dataset.split' for loader in ('train', 'val', 'test')
    ),
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
        weights_options (tuple[str]): Further config keys of the evaluations that
            take the row's checkpoint, such as that of a pretrained decoder.
            Defaults to ().
        pretraining (str): Name of the pretraining, where several rows share it.
            Defaults to '': that of the row.
        epoch (int, optional): Of the checkpoint of the pretraining that is
            evaluated. Defaults to None: the last, or the best where it validates.
        epochs (tuple[int]): Of all that are, and stay. Defaults to ().
    """

    name: str
    title: str
    pretrain: str | None
    checkpoint: str | None
    options: dict
    evaluation_options: dict
    evaluations: tuple[str, ...] | None = None
    weights_options: tuple[str, ...] = ()
    pretraining: str = ''
    epoch: int | None = None
    epochs: tuple[int, ...] = ()


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
        trained_title (str, optional): Title of that evaluation.
        compared_with (str, optional): Title of the evaluation whose baseline its
            rows are compared with. Defaults to None: its own.
        iterations (int, optional): Length of its training, where the table is to
            show scores against it. Defaults to None.
        search (tuple[dict]): Settings that are tried one after the other; what is
            best on the validation cases is tested. Defaults to (): no search.
        refit (dict, optional): Settings of another training, with those that were
            chosen, which is tested instead. Defaults to None: there is none.
        monitor (str): Score of the validation cases that a search chooses by.
            Defaults to ''.
    """

    name: str
    title: str
    config: str
    options: dict
    last_of: str | None = None
    trained_title: str | None = None
    compared_with: str | None = None
    iterations: int | None = None
    search: tuple[dict, ...] = ()
    refit: dict | None = None
    monitor: str = ''


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
        last_weights_below (float): Shares of the training patients below this are
            trained without validation, and their last weights tested: to choose
            among the weights of few labelled patients by many others is no protocol
            for few labels. Defaults to 0.
        silence (float): Seconds without a new line in its log after which a step
            is ended; 0 waits for ever. Defaults to :data:`SILENCE`.
        slurm (SlurmSettings): What the jobs of its steps ask for.
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
    split_options: dict = field(default_factory=lambda: dict(SPLIT_OPTIONS))
    validation: bool = True
    last_weights_below: float = 0.0
    silence: float = SILENCE
    slurm: SlurmSettings = field(default_factory=SlurmSettings)

    def validates(self, fraction: float) -> bool:
        """Whether trainings with that share of the patients validate."""
        return self.validation and fraction >= self.last_weights_below

    @property
    def choice(self) -> str:
        """Which weights are tested, in words, where it depends on the labels."""
        last = [f'{100 * f:g} %' for f in self.fractions if not self.validates(f)]
        if not self.validation or not last:
            return ''
        return (
            f'With {", ".join(last)} of the labelled training patients the last '
            'weights are tested; with more, the best on the validation patients, who '
            'are labelled as well.'
        )


def _all_different(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError(f'all must be different, got {list(values)}')
    return values


class _OwnData(Entry):
    data_root: StrictStr
    split: StrictStr


# The tags stand in the places that pydantic reports; they begin with '<'.
_Data = Annotated[
    Annotated[StrictStr, Tag('<name>')] | Annotated[_OwnData, Tag('<own>')],
    Discriminator(lambda v: '<own>' if isinstance(v, dict) else '<name>'),
]
_Options = dict[StrictStr, Any]
_Keys = Annotated[tuple[StrictStr, ...], Field(min_length=1)]


_Epoch = Annotated[StrictInt, Field(ge=1)]


class _RowEntry(Entry):
    name: Text
    title: Text | None = None
    pretrain: StrictStr | None = None
    checkpoint: StrictStr | None = None
    epochs: Annotated[tuple[_Epoch, ...], Field(min_length=1)] | None = None
    data: _Data | None = None
    options: _Options | None = None
    evaluation_options: _Options | None = None
    evaluations: tuple[Text, ...] | None = None
    weights_options: tuple[StrictStr, ...] = ()


class _EvaluationEntry(Entry):
    name: Text
    title: Text | None = None
    config: StrictStr | None = None
    data: _Data | None = None
    options: _Options | None = None
    last_of: Text | None = None
    compared_with: Text | None = None
    iterations: Annotated[StrictInt, Field(ge=1)] | None = None


class _SplitOptions(Entry):
    pretrain: _Keys = SPLIT_OPTIONS['pretrain']
    evaluation: _Keys = SPLIT_OPTIONS['evaluation']


class _TableFile(Entry):
    name: Text | None = None
    title: Text | None = None
    runs_dir: StrictStr | None = None
    baseline: Text | None = None
    seeds: tuple[StrictInt, ...] | None = None
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None
    processes: Annotated[StrictInt, Field(ge=0)] = 1
    amp: Literal['bfloat16', 'float16'] | None = None
    rows: tuple[_RowEntry, ...]
    evaluations: tuple[_EvaluationEntry, ...]
    data: _Data | None = None
    weights_option: StrictStr = WEIGHTS_OPTION
    fraction_options: tuple[StrictStr, StrictStr] | None = None
    splits: Annotated[tuple[StrictStr, ...], AfterValidator(_all_different)] | None = (
        None
    )
    split_options: _SplitOptions | None = None
    validation: StrictBool = True
    last_weights_below: Annotated[float, Field(ge=0, le=1)] = 0.0
    silence: NonNegativeFloat = SILENCE
    note: str = ''
    slurm: SlurmSettings = SlurmSettings()


def _on_data(config: str, data: _Data | None) -> tuple[str, dict]:
    """A config on a data set, and the options that this takes."""
    if data is None:
        return config, {}
    if isinstance(data, str):
        return f'{config}+{data}', {}
    return config, data.model_dump()


def load_table(path: str | Path) -> Table:
    """Read and check a table file.

    Raises:
        UserError: Says what is wrong where.
    """
    path = config_path(path)
    content = read_yaml(_TableFile, path, 'table')
    rows = tuple(row for entry in content.rows for row in _rows(entry, content, path))
    evaluations: list[EvaluationConfig] = []
    for entry in content.evaluations:
        evaluations.append(_evaluation(entry, evaluations, content, path))
    _check_names(rows, evaluations, content.baseline, path)
    split_options = content.split_options or _SplitOptions()
    return Table(
        name=content.name or path.stem,
        title=content.title or path.stem,
        baseline=content.baseline,
        seeds=content.seeds or (0,),
        fractions=content.fractions or (1.0,),
        processes=content.processes,
        amp=content.amp,
        rows=rows,
        evaluations=tuple(evaluations),
        runs_dir=Path(content.runs_dir or 'work_dirs/tables/runs'),
        weights_option=content.weights_option,
        fraction_options=content.fraction_options
        or (
            'train_dataloader.dataset.fraction',
            'train_dataloader.dataset.fraction_seed',
        ),
        note=content.note,
        splits=content.splits or (),
        split_options=split_options.model_dump(),
        validation=content.validation,
        last_weights_below=content.last_weights_below,
        silence=content.silence,
        slurm=content.slurm,
    )


def _rows(entry: _RowEntry, table: _TableFile, path: Path) -> list[Row]:
    """The row of an entry, or one for each of several epochs."""
    row = _row(entry, table, path)
    if entry.epochs is None:
        return [row]
    where = f'{path}, row {entry.name}'
    if not row.pretrain:
        raise UserError(f'{where}: epochs are those of pretrain; this row has none')
    kept = {
        'default_hooks.checkpoint.interval': math.gcd(*entry.epochs),
        'default_hooks.checkpoint.max_keep_ckpts': -1,
    }
    return [
        replace(
            row,
            name=f'{row.name}-epoch{epoch}',
            title=f'{row.title}{AT}epoch_{epoch}',
            options={**kept, **row.options},
            pretraining=row.name,
            epoch=epoch,
            epochs=entry.epochs,
        )
        for epoch in sorted(entry.epochs)
    ]


def _row(entry: _RowEntry, table: _TableFile, path: Path) -> Row:
    if entry.pretrain and entry.checkpoint:
        raise UserError(
            f'{path}, row {entry.name}: give pretrain or checkpoint, not both'
        )
    pretrain, options = entry.pretrain, dict[str, Any]()
    if pretrain:
        pretrain, options = _on_data(pretrain, entry.data or table.data)
    elif entry.data:
        raise UserError(
            f'{path}, row {entry.name}: data is what pretrain sees; this row has none'
        )
    return Row(
        name=entry.name,
        title=entry.title or entry.name,
        pretrain=pretrain,
        checkpoint=entry.checkpoint,
        options={**options, **(entry.options or {})},
        evaluation_options=dict(entry.evaluation_options or {}),
        evaluations=entry.evaluations,
        weights_options=entry.weights_options,
    )


def _evaluation(
    entry: _EvaluationEntry,
    earlier: Sequence[EvaluationConfig],
    table: _TableFile,
    path: Path,
) -> EvaluationConfig:
    where = f'{path}, evaluation {entry.name}'
    title = entry.title or entry.name
    compared_with = None
    if entry.compared_with is not None:
        names = {other.name: other.title for other in earlier}
        compared_with = names.get(entry.compared_with)
        if compared_with is None:
            raise UserError(
                f'{where}: compared_with: no evaluation above is called '
                f'{entry.compared_with!r}; there are {list(names)}'
            )
    if entry.last_of is None:
        if entry.config is None:
            raise UserError(f'{where}: config is missing (or last_of)')
        config, options = _on_data(entry.config, entry.data or table.data)
        return EvaluationConfig(
            name=entry.name,
            title=title,
            config=config,
            options={**options, **(entry.options or {})},
            compared_with=compared_with,
            iterations=entry.iterations,
        )
    if entry.config or entry.options or entry.data:
        raise UserError(
            f'{where}: give config, data and options, or last_of, whose config, '
            'data and options hold'
        )
    for other in earlier:
        if other.name == entry.last_of and other.last_of is None:
            return replace(
                other,
                name=entry.name,
                title=title,
                last_of=other.name,
                trained_title=other.title,
                compared_with=compared_with,
                iterations=entry.iterations or other.iterations,
            )
    raise UserError(
        f'{where}: no evaluation above is called {entry.last_of!r} and trains'
    )


def _check_names(
    rows: Sequence[Row],
    evaluations: Sequence[EvaluationConfig],
    baseline: str | None,
    path: Path,
) -> None:
    for kind, entries in (('rows', rows), ('evaluations', evaluations)):
        for attribute in ('name', 'title'):
            names = [getattr(entry, attribute) for entry in entries]
            if len(set(names)) < len(names):
                raise UserError(
                    f'{path}: two {kind} have the same {attribute}; every one '
                    'needs its own'
                )
    known = [evaluation.name for evaluation in evaluations]
    for row in rows:
        unknown = set(row.evaluations or ()) - set(known)
        if unknown:
            raise UserError(
                f'{path}, row {row.name}: no evaluation is called '
                f'{", ".join(sorted(unknown))}; there are {known}'
            )
    if baseline is not None and baseline not in [row.name for row in rows]:
        raise UserError(
            f'{path}: baseline {baseline!r} is no row; rows are '
            f'{[row.name for row in rows]}'
        )


def _names_of(rows: Sequence[Row]) -> list[str]:
    """What rows, or several of one pretraining, are called."""
    names = [name for row in rows for name in (row.pretraining, row.name) if name]
    return list(dict.fromkeys(names))


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
        table: Full table.
        rows: Names of rows. Defaults to all.
        evaluations: Names. Defaults to all.
        seeds: Seeds. Defaults to all.
        fractions: Fractions. Defaults to all.
        splits: Splits of the cross-validation. Defaults to all.
        baseline: Name of the row the others are compared with. Defaults to that
            of the table.

    Raises:
        UserError: When a name is not in the table, or the baseline is not
            among the rows that are kept.
    """
    kept = tuple(
        row
        for row in table.rows
        if rows is None or row.name in rows or row.pretraining in rows
    )
    for kind, wanted, known in (
        ('row', rows, _names_of(table.rows)),
        ('baseline', [baseline] if baseline else None, [row.name for row in kept]),
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
        rows=kept,
        evaluations=tuple(
            e for e in table.evaluations if evaluations is None or e.name in evaluations
        ),
        seeds=table.seeds if seeds is None else tuple(seeds),
        fractions=table.fractions if fractions is None else tuple(fractions),
        splits=tuple(name for name in table.splits if splits is None or name in splits),
    )
