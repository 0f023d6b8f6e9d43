"""RSNA pneumonia detection: chest X-rays in DICOM, opacity or none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from medssl_mm.importers.images import ImageDiscovery, folder_of_lists
from medssl_mm.importers.options import option, patients_option
from medssl_mm.importers.picture_tables import (
    Columns,
    discover_listed,
    read_listed,
    truths,
)
from medssl_mm.importers.pictures import PictureImporter
from medssl_mm.importers.readers.table import read_rows
from medssl_mm.store.known import KNOWN

# Label file to its columns of patient and label; the first that is there counts.
LABEL_FILES = {
    'dataset.csv': ('subject', 'label'),
    'stage_2_train_labels.csv': ('patientId', 'Target'),
    'stage_2_train_labels.csv.zip': ('patientId', 'Target'),
}


@dataclass(frozen=True)
class RSNAImporter(PictureImporter):
    """RSNA pneumonia detection (Kaggle): lung opacity or none.

    Kaggle's file has a row per box: 30227 rows of 26684 patients, 6012 of them
    positive. dataset.csv has a row per patient, 0 and 1 or FALSE and TRUE, and
    may name the files in a column filepath. A 'patient' of either is one picture;
    who is on it is said by a table (--patients), such as one of NIH's patients by
    the published mapping to ChestX-ray14, whose pictures these are. Splits:
    'rsna-patients' (drawn); the competition's test pictures have no public labels.
    """

    lists: str | None = option(
        'folder of the label file; default: --src', metavar='DIR'
    )
    patients: str | None = patients_option()

    name = 'rsna'
    classes = KNOWN[name].classes
    channels = 1
    default_size = 256
    pad = True
    blank_allowed = True
    without = ('colours',)
    layout = """\
    <src>/dataset.csv (columns subject,label) or Kaggle's
    <src>/stage_2_train_labels.csv (patientId,x,y,width,height,Target; .zip as well)
    <src>/**/<subject>.dcm (e.g. in <src>/stage_2_train_images)"""

    def discover(self, src: Path) -> ImageDiscovery:
        """List the pictures of the label file."""
        src = Path(src)
        folder = folder_of_lists(src, self.lists)
        tables = [folder / name for name in LABEL_FILES if (folder / name).is_file()]
        if not tables:
            raise self.nothing_found(
                src, f'There is none of {", ".join(LABEL_FILES)} in {folder}.'
            )
        table = tables[0]
        patient, label = LABEL_FILES[table.name]
        named = 'filepath' in read_rows(table, (patient, label))[0][1]
        columns = Columns('filepath' if named else patient, label, patient=patient)
        listed = [
            item
            if item.label is None
            else replace(
                item, label=self.classes[truths(item.where, [str(item.label)])[0]]
            )
            for item in read_listed(table, columns)
        ]
        return discover_listed(self, src, table, listed, self.classes)
