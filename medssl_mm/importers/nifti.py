"""NIfTI volumes: any folder by glob, AbdomenCT-1K and BTCV layouts."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers import base, integrity
from medssl_mm.importers.base import (
    CaseError,
    Importer,
    LoadedCase,
    SourceCase,
)
from medssl_mm.store.known import KNOWN
from medssl_mm.store.orientation import canonicalize, spacing_of
from medssl_mm.store.splits import Split

EXTENSIONS = ('.nii', '.nii.gz')


def read_nifti(path: str | Path):
    """Read a NIfTI file completely.

    A ``.gz`` file is unpacked to its end, so its checksum is verified: a
    truncated or damaged file never yields pixels.

    Args:
        path (str | Path): ``.nii`` or ``.nii.gz``.

    Returns:
        tuple: array ``(I, J, K)``, scale factors applied (float32 where they
        are not trivial); affine ``(4, 4)``; list[Problem] of the header.

    Raises:
        CaseError: Unreadable file, or no 3-D grey volume.
    """
    import nibabel

    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == b'\x1f\x8b':
            content = gzip.decompress(content)
        size = int.from_bytes(content[:4], 'little')
        swapped = int.from_bytes(content[:4], 'big')
        two = 540 in (size, swapped)
        kind = nibabel.Nifti2Image if two else nibabel.Nifti1Image
        image = kind.from_bytes(content)
        shape, dtype = image.shape, image.get_data_dtype()
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        _check_kind(path, shape, dtype)
        array = image.dataobj.get_unscaled()
        slope, inter = image.dataobj.slope, image.dataobj.inter
        if (slope, inter) != (1, 0):  # nibabel made 1, 0 of unset factors
            # float32 holds 16 bits and their scaled values well enough.
            kind = np.float32 if dtype.itemsize <= 2 else np.float64
            array = array.astype(kind) * kind(slope) + kind(inter)
        array = np.asarray(array).reshape(shape, order='F')
    except CaseError:
        raise
    except FileNotFoundError:
        raise CaseError('missing', f'{path} does not exist.') from None
    except Exception as error:  # many kinds; each means the file is bad
        detail = str(error).splitlines()[0] if str(error) else ''
        raise CaseError(
            'unreadable',
            f'{path} cannot be read ({type(error).__name__}: {detail}). It '
            'is truncated, damaged or no NIfTI file; fetch it again.',
        ) from None
    return array, image.affine, _header_problems(path, image)


def _check_kind(path, shape, dtype) -> None:
    if dtype.names or dtype.kind == 'c':
        raise CaseError(
            'not-a-volume',
            f'{path} holds colour or complex voxels ({dtype}), expected grey values.',
        )
    if len(shape) > 3:
        raise CaseError(
            '4d-image',
            f'{path} has shape {shape}, expected 3 axes. Split the series '
            'into one file per volume, e.g. with nibabel.four_to_three.',
        )
    if len(shape) < 3:
        raise CaseError(
            'not-a-volume',
            f'{path} has shape {shape}, expected 3 axes; a single slice '
            'needs a third axis of length 1.',
        )


def _header_problems(path, image) -> list:
    header = image.header
    q_affine, q_code = header.get_qform(coded=True)
    s_affine, s_code = header.get_sform(coded=True)
    if not q_code and not s_code:
        return [
            integrity.warning(
                'no-orientation',
                f'{path} states no orientation (qform and sform code are 0); the '
                'axes are taken as stored: x to the left, y to anterior, z up.',
            )
        ]
    if q_code and s_code:
        size = max(image.shape[:3])
        shift = np.abs(q_affine[:3] - s_affine[:3]) @ [size, size, size, 1]
        if shift.max() > min(spacing_of(s_affine)):
            return [
                integrity.warning(
                    'qform-sform',
                    f'{path}: qform and sform place the volume up to '
                    f'{shift.max():.3g} mm apart; the sform is used.',
                )
            ]
    return []


class NIfTIImporter(Importer):
    """A folder of NIfTI images and, by choice, labels.

    Images and labels are paired by what the wildcards of their globs match:
    ``img/img*.nii.gz`` and ``label/label*.nii.gz`` pair ``0007`` with
    ``0007``; ``*/ct.nii.gz`` and ``*/seg.nii.gz`` pair by folder.
    """

    name = 'nifti'
    modality = 'CT'
    units = 'HU'
    options = ('images', 'labels', 'classes', 'modality', 'patient_pattern')
    layout = """\
    <src>/images/CASE.nii.gz         <src>/labels/CASE.nii.gz
or  <src>/imagesTr/CASE_0000.nii.gz  <src>/labelsTr/CASE.nii.gz
or  any other, by globs relative to <src>:
    --images 'img/img*.nii.gz' --labels 'label/label*.nii.gz'
