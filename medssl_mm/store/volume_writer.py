"""Writes a slice store, atomically."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_json
from medssl_mm.store.case_info import (
    CASE_FILE,
    CaseInfo,
    complete_cases,
    content_digest,
    count_classes,
    describe,
)
from medssl_mm.store.chunks import ChunkReader, write_slices
from medssl_mm.store.header import (
    CHANNELS_VERSION,
    FORMAT_VERSION,
    GENERATION,
    default_palette,
    load_as,
)
from medssl_mm.store.staging import StagedWriter
from medssl_mm.store.volumes import SliceStore

MODALITIES = ('CT', 'MR', 'XR', 'other')
UNITS = ('HU', 'arbitrary')
IMAGE_DTYPES = ('int16', 'uint8', 'uint16', 'float32')


class StoreWriter(StagedWriter):
    """Writes a slice store; see :class:`~.staging.StagedWriter`.

    Use :meth:`create` to start.
    """

    folder = 'cases'

    @classmethod
    def create(
        cls,
        root: str | Path,
        name: str,
        modality: str,
        units: str,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        import_options: dict | None = None,
        overwrite: bool = False,
        channels: Sequence[str] = (),
    ) -> StoreWriter:
        """Start or continue writing a store.

        Args:
            root: Folder, made if missing.
            name: Name of the data set.
            modality: 'CT', 'MR', 'XR' or 'other'.
            units: 'HU' or 'arbitrary'.
            classes: Names, index 0 is the background.
            palette: RGB per class. Defaults to None: made.
            import_options: Options of the import, kept for later runs.
            overwrite: Start anew whatever the folder's store was made with;
                :meth:`finish` drops its cases.
            channels: Names of the channels of every slice, e.g. ('T1', 'T2').
                None or one: volumes are ``(Z, H, W)``, and the name is not
                kept.

        Raises:
            ValueError: Unknown modality or units, palette of another length,
                a channel without a name or named twice.
            UserError: The folder holds another data set or cannot be made.
        """
        if modality not in MODALITIES:
            raise ValueError(f'modality must be one of {MODALITIES}, got {modality!r}')
        if units not in UNITS:
            raise ValueError(f'units must be one of {UNITS}, got {units!r}')
        palette = palette or default_palette(len(classes))
        if len(palette) != len(classes):
            raise ValueError(
                f'palette has {len(palette)} colours for {len(classes)} classes'
            )
        channels = list(channels)
        if len(set(channels)) != len(channels) or not all(channels):
            raise ValueError(f'channels must have names that differ, got {channels}')
        several = len(channels) > 1
        header = dict(
            name=name,
            modality=modality,
            units=units,
            classes=list(classes),
            palette=[[int(v) for v in colour] for colour in palette],
            version=CHANNELS_VERSION if several else FORMAT_VERSION,
            import_options=import_options or {},
        )
        if several:
            header['channels'] = channels
        return cls.stage(root, header, overwrite)

    @property
    def staged(self) -> list[str]:
        """Complete cases that wait for :meth:`finish`."""
        return complete_cases(self.staging / 'cases')

    @property
    def published(self) -> list[str]:
        """Cases of the finished store, if there is one."""
        return [] if self.overwrite else complete_cases(self.root / 'cases')

    def open(self) -> SliceStore:
        """Open the finished store."""
        return SliceStore(self.root)

    def read_case(self, case_id: str) -> CaseInfo | None:
        """Describe a staged or published case; None when there is none."""
        path = self._case_file(case_id)
        return None if path is None else load_as(path, CaseInfo.from_dict)

    def _case_file(self, case_id: str) -> Path | None:
        folders = [self.staging] + ([] if self.overwrite else [self.root])
        for folder in folders:
            path = folder / 'cases' / case_id / CASE_FILE
            if path.is_file():
                return path
        return None

    def reader(self, case_id: str) -> ChunkReader:
        """Open the image of a staged or published case."""
        path = self._case_file(case_id)
        assert path is not None, f'case {case_id!r} is neither staged nor published'
        return ChunkReader(path.with_name('image.b2nd'))

    def refresh_case(self, info: CaseInfo) -> None:
        """Rewrite the description of a case whose pixels stay."""
        path = self._case_file(info.case_id)
        assert path is not None, (
            f'case {info.case_id!r} is neither staged nor published'
        )
        write_json(path, asdict(info), indent=None)

    def drop_staged(self, case_id: str) -> None:
        """Drop a case that waits for :meth:`finish`."""
        shutil.rmtree(self.staging / 'cases' / case_id, ignore_errors=True)

    def add_case(
        self,
        case_id: str,
        image: np.ndarray,
        label: np.ndarray | None = None,
        patient_id: str | None = None,
        **about: Any,
    ) -> CaseInfo:
        """Write one case; it exists once its ``case.json`` is in place.

        Args:
            case_id: Name, a plain folder name.
            image: ``(Z, H, W)``, with several channels ``(Z, C, H, W)``; int16,
                uint8, uint16 or float32.
            label: ``(Z, H, W)`` uint8.
            patient_id: Defaults to None: the case id.
            **about: What else :class:`CaseInfo` may tell: labelled_slices,
                spacing, affine, what is known of the source, warnings.

        Returns:
            CaseInfo: What ``case.json`` says.

        Raises:
            ValueError: Wrong shape, type or label value.
            UserError: The case cannot be written (e.g. disk full).
        """
        image = np.asarray(image)
        self._check_image(case_id, image)
        shape = (image.shape[0], image.shape[-2], image.shape[-1])
        intensity, foreground = describe(image, self.header['units'])
        counts: tuple[dict, dict] = {}, {}
        if label is not None:
            label = np.asarray(label)
            if label.shape != shape or label.dtype != np.uint8:
                raise ValueError(
                    f'case {case_id!r}: label must be uint8 of shape '
                    f'{shape}, got {label.dtype} of {label.shape}'
                )
            counts = self._count_classes(case_id, label)
        info = CaseInfo(
            case_id=case_id,
            patient_id=patient_id or case_id,
            shape=shape,
            dtype=image.dtype.name,
            labelled=label is not None,
            intensity=intensity,
            slice_foreground=foreground,
            class_slices=counts[0],
            class_voxels=counts[1],
            content_sha256=content_digest(image),
            label_content_sha256=None if label is None else content_digest(label),
            **about,
        )
        self._write(info, image, label)
        return info

    def _count_classes(self, case_id: str, label: np.ndarray) -> tuple[dict, dict]:
        slices, voxels = count_classes(label)
        number = len(self.header['classes'])
        unknown = [value for value in map(int, voxels) if value >= number]
        if unknown:
            raise ValueError(
                f'case {case_id!r}: label values {unknown} have no class '
                f'(there are {number} classes)'
            )
        return slices, voxels

    def _check_image(self, case_id: str, image: np.ndarray) -> None:
        if Path(case_id).name != case_id or case_id.startswith('.') or not case_id:
            raise ValueError(f'case id {case_id!r} is no plain folder name')
        if image.dtype.name not in IMAGE_DTYPES:
            raise ValueError(
                f'case {case_id!r}: image type must be one of '
                f'{IMAGE_DTYPES}, got {image.dtype}'
            )
        channels = self.header.get('channels', ())
        wanted = '(Z, C, H, W)' if channels else '(Z, H, W)'
        if image.ndim != len(wanted.split(',')) or 0 in image.shape:
            raise ValueError(
                f'case {case_id!r}: image must be {wanted} and not empty, '
                f'got shape {image.shape}'
            )
        if channels and image.shape[1] != len(channels):
            raise ValueError(
                f'case {case_id!r}: image must have the {len(channels)} '
                f'channels {channels}, got {image.shape[1]} (shape {image.shape})'
            )

    def _write(
        self, info: CaseInfo, image: np.ndarray, label: np.ndarray | None
    ) -> None:
        cases = self.staging / 'cases'
        temporary = cases / f'.{info.case_id}.{os.getpid()}.tmp'
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir(parents=True)
            write_slices(temporary / 'image.b2nd', image)
            if label is not None:
                write_slices(temporary / 'label.b2nd', label)
            write_json(temporary / CASE_FILE, asdict(info), indent=None)
            _replace_folder(temporary, cases / info.case_id)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f'cannot write case {info.case_id!r} under {cases}: {error}. '
                'Is the disk full?'
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _prepare(self, remove: set[str]) -> tuple[list[str], list[str], dict]:
        staged = self.staged
        if self.overwrite:
            remove = set(complete_cases(self.root / self.folder))
        new = [f'{self.folder}/{case_id}' for case_id in staged]
        gone = [f'{self.folder}/{case_id}' for case_id in remove - set(staged)]
        left = set(self.published) - remove | set(staged)
        return new, gone, {GENERATION: self._digest(sorted(left))}

    def _digest(self, names: Sequence[str]) -> str:
        """Digest of what the store will say of its cases."""
        digest = hashlib.sha256()
        for name in names:
            path = self._case_file(name)
            if path is not None:
                digest.update(f'{name}\n'.encode() + path.read_bytes())
        return digest.hexdigest()[:16]

    def _close(self) -> None:
        """Nothing is open: each case is written at once."""


def _replace_folder(source: Path, target: Path) -> None:
    """Move a folder into place; an older one is moved away first."""
    if target.exists():
        old = target.with_name(f'.{target.name}.{os.getpid()}.old')
        shutil.rmtree(old, ignore_errors=True)
        os.replace(target, old)
        os.replace(source, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.replace(source, target)
