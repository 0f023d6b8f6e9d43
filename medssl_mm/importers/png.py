"""Slices as PNG files: image / mask pairs, and lists of 16-bit slices.

A case is a patient (or whatever the patient pattern names); its slices are
sorted by slice number. PNG files carry no geometry: the pixel order is kept,
spacing and affine stay unknown. All slices of a case must have one size:
a case that mixes sizes is refused with the sizes and an example of each, since
neither cropping nor resampling would be faithful.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    CaseError,
    Importer,
    LoadedCase,
    SourceCase,
    check_unique,
    match_patient,
    read_classes,
    safe_case_id,
)
from medssl_mm.store.header import default_palette
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split, make_holdout, make_kfold

PATIENT_PATTERN = r'([^/]+)_\d+\.png$'
SLICE_PATTERN = r'(\d+)\.png$'


def class_names(text: str) -> tuple[str, ...]:
    """Class names from a JSON file or from 'name,name,...' (1, 2, ...)."""
    if text.endswith('.json') or Path(text).is_file():
        return tuple(read_classes(text))
    names = [name.strip() for name in text.split(',')]
    return ('background', *[name for name in names if name])


def read_palette(palette: dict | str | Path):
    """Read which mask colour or grey value means which class.

    A palette is a JSON object in class order, the background first:
    ``{"background": [0, 0, 0], "liver": [180, 40, 40]}`` for colours, or
    ``{"background": 0, "liver": 255}`` for grey masks.

    Args:
        palette (dict | str | Path): The object, or a file that holds it.

    Returns:
        tuple: class names; list of RGB triples or of grey values.

    Raises:
        UserError: When the file is missing or has another form.
    """
    form = (
        'the palette must be a JSON object such as '
        '{"background": [0, 0, 0], "liver": [180, 40, 40]} or '
        '{"background": 0, "liver": 255}'
    )
    content = palette
    if isinstance(palette, (str, Path)):
        try:
            content = json.loads(Path(palette).read_text())
        except OSError as error:
            raise UserError(f'palette file {palette}: {error.strerror}') from None
        except ValueError as error:
            raise UserError(f'{form}; {palette} is not JSON: {error}') from None
    if not isinstance(content, dict) or len(content) < 2:
        raise UserError(f'{form} with two classes or more')
    values = list(content.values())
    grey = all(type(v) is int and 0 <= v <= 65535 for v in values)
    colour = all(
        isinstance(v, list)
        and len(v) == 3
        and all(type(c) is int and 0 <= c <= 255 for c in v)
        for v in values
    )
    if not grey and not colour:
        raise UserError(f'{form}; found {values[:4]}')
    if len({str(v) for v in values}) < len(values):
        raise UserError(f'{form}; two classes share one value: {values}')
    return tuple(content), values


class PNGImporter(Importer):
    """Image / mask pairs of PNG files.

    Images and masks are paired by what the wildcards of their globs match.
    A slice without a mask counts as unlabelled. Options of :meth:`discover`:

        images (str): Glob of the images, relative to the source folder.
        labels (str): Glob of the masks.
        palette (dict | str): Object or JSON file, see
            :func:`read_palette`.
        classes (str): Names for grey masks that hold class indices.
        patient_pattern (str): Regular expression on the relative path; its
            first group is the patient and names the case.
        slice_pattern (str): Regular expression; its first group is the slice
            number.
        turn (int): Quarter turns to undo, in degrees counter-clockwise: 0,
            90, 180 or 270.
        modality (str): 'CT', 'MR', 'XR' or 'other'.
    """

    name = 'png'
    modality = 'other'
    units = 'arbitrary'
    options = (
        'images',
        'labels',
        'palette',
        'classes',
        'patient_pattern',
        'slice_pattern',
        'turn',
        'modality',
    )
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png
or any other, by globs relative to <src> and patterns:
    --images '*/images/*.png' --labels '*/masks/*.png'
    --patient-pattern '(\\d+)_\\d+\\.png' --slice-pattern '_(\\d+)\\.png'"""

    image_glob = 'images/*.png'
    label_glob = 'masks/*.png'
    values: list | None = None  # mask colour or grey value of every class
    turn = 0
    fixed = False  # a published set: its options cannot be changed

    def discover(
        self,
        src: Path,
        images: str | None = None,
        labels: str | None = None,
        palette: dict | str | None = None,
        classes: str | None = None,
        patient_pattern: str | None = None,
        slice_pattern: str | None = None,
        turn: int | str = 0,
        modality: str | None = None,
    ) -> list[SourceCase]:
        """List the patients and their slices."""
        src = Path(src)
        self.notes = []
        if labels and not images:
            raise UserError('--labels needs --images')
        if not self.fixed:
            self._configure(palette, classes, turn, modality)
        image_glob = images or self.image_glob
        label_glob = labels if images else self.label_glob
        found = _by_wildcard(src, image_glob)
        if not found:
            raise self.nothing_found(src, f'No file matches {image_glob!r}.')
        masks = _by_wildcard(src, label_glob) if label_glob else {}
        if labels and not set(masks) & set(found):
            raise UserError(
                f'no mask under {src} matches {labels!r} with the same '
                f'wildcards as an image; an image gives {min(found)}, a mask '
                f'{min(masks) if masks else "nothing"}.'
            )
        orphans = sorted(set(masks) - set(found))
        if orphans:
            self.notes.append(
                f'{len(orphans)} mask(s) without an image are not used, e.g. '
                f'{masks[orphans[0]]}'
            )
        if set(masks) & set(found) and self.values is None and len(self.classes) < 2:
            raise UserError(
                'there are masks but no classes; give --palette FILE.json '
                '(mask colour or grey value of every class) or --classes '
                'NAME1,NAME2,... for masks that hold the values 1, 2, ...'
            )
        slices = defaultdict(dict)
        for key, path in found.items():
            relative = path.relative_to(src).as_posix()
            patient = match_patient(patient_pattern or PATIENT_PATTERN, relative, '')
            number = _slice_number(slice_pattern or SLICE_PATTERN, relative)
            other = slices[patient].setdefault(number, (path, masks.get(key)))
            if other[0] != path:
                raise UserError(
                    f'{other[0]} and {path} are both slice {number} of '
                    f'patient {patient!r}; choose one by --images, or give '
                    '--patient-pattern / --slice-pattern that tell them '
                    'apart.'
                )
        self._note_gaps(slices)
        return check_unique(
            _sliced_case(patient, members) for patient, members in slices.items()
        )

    def _configure(self, palette, classes, turn, modality) -> None:
        if palette:
            self.classes, self.values = read_palette(palette)
            colours = isinstance(self.values[0], list)
            self.palette = (
                self.values if colours else default_palette(len(self.classes))
            )
        elif classes:
            self.classes = class_names(classes)
            self.palette = default_palette(len(self.classes))
        if str(turn) not in ('0', '90', '180', '270'):
            raise UserError(f'turn must be 0, 90, 180 or 270, got {turn!r}')
        self.turn = int(turn)
        self.modality = modality or self.modality

    def _note_gaps(self, slices) -> None:
        broken = [
            patient
            for patient, members in slices.items()
            if max(members) - min(members) + 1 != len(members)
        ]
        if broken:
            self.notes.append(
                f'{len(broken)} of {len(slices)} cases have gaps in their '
                'slice numbers: neighbours in the store need not be '
                'neighbours in the body. The file of every stored slice is '
                'listed in its case.json.'
            )

    def load(self, case: SourceCase) -> LoadedCase:
        """Read the slices and masks of one case."""
        images = case.extra['image_files']
        masks = case.extra['mask_files']
        image = _stack([(path, read_grey(path)) for path in images])
        label, labelled = None, None
        if any(masks):
            label = np.zeros(image.shape, np.uint8)
            labelled = tuple(i for i, path in enumerate(masks) if path)
            for index in labelled:
                mask = self._read_mask(masks[index])
                if mask.shape != image.shape[1:]:
                    raise CaseError(
                        'shape-mismatch',
                        f'{masks[index]}: mask of '
                        f'{mask.shape}, image {images[index]} of '
                        f'{image.shape[1:]} (rows, columns); they must be '
                        'equal.',
                    )
                label[index] = mask
            if len(labelled) == len(masks):
                labelled = None
        if self.turn:
            quarters = self.turn // 90
            image = np.rot90(image, quarters, (1, 2))
            if label is not None:
                label = np.ascontiguousarray(np.rot90(label, quarters, (1, 2)))
        return LoadedCase(
            image=np.ascontiguousarray(image),
            label=label,
            source_shape=tuple(image.shape),
            labelled_slices=labelled,
        )

    def _read_mask(self, path: str) -> np.ndarray:
        """Translate one mask into class indices."""
        pixels = _read_png(path)
        colours = self.values is not None and isinstance(self.values[0], list)
        if colours:
            if pixels.ndim == 2:
                pixels = np.repeat(pixels[..., None], 3, 2)
            red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
            pixels = red << 16 | green << 8 | blue
            known = [r << 16 | g << 8 | b for r, g, b in self.values]
        else:
            pixels = _as_grey(pixels, path).astype(np.int32)
            known = self.values or list(range(len(self.classes)))
        # One comparison per class; sorting the pixels would be far slower.
        label = np.zeros(pixels.shape, np.uint8)
        missed = np.ones(pixels.shape, bool)
        for index, value in enumerate(known):
            hit = pixels == value
            label[hit] = index
            missed &= ~hit
        unknown = []
        if missed.any():
            values, counts = np.unique(pixels[missed], return_counts=True)
            unknown = list(zip(values.tolist(), counts.tolist(), strict=True))
        if unknown:
            unknown.sort(key=lambda item: -item[1])
            shown = ', '.join(
                f'{_colour(value, colours)} {count} pixel(s)'
                for value, count in unknown[:4]
            )
            names = ', '.join(
                f'{name} {_colour(value, colours)}'
                for name, value in zip(self.classes, known, strict=True)
            )
            raise CaseError(
                'unknown-colour',
                f'{path}: {len(unknown)} unknown mask '
                f'{"colour" if colours else "value"}(s): {shown}; known are '
                f'{names}. Complete the palette, or export the mask without '
                'smoothing or compression.',
            )
        return label


