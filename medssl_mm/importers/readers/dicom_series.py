"""Which DICOM files make one series, and which of its images one volume."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers.dicom_file import GROUPS, read_tags
from medssl_mm.importers.readers.dicom_parts import (
    Slice,
    normal_of,
    placed,
    slices_of,
    split_volumes,
)

_HEADER = (
    *('Modality', 'ImageType', 'SOPClassUID', 'SOPInstanceUID', 'SeriesInstanceUID'),
    *('StudyInstanceUID', 'SeriesNumber', 'PatientID', 'FrameOfReferenceUID'),
    *('Rows', 'Columns', 'PixelSpacing'),
    *('ImagePositionPatient', 'ImageOrientationPatient', *GROUPS),
)
# SOP classes that are images: CT and MR, enhanced, legacy converted.
_IMAGES = tuple(
    f'1.2.840.10008.5.1.4.1.1.{end}' for end in ('2', '2.1', '2.2', '4', '4.1', '4.4')
)
_NO_DICOM, _CUT = 'no DICOM file', 'damaged header'


@dataclass(frozen=True)
class Series:
    """The images of one volume: a series, or a part of it.

    Args:
        modality (str): 'CT' or 'MR'.
        uid (str): Series UID, '' where the headers have none.
        study (str): Study UID.
        patient (str): Patient identifier.
        number (int, optional): Series number.
        folder (Path): The innermost folder of all files of the series.
        slices (tuple[Slice]): In the order of their names.
        part (str): What it is within its series, such as 'echo-2'; '' where the
            series is one volume.
        unread (tuple[str]): Files that may be slices of it but cannot be read.
    """

    modality: str
    uid: str
    study: str
    patient: str
    number: int | None
    folder: Path
    slices: tuple[Slice, ...]
    part: str = ''
    unread: tuple[str, ...] = ()

    @property
    def person(self) -> str:
        """Patient identifier, else the study; '' if neither."""
        return self.patient or self.study

    @property
    def identity(self) -> tuple[str, ...]:
        """What the parts of a series share, and no other series has."""
        known = self.modality, self.patient, self.study, self.uid
        return known if self.uid else (*known, str(self.folder))

    @property
    def files(self) -> tuple[str, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(item.path for item in self.slices))

    @property
    def frames(self) -> dict[str, list[int]]:
        """Frames by file, of the files that hold many."""
        found: dict[str, list[int]] = defaultdict(list)
        for item in self.slices:
            if item.frame is not None:
                found[item.path].append(item.frame)
        return dict(found)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows and slices."""
        rows, columns = self.slices[0].size
        return columns, rows, len(self.slices)

    def corners(self) -> NDArray[np.float64] | None:
        """The outermost voxel centres, mm (RAS); None where they are unknown.

        Shape: ``(8, 3)``, in any order.
        """
        first = self.slices[0]
        if not placed(self.slices) or first.spacing is None:
            return None
        places = np.array([item.position for item in self.slices], np.float64)
        order = np.argsort(places @ normal_of(first), kind='stable')
        row, column = np.reshape(np.array(first.directions, np.float64), (2, 3))
        rows, columns = first.size
        across = [
            row * first.spacing[1] * i + column * first.spacing[0] * j
            for i in (0, columns - 1)
            for j in (0, rows - 1)
        ]
        ends = places[order[[0, -1]]]
        corners: NDArray[np.float64] = ends[:, None] + np.array(across)[None]
        return corners.reshape(8, 3) * (-1, -1, 1)


def group_series(
    src: Path, modality: str | None = None
) -> tuple[list[Series], Counter[str]]:
    """Group the CT and MR images below a folder to volumes.

    Localizers and objects that are no CT or MR image (structure sets,
    reports, DICOMDIR) are counted and passed over. Files of two patients or
    studies are two series, whatever their series UID says; a series of
    several volumes is parted (see :func:`.dicom_parts.split_volumes`).

    Args:
        src (Path): Folder.
        modality (str, optional): Take only 'CT' or 'MR'. Defaults to None.

    Returns:
        tuple: the volumes, in the order of their first files; number of files
        passed over by reason.
    """
    groups: dict[tuple, list[Slice]] = defaultdict(list)
    numbers: dict[tuple, Any] = {}
    skipped: Counter[str] = Counter()
    lost: list[tuple[Path, str]] = []
    for path in find_files(src):
        header = read_tags(path, _HEADER)
        reason = _passed_over(header, modality)
        uid = _text(header, 'SeriesInstanceUID')
        if reason:
            skipped[reason] += 1
            if reason in (_NO_DICOM, _CUT):
                lost.append((path, uid))
            continue
        key = (
            _text(header, 'Modality'),
            _text(header, 'PatientID'),
            _text(header, 'StudyInstanceUID'),
            uid,
            # De-identified files may have lost their UID: a folder is a series.
            '' if uid else str(path.parent),
        )
        groups[key] += slices_of(str(path), header)
        numbers.setdefault(key, header.get('SeriesNumber', None))
    found = []
    for key, slices in groups.items():
        kind, patient, study, uid, _ = key
        number = None if numbers[key] is None else int(numbers[key])
        folder, unread = _common_folder(slices), _unread(slices, uid, lost)
        found += [
            Series(kind, uid, study, patient, number, folder, tuple(part), name, unread)
            for name, part in split_volumes(slices)
        ]
    return found, skipped


def _text(header: Any, key: str) -> str:
    return '' if header is None else str(header.get(key, '') or '')


def _passed_over(header: Any, modality: str | None) -> str:
    """Why a file is no part of a series; '' where it is."""
    if header is None:
        return _NO_DICOM
    found = _text(header, 'Modality')
    kind = [str(value).upper() for value in header.get('ImageType', None) or ()]
    lacks = not (header.get('Rows') and header.get('Columns'))
    about = header.get('SOPClassUID') or header.file_meta.get('MediaStorageSOPClassUID')
    if lacks and (about in _IMAGES or not (found or about)):
        return _CUT
    if found not in ('CT', 'MR'):
        return f'modality {found or "not given"}'
    if modality and found != modality:
        return f'modality {found}, not {modality}'
    if lacks:
        return f'{found} object without an image'
    return 'localizer' if any('LOCALIZER' in value for value in kind) else ''


def _common_folder(slices: Iterable[Slice]) -> Path:
    """The innermost folder of all files."""
    parents = {Path(item.path).parent for item in slices}
    folder = min(parents, key=lambda p: (len(p.parts), str(p)))
    while not all(p.is_relative_to(folder) for p in parents):
        folder = folder.parent
    return folder


def _unread(
    slices: Sequence[Slice], uid: str, lost: Sequence[tuple[Path, str]]
) -> tuple[str, ...]:
    """Unreadable files that may be slices of a series.

    One that tells its series belongs to that, any other to the series of its
    folder whose files have the same suffix.
    """
    if not lost:
        return ()
    alike = {(Path(s.path).parent, Path(s.path).suffix.lower()) for s in slices}
    return tuple(
        str(path)
        for path, told in lost
        if (told == uid if told else (path.parent, path.suffix.lower()) in alike)
    )
