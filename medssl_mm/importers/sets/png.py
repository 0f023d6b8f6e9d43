"""Slices of one's own as PNG files: image / mask pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.classes import class_names, read_palette
from medssl_mm.importers.options import option, patient_option, patients_option
from medssl_mm.importers.slices import MaskCode, PictureSlices
from medssl_mm.importers.volumes import VolumeDiscovery
from medssl_mm.store.header import default_palette

TURNS = (0, 90, 180, 270)


@dataclass(frozen=True)
class PNGImporter(PictureSlices):
    """Image / mask pairs of PNG files, by globs and patterns."""

    images: str | None = option('images, relative to --src', metavar='GLOB')
    labels: str | None = option('masks, relative to --src', metavar='GLOB')
    # An object in Python, a file on the command line.
    palette: Any = option(  # type: ignore[misc]
        'JSON: mask colour or grey value of every class',
        kept=lambda palette: dict(zip(*read_palette(palette))),
        metavar='FILE',
    )
    classes: str | None = option(  # type: ignore[misc, assignment]
        'for grey masks of class indices: names of 1, 2, ... separated by commas, '
        'or a JSON file',
        flags=('--labels-file',),
    )
    patient_pattern: str | None = patient_option()
    patients: str | None = patients_option()
    slice_pattern: str | None = option('likewise, slice number', metavar='REGEX')
    turn: int | None = option(  # type: ignore[misc, assignment]
        'turn the slices counter-clockwise by 90, 180 or 270',
        type=int,
        metavar='DEGREES',
    )
    modality: str | None = option(  # type: ignore[misc, assignment]
        'of the images; default: other', choices=('CT', 'MR', 'XR', 'other')
    )

    name = 'png'
    guesses_patients = True
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png
or any other, by globs relative to <src> and patterns:
    --images '*/images/*.png' --labels '*/masks/*.png'
    --patient-pattern '(\\d+)_\\d+\\.png' --slice-pattern '_(\\d+)\\.png'"""

    def __post_init__(self) -> None:
        if self.labels and not self.images:
            raise UserError('--labels needs --images')
        if self.turn is not None and self.turn not in TURNS:
            raise UserError(f'turn must be one of {TURNS}, got {self.turn!r}')

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the patients and their slices."""
        code, palette = self._code()
        return self.pair(
            Path(src),
            self.images or self.image_glob,
            self.labels if self.images else self.label_glob,
            code,
            self.patient_pattern,
            self.slice_pattern,
            classes=code.classes,
            palette=palette,
            modality=self.modality or 'other',
        )

    def _code(self) -> tuple[MaskCode, list]:
        """How the masks are drawn, and the palette of the store."""
        turn = self.turn or 0
        if self.palette:
            names, values = read_palette(self.palette)
            colours = isinstance(values[0], list)
            palette = values if colours else default_palette(len(names))
            return MaskCode(names, values, turn), palette
        names = class_names(self.classes) if self.classes else ('background',)
        return MaskCode(names, None, turn), default_palette(len(names))

    def check_masks(self, images: Mapping, masks: Mapping) -> None:
        """Masks that were asked for must fit, and need classes."""
        paired = set(masks) & set(images)
        if self.labels and not paired:
            raise UserError(
                f'no mask matches {self.labels!r} with the same '
                f'wildcards as an image; an image gives {min(images)}, a mask '
                f'{min(masks) if masks else "nothing"}.'
            )
        if paired and not self.palette and not self.classes:
            raise UserError(
                'there are masks but no classes; give --palette FILE.json '
                '(mask colour or grey value of every class) or --classes '
                'NAME1,NAME2,... for masks that hold the values 1, 2, ...'
            )