class CurvasImporter(PNGImporter):
    """Slices of CURVAS 2024, three rater folders of the same patients.

    Each folder holds other slices of the same 14 patients, so a case gathers
    the slices of one patient from all folders and splits go by patient.
    """

    name = 'curvas'
    modality = 'CT'
    classes = KNOWN[name].classes
    palette = [[0, 0, 0], [0, 255, 255], [255, 255, 0], [255, 0, 255]]
    values = palette
    options = ()
    fixed = True
    image_glob = '**/images/*.png'
    label_glob = '**/masks/*.png'
    layout = """\
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/images/PATIENT_SLICE.png
    <src>/CURVAS-Annotation-{1,2,3}/mini_test/masks/PATIENT_SLICE.png"""

    def splits(self, cases) -> list[Split]:
        """Make a hold-out (2 val, 4 test of 14 patients) and folds."""
        patient_of = {case.case_id: case.patient_id for case in cases}
        patients = len(set(patient_of.values()))
        name = f'{self.name}-{patients}'
        if patients < 5:
            return []
        splits = [
            make_holdout(
                patient_of,
                patient_of,
                self.name,
                test=4 / 14,
                val=2 / 14,
                seed=0,
                protocol=name,
            )
        ]
        return splits + make_kfold(
            patient_of, patient_of, self.name, folds=5, seed=0, protocol=f'{name}-5fold'
        )


