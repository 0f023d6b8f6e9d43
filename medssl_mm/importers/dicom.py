"""Folders of CT or MR series in DICOM, one file per slice.

Slices are ordered by their position along the slice normal, never by
instance number or file name. Names, birth dates, identifiers and UIDs of the
headers are not stored: cases are called after their folder, patients by a
short digest of the patient identifier (which groups the series of a patient;
it is no protection against somebody who can guess the identifier).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    WARNING,
    CaseError,
    Importer,
    LoadedCase,
    Problem,
    SourceCase,
    check_unique,
    match_patient,
    safe_case_id,
)
from medssl_mm.importers.integrity import check_geometry
from medssl_mm.importers.nifti import read_nifti
from medssl_mm.importers.png import class_names
from medssl_mm.store.header import default_palette
from medssl_mm.store.orientation import canonicalize

_HEADER = [
    'Modality',
    'ImageType',
    'SeriesInstanceUID',
    'StudyInstanceUID',
    'SeriesNumber',
    'PatientID',
    'Rows',
]
_DECODERS = 'pip install pylibjpeg pylibjpeg-openjpeg pylibjpeg-libjpeg'


class DICOMImporter(Importer):
    """Import every CT or MR series below a folder.

    Files of one series may lie in any order and under any name. Localizers
    and objects that are no CT or MR image (structure sets, reports, DICOMDIR)
    are skipped. A series with missing, doubled or unevenly spaced slices, with
    mixed orientations or sizes, or without pixels is refused by name.

    Options of :meth:`discover`:
        labels (str, optional): A NIfTI file (for one series), or a folder of
            them named after case id, folder or series UID. Labels must lie on
            the grid of their series; they are turned with it, never resampled.
        classes (str, optional): JSON file with the class names of the labels,
            or the names of the values 1, 2, ... separated by commas.
        patient_pattern (str, optional): Regular expression on the series'
            folder; its first group replaces the digest as patient id.
        modality (str, optional): 'CT' or 'MR', where a folder has both.
    """

    name = 'dicom'
    modality = 'CT'
    units = 'HU'
    classes = ('background',)
    palette = [[0, 0, 0]]
    options = ('labels', 'classes', 'patient_pattern', 'modality')
    layout = """\
DIR/**/<any file name>      one file per slice; CT or MR images of any number
                            of series, grouped by SeriesInstanceUID
with --labels:
LABELS/<case id>.nii.gz     or named after the series' folder"""

    def discover(
        self,
        src: Path,
        labels: str | None = None,
        classes: str | None = None,
        patient_pattern: str | None = None,
        modality: str | None = None,
    ) -> list[SourceCase]:
        """List the series below ``src``."""
        if modality not in (None, 'CT', 'MR'):
            raise UserError(f"modality must be 'CT' or 'MR', got {modality!r}")
        src = Path(src)
        series, skipped = _group(src, modality)
        if not series:
            raise self.nothing_found(src, _skipped_text(skipped))
        kinds = sorted({found['modality'] for found in series})
        if len(kinds) > 1:
            raise UserError(
                f'{src} holds both CT and MR series; a store has one '
                'modality. Import twice, with --modality CT and --modality '
                'MR.'
            )
        self.modality = kinds[0]
        self.units = 'HU' if self.modality == 'CT' else 'arbitrary'
        if classes:
            self.classes = class_names(classes)
            self.palette = default_palette(len(self.classes))
        _name_cases(series, src)
        found_labels = _match_labels(series, labels)
        if found_labels and len(self.classes) < 2:
            raise UserError(
                'there are labels but no class names; give --classes '
                'NAME1,NAME2,... (values 1, 2, ...) or --classes FILE.json'
            )
        self.notes = [_skipped_text(skipped)] if skipped else []
        cases = []
        for item in series:
            relative = item['folder'].relative_to(src).as_posix()
            text = relative if relative != '.' else src.resolve().name
            cases.append(
                SourceCase(
                    case_id=item['case_id'],
                    patient_id=match_patient(patient_pattern, text, item['patient']),
                    image=str(item['folder']),
                    label=found_labels.get(item['case_id']),
                    extra=dict(image_files=item['files']),
                )
            )
        return check_unique(cases)

    def load(self, case: SourceCase) -> LoadedCase:
        """Read one series and, where given, its label."""
        array, affine, problems = read_series(case.extra['image_files'])
        image, canonical, info = canonicalize(array, affine)
        loaded = LoadedCase(image=image, affine=canonical, problems=problems, **info)
        if case.label is not None:
            array, affine, found = read_nifti(case.label)
            loaded.label, affine, _ = canonicalize(array, affine)
            problems += found + check_geometry(
                image.shape, loaded.label.shape, canonical, affine
            )
        return loaded


