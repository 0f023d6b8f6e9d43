"""Abdominal CT slices of CURVAS 2024, from three raters."""

from __future__ import annotations

from medssl_mm.importers.slices import PictureSlices
from medssl_mm.store.known import KNOWN


class CurvasImporter(PictureSlices):
    """Slices of CURVAS 2024, three rater folders of the same patients.

    Each folder holds other slices of the same 14 patients, so a case gathers
    the slices of one patient from all folders and splits go by patient.
    """

    name = 'curvas'
    modality = 'CT'
    val, test = 2 / 14, 4 / 14
    classes = KNOWN[name].classes
    palette = [[0, 0, 0], [0, 255, 255], [255, 255, 0], [255, 0, 255]]
    image_glob = '**/images/*.png'
    label_glob = '**/masks/*.png'
    layout = """\
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/images/PATIENT_SLICE.png
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/masks/PATIENT_SLICE.png"""
