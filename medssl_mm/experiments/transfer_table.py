"""Transfer tables: what their YAML files may say.

``encoders`` x ``datasets`` x ``protocols``. An encoder is one of
``configs/encoders``; a data set is one of ``configs/data`` or an image set of
one's own; a protocol is 'few_shot', 'knn', 'linear' or 'finetune', with settings
where they differ from the defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveInt,
    StrictBool,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from medssl_mm.errors import UserError
from medssl_mm.experiments.resources import SlurmSettings
from medssl_mm.experiments.table import SILENCE
from medssl_mm.files import config_path
from medssl_mm.schema import Entry, Text, read_yaml

__all__ = ['DatasetEntry', 'EncoderEntry', 'Protocol', 'TransferTable', 'load_transfer']

STRICT, COMPAT = 'strict', 'compat'
FEW_SHOT, KNN, LINEAR, FINETUNE = 'few_shot', 'knn', 'linear', 'finetune'


class EncoderEntry(Entry):
    """An encoder of a transfer table.

    Args:
        name (str): In folder names.
        encoder (str): ``NAME``, ``NAME:PATH``, ``random:NAME`` or a folder of
            an export, see :func:`medssl_mm.encoders.load_encoder`.
        checkpoint (str, optional): The PATH, on a line of its own.
        title (str, optional): In tables. Defaults to that of the encoder.
        group (str, optional): Defaults to that of the encoder.
        imagenet_top1 (float, optional): Defaults to that of the encoder.
        trained_on (tuple[str], optional): Names of image sets (of the folder, or
            as imported) that the weights have seen, also in part. Defaults to that
            of the encoder.
    """

    name: Text
    encoder: StrictStr
    checkpoint: StrictStr | None = None
    title: Text | None = None
    group: StrictStr | None = None
    imagenet_top1: float | None = None
    trained_on: tuple[StrictStr, ...] | None = None

    @model_validator(mode='before')
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return dict(name=value, encoder=value) if isinstance(value, str) else value

    @property
    def source(self) -> str:
        """Encoder and checkpoint in one."""
        return self.encoder + (f':{self.checkpoint}' if self.checkpoint else '')


class DatasetEntry(Entry):
    """A data set of a transfer table.

    Args:
        name (str): In folder names and columns.
        data (str, optional): Name, or path, of a file of ``configs/data``.
            Defaults to ``name``.
        data_root (str, optional): An image set of one's own instead.
        split (str, optional): Its split; of ``data``, another one.
        options (dict): Further settings of the data set class. Defaults to {}.
        title (str, optional): In tables.
        domain (str, optional): Which mean over data sets it counts for.
            Defaults to its kind of picture, where that is known.
        pictures_of (tuple[str]): Image sets that its pictures were taken from, of
            a set of one's own. Defaults to (): as far as known.
    """

    name: Text
    data: StrictStr | None = None
    data_root: StrictStr | None = None
    split: StrictStr | None = None
    options: dict[StrictStr, Any] = {}
    title: Text | None = None
    domain: StrictStr | None = None
    pictures_of: tuple[StrictStr, ...] = ()

    @model_validator(mode='before')
    @classmethod
    def _by_name_alone(cls, value: Any) -> Any:
        return dict(name=value) if isinstance(value, str) else value

    @model_validator(mode='after')
    def _one_source(self) -> DatasetEntry:
        if self.data and self.data_root:
            raise ValueError('give data or data_root, not both')
        if self.data_root and not self.split:
            raise ValueError('an image set of your own needs its split')
        return self


class Protocol(Entry):
    """How encoders are measured.

    Args:
        kind (str): 'few_shot', 'knn', 'linear' or 'finetune'.
        name (str): In file names and tables. Defaults to ``kind``.
        title (str, optional): In tables.
        encoders (tuple[str], optional): Only these. Defaults to all.
        datasets (tuple[str], optional): Only these. Defaults to all.
        ways, shots, queries, episodes, seed (int): Of few-shot; ways by default
            5 of five classes and more, else 2.
        folds (int): Of knn and linear: a cross-validation with so many folds
            instead of the split; every image is tested once. Defaults to 0.
        k (int), temperature (float): Of the nearest neighbours.
        costs (tuple[float], optional): Of linear; by default 45 from 1e6 to
            1e-5.
        standardise (bool): Features of linear. Defaults to False.
        max_iter (int): Of linear. Defaults to 1000.
        options (dict): Settings of the config of fine-tuning. Defaults to {}.
        search (int): Of fine-tuning: so many learning rates from 1e-1 to 1e-4,
            each with no weight decay and as many from 1e-6 to 1e-3 (divided by the
            rate, as that multiplies it in a step of SGD); validation chooses. In
            mode 'compat' no training is stopped early, their last weights are
            compared, and train + val are trained on anew with what was chosen.
            Defaults to 0: that of the config alone.
    """

    kind: Literal['few_shot', 'knn', 'linear', 'finetune']
    name: Text = ''
    title: Text | None = None
    encoders: tuple[Text, ...] | None = None
    datasets: tuple[Text, ...] | None = None
    ways: Annotated[StrictInt, Field(ge=2)] | None = None
    shots: PositiveInt = 20
    queries: PositiveInt = 15
    episodes: PositiveInt = 600
    seed: StrictInt = 0
    folds: Annotated[StrictInt, Field(ge=0)] = 0
    k: PositiveInt = 20
    temperature: Annotated[float, Field(gt=0)] = 0.07
    costs: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    standardise: StrictBool = False
    max_iter: PositiveInt = 1000
    options: dict[StrictStr, Any] = {}
    search: Annotated[StrictInt, Field(ge=0)] = 0

    @model_validator(mode='before')
    @classmethod
    def _by_kind_alone(cls, value: Any) -> Any:
        value = dict(kind=value) if isinstance(value, str) else value
        if isinstance(value, dict) and 'kind' in value:
            return {'name': value['kind'], **value}
        return value

    @model_validator(mode='after')
    def _own_settings_only(self) -> Protocol:
        foreign = [
            name
            for name in sorted(self.model_fields_set)
            if name not in (*_COMMON, *_SETTINGS[self.kind])
        ]
        if foreign:
            raise ValueError(
                f'{", ".join(foreign)} is no setting of {self.kind}; it has '
                f'{", ".join(_SETTINGS[self.kind])}'
            )
        return self

    @model_validator(mode='after')
    def _searches_a_grid(self) -> Protocol:
        if self.search == 1:
            raise ValueError('search: a grid has 2 or more learning rates, 0 is none')
        twice = sorted(set(self.options) & {RATE, DECAY}) if self.search else []
        if twice:
            raise ValueError(f'options and search both set {", ".join(twice)}')
        return self

    @property
    def grid(self) -> tuple[dict[str, float], ...]:
        """Settings that a search tries, the largest learning rate first."""
        points = self.search
        if not points:
            return ()
        exponents = [-3 * number / (points - 1) for number in range(points)]
        rates = [_rounded(0.1 * 10**exponent) for exponent in exponents]
        decays = [0.0, *(1e-3 * 10**exponent for exponent in reversed(exponents))]
        return tuple(
            {RATE: rate, DECAY: _rounded(decay / rate)}
            for rate in rates
            for decay in decays
        )

    @property
    def settings(self) -> dict:
        """What the result depends on, plain data."""
        own = self.model_dump(include={'kind', *_SETTINGS[self.kind]})
        if not self.search:
            own.pop('search', None)
        return own


def _rounded(value: float) -> float:
    return float(f'{value:.6g}')


_COMMON = ('kind', 'name', 'title', 'encoders', 'datasets')
_SETTINGS: dict[str, tuple[str, ...]] = {
    FEW_SHOT: ('ways', 'shots', 'queries', 'episodes', 'seed'),
    KNN: ('k', 'temperature', 'folds'),
    LINEAR: ('costs', 'standardise', 'max_iter', 'folds'),
    FINETUNE: ('options', 'search'),
}
# What a search of fine-tuning tries.
RATE = 'optim_wrapper.optimizer.lr'
DECAY = 'optim_wrapper.optimizer.weight_decay'


class TransferTable(Entry):
    """A transfer table as the YAML file describes it.

    Args:
        name (str): Of the folder of its results. Defaults to that of the file.
        title (str): Heading.
        mode (str): 'strict' parts patients; 'compat' repeats the formulas and
            splits of the published comparison. Defaults to 'strict'.
        encoders (tuple[EncoderEntry]): Rows.
        datasets (tuple[DatasetEntry]): Columns.
        protocols (tuple[Protocol]): A table each.
        seeds (tuple[int]): Of random weights, and of fine-tuning. Defaults to
            (0,).
        baseline (str, optional): Encoder that the others are compared with.
        bootstrap (int): Resamples of patients. Defaults to 2000.
        calibration (int): Batches of training images that set the running
            statistics of random weights; 0 leaves them at 0 and 1. Defaults to
            20.
        runs_dir (str): Folder of the cells.
        cache (str): Folder of the features.
        processes (int): Of a fine-tuning; 0 starts it without a launcher.
            Defaults to 0.
        amp (str, optional): Mixed precision of fine-tuning.
        silence (float): Seconds without a line after which a step is ended; 0
            waits for ever. Defaults to 7200.
        note (str): Sentence below the tables. Defaults to ''.
        slurm (SlurmSettings): What the jobs of its steps ask for.
    """

    name: Text = ''
    title: Text = ''
    mode: Literal['strict', 'compat'] = 'strict'
    encoders: Annotated[tuple[EncoderEntry, ...], Field(min_length=1)]
    datasets: Annotated[tuple[DatasetEntry, ...], Field(min_length=1)]
    protocols: Annotated[tuple[Protocol, ...], Field(min_length=1)]
    seeds: Annotated[tuple[StrictInt, ...], Field(min_length=1)] = (0,)
    baseline: Text | None = None
    bootstrap: Annotated[StrictInt, Field(ge=0)] = 2000
    calibration: Annotated[StrictInt, Field(ge=0)] = 20
    runs_dir: StrictStr = 'work_dirs/transfer/runs'
    cache: StrictStr = 'work_dirs/features'
    processes: Annotated[StrictInt, Field(ge=0)] = 0
    amp: Literal['bfloat16', 'float16'] | None = None
    silence: NonNegativeFloat = SILENCE
    note: str = ''
    slurm: SlurmSettings = SlurmSettings()

    @field_validator('encoders', 'datasets', 'protocols')
    @classmethod
    def _names_differ(cls, entries: tuple) -> tuple:
        names = [entry.name for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f'every one needs its own name; twice: {", ".join(twice)}')
        return entries

    @model_validator(mode='after')
    def _names_exist(self) -> TransferTable:
        known = {
            what: [entry.name for entry in getattr(self, what)]
            for what in ('encoders', 'datasets')
        }
        asked = [('baseline', 'encoders', [self.baseline] if self.baseline else [])]
        for protocol in self.protocols:
            for what in known:
                asked.append(
                    (f'protocol {protocol.name}', what, getattr(protocol, what) or [])
                )
        for where, what, names in asked:
            unknown = [name for name in names if name not in known[what]]
            if unknown:
                raise ValueError(
                    f'{where}: {", ".join(unknown)} is none of the {what} '
                    f'{", ".join(known[what])}'
                )
        return self


def load_transfer(
    path: str | Path,
    encoders: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    protocols: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> TransferTable:
    """Read and check a transfer table; keep part of it.

    Raises:
        UserError: Says what is wrong where; or a name is not in the table.
    """
    path = config_path(path)
    table = read_yaml(TransferTable, path, 'transfer table')
    update: dict[str, Any] = dict(
        name=table.name or Path(path).stem, title=table.title or Path(path).stem
    )
    for what, wanted in (
        ('encoders', encoders),
        ('datasets', datasets),
        ('protocols', protocols),
    ):
        entries = getattr(table, what)
        unknown = sorted(set(wanted or ()) - {entry.name for entry in entries})
        if unknown:
            raise UserError(
                f'{path}: no {what} {", ".join(unknown)}; there are '
                f'{", ".join(entry.name for entry in entries)}'
            )
        if wanted is not None:
            update[what] = tuple(e for e in entries if e.name in wanted)
    if seeds is not None:
        update['seeds'] = tuple(seeds)
    return table.model_copy(update=update)
