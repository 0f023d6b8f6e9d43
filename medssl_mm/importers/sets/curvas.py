"""Abdominal CT slices of CURVAS 2024, from three raters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medssl_mm.importers.base import Discovery
from medssl_mm.importers.slices import PictureSlices
from medssl_mm.importers.volumes import drawn_splits
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split


class CurvasImporter(PictureSlices):
    """Slices of CURVAS 2024, three rater folders of the same patients.

    Each folder holds other slices of the same 14 patients, so a case gathers
    the slices of one patient from all folders and splits go by patient.
    """

    name = 'curvas'
    modality = 'CT'
    classes = KNOWN[name].classes
    palette = [[0, 0, 0], [0, 255, 255], [255, 255, 0], [255, 0, 255]]
    image_glob = '**/images/*.png'
    label_glob = '**/masks/*.png'
    layout = """\
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/images/PATIENT_SLICE.png
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/masks/PATIENT_SLICE.png"""

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make a hold-out (2 val, 4 test of 14 patients) and folds."""
        return drawn_splits(self.name, cases, val=2 / 14, test=4 / 14), []
