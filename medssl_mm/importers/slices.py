"""Volumes made of slices that are files of their own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medssl_mm.importers.base import (
    CaseError,
    Discovery,
    LoadedCase,
    Problem,
    SourceCase,
)
from medssl_mm.importers.naming import (
    NoMatchError,
    by_wildcard,
    find_patient,
    first_group,
    safe_case_id,
)
from medssl_mm.importers.readers.picture import read_grey, read_mask
from medssl_mm.importers.volumes import (
    VolumeDiscovery,
    VolumeImporter,
    drawn_splits,
)
from medssl_mm.store.case_info import CaseInfo
from medssl_mm.store.splits import Split

PATIENT_PATTERN = r'([^/]+)_\d+\.(?i:png)$'
SLICE_PATTERN = r'(\d+)\.(?i:png)$'


def stack_slices(slices: Sequence[tuple[str, np.ndarray]], remedy: str) -> np.ndarray:
    """Stack the slices of a case; they must agree in size and type.

    Neither cropping nor resampling would be faithful.

    Args:
        slices (Sequence[tuple]): File and pixels ``(H, W)`` of each.
        remedy (str): What to do, for the message.

    Returns:
        np.ndarray: ``(Z, H, W)``.

    Raises:
        CaseError: Names the sizes, with their numbers and an example.
    """
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
            f'{"; ".join(parts)}. {remedy}',
        )
    return np.stack([pixels for _, pixels in slices])


def read_slices(paths: Sequence[str], remedy: str) -> tuple[np.ndarray, list[Problem]]:
    """Read and stack the slices of a case; a finding of many is told once.

    Args:
        paths (Sequence[str]): Files of grey pictures.
        remedy (str): Of :func:`stack_slices`.

    Raises:
        CaseError: One cannot be read, or they differ.
    """
    read = [(path, *read_grey(path)) for path in paths]
    found: dict[str, list[Problem]] = defaultdict(list)
    for _, _, problems in read:
        for problem in problems:
            found[problem.code].append(problem)
    volume = stack_slices([(path, pixels) for path, pixels, _ in read], remedy)
    return volume, [
        replace(first, message=f'{1 + len(more)} slice(s), first {first.message}')
        for first, *more in found.values()
    ]


def slice_case(
    name: str,
    members: Mapping[int, tuple[Path, Path | None]],
    patient: str | None = None,
    problem: tuple[str, str] | None = None,
    **extra: Any,
) -> SourceCase:
    """Make the case of a patient from {slice number: (image, mask)}.

    With a ``problem`` (code, message) it will be reported and left out.
    """
    if problem:
        extra['problem'] = problem
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
            image_files=images,
            label_files=given,
            mask_files=masks,
            slice_numbers=order,
            **extra,
        ),
        name=name,
    )


def slice_number(pattern: str, text: str) -> int:
    """Number of a slice by the first group of a pattern.

    Raises:
        NoMatchError: No match, or no whole number.
    """
    found = first_group(pattern, text, 'slice')
    if not found.isdecimal():
        raise NoMatchError(
            f'slice pattern {pattern!r} gives {found!r} for {text!r}; its '
            'first group must be a whole number.'
        )
    return int(found)


@dataclass(frozen=True)
class MaskCode:
    """How the masks of a set are drawn.

    Args:
        classes (tuple[str]): Class names, background first.
        values (list): RGB triple or grey value of every class; by default
            masks are grey and hold the class indices.
        turn (int): Quarter turns to undo, in degrees counter-clockwise: 0,
            90, 180 or 270.
    """

    classes: tuple[str, ...]
    values: list | None = None
    turn: int = 0


class PictureSlices(VolumeImporter):
    """Base class: image / mask pairs of PNG files.

    A case is a patient (or whatever the patient pattern names); its slices
    are sorted by slice number. PNG files carry no geometry: the pixel order
    is kept, spacing and affine stay unknown. Images and masks are paired by
    what the wildcards of their globs match. A slice without a mask counts as
    unlabelled.

    Attributes:
        val (float): Share of the patients for validation in a shipped
            hold-out; five folds go with it. Used where ``test`` is not 0.
        test (float): Share of the patients for test; 0: no shipped split.
    """

    image_glob: ClassVar[str] = 'images/*.png'
    label_glob: ClassVar[str] = 'masks/*.png'
    turn: ClassVar[int] = 0
    val: ClassVar[float] = 0.0
    test: ClassVar[float] = 0.0

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the patients and their slices."""
        code = MaskCode(self.classes, self.palette, self.turn)
        return self.pair(Path(src), self.image_glob, self.label_glob, code)

    def pair(
        self,
        src: Path,
        image_glob: str,
        label_glob: str | None,
        code: MaskCode,
        patient_pattern: str | None = None,
        slice_pattern: str | None = None,
        **facts: Any,
    ) -> VolumeDiscovery:
        """List the patients and their slices by globs and patterns."""
        rivals: dict[tuple[str, ...], list[Path]] = {}
        found = by_wildcard(src, image_glob, rivals=rivals)
        if not found:
            raise self.nothing_found(src, f'No file matches {image_glob!r}.')
        masks = by_wildcard(src, label_glob, rivals=rivals) if label_glob else {}
        self.check_masks(found, masks)
        slices: dict[str, dict] = defaultdict(dict)
        problems: dict[str, tuple[str, str]] = {}
        for key, path in found.items():
            relative = path.relative_to(src).as_posix()
            patient, problem = find_patient(
                patient_pattern or PATIENT_PATTERN, relative, ''
            )
            try:
                number = slice_number(slice_pattern or SLICE_PATTERN, relative)
            except NoMatchError as error:
                number, problem = -1, problem or ('slice-pattern', str(error))
            other = slices[patient].setdefault(number, (path, masks.get(key)))
            if other[0] != path:
                problem = (
                    'same-slice',
                    f'{other[0]} and {path} are both slice {number} of '
                    f'patient {patient!r}; choose one by --images, or give '
                    '--patient-pattern / --slice-pattern that tell them '
                    'apart.',
                )
            elif key in rivals:
                problem = ('same-name', _both(rivals[key]))
            if problem:
                problems.setdefault(patient, problem)
        cases = [
            slice_case(patient, members, mask_code=code, problem=problems.get(patient))
            for patient, members in slices.items()
        ]
        orphans = [masks[key] for key in sorted(set(masks) - set(found))]
        return self.found(cases, notes=_notes(orphans, slices), **facts)

    def check_masks(self, images: Mapping, masks: Mapping) -> None:
        """Say what is wrong with the masks that were found, by key."""

    def same_label(
        self, previous: CaseInfo, case: SourceCase, label_files: Sequence[str]
    ) -> bool:
        """Compare the slices that have a mask, too: a mask does not say its slice."""
        return super().same_label(previous, case, label_files) and (
            previous.labelled_slices == _labelled(case.extra['mask_files'])
        )

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make the shipped hold-out and folds, if there are any."""
        if not self.test:
            return [], []
        return drawn_splits(self.name, cases, val=self.val, test=self.test), []

    def load(self, case: SourceCase) -> LoadedCase:
        """Read the slices and masks of one case."""
        images = case.extra['image_files']
        masks = case.extra['mask_files']
        code = case.extra['mask_code']
        image, problems = read_slices(
            images,
            'Give the groups patient ids of their own (--patient-pattern) or '
            'bring them to one grid first.',
        )
        label = None
        if any(masks):
            label = np.zeros(image.shape, np.uint8)
            for index, path in enumerate(masks):
                if not path:
                    continue
                mask = read_mask(path, code.classes, code.values)
                if mask.shape != image.shape[1:]:
                    raise CaseError(
                        'shape-mismatch',
                        f'{path}: mask of '
                        f'{mask.shape}, image {images[index]} of '
                        f'{image.shape[1:]} (rows, columns); they must be '
                        'equal.',
                    )
                label[index] = mask
        if code.turn:
            quarters = code.turn // 90
            image = np.rot90(image, quarters, (1, 2))
            if label is not None:
                label = np.ascontiguousarray(np.rot90(label, quarters, (1, 2)))
        return LoadedCase(
            image=np.ascontiguousarray(image),
            label=label,
            source_shape=tuple(image.shape),
            labelled_slices=_labelled(masks),
            problems=problems,
        )


def _labelled(masks: Sequence[str | None]) -> tuple[int, ...] | None:
    """Slices with a mask, as a store has them: None where all or none have one."""
    known = tuple(index for index, path in enumerate(masks) if path)
    return known if 0 < len(known) < len(masks) else None


def _both(paths: Sequence[Path]) -> str:
    return (
        f'{" and ".join(map(str, paths[:4]))} cannot be told apart; keep one of them.'
    )


def _notes(orphans: Sequence[Path], slices: Mapping[str, Mapping]) -> list[str]:
    notes = []
    if orphans:
        notes.append(
            f'{len(orphans)} mask(s) without an image are not used, e.g. {orphans[0]}'
        )
    broken = [
        members
        for members in slices.values()
        if max(members) - min(members) + 1 != len(members)
    ]
    if broken:
        notes.append(
            f'{len(broken)} of {len(slices)} cases have gaps in their '
            'slice numbers: neighbours in the store need not be '
            'neighbours in the body. The file of every stored slice is '
            'listed in its case.json.'
        )
    return notes