def read_series(files):
    """Read the slices of one series into a volume.

    The value of a CT pixel is HU: stored value * slope + intercept, rounded;
    pixels that carry the declared padding value become air (-1024).

    Args:
        files (list[str]): The slices of one series, in any order.

    Returns:
        tuple: array ``(columns, rows, slices)``, int16 for CT (MR: int16, or
        float32 where the rescaled values are not whole); affine ``(4, 4)`` to
        RAS+ world in mm; list of :class:`Problem` (warnings).

    Raises:
        CaseError: What is wrong with the series, with files and positions.
    """
    problems: list[Problem] = []
    headers = _drop_copies([_read_header(path) for path in files], problems)
    _check_uniform(headers)
    headers, step = _order(headers, problems)
    first = headers[0]
    rows, columns = int(first.Rows), int(first.Columns)
    array = np.empty((len(headers), rows, columns), np.float32)
    for index, header in enumerate(headers):
        array[index] = _pixels(header, problems if index == 0 else None)
    # Values that do not fit stay float: the checks of every import judge.
    if (
        (first.Modality == 'CT' or (array == np.rint(array)).all())
        and array.min() >= -32768
        and array.max() <= 32767
    ):
        array = np.rint(array).astype(np.int16)

    row_step, column_step = (float(v) for v in first.PixelSpacing)
    directions = np.asarray(first.ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = directions[:3] * column_step  # along a row: column index
    affine[:3, 1] = directions[3:] * row_step
    affine[:3, 2] = step
    affine[:3, 3] = np.asarray(first.ImagePositionPatient, float)
    affine[:2] *= -1  # DICOM's world is LPS, NIfTI's RAS
    return array.transpose(2, 1, 0), affine, problems


def _group(src: Path, wanted: str | None):
    """Group the image files below ``src`` by series; count what is skipped."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    groups, skipped = defaultdict(list), Counter()
    for path in sorted(p for p in Path(src).rglob('*') if p.is_file()):
        try:
            header = pydicom.dcmread(
                path, stop_before_pixels=True, specific_tags=_HEADER
            )
        except (InvalidDicomError, OSError, EOFError, ValueError):
            skipped['no DICOM file'] += 1
            continue
        modality = str(header.get('Modality', ''))
        kind = [str(v).upper() for v in header.get('ImageType', None) or ()]
        if modality not in ('CT', 'MR') or 'Rows' not in header:
            # A CT object without Rows is reported by name in load().
            if modality not in ('CT', 'MR'):
                skipped[f'modality {modality or "not given"}'] += 1
                continue
        if wanted and modality != wanted:
            skipped[f'modality {modality}, not {wanted}'] += 1
            continue
        if any('LOCALIZER' in value for value in kind):
            skipped['localizer'] += 1
            continue
        uid = str(header.get('SeriesInstanceUID', '') or '')
        # De-identified files may have lost their UID: a folder is a series.
        key = (modality, uid or f'folder:{path.parent}')
        groups[key].append((path, header))
    series = []
    for (modality, uid), members in groups.items():
        header = members[0][1]
        parents = {path.parent for path, _ in members}
        folder = min(parents, key=lambda p: (len(p.parts), str(p)))
        while not all(p.is_relative_to(folder) for p in parents):
            folder = folder.parent
        person = str(header.get('PatientID', '') or '')
        study = str(header.get('StudyInstanceUID', '') or '')
        series.append(
            dict(
                modality=modality,
                uid=uid,
                folder=folder,
                number=header.get('SeriesNumber', None),
                person=person or study,
                files=[str(path) for path, _ in members],
            )
        )
    return series, skipped


def _skipped_text(skipped: Counter) -> str:
    if not skipped:
        return 'The folder has no files.'
    parts = ', '.join(f'{n} x {why}' for why, n in skipped.most_common(6))
    return f'Skipped: {parts}.'


def _name_cases(series: list, src: Path) -> None:
    """Give every series a case id made from its folder."""
    crowd = Counter(item['folder'] for item in series)
    used = Counter()
    for item in series:
        relative = item['folder'].relative_to(src).as_posix()
        base = safe_case_id(relative if relative != '.' else src.resolve().name)
        if crowd[item['folder']] > 1:
            number = item['number']
            base += f'_series{0 if number is None else int(number):03d}'
        used[base] += 1
        if used[base] > 1:
            base += f'_{used[base]}'
        item['case_id'] = base
        digest = hashlib.sha256(item['person'].encode()).hexdigest()[:10]
        item['patient'] = f'patient-{digest}' if item['person'] else base


def _match_labels(series: list, labels: str | None) -> dict:
    """Find the label file of each series: case id -> path."""
    if labels is None:
        return {}
    labels = Path(labels)
    if labels.is_file():
        if len(series) > 1:
            raise UserError(
                f'{labels} is one label file for {len(series)} series; give '
                'a folder with one file per series, named '
                f'{series[0]["case_id"]}.nii.gz and so on.'
            )
        return {series[0]['case_id']: str(labels)}
    if not labels.is_dir():
        raise UserError(f'label folder {labels} does not exist')
    files = sorted(p for p in labels.rglob('*') if p.name.endswith(('.nii', '.nii.gz')))
    by_stem = defaultdict(list)
    for path in files:
        by_stem[path.name.split('.nii')[0]].append(path)
    found = {}
    for item in series:
        names = {item['case_id'], item['folder'].name, item['uid']}
        hits = [path for name in sorted(names) for path in by_stem[name]]
        if len(hits) > 1:
            raise UserError(
                f'{len(hits)} label files fit series {item["case_id"]}: '
                f'{", ".join(map(str, hits[:3]))}; leave one.'
            )
        if hits:
            found[item['case_id']] = str(hits[0])
    if not found:
        raise UserError(
            f'no label in {labels} fits a series; found '
            f'{", ".join(p.name for p in files[:3]) or "no NIfTI file"}, '
            f'expected names such as {series[0]["case_id"]}.nii.gz'
        )
    return found


def _short(header) -> str:
    return Path(header.filename).name


def _read_header(path: str):
    """Read one file completely; the pixels stay encoded."""
    import pydicom

    try:
        header = pydicom.dcmread(path)
    except Exception as error:
        raise CaseError(
            'unreadable',
            f'{path}: not a readable DICOM file ({type(error).__name__}: {error})',
        ) from None
    frames = int(header.get('NumberOfFrames', 1) or 1)
    if frames > 1:
        raise CaseError(
            'multi-frame',
            f'{path}: {frames} frames in one file; expected '
            'one slice per file. Convert the series to single-frame DICOM or '
            'to NIfTI (e.g. with dcm2niix) and import that.',
        )
    if 'PixelData' not in header:
        raise CaseError(
            'no-pixel-data',
            f'{path}: the file has no pixel data; copy the '
            'series again or remove the file.',
        )
    lost = [
        key
        for key in (
            'Rows',
            'Columns',
            'PixelSpacing',
            'ImageOrientationPatient',
            'ImagePositionPatient',
        )
        if header.get(key) is None or header.get(key) == ''
    ]
    if lost:
        raise CaseError(
            'no-geometry',
            f'{path}: {", ".join(lost)} missing; the place of '
            'the slice is unknown. Convert the series to NIfTI with a tool '
            'that knows its scanner.',
        )
    if int(header.get('SamplesPerPixel', 1)) != 1:
        raise CaseError(
            'not-grey',
            f'{path}: a colour image; expected grey CT or MR '
            'slices. Remove secondary captures from the folder.',
        )
    return header


def _drop_copies(headers: list, problems: list) -> list:
    """Keep one of several files that hold the same image object."""
    kept, copies = {}, []
    for index, header in enumerate(headers):
        uid = str(header.get('SOPInstanceUID', '') or f'#{index}')
        other = kept.setdefault(uid, header)
        if other is header:
            continue
        same = (
            header.PixelData == other.PixelData
            and header.ImagePositionPatient == other.ImagePositionPatient
        )
        if not same:
            raise CaseError(
                'duplicate-uid',
                f'{_short(other)} and {_short(header)} claim '
                'one SOPInstanceUID but differ; remove the wrong one.',
            )
        copies.append(_short(header))
    if copies:
        problems.append(
            Problem(
                WARNING,
                'duplicate-file',
                f'{len(copies)} file(s) are copies '
                f'of others and were left out: {", ".join(copies[:3])}',
            )
        )
    return list(kept.values())


def _check_uniform(headers: list) -> None:
    """Refuse a series that mixes grids or orientations."""
    facts = (
        (
            'orientation',
            lambda h: tuple(
                round(float(v), 3) + 0.0 for v in h.ImageOrientationPatient
            ),
        ),
        ('size (rows, columns)', lambda h: (int(h.Rows), int(h.Columns))),
        ('pixel spacing', lambda h: tuple(round(float(v), 4) for v in h.PixelSpacing)),
    )
    for what, fact in facts:
        groups = defaultdict(list)
        for header in headers:
            groups[fact(header)].append(_short(header))
        if len(groups) > 1:
            parts = '; '.join(
                f'{value}: {len(names)} file(s), e.g. {names[0]}'
                for value, names in sorted(
                    groups.items(), key=lambda item: -len(item[1])
                )[:4]
            )
            raise CaseError(
                'mixed-series',
                f'the slices differ in {what}: {parts}. Put '
                'the parts into folders of their own with different '
                'SeriesInstanceUIDs, or remove the odd ones.',
            )


def _order(headers: list, problems: list):
    """Sort along the slice normal; check the steps.

    Returns:
        tuple: sorted headers; step vector from slice to slice, mm (LPS).
    """
    directions = np.asarray(headers[0].ImageOrientationPatient, float)
    normal = np.cross(directions[:3], directions[3:])
    length = np.linalg.norm(normal)
    if not 0.99 < length < 1.01:
        raise CaseError(
            'bad-orientation',
            f'{_short(headers[0])}: orientation '
            f'{directions.tolist()} is not a pair of perpendicular unit '
            'vectors.',
        )
    normal /= length
    places = np.array(
        [np.asarray(header.ImagePositionPatient, float) for header in headers]
    )
    heights = places @ normal
    order = np.argsort(heights, kind='stable')
    headers = [headers[index] for index in order]
    places, heights = places[order], heights[order]
    if len(headers) == 1:
        thick = float(headers[0].get('SliceThickness', 0) or 0)
        problems.append(
            Problem(
                WARNING,
                'single-slice',
                'the series has one slice; its '
                f'spacing is taken from SliceThickness ({thick or 1:g} mm)',
            )
        )
        return headers, normal * (thick or 1.0)
    steps = np.diff(heights)
    tiny = np.flatnonzero(steps < 1e-3)
    if len(tiny):
        pairs = ', '.join(
            f'{_short(headers[i])} and {_short(headers[i + 1])} at {heights[i]:.2f} mm'
            for i in tiny[:3]
        )
        raise CaseError(
            'duplicate-position',
            f'{len(tiny)} slice position(s) occur more '
            f'than once: {pairs}. Several phases or reconstructions in one '
            'series must be separated first.',
        )
    usual = float(np.median(steps))
    ratio = steps / usual
    wide = np.flatnonzero(ratio > 1.5)
    if len(wide):
        missing = int(np.rint(ratio[wide] - 1).sum())
        gaps = ', '.join(
            f'{heights[i]:.2f} to {heights[i + 1]:.2f} mm' for i in wide[:4]
        )
        raise CaseError(
            'missing-slices',
            f'about {missing} slice(s) missing: the usual '
            f'step is {usual:.3f} mm, found gaps at {gaps}. Copy the series '
            'again.',
        )
    uneven = np.flatnonzero(np.abs(ratio - 1) > 0.1)
    if len(uneven):
        where = uneven[0]
        raise CaseError(
            'uneven-spacing',
            f'slice steps run from {steps.min():.3f} to '
            f'{steps.max():.3f} mm (usual {usual:.3f}), first between '
            f'{heights[where]:.2f} and {heights[where + 1]:.2f} mm; expected '
            'one spacing. Volumes are never resampled on import: resample '
            'the series first.',
        )
    if np.abs(ratio - 1).max() > 0.01:
        problems.append(
            Problem(
                WARNING,
                'spacing-jitter',
                f'slice steps vary from '
                f'{steps.min():.3f} to {steps.max():.3f} mm; the mean is '
                'used',
            )
        )
    step = (places[-1] - places[0]) / (len(headers) - 1)
    return headers, step


def _pixels(header, problems: list | None) -> np.ndarray:
    """Decode one slice and apply the rescale."""
    try:
        stored = header.pixel_array
    except Exception as error:
        raise _decoding_error(header, error) from None
    if stored.ndim != 2:
        raise CaseError(
            'not-grey',
            f'{header.filename}: pixel array of shape '
            f'{stored.shape}; expected (rows, columns).',
        )
    slope, intercept = header.get('RescaleSlope'), header.get('RescaleIntercept')
    is_ct = header.Modality == 'CT'
    if is_ct and intercept is None and problems is not None:
        problems.append(
            Problem(
                WARNING,
                'no-rescale',
                f'{_short(header)}: RescaleIntercept '
                'is missing; stored values are taken as HU',
            )
        )
    slope = 1.0 if slope is None else float(slope)
    values = stored.astype(np.float32) * slope + float(intercept or 0)
    padding = header.get('PixelPaddingValue')
    if is_ct and padding is not None:
        values[stored == padding] = -1024
    return values


def _decoding_error(header, error) -> CaseError:
    """Tell a missing decoder from damaged pixel data."""
    syntax = header.file_meta.get('TransferSyntaxUID')
    name = getattr(syntax, 'name', syntax)
    text = ' '.join(str(error).split())
    lost = (
        'missing dependencies',
        'plugins are available',
        'no available',
        'NumPy is required',
        'requires',
    )
    if isinstance(error, (NotImplementedError, ImportError)) or any(
        part in text for part in lost
    ):
        return CaseError(
            'no-decoder',
            f'{header.filename}: no decoder for {name}; '
            f'install one: {_DECODERS} ({text[:160]})',
        )
    return CaseError(
        'damaged-pixels',
        f'{header.filename}: the pixel data ({name}) cannot '
        f'be decoded: {text[:160]}. Copy the file again.',
    )