class IRCADImporter(CurvasImporter):
    """Liver slices of 3D-IRCADb-01 as PNG, each scaled by itself.

    The published files show the spine on top; they are turned by 180 degrees
    to the usual view (anterior on top, the patient's right on the left).
    """

    name = 'ircad'
    classes = ('background', 'liver')
    palette = [[0, 0, 0], [180, 40, 40]]
    values = palette
    turn = 180
    image_glob = 'images/*.png'
    label_glob = 'masks/*.png'
    layout = """\
    <src>/images/PATIENT_SLICE.png    <src>/masks/PATIENT_SLICE.png"""

    def discover(self, src: Path) -> list[SourceCase]:
        """List the patients and their slices."""
        cases = super().discover(src)
        self.notes.append(
            'slices are turned by 180 degrees to the usual view (spine at '
            'the bottom); predictions must be turned back to fit the files'
        )
        return cases


class KiTSImporter(CurvasImporter):
    """Kidney and tumour slices of KiTS19 as PNG, HU clipped to 0-255."""

    name = 'kits'
    classes = ('background', 'kidney', 'tumor')
    palette = [[0, 0, 0], [0, 0, 255], [255, 0, 0]]
    values = palette
    image_glob = 'images/*.png'
    label_glob = 'masks/*.png'
    layout = IRCADImporter.layout


