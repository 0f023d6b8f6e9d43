"""Liver slices of 3D-IRCADb-01."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medssl_mm.importers.slices import PictureSlices
from medssl_mm.importers.volumes import VolumeDiscovery


class IRCADImporter(PictureSlices):
    """Liver slices of 3D-IRCADb-01 as PNG, each scaled by itself.

    The published files show the spine on top; they are turned by 180 degrees
    to the usual view (anterior on top, the patient's right on the left).
    """

    name = 'ircad'
    modality = 'CT'
    val, test = 2 / 16, 5 / 16
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
