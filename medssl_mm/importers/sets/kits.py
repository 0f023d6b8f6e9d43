"""Kidney and tumour slices of KiTS19."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medssl_mm.importers.base import Discovery
from medssl_mm.importers.slices import PictureSlices
from medssl_mm.importers.volumes import drawn_splits
from medssl_mm.store.splits import Split


class KiTSImporter(PictureSlices):
    """Kidney and tumour slices of KiTS19 as PNG, HU clipped to 0-255."""

    name = 'kits'
    modality = 'CT'
    classes = ('background', 'kidney', 'tumor')
    palette = [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png"""

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make a hold-out (1 val, 1 test of 5 patients) and folds."""
        return drawn_splits(self.name, cases, val=1 / 5, test=1 / 5), []
