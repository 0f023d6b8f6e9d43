"""Liver slices of 3D-IRCADb-01."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medssl_mm.importers.base import Discovery
from medssl_mm.importers.slices import PictureSlices
from medssl_mm.importers.volumes import VolumeDiscovery, drawn_splits
from medssl_mm.store.splits import Split


class IRCADImporter(PictureSlices):
    """Liver slices of 3D-IRCADb-01 as PNG, each scaled by itself.

    The published files show the spine on top; they are turned by 180 degrees
    to the usual view (anterior on top, the patient's right on the left).
    """

    name = 'ircad'
    modality = 'CT'
    classes = ('background', 'liver')
    palette = [[0, 0, 0], [180, 40, 40]]
    turn = 180
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png"""

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the patients and their slices."""
        found = super().discover(src)
        note = (
            'slices are turned by 180 degrees to the usual view (spine at '
            'the bottom); predictions must be turned back to fit the files'
        )
        return replace(found, notes=[*found.notes, note])

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make a hold-out (2 val, 5 test of 16 patients) and folds."""
        return drawn_splits(self.name, cases, val=2 / 16, test=5 / 16), []
