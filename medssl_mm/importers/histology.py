"""Histopathology: patches of the IDC set, images of BreakHis."""

from __future__ import annotations

import re
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase, check_unique
from medssl_mm.importers.images import (
    ImageImporter,
    folder_of_lists,
    need_columns,
    read_rows,
)
from medssl_mm.importers.pictures import find_pictures
from medssl_mm.store.known import KNOWN


class IDCImporter(ImageImporter):
    """Invasive ductal carcinoma: 50 px patches of whole slides (Kaggle).

    Patient and class are in the file name and in the folders; they must
    agree. Patches cut off at the rim of a slide are not square: their centre
    is enlarged to 50 px. Splits: 'idc-patients' (drawn) and 'idc-lists' from
    ``{train,val,test}_split.csv``. Options of :meth:`discover`:

        lists (str): Folder of the lists. Default: the source folder.
        size (int): Side of the stored patches, pixels. Default: 50; they are
            enlarged in training, storing them so would cost 26 times the
            room.
    """

    name = 'idc'
    classes = KNOWN[name].classes
    size = 50
    blank_allowed = True  # empty glass
    options = ('size', 'lists')
    layout = """\
    <src>/10253/0/10253_idx5_x1001_y1001_class0.png
    <src>/10253/1/10253_idx5_x501_y351_class1.png
(or all that in <src>/IDC_regular_ps50_idx5), and, if wanted, in <src> or
--lists DIR: {train,val,test}_split.csv with the columns img_path,labels"""
    file_name = re.compile(r'(\w+?)_idx\d+_x\d+_y\d+_class([01])\.png')

    def discover(
        self, src: Path, size: int | None = None, lists: str | None = None
    ) -> list[SourceCase]:
        """List the patches."""
        self.set_size(size)
        src = Path(src)
        self.notes, self.lists = [], {}
        # The archive of Kaggle holds everything twice.
        nested = src / 'IDC_regular_ps50_idx5'
        root = nested if nested.is_dir() else src
        cases = [self._case(path, root) for path in find_pictures(root)]
        if not any('problem' not in case.extra for case in cases):
            raise self.nothing_found(
                src,
                f'{len(cases)} image(s) have another name or place, '
                f'e.g. {cases[0].image}.'
                if cases
                else '',
            )
        self._read_lists(folder_of_lists(src, lists))
        return check_unique(cases)

    def _case(self, path: Path, root: Path) -> SourceCase:
        parts = path.relative_to(root).parts
        found = self.file_name.fullmatch(path.name)
        problem = None
        if not found or len(parts) != 3 or parts[1] not in ('0', '1'):
            problem = (
                'file-name',
                (
                    f'{path}: expected <patient>/<0 or 1>/<patient>_idx5_x<X>_y<Y>'
                    '_class<0 or 1>.png; rename or remove the file.'
                ),
            )
        elif found[1] != parts[0]:
            problem = (
                'patient-mismatch',
                (
                    f'{path}: in the folder of patient {parts[0]}, but its name '
                    f'says {found[1]}; put it where it belongs.'
                ),
            )
        elif found[2] != parts[1]:
            problem = (
                'class-mismatch',
                (
                    f'{path}: in the folder of class {parts[1]}, but its name '
                    f'says class {found[2]}; put it where it belongs.'
                ),
            )
        if problem:
            return self.image_case('/'.join(parts), parts[0], path, None, problem)
        return self.image_case(path.stem, found[1], path, int(found[2]))

    def _read_lists(self, folder: Path) -> None:
        paths = {
            name: folder / f'{name}_split.csv' for name in ('train', 'val', 'test')
        }
        missing = [p.name for p in paths.values() if not p.is_file()]
        if len(missing) == 3:
            return
        if missing:
            raise UserError(
                f'{folder}: {", ".join(missing)} is missing; give all three '
                'lists or none'
            )
        subsets: dict[str, list[str]] = {}
        for name, path in paths.items():
            rows = read_rows(path)
            need_columns(path, rows, ('img_path', 'labels'))
            subsets[name] = []
            for line, row in rows:
                found = self.file_name.fullmatch(Path(row['img_path']).name)
                if not found or found[2] != row['labels'].strip():
                    raise UserError(
                        f'{path}, line {line}: expected "<patient>/<class>/'
                        '<patient>_idx5_x<X>_y<Y>_class<class>.png,<class>", '
                        f'found "{row["img_path"]},{row["labels"]}"'
                    )
                subsets[name].append(Path(row['img_path']).stem)
        for one, other in (('train', 'val'), ('train', 'test'), ('val', 'test')):
            shared = set(subsets[one]) & set(subsets[other])
            if shared:
                raise UserError(
                    f'{paths[one]} and {paths[other]} share {len(shared)} '
                    f'image(s), e.g. {min(shared)}. The lists published '
                    'before April 2022 had one file as val and test: use '
                    'the corrected ones, or none (split idc-patients).'
                )
        self.lists['idc-lists'] = dict(subsets, pretrain=subsets['train'])


class BreakHisImporter(ImageImporter):
    """BreakHis: breast tumours, benign or malignant, by patient.

    The class is in the name and in a folder above; they must agree. Letters
    behind the number of a slide (22549AB, 14134E) name parts of one biopsy
    and do not make another patient. Images of all magnifications are taken.
    Splits: 'breakhis-patients' (drawn).
    """

    name = 'breakhis'
    classes = KNOWN[name].classes
    size = 224
    layout = """\
    <src>/**/{benign,malignant}/**/SOB_B_A-14-22549AB-40-001.png (as
    distributed) or SOB_B_A_14-22549AB_0.png"""
    file_name = re.compile(
        r'SOB_([BM])_[A-Z]+[-_](\d+-\d+)[A-Z]*[-_].*\.(?:png|jpe?g)', re.I
    )

    def discover(self, src: Path, size: int | None = None) -> list[SourceCase]:
        """List the images."""
        self.set_size(size)
        src = Path(src)
        self.notes = []
        cases = [self._case(path, src) for path in find_pictures(src)]
        if not any('problem' not in case.extra for case in cases):
            raise self.nothing_found(
                src,
                f'{len(cases)} image(s) have another name or place, '
                f'e.g. {cases[0].image}.'
                if cases
                else '',
            )
        return check_unique(cases)

    def _case(self, path: Path, src: Path) -> SourceCase:
        relative = path.relative_to(src)
        found = self.file_name.fullmatch(path.name)
        folders = [n for n in relative.parts[:-1] if n in self.classes]
        if not found:
            return self.image_case(
                relative.as_posix(),
                relative.as_posix(),
                path,
                None,
                (
                    'file-name',
                    f'{path}: expected a name such as '
                    'SOB_B_A-14-22549AB-40-001.png; rename or remove the file.',
                ),
            )
        label = 'BM'.index(found[1].upper())
        problem = None
        if folders and folders[-1] != self.classes[label]:
            problem = (
                'class-mismatch',
                (
                    f'{path}: in a folder {folders[-1]!r}, but its name says '
                    f'{self.classes[label]}; put it where it belongs.'
                ),
            )
        return self.image_case(path.stem, found[2], path, label, problem)