class SliceListImporter(Importer):
    """16-bit CT slices with a list file, unlabelled.

    Every line of the list is ``relative/path.png label``; the label is a dummy
    of the classification format and is ignored. The parent folder is the case.
    A stored value is HU plus ``offset``. Options of :meth:`discover`:

        list_file (str): List file. Defaults to the one ``.txt`` file in the
            source.
        offset (int): What was added to the HU. Defaults to 1024.
        patient_pattern (str): Regular expression on the path of a line; its
            first group is the patient. Defaults to the parent folder.
    """

    name = 'slice-list'
    modality = 'CT'
    units = 'HU'
    classes = ('background',)
    palette = [[0, 0, 0]]
    options = ('list_file', 'offset', 'patient_pattern')
    layout = """\
    <src>/VOLUME/slice_000.png        16-bit grey, HU + offset
    LIST.txt (--list-file):  lines 'VOLUME/slice_000.png 0'"""
    offset = 1024

    def discover(
        self,
        src: Path,
        list_file: str | None = None,
        offset: int | str = 1024,
        patient_pattern: str | None = None,
    ) -> list[SourceCase]:
        """List the volumes named by the list file."""
        src = Path(src)
        try:
            self.offset = int(offset)
        except ValueError:
            raise UserError(f'offset must be a whole number, got {offset!r}') from None
        entries = _read_list(self._find_list(src, list_file))
        slices, missing = defaultdict(dict), []
        for number, relative in entries:
            path = src / relative
            if not path.is_file():
                missing.append(f'line {number}: {relative}')
                continue
            folder = Path(relative).parent.as_posix()
            index = _slice_number(SLICE_PATTERN, relative)
            other = slices[folder].setdefault(index, (path, None))
            if other[0] != path:
                raise UserError(
                    f'{other[0]} and {path} have one slice number ({index})'
                )
        if missing:
            raise UserError(
                f'{len(missing)} of {len(entries)} listed files are not under '
                f'{src}, e.g. {"; ".join(missing[:3])}. Give the folder that '
                'the paths of the list start from.'
            )
        return check_unique(
            _sliced_case(
                folder,
                members,
                match_patient(patient_pattern, f'{folder}/', safe_case_id(folder)),
            )
            for folder, members in slices.items()
        )

    def _find_list(self, src: Path, given: str | None) -> Path:
        if given:
            for path in (Path(given), src / given):
                if path.is_file():
                    return path
            raise UserError(f'list file {given} does not exist')
        found = sorted(src.glob('*.txt'))
        if len(found) != 1:
            raise self.nothing_found(
                src, f'Found {len(found)} .txt files; give --list-file FILE.'
            )
        return found[0]

    def load(self, case: SourceCase) -> LoadedCase:
        """Read the slices of one volume and subtract the offset."""
        files = case.extra['image_files']
        stored = _stack([(path, read_grey(path)) for path in files])
        if stored.dtype == np.uint8:
            raise CaseError(
                'bit-depth',
                f'{files[0]}: 8-bit pixels; expected 16-bit '
                'PNG with HU + offset. Import 8-bit slices as png.',
            )
        image = stored.astype(np.int32) - self.offset
        return LoadedCase(image=image, source_shape=tuple(image.shape))


def _sliced_case(name: str, members: dict, patient: str | None = None):
    """Make the case of a patient from {slice number: (image, mask)}."""
    order = sorted(members)
    images = [str(members[number][0]) for number in order]
    masks = [
        str(mask) if mask else None for mask in (members[number][1] for number in order)
    ]
    given = [mask for mask in masks if mask]
    case_id = safe_case_id(name)
    return SourceCase(
        case_id=case_id,
        patient_id=patient or case_id,
        image=images[0],
        label=given[0] if given else None,
        extra=dict(
            image_files=images, label_files=given, mask_files=masks, slice_numbers=order
        ),
    )


