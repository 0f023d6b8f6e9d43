"""Tables and files of one evaluation."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

import numpy as np

from medssl_mm.files import write_whole

from .bootstrap import Interval, bootstrap_means, few_patients
from .scoring import POLICY, ClassScore

LIBRARIES = (
    'monai',
    'scipy',
    'numpy',
    'torch',
    'onedl-mmengine',
    'onedl-mmsegmentation',
    'medssl_mm',
)
SCORES = ('dice', 'hd95', 'nsd', 'volume_error', 'relative_volume_error')


@dataclass(frozen=True)
class CaseResult:
    """Scores of one case.

    Args:
        case_id (str): Case.
        patient_id (str): Its patient.
        slices (int): Slices that were scored.
        total_slices (int): Slices of the case.
        distances (str): 'yes', or why distances were not measured.
        volume_unit (str): 'ml' or 'voxels'.
        scores (tuple[ClassScore]): One per foreground class.
    """

    case_id: str
    patient_id: str
    slices: int
    total_slices: int
    distances: str
    volume_unit: str
    scores: tuple[ClassScore, ...]


@dataclass(frozen=True)
class Evaluation:
    """All cases of one evaluation and what they were evaluated with.

    Args:
        classes (tuple[str]): Names, background first.
        cases (tuple[CaseResult]): Sorted by case.
        protocol (str, optional): Name of the split.
        split_hash (str, optional): Hash of the split.
        data_root (str, optional): Folder of the store.
        tolerance_mm (float): Tolerance of NSD, mm.
        bootstrap_samples (int): Resamples; 0 for no intervals.
        bootstrap_seed (int): Seed of the resampling.
    """

    classes: tuple[str, ...]
    cases: tuple[CaseResult, ...]
    protocol: str | None
    split_hash: str | None
    data_root: str | None
    tolerance_mm: float
    bootstrap_samples: int
    bootstrap_seed: int

    @property
    def num_patients(self) -> int:
        """Number of different patients."""
        return len({case.patient_id for case in self.cases})

    def values(self, score: str) -> np.ndarray:
        """One score of all cases. Shape: returns ``(cases, classes - 1)``."""
        return np.array(
            [[getattr(item, score) for item in case.scores] for case in self.cases],
            dtype=float,
        )

    @cached_property
    def intervals(self) -> dict[str, tuple[list[Interval], Interval]]:
        """Per score: intervals per class, and of the mean over classes."""
        patients = [case.patient_id for case in self.cases]
        return {
            score: bootstrap_means(
                self.values(score),
                patients,
                self.bootstrap_samples,
                self.bootstrap_seed,
            )
            for score in SCORES
        }

    def statuses(self, index: int) -> Counter:
        """Count 'counted', 'absent', 'missed', 'invented' of one class."""
        return Counter(case.scores[index].status for case in self.cases)

    def notes(self) -> list[str]:
        """What a reader of the numbers has to know."""
        notes = []
        for reason, number in sorted(
            Counter(
                case.distances for case in self.cases if case.distances != 'yes'
            ).items()
        ):
            notes.append(
                f'distances not measured in {number} of '
                f'{len(self.cases)} cases: {reason}'
            )
        partial = [case for case in self.cases if case.slices < case.total_slices]
        if partial:
            notes.append(
                f'{len(partial)} cases are labelled on some slices '
                'only and were scored on those'
            )
        if self.bootstrap_samples:
            notes += few_patients(self.num_patients)
        return notes

    def log_values(self) -> dict[str, float]:
        """Numbers for the training log; what was not measured is left out."""
        values = {'mDice': self.intervals['dice'][1].mean}
        for name, item in zip(self.classes[1:], self.intervals['dice'][0]):
            values[f'Dice_{name.replace(" ", "_")}'] = item.mean
        values['mHD95'] = self.intervals['hd95'][1].mean
        values['mNSD'] = self.intervals['nsd'][1].mean
        return {
            name: value
            for name, value in values.items()
            if name == 'mDice' or not np.isnan(value)
        }


def interval_cell(item: Interval, digits: int) -> str:
    """Form of an interval in tables on screen."""
    if np.isnan(item.mean):
        return '-'
    text = f'{item.mean:.{digits}f}'
    if not np.isnan(item.low):
        text += f' [{item.low:.{digits}f}, {item.high:.{digits}f}]'
    return text


def format_table(evaluation: Evaluation) -> str:
    """Lay out the result as a table of classes for screen and log.

    Args:
        evaluation (Evaluation): Scored cases.

    Returns:
        str: Table with a mean and 95 % interval per class and score.
    """
    from rich.console import Console
    from rich.table import Table

    title = (
        f'{evaluation.protocol or "no protocol"} '
        f'({evaluation.split_hash or "no split"}): '
        f'{len(evaluation.cases)} cases, '
        f'{evaluation.num_patients} patients; mean [95 % interval over '
        'patients]'
    )
    table = Table(title=title, title_justify='left')
    units = {case.volume_unit for case in evaluation.cases}
    table.add_column('class')
    columns = [
        ('dice', 'Dice', 3),
        ('hd95', 'HD95 (mm)', 1),
        ('nsd', f'NSD ({evaluation.tolerance_mm:g} mm)', 3),
        ('volume_error', f'volume error ({"/".join(sorted(units))})', 1),
        ('relative_volume_error', 'relative', 2),
    ]
    # A column of dashes only makes the table wide; a note says why.
    columns = [column for column in columns if evaluation.intervals[column[0]][1].count]
    for _, header, _ in columns:
        table.add_column(header, justify='right')
    for header in ('n', 'absent', 'missed', 'invented'):
        table.add_column(header, justify='right')
    for index, name in enumerate(evaluation.classes[1:]):
        cells = [
            interval_cell(evaluation.intervals[score][0][index], places)
            for score, _, places in columns
        ]
        status = evaluation.statuses(index)
        table.add_row(
            name,
            *cells,
            str(evaluation.intervals['dice'][0][index].count),
            *(str(status[key]) for key in ('absent', 'missed', 'invented')),
        )
    table.add_section()
    table.add_row(
        'mean',
        *(
            interval_cell(evaluation.intervals[score][1], places)
            for score, _, places in columns
        ),
        str(evaluation.intervals['dice'][1].count),
        '',
        '',
        '',
    )
    buffer = io.StringIO()
    console = Console(file=buffer, width=150, color_system=None)
    console.print(table)
    for note in evaluation.notes():
        console.print(f'note: {note}', highlight=False)
    return buffer.getvalue().rstrip()


def library_versions(names: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Versions of distributions; those not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def number_or_none(value: float) -> float | None:
    """Turn NaN, which JSON lacks, into None."""
    return None if np.isnan(value) else float(value)


def interval_entry(item: Interval) -> dict:
    """Form of an interval in JSON files."""
    return dict(
        mean=number_or_none(item.mean),
        low=number_or_none(item.low),
        high=number_or_none(item.high),
        count=item.count,
    )


def summary(evaluation: Evaluation) -> dict:
    """Everything but the single cases, ready for JSON; NaN becomes null."""
    per_class = {}
    for index, name in enumerate(evaluation.classes[1:]):
        per_class[name] = {
            score: interval_entry(evaluation.intervals[score][0][index])
            for score in SCORES
        }
        status = evaluation.statuses(index)
        per_class[name]['counts'] = {
            key: status[key] for key in ('counted', 'absent', 'missed', 'invented')
        }
    return dict(
        protocol=evaluation.protocol,
        split_hash=evaluation.split_hash,
        data_root=evaluation.data_root,
        cases=len(evaluation.cases),
        patients=evaluation.num_patients,
        classes=list(evaluation.classes),
        mean={
            score: interval_entry(evaluation.intervals[score][1]) for score in SCORES
        },
        per_class=per_class,
        tolerance_mm=evaluation.tolerance_mm,
        volume_units=sorted({case.volume_unit for case in evaluation.cases}),
        policy=POLICY,
        interval=dict(
            kind='95 % percentile bootstrap',
            resampled='patients, with all their cases',
            samples=evaluation.bootstrap_samples,
            seed=evaluation.bootstrap_seed,
        ),
        notes=evaluation.notes(),
        versions=library_versions(),
    )


def write_evaluation(evaluation: Evaluation, out_dir: Path) -> list[Path]:
    """Write ``cases.csv`` and ``metrics.json``.

    Args:
        evaluation (Evaluation): Scored cases.
        out_dir (Path): Folder, made if absent.

    Returns:
        list[Path]: The two files.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    columns = [
        'case_id',
        'patient_id',
        'class',
        'slices',
        'distances',
        'volume_unit',
        *ClassScore.__dataclass_fields__,
    ]

    table = io.StringIO(newline='')
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    for case in evaluation.cases:
        for name, item in zip(evaluation.classes[1:], case.scores):
            row = {
                key: '' if isinstance(value, float) and np.isnan(value) else value
                for key, value in asdict(item).items()
            }
            row.update(
                case_id=case.case_id,
                patient_id=case.patient_id,
                slices=case.slices,
                distances=case.distances,
                volume_unit=case.volume_unit,
            )
            row['class'] = name
            writer.writerow(row)

    paths = [out_dir / 'cases.csv', out_dir / 'metrics.json']
    write_whole(paths[0], table.getvalue())
    write_whole(paths[1], json.dumps(summary(evaluation), indent=1, allow_nan=False))
    return paths
