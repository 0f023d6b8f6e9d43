"""BreakHis: histopathology of breast tumours."""

from __future__ import annotations

import re
from pathlib import Path

from medssl_mm.importers.base import SourceCase
from medssl_mm.importers.images import ImageDiscovery, ImageFiles
from medssl_mm.importers.readers.picture import find_pictures
from medssl_mm.store.known import KNOWN


class BreakHisImporter(ImageFiles):
    """BreakHis: breast tumours, benign or malignant, by patient.

    The class is in the name and in a folder above; they must agree. Letters
    behind the number of a slide (22549AB, 14134E) name parts of one biopsy
    and do not make another patient. Images of all magnifications are taken.
    Splits: 'breakhis-patients' (drawn).
    """

    name = 'breakhis'
    classes = KNOWN[name].classes
    layout = """\
    <src>/**/{benign,malignant}/**/SOB_B_A-14-22549AB-40-001.png (as
    distributed) or SOB_B_A_14-22549AB_0.png"""
    file_name = re.compile(
        r'SOB_([BM])_[A-Z]+[-_](\d+-\d+)[A-Z]*[-_].*\.(?:png|jpe?g)', re.I
    )

    def discover(self, src: Path) -> ImageDiscovery:
        """List the images."""
        src = Path(src)
        cases = [self._case(path, src) for path in find_pictures(src)]
        self.check_names(src, cases)
        return self.found(cases)

    def _case(self, path: Path, src: Path) -> SourceCase:
        relative = path.relative_to(src)
        found = self.file_name.fullmatch(path.name)
        folders = [n for n in relative.parts[:-1] if n in self.classes]
        if not found:
            expected = 'a name such as SOB_B_A-14-22549AB-40-001.png'
            return self.strange_case(path, src, expected)
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