def _by_wildcard(src: Path, pattern: str) -> dict[tuple, Path]:
    """Files that match a glob, by what its wildcards matched."""
    expression = ''
    for part in re.split(r'(\*\*/|\*)', pattern):
        expression += {'**/': '(.*/)?', '*': '([^/]*)'}.get(part, re.escape(part))
    found = {}
    try:
        paths = sorted(src.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f'glob {pattern!r} cannot be used: {error}; it must be relative '
            f'to {src} and may hold * and **/'
        ) from None
    for path in paths:
        match = re.fullmatch(expression, path.relative_to(src).as_posix())
        if match and path.is_file():
            found[tuple(group or '' for group in match.groups())] = path
    return found


def _slice_number(pattern: str, text: str) -> int:
    found = match_patient(pattern, text, '')
    if not found.isdigit():
        raise UserError(
            f'slice pattern {pattern!r} gives {found!r} for {text!r}; its '
            'first group must be a whole number.'
        )
    return int(found)


def _read_list(path: Path) -> list[tuple[int, str]]:
    """Lines of a slice list: (line number, relative path)."""
    entries, seen = [], {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        # Paths may hold blanks: the label is the last word, if a number.
        parts = line.strip().rsplit(maxsplit=1)
        name = (
            parts[0]
            if len(parts) == 2 and re.fullmatch(r'-?\d+', parts[1])
            else line.strip()
        )
        if not name.lower().endswith('.png'):
            raise UserError(
                f'{path}, line {number}: expected "relative/path.png label", '
                f'found {line.strip()!r}'
            )
        if name in seen:
            raise UserError(
                f'{path}, line {number}: {name} is listed already in line '
                f'{seen[name]}; remove one.'
            )
        seen[name] = number
        entries.append((number, name))
    if not entries:
        raise UserError(
            f'{path} lists no slice; expected lines "relative/path.png label"'
        )
    return entries


def _read_png(path: str) -> np.ndarray:
    """Read a PNG at its own depth; colours in RGB order."""
    import cv2

    content = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if len(content) else None
    # A file cut short decodes without complaint: the end chunk tells.
    if pixels is None or b'IEND' not in content[-16:].tobytes():
        raise CaseError(
            'unreadable',
            f'{path}: not a readable PNG file (empty, truncated '
            'or another format); copy it again.',
        )
    if pixels.ndim == 3:
        pixels = pixels[..., 2::-1]  # drops alpha; OpenCV has BGR
    return pixels


def _as_grey(pixels: np.ndarray, path: str) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    count = int((pixels != pixels[..., :1]).any(-1).sum())
    raise CaseError(
        'not-grey',
        f'{path}: {count} coloured pixels; expected a grey '
        'picture (or three equal channels).',
    )


def read_grey(path: str) -> np.ndarray:
    """Read a grey PNG of 8 or 16 bit; three equal channels become one.

    Raises:
        CaseError: Unreadable, truncated, or coloured.
    """
    return _as_grey(_read_png(path), path)


def _stack(slices: list) -> np.ndarray:
    """Stack the slices of a case; they must agree in size and depth."""
    kinds = Counter((pixels.shape, str(pixels.dtype)) for _, pixels in slices)
    if len(kinds) > 1:
        parts = []
        for (shape, dtype), count in kinds.most_common(4):
            example = next(
                path
                for path, pixels in slices
                if (pixels.shape, str(pixels.dtype)) == (shape, dtype)
            )
            parts.append(
                f'{shape[0]}x{shape[1]} {dtype}: {count} slice(s), e.g. {example}'
            )
        raise CaseError(
            'mixed-slices',
            'the slices of one case differ in size or depth: '
            f'{"; ".join(parts)}. Give the groups patient ids of their own '
            '(--patient-pattern) or bring them to one grid first.',
        )
    return np.stack([pixels for _, pixels in slices])


def _colour(value: int, colours: bool) -> str:
    if not colours:
        return str(value)
    return f'({value >> 16}, {value >> 8 & 255}, {value & 255})'
