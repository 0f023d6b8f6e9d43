"""Pictures of one's own, described by a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.files import read_json
from medssl_mm.importers.images import ImageDiscovery
from medssl_mm.importers.options import option, patient_option, patients_option
from medssl_mm.importers.picture_tables import (
    Columns,
    class_order,
    discover_listed,
    find_table,
    read_listed,
    unknown_of,
)
from medssl_mm.importers.pictures import PictureImporter
from medssl_mm.store.images import MULTI_LABEL, SINGLE_LABEL, UNCERTAIN


@dataclass(frozen=True)
class ImageTableImporter(PictureImporter):
    """Pictures that a CSV table names, with one label or several.

    The classes are what the label column holds (or what --label-map makes of
    it), or the columns of --labels, which hold 0 and 1 (or uncertain: training says
    what that counts as). An empty cell is an unknown label: the picture serves
    pretraining. Rows of one picture must agree. Splits: 'image-table-patients'
    (drawn), and 'image-table-subsets' by --split-column; without validation rows a
    tenth of the training patients, stratified by class, becomes it.
    """

    table: str | None = option(
        'the table, .csv, .csv.gz or .csv.zip, below --src or anywhere; default: the '
        'only one in --src',
        metavar='FILE',
    )
    path_column: str | None = option(
        'column of the file: path below --src, or name with or without suffix; '
        'default: path',
        metavar='NAME',
    )
    label_column: str | None = option(
        'column of the class; default: label', metavar='NAME'
    )
    labels: str | None = option(
        'instead: columns of 0 and 1, one per class, separated by commas',
        metavar='A,B',
    )
    label_map: str | None = option(
        'what a cell means: a JSON object {"text": "class"}, or text=class,...; with '
        '--labels the classes are 0, 1 and uncertain, e.g. "=0,-1=uncertain"',
        metavar='MAP',
    )
    patient_column: str | None = option('column of the patient', metavar='NAME')
    patient_pattern: str | None = patient_option('; instead of a column')
    patients: str | None = patients_option()
    split_column: str | None = option(
        'column of the subset: train, val or test', metavar='NAME'
    )

    name = 'image-table'
    guesses_patients = True
    layout = """\
    <src>/labels.csv with the columns path,label (or others, by --path-column,
    --label-column, --labels, --patient-column, --split-column), and the pictures
    (png, jpg, tif or dcm) in any folders below <src>"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for one, other in (
            ('labels', 'label_column'),
            ('patient_column', 'patient_pattern'),
        ):
            if getattr(self, one) and getattr(self, other):
                raise UserError(
                    f'--{one.replace("_", "-")} and --{other.replace("_", "-")}: '
                    'give one of them'
                )

    def discover(self, src: Path) -> ImageDiscovery:
        """List the pictures of the table."""
        src = Path(src)
        columns = self._columns()
        table = find_table(self, src, self.table)
        classes = tuple(columns.labels)
        listed = read_listed(table, columns)
        if not columns.labels:
            meant = columns.meaning or {}
            classes = tuple(dict.fromkeys(meant.values())) or class_order(listed)
        return discover_listed(
            self,
            src,
            table,
            listed,
            classes,
            pattern=self.patient_pattern,
            unknown=unknown_of(columns),
            task=MULTI_LABEL if columns.labels else SINGLE_LABEL,
            uncertain=any(
                isinstance(item.label, tuple) and UNCERTAIN in item.label
                for item in listed
            ),
        )

    def _columns(self) -> Columns:
        labels = [name.strip() for name in (self.labels or '').split(',')]
        labels = [name for name in labels if name]
        return Columns(
            self.path_column or 'path',
            None if labels else self.label_column or 'label',
            labels,
            self.patient_column,
            self.split_column,
            read_label_map(self.label_map) if self.label_map else None,
        )


def read_label_map(text: str) -> dict[str, str]:
    """Read 'text=class,...' or a JSON file of an object.

    Raises:
        UserError: It is neither.
    """
    form = '--label-map must be a JSON file {"text": "class"}, or text=class,...'
    if text.endswith('.json'):
        content = read_json(text, 'label map')
        if not isinstance(content, dict) or not content:
            raise UserError(f'{form}; {text} holds {type(content).__name__}')
        return {str(key).strip(): str(value).strip() for key, value in content.items()}
    pairs = [pair.rpartition('=') for pair in text.split(',')]
    wrong = [value for _, equals, value in pairs if not equals or not value.strip()]
    if wrong:
        raise UserError(f'{form}; found {text!r}')
    return {key.strip(): value.strip() for key, _, value in pairs}
