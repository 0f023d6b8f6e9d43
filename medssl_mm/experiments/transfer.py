"""Transfer tables: which steps they need, and the results that are there.

Frozen protocols of one encoder on one data set are one step, see
:mod:`medssl_mm.experiments.frozen`; fine-tuning is the training and the test of
any table. The folder of a step carries a hash of the encoder with its weights,
of the images and labels, and of the split; the file of a protocol one of its
settings. So a change meets no old result, and tables share what is the same.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import medssl_mm.registry  # noqa: F401  (the config prefixes of hosts)
from medssl_mm.analysis.transfer import transfer_scores
from medssl_mm.checkpoint_features import (
    ALL,
    SUBSETS,
    ImageSubsets,
    check_no_shared_patients,
    config_of_images,
)
from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.datasets.shared_sets import read_images
from medssl_mm.encoders import EncoderSource, parse_source, weights_digest
from medssl_mm.errors import UserError
from medssl_mm.files import shipped, write_json
from medssl_mm.provenance import sentences
from medssl_mm.results import read_metrics, read_predictions
from medssl_mm.statistics import few_patients
from medssl_mm.store import open_store
from medssl_mm.store.compat_splits import DESCRIPTION, compat_lists
from medssl_mm.store.splits import IMAGE, Split, load_split

from .frozen import TASK, result_head, scores_of
from .plan import Step, plan
from .table import EvaluationConfig, Row, Table
from .transfer_table import (
    COMPAT,
    FEW_SHOT,
    FINETUNE,
    LINEAR,
    DatasetEntry,
    EncoderEntry,
    Protocol,
    TransferTable,
)

# Raised whenever the way to measure changes, so that results of before are
# computed again.
FORMAT = 1
FINETUNE_CONFIG = Path('classification', 'encoder', 'finetune_encoder.py')
# Iterations of a linear fit in the published comparison.
COMPAT_ITERATIONS = 100


def _digest(*content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True, eq=False)
class PlannedEncoder:
    """An encoder of a table, with what is known of it.

    Args:
        entry (EncoderEntry): What the table says.
        source (EncoderSource): What it stands for.
        digest (str): Of the weights; '' of random ones.
    """

    entry: EncoderEntry
    source: EncoderSource
    digest: str

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
            trained_on=list(chosen('trained_on') or ()),
            source=entry.source,
            digest=self.digest,
        )


@dataclass(frozen=True, eq=False)
class PlannedDataset:
    """A data set of a table, with what is known of it.

    Args:
        entry (DatasetEntry): What the table says.
        images (dict): Settings of its data set class.
        digest (str): Of images, labels and split.
        multi_label (bool): Whether an image may have several classes.
        pool (tuple[str], optional): Images that compat episodes draw from.
    """

    entry: DatasetEntry
    images: dict
    digest: str
    multi_label: bool
    pool: tuple[str, ...] | None = None

    @property
    def facts(self) -> dict:
        """For results, plain data."""
        row = IMAGE_SETS.get(Path(self.images['data_root']).name)
        domain = self.entry.domain or (row.domain if row else '')
        return dict(
            name=self.entry.name,
            title=self.entry.title or self.entry.name,
            domain=domain,
            images=self.images,
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
            if not self.steps[key].done:
                write_json(self.steps[key].folder / TASK, task)


def images_of(entry: DatasetEntry) -> dict:
    """Settings of the data set class that an entry asks for.

    Raises:
        UserError: There is no such file, or it names no images.
    """
    if entry.data_root:
        found = dict(type='medssl_mm.ClassificationImages', data_root=entry.data_root)
    else:
        found = read_images(entry.data or entry.name)
    if entry.split:
        found['split'] = entry.split
    return {**found, **entry.options}


def plan_dataset(entry: DatasetEntry, table: TransferTable) -> PlannedDataset:
    """Look at a data set: images, labels and split.

    Raises:
        UserError: It is not there, or its split has a patient on two sides.
    """
    images = images_of(entry)
    pool = None
    if table.mode == COMPAT:
        images, pool = _compat(entry, images, Path(table.runs_dir))
    subsets = ImageSubsets(config_of_images(images, f'data set {entry.name}'))
    try:
        everything = subsets.subset(ALL)
        parts = [subsets.subset(name) for name in SUBSETS]
    except UserError as error:
        raise UserError(f'data set {entry.name}: {error}') from error
    if table.mode != COMPAT:
        check_no_shared_patients(parts)
    store = everything.dataset.store
    contents = {info.image_id: info.content_sha256 for info in store.infos()}
    digest = _digest(
        [(name, contents.get(name)) for name in everything.image_ids],
        [str(label) for label in everything.raw_labels],
        [list(part.image_ids) for part in parts],
        everything.classes,
        pool,
    )
    return PlannedDataset(
        entry,
        images,
        digest,
        everything.dataset.metainfo.get('task') == 'multi-label',
        pool,
    )


def _compat(
    entry: DatasetEntry, images: dict, runs: Path
) -> tuple[dict, tuple[str, ...] | None]:
    """Put a data set on the split by image that the published comparison drew."""
    store = open_store(images['data_root'], 'classification')
    if images.get('split') and load_split(store.root, images['split']).by == IMAGE:
        return images, None
    known = {path.stem for path in Path(store.root, 'splits').glob('[!.]*.json')}
    name = f'{store.name}-compat'
    if name in known:
        pool = load_split(store.root, f'{name}-pool')['test']
        return {**images, 'split': name}, tuple(pool)
    # None was published: the same rule.
    subsets = ImageSubsets(config_of_images({**images, 'split': None}, entry.name))
    lists = compat_lists(entry.name, subsets.subset(ALL).image_ids, 0.8)
    if not lists:
        raise UserError(f'data set {entry.name}: too few images to draw a split from')
    split = Split(
        f'{entry.name}-compat',
        store.name,
        lists[f'{entry.name}-compat'],
        description=DESCRIPTION,
        by=IMAGE,
    )
    path = runs.absolute() / 'splits' / f'{split.protocol}-{split.hash}.json'
    write_json(path, split.to_dict())
    pool_images = lists[f'{entry.name}-compat-pool']['test']
    return {**images, 'split': str(path)}, tuple(pool_images)


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
    encoders = []
    for entry in table.encoders:
        try:
            source = parse_source(entry.source)
        except UserError as error:
            raise UserError(f'encoder {entry.name}: {error}') from error
        encoders.append(PlannedEncoder(entry, source, weights_digest(source.path)))
    datasets = [plan_dataset(entry, table) for entry in table.datasets]
    planner = _TransferPlanner(table, device, batch_size, num_workers)
    planner.computing['allow_seen'] = allow_seen
    for dataset in datasets:
        for encoder in encoders:
            planner.add_frozen(encoder, dataset)
    planner.add_training(encoders, datasets, plan_training)
    return planner.result()


def _wanted(protocol: Protocol, encoder: str, dataset: str) -> bool:
    return (protocol.encoders is None or encoder in protocol.encoders) and (
        protocol.datasets is None or dataset in protocol.datasets
    )


class _TransferPlanner:
    def __init__(
        self, table: TransferTable, device: str, batch_size: int, num_workers: int
    ) -> None:
        self.table = table
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

    def add_frozen(self, encoder: PlannedEncoder, dataset: PlannedDataset) -> None:
        protocols = []
        for protocol in self.table.protocols:
            if protocol.kind == FINETUNE or not _wanted(
                protocol, encoder.entry.name, dataset.entry.name
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
        settings = encoder.source.settings
        names = f'{encoder.entry.name}-{dataset.entry.name}'
        digest = _digest(
            FORMAT,
            settings.backbone,
            settings.preprocessing.model_dump(),
            settings.converter,
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
            p.name: f'{p.name}-{_digest(self._settings(p))}.json' for p in protocols
        }
        folder = self.runs / key
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
                str(folder.absolute()),
            ),
            outputs=tuple(files.values()),
        )
        self.steps[key] = step
        self.tasks[key] = dict(
            mode=self.table.mode,
            encoder=dict(**encoder.facts, seed=seed),
            dataset=dict(**dataset.facts, pool=dataset.pool),
            protocols=[
                dict(name=p.name, file=files[p.name], settings=self._settings(p))
                for p in protocols
            ],
            bootstrap=self.table.bootstrap,
            calibration=self.table.calibration,
            **self.computing,
        )
        self.cells += [
            Cell(encoder, dataset, p, seed, step, folder / files[p.name])
            for p in protocols
        ]

    def add_training(
        self,
        encoders: Sequence[PlannedEncoder],
        datasets: Sequence[PlannedDataset],
        plan_training: Callable[..., Any],
    ) -> None:
        for protocol in self.table.protocols:
            if protocol.kind != FINETUNE:
                continue
            known = {}
            evaluations = []
            for dataset in datasets:
                name = f'{protocol.name}-{dataset.entry.name}'
                known[name] = dataset
                evaluations.append(
                    EvaluationConfig(
                        name,
                        name,
                        str(shipped('configs') / FINETUNE_CONFIG),
                        _training_options(protocol, dataset, self.table.mode),
                    )
                )
            rows = [
                Row(
                    encoder.entry.name,
                    encoder.entry.name,
                    None,
                    None,
                    {},
                    _encoder_options(encoder),
                    tuple(
                        name
                        for name, dataset in known.items()
                        if _wanted(protocol, encoder.entry.name, dataset.entry.name)
                    )
                    or ('none',),
                )
                for encoder in encoders
            ]
            table = Table(
                **{
                    **vars(self.engine),
                    'rows': tuple(rows),
                    'evaluations': tuple(evaluations),
                }
            )
            steps, results = plan_training(table)
            by_name = {encoder.entry.name: encoder for encoder in encoders}
            for run, tests in results:
                if _declared(by_name[run.label], known[run.group]):
                    _allow_seen(steps, [key for keys in tests for key in keys])
            self.steps.update(steps)
            for run, tests in results:
                for seed, (key,) in zip(self.table.seeds, tests, strict=True):
                    self.cells.append(
                        Cell(
                            by_name[run.label],
                            known[run.group],
                            protocol,
                            seed,
                            steps[key],
                            steps[key].folder,
                        )
                    )


def _declared(encoder: PlannedEncoder, dataset: PlannedDataset) -> bool:
    """Whether the table says that the weights have seen the data set."""
    return dataset.entry.name in encoder.facts['trained_on']


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
        # The published comparison chose by accuracy.
        options['default_hooks.early_stopping.monitor'] = 'classification/accuracy'
        options['default_hooks.checkpoint.save_best'] = 'classification/accuracy'
    return {**options, **protocol.options}


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
        'model.backbone.source': encoder.entry.source,
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
        yield content


def _fine_tuned(
    cell: Cell, planned: TransferPlan, report: Callable[[str], None]
) -> dict:
    table = planned.table
    path = cell.path / f'transfer-{table.mode}-{table.bootstrap}.json'
    if path.exists():
        return json.loads(path.read_text(encoding='utf-8'))
    report(f'scoring {cell.step.title}')
    predictions = read_predictions(cell.path / 'predictions.csv')
    metrics = read_metrics(cell.path)
    task: Mapping = dict(
        mode=table.mode,
        encoder=dict(**cell.encoder.facts, seed=cell.seed),
        dataset=cell.dataset.facts,
    )
    protocol = dict(name=cell.protocol.name, settings=cell.protocol.settings)
    drawn = transfer_scores(predictions, table.bootstrap, hard=table.mode == COMPAT)
    content = dict(
        **result_head(task, protocol),
        images=dict(test=len(predictions.image_ids)),
        patients=len(set(predictions.patients)),
        has_patients=predictions.has_patients,
        classes=list(predictions.classes),
        split=metrics.get('protocol'),
        split_hash=metrics.get('split_hash'),
        facts=dict(folder=str(cell.path)),
        seen=metrics.get('seen'),
        notes=[
            *sentences(metrics.get('seen'), unknown=False),
            *few_patients(len(set(predictions.patients)), 'test patient'),
        ],
        **scores_of(drawn, predictions),
    )
    write_json(path, content, indent=None)
    return content