labels may be missing for some or all images"""

    # (images, labels): tried in this order when no glob is given.
    _defaults = tuple(
        (images + extension, labels + extension)
        for extension in ('.nii.gz', '.nii')
        for images, labels in (
            ('imagesTr/*_0000', 'labelsTr/*'),
            ('imagesTr/*', 'labelsTr/*'),
            ('images/*', 'labels/*'),
        )
    )

    def discover(
        self,
        src: Path,
        images: str | None = None,
        labels: str | None = None,
        classes: str | None = None,
        modality: str | None = None,
        patient_pattern: str | None = None,
    ) -> list[SourceCase]:
        """List the cases.

        Args:
            src (Path): Folder.
            images (str, optional): Glob of the images, relative to ``src``.
            labels (str, optional): Glob of the labels.
            classes (str, optional): JSON file or comma-separated names of
                the classes 1, 2, ... Defaults to None: ``dataset.json`` in
                ``src``, if there.
            modality (str, optional): 'CT' (values in HU), 'MR' or 'other'.
                Defaults to None: 'CT'.
            patient_pattern (str, optional): Regular expression whose first
                group, searched in the path relative to ``src``, is the
                patient id. Defaults to None: one patient per case.
        """
        src = Path(src)
        if labels and not images:
            raise UserError('--labels needs --images')
        if modality:
            self.modality = modality
        self.units = 'HU' if self.modality == 'CT' else 'arbitrary'
        found, label_of = self._pair(src, images, labels)
        self._set_classes(src, classes, bool(label_of))
        cases = []
        for key, path in found.items():
            relative = path.relative_to(src).as_posix()
            case_id = base.safe_case_id(key or _stem(path))
            cases.append(
                SourceCase(
                    case_id,
                    base.match_patient(patient_pattern, relative, case_id),
                    str(path),
                    str(label_of[key]) if key in label_of else None,
                )
            )
        return base.check_unique(cases)

    def _pair(self, src, images, labels):
        choices = [(images, labels)] if images else self._defaults
        for image_glob, label_glob in choices:
            found = _by_key(src, image_glob)
            if found:
                label_of = _by_key(src, label_glob) if label_glob else {}
                break
        else:
            tried = f'--images {images!r} matches nothing.' if images else ''
            raise self.nothing_found(src, tried)
        orphans = sorted(set(label_of) - set(found))
        if labels and not set(label_of) & set(found):
            have = f'e.g. {sorted(label_of)[0]!r}' if label_of else 'none'
            raise UserError(
                f'no label under {src} belongs to an image: the wildcards of '
                f'--images match e.g. {sorted(found)[0]!r}, those of --labels '
                f'{have}. The parts matched by * must be equal for a pair.'
            )
        self.notes = [
            f'label {label_of[key]} has no image and is not used' for key in orphans
        ]
        return found, {k: v for k, v in label_of.items() if k in found}

    def _set_classes(self, src, classes, labelled) -> None:
        description = src / 'dataset.json'
        if classes:
            self.classes = base.class_names(classes)
        elif description.is_file() and labelled:
            self.classes = base.read_classes(description)
        elif labelled:
            raise UserError(
                'there are labels but no class names; give --classes '
                'NAME1,NAME2,... (values 1, 2, ...) or --classes FILE.json, '
                'or leave the labels out'
            )

    def load(self, case: SourceCase) -> LoadedCase:
        """Read image and label and turn them to the canonical axes."""
        array, affine, problems = read_nifti(case.image)
        image, canonical_affine, info = _canonical(case.image, array, affine)
        loaded = LoadedCase(image, affine=canonical_affine, problems=problems, **info)
        if case.label is not None:
            array, affine, found = read_nifti(case.label)
            label, label_affine, _ = _canonical(case.label, array, affine)
            problems += found
            problems += integrity.check_geometry(
                image.shape, label.shape, canonical_affine, label_affine
            )
            loaded.label = label
        return loaded


def _canonical(path, array, affine):
    try:
        return canonicalize(array, affine)
    except UserError as error:
        raise CaseError('affine', f'{path}: {error}') from None


def _stem(path: Path) -> str:
    name = path.name
    for extension in sorted(EXTENSIONS, key=len, reverse=True):
        if name.endswith(extension):
            return name[: -len(extension)]
    return path.stem


def _by_key(src: Path, pattern: str) -> dict[str, Path]:
    """Files that match a glob, by what its wildcards matched."""
    expression = _glob_expression(pattern)
    found: dict[str, Path] = {}
    try:
        paths = sorted(src.glob(pattern))
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f'glob {pattern!r} cannot be used: {error}; it must be relative to {src}'
        ) from None
    for path in paths:
        relative = path.relative_to(src).as_posix()
        match = re.fullmatch(expression, relative)
        if match is None or not relative.endswith(EXTENSIONS):
            continue
        key = '_'.join(g.strip('/') for g in match.groups() if g)
        if key in found:
            raise UserError(
                f'glob {pattern!r}: {found[key]} and {path} cannot be told '
                f'apart, both give {key!r}; import them one by one'
            )
        found[key] = path
    return found


def _glob_expression(pattern: str) -> str:
    """Regular expression of a glob; each run of wildcards is one group."""
    tokens = re.findall(r'\*\*/|(?:\*|\?|\[[^]]+\])+|[^*?[]+|.', pattern)
    expression = ''
    for token in tokens:
        if token == '**/':
            expression += '(.*/)?'
        elif token[0] in '*?[':
            wild = re.sub(r'\*+', '[^/]*', token.replace('[!', '[^'))
            expression += f'({wild.replace("?", "[^/]")})'
        else:
            expression += re.escape(token)
    return expression


def _numbered(src: Path, expression: str) -> dict[str, list[Path]]:
    """Files anywhere under ``src`` by the first group of a pattern."""
    found: dict[str, list[Path]] = {}
    for path in sorted(src.rglob('*.nii*')):
        match = re.fullmatch(expression, path.name)
        if match:
            found.setdefault(match[1], []).append(path)
    return found


class _NumberedImporter(Importer):
    """A published layout: images and labels told by number and name."""

    modality = 'CT'
    units = 'HU'
    image_name: str
    label_name: str
    case_name: str

    def discover(self, src: Path) -> list[SourceCase]:
        """List the cases; images and labels may lie in any sub-folders."""
        src = Path(src)
        images = _numbered(src, self.image_name)
        labels = _numbered(src, self.label_name)
        if not images:
            raise self.nothing_found(src)
        for found in (images, labels):
            for number, paths in found.items():
                if len(paths) > 1:
                    raise UserError(
                        f'{paths[0]} and {paths[1]} are both number {number} '
                        f'of {self.name!r}; keep one of them'
                    )
        self.notes = [
            f'label {labels[n][0]} has no image and is not used'
            for n in sorted(set(labels) - set(images))
        ]
        cases = []
        for number, (path,) in images.items():
            case_id = self.case_name.format(number)
            label = str(labels[number][0]) if number in labels else None
            cases.append(SourceCase(case_id, case_id, str(path), label))
        return base.check_unique(cases)

    load = NIfTIImporter.load


class Abdomen1KImporter(_NumberedImporter):
    """AbdomenCT-1K: ``Case_00001_0000.nii.gz``, ``Case_00001.nii.gz``.

    Data of `AbdomenCT-1K: Is Abdominal Organ Segmentation A Solved Problem?
    <https://arxiv.org/abs/2010.14808>`_.
    """

    name = 'abdomen1k'
    classes = KNOWN[name].classes
    palette = [
        [0, 0, 0],
        [221, 130, 101],
        [185, 102, 83],
        [157, 108, 162],
        [249, 180, 111],
    ]
    image_name = r'Case_(\d+)_0000\.nii(?:\.gz)?'
    label_name = r'Case_(\d+)\.nii(?:\.gz)?'
    case_name = 'Case_{}'
    layout = """\
    <src>/AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz  (any sub-folders)
    <src>/Mask/Case_00001.nii.gz                          (may be missing)"""


class BTCVImporter(_NumberedImporter):
    """BTCV "Beyond the Cranial Vault" abdomen, 13 organs, two protocols."""

    name = 'btcv'
    classes = KNOWN[name].classes
    # Neighbours in the body differ in hue, the two of a pair in brightness.
    palette = [
        [0, 0, 0],
        [148, 87, 235],
        [214, 39, 40],
        [255, 152, 150],
        [44, 160, 44],
        [188, 189, 34],
        [31, 119, 180],
        [255, 127, 14],
        [227, 26, 200],
        [23, 190, 207],
        [102, 194, 255],
        [250, 220, 60],
        [140, 86, 75],
        [196, 156, 148],
    ]
    image_name = r'img(\d{4})\.nii(?:\.gz)?'
    label_name = r'label(\d{4})\.nii(?:\.gz)?'
    case_name = 'case{}'
    layout = """\
    <src>/img/img0001.nii.gz       <src>/label/label0001.nii.gz
