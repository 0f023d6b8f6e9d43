"""Transfer tables: which steps they need, and the results that are there.

Frozen protocols of one encoder on one data set are one step, see
:mod:`medssl_mm.experiments.frozen`; fine-tuning is the training and the test of
any table. The folder of a step carries a hash of the encoder with its weights,
of the images and labels, and of the split; the file of a protocol one of its
settings. So a change meets no old result, and tables share what is the same.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import medssl_mm.registry  # noqa: F401  (the config prefixes of hosts)
from medssl_mm.analysis.transfer import ACCURACY, AUROC, PER_CLASS, transfer_scores
from medssl_mm.datasets.image_sets import IMAGE_SETS, common_pictures
from medssl_mm.encoders import (
    EncoderSource,
    compared_encoder,
    parse_source,
    seen_by,
    weights_digest,
)
from medssl_mm.errors import UserError
from medssl_mm.files import shipped, write_json
from medssl_mm.provenance import sentences
from medssl_mm.results import read_metrics, read_predictions
from medssl_mm.statistics import few_patients

from .frozen import result_head, scores_of, task_name
from .plan import NO_VALIDATION, Step, plan, resolved_config
from .search import choose
from .table import EvaluationConfig, Row, Table
from .transfer_data import PlannedDataset, digest_of, plan_dataset
from .transfer_table import (
    COMPAT,
    DECAY,
    FEW_SHOT,
    FINETUNE,
    LINEAR,
    RATE,
    STRICT,
    EncoderEntry,
    Protocol,
    TransferTable,
)

# Raised whenever the way to measure changes, so that results of before are
# computed again.
FORMATS = {STRICT: 2, COMPAT: 3}
FINETUNE_CONFIG = Path('classification', 'encoder', 'finetune_encoder.py')
# Iterations of a linear fit in the published comparison.
COMPAT_ITERATIONS = 100


# What the log of a validation calls the scores that weights are chosen by.
_LOGGED = {
    ACCURACY: 'classification/accuracy',
    PER_CLASS: 'classification/macro_recall',
    AUROC: 'classification/macro_AUROC',
}


@dataclass(frozen=True, eq=False)
class PlannedEncoder:
    """An encoder of a table, with what is known of it.

    Args:
        entry (EncoderEntry): What the table says.
        text (str): What names it: that of the entry, or in mode 'compat' what
            stands for it.
        source (EncoderSource): What that is.
        digest (str): Of the weights; '' of random ones.
        rule (str): What mode 'compat' does with it, in words; '' for nothing.
        recorded (tuple[str]): Known image sets that its file says it was trained
            on.
    """

    entry: EncoderEntry
    text: str
    source: EncoderSource
    digest: str
    rule: str = ''
    recorded: tuple[str, ...] = ()

    @property
    def declared(self) -> tuple[str, ...]:
        """Image sets that the table, or the encoder, says it was trained on."""
        own = self.entry.trained_on
        if own is None and self.digest:  # random weights have learnt nothing
            own = self.source.settings.trained_on
        return tuple(own or ())

    @property
    def facts(self) -> dict:
        """For results, plain data."""
        entry, known = self.entry, self.source.settings

        def chosen(name: str) -> Any:
            own = getattr(entry, name)
            # Random weights have learnt nothing.
            default = None if not self.digest else getattr(known, name)
            return default if own is None else own

        title = entry.title or known.title
        return dict(
            name=entry.name,
            title=title if self.digest or entry.title else f'{title}, random',
            group=(chosen('group') or '') if self.digest else 'random',
            imagenet_top1=chosen('imagenet_top1'),
            trained_on=list(dict.fromkeys((*self.declared, *self.recorded))),
            source=self.text,
            digest=self.digest,
            rule=self.rule,
        )


@dataclass(frozen=True, eq=False)
class Cell:
    """A result of a table: one encoder, data set, protocol and seed.

    Args:
        encoder (PlannedEncoder): The row.
        dataset (PlannedDataset): The column.
        protocol (Protocol): The table.
        seed (int): Of random weights, or of fine-tuning.
        step (Step): That makes it.
        path (Path): Its file; of fine-tuning, the folder of the test.
    """

    encoder: PlannedEncoder
    dataset: PlannedDataset
    protocol: Protocol
    seed: int
    step: Step
    path: Path

    @property
    def done(self) -> bool:
        """Whether it is there."""
        return self.step.done if self.protocol.kind == FINETUNE else self.path.exists()


@dataclass(frozen=True, eq=False)
class TransferPlan:
    """What a table needs.

    Args:
        table (TransferTable): The table.
        steps (dict[str, Step]): In an order that can be run.
        cells (list[Cell]): Results.
        engine (Table): What the steps of fine-tuning are run with.
        tasks (dict[str, dict]): Of the frozen steps, by key.
        notes (list[str]): What was left out, and why.
    """

    table: TransferTable
    steps: dict[str, Step]
    cells: list[Cell]
    engine: Table
    tasks: dict[str, dict] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def write_tasks(self) -> None:
        """Write what the frozen steps that are not done have to do."""
        for key, task in self.tasks.items():
            step = self.steps[key]
            if not step.done:
                write_json(step.folder / task_name(task), task)


def plan_encoder(entry: EncoderEntry, mode: str) -> PlannedEncoder:
    """Look at an encoder: what it is, its weights, and what they have seen.

    Raises:
        UserError: It is not known, or its weights are not there.
    """
    text, rule = entry.source, ''
    try:
        if mode == COMPAT:
            text, rule = compared_encoder(text)
        source = parse_source(text)
        # The formats of other projects hold no record.
        read = source.path is not None and source.settings.converter is None
        seen = seen_by(source).shown if read else ()
    except UserError as error:
        raise UserError(f'encoder {entry.name}: {error}') from error
    recorded = dict.fromkeys(one.dataset for one in seen if one.dataset in IMAGE_SETS)
    digest = weights_digest(source.path)
    return PlannedEncoder(entry, text, source, digest, rule, tuple(recorded))


def plan_transfer(
    table: TransferTable,
    device: str = 'cpu',
    batch_size: int = 32,
    num_workers: int = 0,
    plan_training: Callable[..., Any] = plan,
    allow_seen: bool = False,
) -> TransferPlan:
    """Work out the steps and results of a table.

    Args:
        table: What is wanted.
        device: Of frozen encoders. Defaults to 'cpu'.
        batch_size: Images at a time. Defaults to 32.
        num_workers: Processes that load. Defaults to 0.
        plan_training: Plans fine-tuning. Defaults to
            :func:`medssl_mm.experiments.plan`.
        allow_seen: Whether images are scored that an encoder was trained on.
            Defaults to False.

    Raises:
        UserError: An encoder, its weights or a data set is not there.
    """
    encoders = [plan_encoder(entry, table.mode) for entry in table.encoders]
    datasets = [plan_dataset(entry, table) for entry in table.datasets]
    planner = _TransferPlanner(
        table, device, batch_size, num_workers, allow_seen, plan_training
    )
    planner.tell_names(encoders, datasets)
    planner.tell_sizes(encoders, datasets)
    for by_kind in datasets:
        for dataset in dict.fromkeys(by_kind.values()):
            kinds = [kind for kind, one in by_kind.items() if one is dataset]
            for encoder in encoders:
                planner.add_frozen(encoder, dataset, kinds)
    for by_kind in datasets:
        if FINETUNE in by_kind:
            planner.add_training(encoders, by_kind[FINETUNE])
    return planner.result()


def _wanted(protocol: Protocol, encoder: str, dataset: str) -> bool:
    return (protocol.encoders is None or encoder in protocol.encoders) and (
        protocol.datasets is None or dataset in protocol.datasets
    )


class _TransferPlanner:
    def __init__(
        self,
        table: TransferTable,
        device: str,
        batch_size: int,
        num_workers: int,
        allow_seen: bool,
        plan_training: Callable[..., Any],
    ) -> None:
        self.table = table
        self.allow_seen = allow_seen
        self.plan_training = plan_training
        self.runs = Path(table.runs_dir)
        self.computing = dict(
            cache=str(Path(table.cache).absolute()),
            device=device,
            batch_size=batch_size,
            num_workers=num_workers,
        )
        self.steps: dict[str, Step] = {}
        self.cells: list[Cell] = []
        self.tasks: dict[str, dict] = {}
        self.notes: list[str] = []
        self.engine = _engine(table)

    def result(self) -> TransferPlan:
        return TransferPlan(
            self.table, self.steps, self.cells, self.engine, self.tasks, self.notes
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _settings(self, protocol: Protocol) -> dict:
        settings = protocol.settings
        if protocol.kind == LINEAR and self.table.mode == COMPAT:
            if 'max_iter' not in protocol.model_fields_set:
                settings['max_iter'] = COMPAT_ITERATIONS
        return settings

    def tell_names(
        self,
        encoders: Sequence[PlannedEncoder],
        datasets: Sequence[Mapping[str, PlannedDataset]],
    ) -> None:
        """Note what ``trained_on`` names that is an entry, and no image set."""
        entries = {
            dataset.entry.name: dataset
            for by_kind in datasets
            for dataset in by_kind.values()
        }
        for encoder in encoders:
            for name in encoder.entry.trained_on or ():
                dataset = entries.get(name)
                if dataset and not _declared(encoder, dataset):
                    self._note(
                        f'{encoder.entry.name}: trained_on names {name}, an entry of '
                        'the table; its results are not marked, for that take the name '
                        f'of its image set: {" or ".join(dataset.names)}'
                    )

    def tell_sizes(
        self,
        encoders: Sequence[PlannedEncoder],
        datasets: Sequence[Mapping[str, PlannedDataset]],
    ) -> None:
        """Note which encoders get enlarged copies of what is stored."""
        for by_kind in datasets:
            dataset = next(iter(by_kind.values()))
            asked = {
                encoder.entry.name: step.resize_to or step.size
                for encoder in encoders
                for step in [encoder.source.settings.preprocessing]
            }
            side = dataset.side
            larger = [f'{name} ({s})' for name, s in asked.items() if s > side]
            if larger:
                self._note(
                    f'{dataset.entry.name} is stored at {side} px, encoders that ask '
                    f'for more see it enlarged: {", ".join(larger)}; import it with a '
                    'larger --size, if its pictures have more'
                )

    def add_frozen(
        self, encoder: PlannedEncoder, dataset: PlannedDataset, kinds: Sequence[str]
    ) -> None:
        protocols = []
        for protocol in self.table.protocols:
            if (
                protocol.kind == FINETUNE
                or protocol.kind not in kinds
                or not _wanted(protocol, encoder.entry.name, dataset.entry.name)
            ):
                continue
            if protocol.kind == FEW_SHOT and dataset.multi_label:
                self._note(
                    f'{dataset.entry.name} has several labels an image: no '
                    f'{protocol.name}'
                )
                continue
            protocols.append(protocol)
        if not protocols:
            return
        for seed in self.table.seeds if not encoder.digest else (0,):
            self._add_step(encoder, dataset, protocols, seed)

    def _add_step(
        self,
        encoder: PlannedEncoder,
        dataset: PlannedDataset,
        protocols: Sequence[Protocol],
        seed: int,
    ) -> None:
        names = f'{encoder.entry.name}-{dataset.entry.name}'
        digest = digest_of(
            FORMATS[self.table.mode],
            *_description(encoder),
            encoder.digest or f'random:{seed}',
            dataset.digest,
            self.table.mode,
            self.table.bootstrap,
            # The batches that random weights are calibrated with.
            (self.computing['batch_size'], self.table.calibration)
            if not encoder.digest
            else None,
        )
        key = f'frozen-{names}-seed{seed}-{digest}'.replace('/', '_')
        files = {
            p.name: f'{p.name}-{digest_of(self._settings(p))}.json' for p in protocols
        }
        folder = self.runs / key
        task = dict(
            mode=self.table.mode,
            encoder=dict(**encoder.facts, seed=seed),
            dataset=dataset.task,
            protocols=[
                dict(
                    name=p.name,
                    file=files[p.name],
                    settings=self._settings(p),
                    rules=dataset.rules_of(p.kind),
                )
                for p in protocols
            ],
            # Results are marked that a table says to be of weights trained on it.
            allow_seen=self.allow_seen or _declared(encoder, dataset),
            bootstrap=self.table.bootstrap,
            calibration=self.table.calibration,
            **self.computing,
        )
        step = Step(
            key=key,
            kind='frozen',
            folder=folder,
            config='',
            options={},
            needs=(),
            seed=seed,
            weights=None,
            title=f'{", ".join(files)} of {encoder.entry.name} on '
            f'{dataset.entry.name}' + ('' if encoder.digest else f', seed {seed}'),
            command=(
                sys.executable,
                '-m',
                'medssl_mm.experiments.frozen',
                str(folder.absolute() / task_name(task)),
            ),
            outputs=tuple(files.values()),
        )
        self.steps[key], self.tasks[key] = step, task
        self.cells += [
            Cell(encoder, dataset, p, seed, step, folder / files[p.name])
            for p in protocols
        ]

    def add_training(
        self, encoders: Sequence[PlannedEncoder], dataset: PlannedDataset
    ) -> None:
        by_name = {encoder.entry.name: encoder for encoder in encoders}
        for protocol in self.table.protocols:
            if protocol.kind != FINETUNE:
                continue
            name = f'{protocol.name}-{dataset.entry.name}'
            evaluation = EvaluationConfig(
                name,
                name,
                str(shipped('configs') / FINETUNE_CONFIG),
                _training_options(protocol, dataset, self.table.mode),
                **_search(protocol, dataset, self.table.mode),
            )
            rows = tuple(
                Row(own, own, None, None, {}, _encoder_options(encoder))
                for own, encoder in by_name.items()
                if _wanted(protocol, own, dataset.entry.name)
            )
            parts = dict(rows=rows, evaluations=(evaluation,))
            steps, results = self.plan_training(
                Table(**{**vars(self.engine), **parts}), _resolver(encoders, dataset)
            )
            for run, tests in results:
                if _declared(by_name[run.label], dataset):
                    _allow_seen(steps, [key for keys in tests for key in keys])
            self.steps.update(steps)
            for run, tests in results:
                for seed, (key,) in zip(self.table.seeds, tests, strict=True):
                    self.cells.append(
                        Cell(
                            by_name[run.label],
                            dataset,
                            protocol,
                            seed,
                            steps[key],
                            steps[key].folder,
                        )
                    )


def _description(encoder: PlannedEncoder) -> list:
    """What an encoder does with a picture, besides its weights; plain data."""
    settings = encoder.source.settings
    preprocessing = settings.preprocessing.model_dump()
    return [settings.backbone, preprocessing, settings.converter]


def _resolver(
    encoders: Sequence[PlannedEncoder], dataset: PlannedDataset
) -> Callable[[str, dict], dict]:
    """Make what the hashes of fine-tuning are of.

    Configs have names and paths alone: of images, labels and split the content
    counts, and of an encoder what its description says.
    """
    descriptions = {encoder.text: _description(encoder) for encoder in encoders}

    def resolve(config: str, options: dict) -> dict:
        encoder = descriptions[options['model.backbone.source']]
        content = resolved_config(config, options)
        return {**content, 'contents': dict(encoder=encoder, images=dataset.digest)}

    return resolve


def _declared(encoder: PlannedEncoder, dataset: PlannedDataset) -> bool:
    """Whether the table says that the weights have seen the data set."""
    return bool(common_pictures(dataset.pictures_of, encoder.declared))


def _allow_seen(steps: dict[str, Step], keys: Iterable[str]) -> None:
    """Let tests, and what they need, score cases that the weights have seen."""
    for key in keys:
        steps[key] = replace(steps[key], allow_seen=True)
        _allow_seen(steps, steps[key].needs)


def _engine(table: TransferTable) -> Table:
    return Table(
        name=table.name,
        title=table.title,
        baseline=None,
        seeds=table.seeds,
        fractions=(1.0,),
        processes=table.processes,
        amp=table.amp,
        rows=(),
        evaluations=(),
        runs_dir=Path(table.runs_dir),
        weights_option='model.backbone.source',
        fraction_options=('', ''),
        note=table.note,
        silence=table.silence,
        slurm=table.slurm,
    )


def _training_options(protocol: Protocol, dataset: PlannedDataset, mode: str) -> dict:
    options = {f'images.{key}': value for key, value in dataset.images.items()}
    if mode == COMPAT:
        score = _LOGGED[dataset.metric]
        options['default_hooks.early_stopping.monitor'] = score
        options['default_hooks.checkpoint.save_best'] = score
        if protocol.search:
            options['default_hooks.early_stopping.patience'] = sys.maxsize
            options['default_hooks.checkpoint.save_best'] = None
    return {**options, **protocol.options}


def _search(protocol: Protocol, dataset: PlannedDataset, mode: str) -> dict:
    """How fine-tuning chooses its learning rate and weight decay, if it does."""
    if not protocol.search:
        return {}
    if mode != COMPAT:
        return dict(search=protocol.grid, monitor=_LOGGED[AUROC])
    refit = {'train_dataloader.dataset.subset': ['train', 'val'], **NO_VALIDATION}
    monitor = _LOGGED[dataset.metric]
    return dict(search=protocol.grid, monitor=monitor, refit=refit)


def _encoder_options(encoder: PlannedEncoder) -> dict:
    settings = encoder.source.settings
    step = settings.preprocessing
    side = step.resize_to or step.size
    whole = [
        dict(
            type='Resize',
            size=[side, side] if step.resize_mode == 'exact' else [side],
            interpolation=step.interpolation,
        ),
        dict(type='CenterCrop', size=step.size),
    ]
    crop = 'train_dataloader.dataset.pipeline.0.steps.0'
    options: dict[str, Any] = {
        'model.backbone.source': encoder.text,
        'model.head.in_channels': settings.embedding_length,
        f'{crop}.size': step.size,
        f'{crop}.interpolation': step.interpolation,
        'val_dataloader.dataset.pipeline.0.steps': whole,
        'test_dataloader.dataset.pipeline.0.steps': whole,
    }
    if encoder.digest:
        options['model.backbone.digest'] = encoder.digest
    return options


def finished_cells(
    planned: TransferPlan, report: Callable[[str], None] = lambda line: None
) -> Iterator[dict]:
    """Read the results that are there, see :mod:`.frozen`.

    Args:
        planned: The plan.
        report: Takes a line about each test that is scored.
    """
    for cell in planned.cells:
        if not cell.done:
            continue
        if cell.protocol.kind == FINETUNE:
            content = _fine_tuned(cell, planned, report)
        else:
            content = json.loads(cell.path.read_text(encoding='utf-8'))
        # How things are called may have changed since.
        content['encoder'] = dict(**cell.encoder.facts, seed=cell.seed)
        content['dataset'] = cell.dataset.facts
        content['protocol'] = cell.protocol.name
        content['trained_on_it'] = bool(
            common_pictures(cell.dataset.pictures_of, content['encoder']['trained_on'])
        )
        yield content


def _fine_tuned(
    cell: Cell, planned: TransferPlan, report: Callable[[str], None]
) -> dict:
    table = planned.table
    source = cell.path / 'predictions.csv'
    digest = digest_of(FORMATS[table.mode], weights_digest(source))
    path = cell.path / f'transfer-{table.mode}-{table.bootstrap}-{digest}.json'
    if path.exists():
        return json.loads(path.read_text(encoding='utf-8'))
    report(f'scoring {cell.step.title}')
    predictions = read_predictions(source)
    metrics = read_metrics(cell.path)
    task: Mapping = dict(
        mode=table.mode,
        encoder=dict(**cell.encoder.facts, seed=cell.seed),
        dataset=cell.dataset.facts,
    )
    protocol = dict(
        name=cell.protocol.name,
        settings=cell.protocol.settings,
        rules=cell.dataset.rules_of(FINETUNE),
    )
    drawn = transfer_scores(predictions, table.bootstrap, hard=table.mode == COMPAT)
    tried, notes = _searched(cell, planned)
    content = dict(
        **result_head(task, protocol),
        images=dict(test=len(predictions.image_ids)),
        patients=len(set(predictions.patients)),
        has_patients=predictions.has_patients,
        classes=list(predictions.classes),
        split=metrics.get('protocol'),
        split_hash=metrics.get('split_hash'),
        facts=dict(folder=str(cell.path), **tried),
        seen=metrics.get('seen'),
        notes=[
            *notes,
            *sentences(metrics.get('seen'), unknown=False),
            *few_patients(len(set(predictions.patients)), 'test patient'),
        ],
        **scores_of(drawn, predictions),
    )
    write_json(path, content, indent=None)
    return content


def _searched(cell: Cell, planned: TransferPlan) -> tuple[dict, list[str]]:
    """What a search has tried and chosen, for the result and in words."""
    asked = [cell.step, *(planned.steps[key] for key in cell.step.needs)]
    step = next((one for one in asked if one.choices), None)
    choice = None if step is None else choose(step, planned.steps)
    if step is None or choice is None:
        return {}, []
    tried = [
        dict(options=options, score=score)
        for (_, options), score in zip(step.choices, choice.scores)
    ]
    rates = sorted({options[RATE] for _, options in step.choices})
    rate, decay = (choice.options[key] for key in (RATE, DECAY))
    text = (
        f'learning rate {rate:g} and weight decay {decay:g} chosen among '
        f'{len(tried)} by validation'
    )
    if rate in (rates[0], rates[-1]):
        text += ', the smallest or largest rate there was'
    note = f'{cell.protocol.name}, seed {cell.seed}: {text}'
    return dict(search=dict(chosen=choice.options, tried=tried)), [note]
