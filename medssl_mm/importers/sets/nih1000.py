"""A thousand reduced images of NIH ChestX-ray14."""

from __future__ import annotations

from pathlib import Path

from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.images import ImageDiscovery, ImageFiles
from medssl_mm.importers.readers.table import read_rows, zeros_and_ones
from medssl_mm.importers.sets.nih_cxr14 import FINDINGS, NO_FINDING, patient_of
from medssl_mm.store.images import MULTI_LABEL


class NIH1000Importer(ImageFiles):
    """A thousand images of ChestX-ray14 at 64 px, with 14 labels.

    The three folders of the source share patients; the set is split anew,
    by patient ('nih1000-patients').
    """

    name = 'nih1000'
    task = MULTI_LABEL
    channels = 1
    classes = FINDINGS
    default_size = 64
    pad = True
    layout = """\
    <src>/labels14_from_CheXNet_lists.csv (split, folder, Image Index,
        Patient ID and 14 columns)
    <src>/NIH1000/{train,valid,test}/{0_normal,1_abnormal}/00000002_000.png"""
    label_file = 'labels14_from_CheXNet_lists.csv'

    def discover(self, src: Path) -> ImageDiscovery:
        """List the images of the label file."""
        src = Path(src)
        path = src / self.label_file
        if not path.is_file():
            raise self.nothing_found(src, f'There is no {self.label_file}.')
        columns = ('split', 'folder', 'Image Index', 'Patient ID', *FINDINGS)
        cases: list[SourceCase] = []
        subsets: dict[str, set[str]] = {}
        for line, row in read_rows(path, columns):
            cases.append(self._case(src, f'{path}, line {line}', row))
            subsets.setdefault(cases[-1].patient_id, set()).add(row['split'])
        shared = sum(len(names) > 1 for names in subsets.values())
        notes = []
        if shared:
            notes.append(
                f'{shared} of {len(subsets)} patients are in more than one '
                "of the source's folders (train, valid, test): that split is "
                'not used; nih1000-patients parts the patients.'
            )
        return self.found(cases, notes=notes)

    def _case(self, src: Path, where: str, row: dict[str, str]) -> SourceCase:
        name = row['Image Index'].strip()
        patient = patient_of(name, where)
        label = zeros_and_ones(where, [row[finding] for finding in FINDINGS])
        file = src / 'NIH1000' / row['split'] / row['folder'] / name
        problem = None
        if (row['folder'] == '0_normal') == any(label):
            found = [n for n, v in zip(FINDINGS, label) if v]
            problem = (
                'class-mismatch',
                f'{file}: in folder {row["folder"]!r}, but its labels are '
                f'{", ".join(found) or NO_FINDING}; correct one of them.',
            )
        return self.image_case(name.removesuffix('.png'), patient, file, label, problem)
