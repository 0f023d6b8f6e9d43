"""Kidney and tumour slices of KiTS19."""

from __future__ import annotations

from medssl_mm.importers.slices import PictureSlices


class KiTSImporter(PictureSlices):
    """Kidney and tumour slices of KiTS19 as PNG, HU clipped to 0-255."""

    name = 'kits'
    modality = 'CT'
    val, test = 1 / 5, 1 / 5
    classes = ('background', 'kidney', 'tumor')
    palette = [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png"""
