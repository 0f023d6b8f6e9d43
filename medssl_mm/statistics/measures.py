"""What scores are called, and how they are shown.

A score of one's own brings its description along: ``metrics.json`` holds
those of all scores in it, and every table and figure takes them from there.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Measure:
    """A score as files, tables and figures show it.

    Args:
        name (str): In ``metrics.json`` and in CSV files.
        title (str): In headings and in the training log.
        unit (str): Such as 'mm'; '' for shares and counts. Defaults to ''.
        digits (int): After the point, where one evaluation is shown. Defaults
            to 3.
        logged (bool): Whether its mean is in the training log. Defaults to
            False.
        column (bool): Whether result tables have a column of it, beside the
            score that they compare. Defaults to False.
        definition (str): What the number is, for captions. Defaults to ''.
        axis (str): The same, short, for figures. Defaults to ''.
        classes (str): What the number of one class is. Defaults to ''.
        share (bool): Whether it lies between 0 and 1. Defaults to False.
        nonnegative (bool): Whether it is at least 0, such as a distance. Defaults
            to False.
    """

    name: str
    title: str
    unit: str = ''
    digits: int = 3
    logged: bool = False
    column: bool = False
    definition: str = ''
    axis: str = ''
    classes: str = ''
    share: bool = False
    nonnegative: bool = False

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and greatest possible value, if there are such."""
        if self.share:
            return 0.0, 1.0
        return (0.0, math.inf) if self.nonnegative else None

    @property
    def heading(self) -> str:
        """Title with unit."""
        return f'{self.title} ({self.unit})' if self.unit else self.title

    @property
    def column_name(self) -> str:
        """Name of its column in ``table.csv``."""
        return f'{self.name}_{self.unit}' if self.unit else self.name


DICE = Measure(
    'dice',
    'Dice',
    logged=True,
    definition='Dice per volume, averaged over cases, then over classes',
    axis='Dice per volume, mean over classes',
    classes='mean over cases that contain the class or for which it was predicted',
    share=True,
)
HD95 = Measure(
    'hd95', 'HD95', 'mm', digits=1, logged=True, column=True, nonnegative=True
)
NSD = Measure('nsd', 'NSD', logged=True, share=True)
VOLUME_ERROR = Measure('volume_error', 'volume error', digits=1, nonnegative=True)
RELATIVE_VOLUME_ERROR = Measure('relative_volume_error', 'relative', digits=2)
AUROC = Measure(
    'auroc',
    'AUROC',
    logged=True,
    definition='Area under the ROC curve of every class against the rest, averaged '
    'over classes',
    axis='AUROC, mean over classes',
    classes='against the rest',
    share=True,
)
F1 = Measure('f1', 'F1', logged=True, share=True)
RECALL = Measure(
    'recall',
    'recall',
    logged=True,
    definition='Share of the images of a class that are found; the mean over '
    'classes is the mean per-class accuracy',
    share=True,
)
ACCURACY = Measure('accuracy', 'accuracy', logged=True, share=True)

SHIPPED = {
    measure.name: measure
    for measure in (
        DICE,
        HD95,
        NSD,
        VOLUME_ERROR,
        RELATIVE_VOLUME_ERROR,
        AUROC,
        F1,
        RECALL,
        ACCURACY,
    )
}
# What tables compare, the first that an evaluation has.
COMPARED = (AUROC.name, DICE.name)


def measures_of(metrics: Mapping) -> dict[str, Measure]:
    """Descriptions of the scores in ``metrics.json``.

    Args:
        metrics: Its content. Files written before descriptions were kept in
            them hold none: then the shipped ones stand.
    """
    known = {field.name for field in fields(Measure)}
    described = {
        name: Measure(**{key: value for key, value in entry.items() if key in known})
        for name, entry in (metrics.get('measures') or {}).items()
    }
    return {
        name: described.get(name) or SHIPPED.get(name) or Measure(name, name)
        for name in metrics['mean']
    }


def compared_measure(metrics: Mapping) -> Measure:
    """The score by which tables compare evaluations of this kind."""
    found = measures_of(metrics)
    return next((found[name] for name in COMPARED if name in found), DICE)


def description(measure: Measure) -> dict:
    """Plain data of a measure, without what is empty."""
    return {
        name: value
        for name, value in asdict(measure).items()
        if value not in ('', False)
    }
