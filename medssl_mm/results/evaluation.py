"""One evaluation on screen and in files: intervals of its scores and counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError
from medssl_mm.statistics import Interval
from medssl_mm.statistics.measures import Measure, compared_measure, description
from medssl_mm.statistics.resampling import FEW_PATIENTS

from .files import interval_entry, write_results
from .screen import table_text

if TYPE_CHECKING:
    import pandas as pd

METRICS = 'metrics.json'


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of one evaluation with their intervals.

    Args:
        title (str): What was evaluated, for the screen.
        measures (tuple[Measure]): Scores, in the order of the columns.
        per_class (Mapping[str, Mapping[str, Interval]]): By score and class.
        mean (Mapping[str, Interval]): By score: of the mean over classes.
        counts (Mapping[str, Mapping[str, int]]): By class: what was counted.
        facts (Mapping): Entries of ``metrics.json`` before the scores:
            protocol, split_hash, data_root, numbers of cases and patients,
            classes.
        settings (Mapping): Entries after the scores: what was set.
        notes (Sequence[str]): What a reader of the numbers has to know.
        num_classes (Mapping[str, int]): Classes that a mean is over, where
            that is not told by the scores. Defaults to none.
        overall (Mapping[str, Interval]): Further scores, which have no
            classes. Defaults to none.
    """

    title: str
    measures: tuple[Measure, ...]
    per_class: Mapping[str, Mapping[str, Interval]]
    mean: Mapping[str, Interval]
    counts: Mapping[str, Mapping[str, int]]
    facts: Mapping
    settings: Mapping
    notes: Sequence[str]
    num_classes: Mapping[str, int] = field(default_factory=dict)
    overall: Mapping[Measure, Interval] = field(default_factory=dict)

    def content(self) -> dict:
        """Content of ``metrics.json``; NaN becomes null."""
        mean = {
            name: interval_entry(interval)
            | (dict(classes=self.num_classes[name]) if name in self.num_classes else {})
            for name, interval in self.mean.items()
        }
        mean |= {m.name: interval_entry(found) for m, found in self.overall.items()}
        return dict(
            **self.facts,
            mean=mean,
            per_class={
                one: {
                    **{
                        name: interval_entry(scores[one])
                        for name, scores in self.per_class.items()
                    },
                    'counts': dict(counts),
                }
                for one, counts in self.counts.items()
            },
            **self.settings,
            notes=list(self.notes),
            measures={
                measure.name: description(measure)
                for measure in (*self.measures, *self.overall)
            },
        )

    def text(
        self, columns: Mapping[str, Iterable], headings: Mapping[str, str] | None = None
    ) -> str:
        """Lay the scores out as a table of classes for screen and log.

        Args:
            columns: Further columns: a number per class, and perhaps one for
                the mean.
            headings: Of some of the scores, instead of title and unit. Defaults
                to none.
        """
        import pandas as pd

        # A column of dashes only makes the table wide; a note says why.
        shown = [m for m in self.measures if self.mean[m.name].units]
        defined = ' / '.join(map(str, dict.fromkeys(self.num_classes.values())))
        names = [*self.counts, f'mean of {defined} classes' if defined else 'mean']
        cells = pd.DataFrame({'class': names})
        for measure in shown:
            found = [*self.per_class[measure.name].values(), self.mean[measure.name]]
            heading = (headings or {}).get(measure.name, measure.heading)
            cells[heading] = [i.text(measure.digits, missing='-') for i in found]
        for name, numbers in columns.items():
            cells[name] = pd.Series(map(str, numbers))
        for measure, interval in self.overall.items():
            cells.loc[len(cells)] = pd.Series(
                [measure.title, interval.text(measure.digits)], cells.columns[:2]
            )
        # A line parts the classes from the means.
        parts = [number < len(self.counts) for number in range(len(cells))]
        return table_text(cells.fillna(''), self.title, self.notes, sections=parts)

    def write(self, folder: str | Path, name: str, table: pd.DataFrame) -> list[Path]:
        """Write ``metrics.json`` and what was scored."""
        return write_results(folder, {name: table, METRICS: self.content()})


def read_metrics(folder: str | Path) -> dict:
    """Read ``metrics.json`` of an evaluation folder.

    Raises:
        UserError: When it is absent or cannot be read.
    """
    path = Path(folder) / METRICS
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
        metrics['mean'][compared_measure(metrics).name]['mean']
    except FileNotFoundError as error:
        raise UserError(
            f'{path} does not exist; evaluate the run with tools/test.py and '
            'out_dir of its metric set to that folder'
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a result of medssl_mm.VolumeMetric or '
            f'ClassificationMetric ({error}); evaluate the run again'
        ) from error
    return metrics


def title_of(
    protocol: str | None,
    split_hash: str | None,
    what: str,
    patients: int,
    named: bool = True,
) -> str:
    """Heading of the table of an evaluation."""
    people = f'{patients} patients' if named else 'each a patient of its own'
    return f'{protocol or "no protocol"} ({split_hash or "no split"}): {what}, {people}'


def interval_settings(
    samples: int, seed: int, what: str, patients: int, named: bool = True
) -> dict:
    """Say in ``metrics.json`` how intervals were made, of cases or images."""
    unit = f'patients, with all their {what}'
    if not named:
        unit = f'{what}, each a patient of its own, equal ones together'
    few = patients < FEW_PATIENTS
    return dict(
        kind="95 % Student's, spread by bootstrap"
        if few
        else '95 % percentile bootstrap',
        resampled=unit,
        samples=samples,
        seed=seed,
    )


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of distributions; those not installed are left out."""
    versions = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