or  <src>/imagesTr/img0001.nii.gz  <src>/labelsTr/label0001.nii.gz
    (any sub-folders; images 61 to 80 have no labels)"""

    labelled_numbers = (*range(1, 11), *range(21, 41))
    protocols = {
        'btcv-18-12': (
            (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38),
            '18 training and 12 test volumes; usually scored on 8 organs: '
            'spleen, kidneys, gallbladder, liver, stomach, aorta, pancreas.',
        ),
        'btcv-24-6': (
            tuple(range(35, 41)),
            '24 training and 6 test volumes, scored on 13 organs.',
        ),
    }

    def splits(self, cases) -> list[Split]:
        """Make both published protocols; pretraining sees train only."""
        labelled = {c.case_id for c in cases if c.labelled}
        splits = []
        self.notes = []
        for protocol, (test_numbers, text) in self.protocols.items():
            subsets = {'train': [], 'test': []}
            missing = []
            for number in self.labelled_numbers:
                case_id = self.case_name.format(f'{number:04d}')
                subset = 'test' if number in test_numbers else 'train'
                if case_id in labelled:
                    subsets[subset].append(case_id)
                else:
                    missing.append(case_id)
            if missing:
                self.notes.append(
                    f'protocol {protocol}: {len(missing)} of its '
                    f'{len(self.labelled_numbers)} labelled cases are missing '
                    f'({", ".join(missing[:4])}, ...); results do not compare '
                    'with published ones'
                )
            if subsets['train'] and subsets['test']:
                subsets['pretrain'] = subsets['train']
                splits.append(Split(protocol, self.name, subsets, None, text))
        return splits
