"""Invasive ductal carcinoma: patches of breast tissue."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.images import (
    ImageDiscovery,
    ImageFiles,
    folder_of_lists,
    lists_option,
)
from medssl_mm.importers.readers.picture import find_pictures
from medssl_mm.importers.readers.table import read_rows
from medssl_mm.store.known import KNOWN


@dataclass(frozen=True)
class IDCImporter(ImageFiles):
    """Invasive ductal carcinoma: 50 px patches of whole slides (Kaggle).

    Patient and class are in the file name and in the folders; they must
    agree. Patches cut off at the rim of a slide are not square: their centre
    is enlarged to 50 px. Splits: 'idc-patients' (drawn) and 'idc-lists' from
    ``{train,val,test}_split.csv``. Patches are stored as they are and enlarged
    in training; storing them so would cost 26 times the room.
    """

    lists: str | None = lists_option()

    name = 'idc'
    classes = KNOWN[name].classes
    default_size = 50
    blank_allowed = True  # empty glass
    layout = """\
    <src>/10253/0/10253_idx5_x1001_y1001_class0.png
    <src>/10253/1/10253_idx5_x501_y351_class1.png
(or all that in <src>/IDC_regular_ps50_idx5), and, if wanted, in <src> or
--lists DIR: {train,val,test}_split.csv with the columns img_path,labels"""
    file_name = re.compile(r'(\w+?)_idx\d+_x\d+_y\d+_class([01])\.png')

    def discover(self, src: Path) -> ImageDiscovery:
        """List the patches."""
        src = Path(src)
        # The archive of Kaggle holds everything twice.
        nested = src / 'IDC_regular_ps50_idx5'
        root = nested if nested.is_dir() else src
        cases = [self._case(path, root) for path in find_pictures(root)]
        self.check_names(src, cases)
        lists = self._read_lists(folder_of_lists(src, self.lists))
        return self.found(cases, lists=lists)

    def _case(self, path: Path, root: Path) -> SourceCase:
        parts = path.relative_to(root).parts
        found = self.file_name.fullmatch(path.name)
        problem = None
        if not found or len(parts) != 3 or parts[1] not in ('0', '1'):
            expected = '<patient>/<0 or 1>/<patient>_idx5_x<X>_y<Y>_class<0 or 1>.png'
            return self.strange_case(path, root, expected)
        if found[1] != parts[0]:
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

    def _read_lists(self, folder: Path) -> dict[str, dict]:
        paths = {
            name: folder / f'{name}_split.csv' for name in ('train', 'val', 'test')
        }
        missing = [p.name for p in paths.values() if not p.is_file()]
        if len(missing) == 3:
            return {}
        if missing:
            raise UserError(
                f'{folder}: {", ".join(missing)} is missing; give all three '
                'lists or none'
            )
        subsets: dict[str, list[str]] = {}
        for name, path in paths.items():
            subsets[name] = []
            for line, row in read_rows(path, ('img_path', 'labels')):
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
        return {'idc-lists': dict(subsets, pretrain=subsets['train'])}
