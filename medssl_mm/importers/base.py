"""The one interface between a source format and a store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.store.header import SLICES

ERROR = 'error'
WARNING = 'warning'


@dataclass(frozen=True)
class Problem:
    """One finding about one case.

    Args:
        severity (str): 'error' (the case is left out) or 'warning' (it is
            imported, the finding is listed).
        code (str): Short kebab-case name of the finding, e.g.
            'shape-mismatch'.
        message (str): What was expected, what was found, what to do.
    """

    severity: str
    code: str
    message: str

    def __post_init__(self):
        if self.severity not in (ERROR, WARNING):
            raise ValueError(
                f"severity must be '{ERROR}' or '{WARNING}', got {self.severity!r}"
            )


class CaseError(UserError):
    """A case that cannot be loaded; the import lists it and goes on.

    Args:
        code (str): Short kebab-case name of the problem.
        message (str): What was expected, what was found, what to do.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self):  # two arguments: the default cannot unpickle it
        return type(self), (self.code, self.message)


@dataclass(frozen=True)
class SourceCase:
    """One case as found in the source folder, before anything is read.

    Args:
        case_id (str): Unique name, used as folder name in the store.
        patient_id (str): Patient, the unit of every split.
        image (str): Image file, or the folder of its files.
        label (str, optional): Label file or folder. Defaults to None.
        extra (dict): What the importer needs besides. The keys
            ``image_files`` and ``label_files`` (lists of paths) name the
            files of a case that is spread over many. Defaults to {}.
    """

    case_id: str
    patient_id: str
    image: str
    label: str | None = None
    extra: dict = field(default_factory=dict)


@dataclass
class LoadedCase:
    """Arrays and geometry of one case, in the canonical orientation.

    Args:
        image (np.ndarray): ``(Z, H, W)``; int16 HU for CT, otherwise
            float32, int16 or uint8. Not cast silently: values that do not
            fit belong into ``problems``.
        label (np.ndarray, optional): ``(Z, H, W)``, any dtype; checked and
            cast to uint8 by the import. Defaults to None.
        spacing (tuple, optional): (z, y, x) in mm. Defaults to None.
        affine (array, optional): 4x4, canonical voxel (x, y, z) to world
            (RAS+ mm). Defaults to None.
        source_affine (array, optional): 4x4 of the source grid.
        source_shape (tuple, optional): Shape of the source array, in its
            own axis order.
        source_orientation (str, optional): Axis codes, e.g. 'RAS'.
        labelled_slices (tuple, optional): Indices of the slices whose label
            is known; None = all slices of a labelled case.
        problems (list[Problem]): Findings made while loading.
    """

    image: np.ndarray
    label: np.ndarray | None = None
    spacing: tuple[float, float, float] | None = None
    affine: np.ndarray | None = None
    source_affine: np.ndarray | None = None
    source_shape: tuple[int, ...] | None = None
    source_orientation: str | None = None
    labelled_slices: tuple[int, ...] | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass
class LoadedImage:
    """Pixels of one image of a classification set.

    Args:
        image (np.ndarray): uint8 ``(H, W)`` or ``(H, W, 3)`` (RGB), of the
            size of the set.
        problems (list[Problem]): Findings made while loading.
    """

    image: np.ndarray
    problems: list[Problem] = field(default_factory=list)


class Importer:
    """Base class: finds the cases of a source folder and loads one.

    A subclass sets the class attributes, implements :meth:`discover` and
    :meth:`load`, and names in ``options`` the keyword arguments that
    ``discover`` understands. ``discover`` may set attributes (classes,
    modality) on the instance; the instance is pickled to the workers
    afterwards.

    Attributes:
        name (str): Name on the command line.
        kind (str): 'slices' for volumes, 'classification' for images.
        unit (str): What a case is called in messages.
        modality (str): 'CT', 'MR', 'XR' or 'other'.
        units (str): 'HU' or 'arbitrary'.
        classes (tuple[str]): Class names, index 0 is the background.
        palette (list[list[int]]): One RGB colour per class.
        options (tuple[str]): Keyword arguments of ``discover``.
        layout (str): The expected tree, shown when nothing is found.
        source_needed (bool): False when ``src`` may be empty or missing
            because the importer makes its data.
        notes (Sequence[str]): Warnings about the data set as a whole, set
            by ``discover`` or ``splits`` and shown at the end.
    """

    name: str = ''
    kind: str = SLICES
    unit: str = 'case'
    modality: str = 'other'
    units: str = 'arbitrary'
    classes: tuple[str, ...] = ('background',)
    palette: list | None = None
    options: tuple[str, ...] = ()
    layout: str = ''
    source_needed: bool = True
    notes: Sequence[str] = ()

    def discover(self, src: Path, **options) -> list[SourceCase]:
        """List the cases under ``src``.

        Raises:
            UserError: When nothing is found; says which layout was expected
                (see :meth:`nothing_found`).
        """
        raise NotImplementedError

    def load(self, case: SourceCase) -> LoadedCase:
        """Read one case.

        Raises:
            CaseError: When the case cannot be used. Any other exception is
                reported as 'unreadable' with its text.
        """
        raise NotImplementedError

    def splits(self, cases: Sequence) -> list:
        """Protocols that the data set ships, over the imported cases.

        Args:
            cases (Sequence[CaseInfo]): Cases of the finished store.

        Returns:
            list[Split]: May be empty.
        """
        return []

    def source_files(self, case: SourceCase) -> tuple[list[str], list[str]]:
        """Files that decide the content of a case: (image, label) files."""
        image = case.extra.get('image_files') or files_of(case.image)
        label = case.extra.get('label_files') or files_of(case.label)
        return list(image), list(label)

    def same_label(
        self, previous, case: SourceCase, label_files: Sequence[str]
    ) -> bool:
        """Tell whether a case was labelled then as it is now.

        Args:
            previous (CaseInfo | ImageInfo): The case as imported before.
            case (SourceCase): The case as found now.
            label_files (Sequence[str]): Its label files.
        """
        return previous.labelled == (case.label is not None or bool(label_files))

    def nothing_found(self, src: Path, detail: str = '') -> UserError:
        """Make the error for a folder without cases of this layout."""
        detail = f' {detail}' if detail else ''
        return UserError(
            f"no cases for '{self.name}' under {src}.{detail} Expected "
            f'layout:\n{self.layout.rstrip()}'
        )


def files_of(path: str | None) -> list[str]:
    """List a file, or the files under a folder; sorted."""
    if path is None:
        return []
    path = Path(path)
    if path.is_dir():
        return sorted(str(p) for p in path.rglob('*') if p.is_file())
    return [str(path)]


_UNSAFE = re.compile(r'[^A-Za-z0-9._+-]+')


def safe_case_id(text: str) -> str:
    """Turn a relative path or name into a case id (a folder name)."""
    case_id = _UNSAFE.sub('_', text.replace('/', '_')).strip('._')
    if not case_id:
        raise UserError(f'cannot make a case id from {text!r}')
    return case_id


def check_unique(cases: Iterable[SourceCase]) -> list[SourceCase]:
    """Sort cases by id and refuse two with the same id.

    Raises:
        UserError: Names the two files that claim one case id.
    """
    seen: dict[str, SourceCase] = {}
    for case in cases:
        other = seen.setdefault(case.case_id, case)
        if other is not case:
            raise UserError(
                f'two sources claim case id {case.case_id!r}: {other.image} '
                f'and {case.image}. Rename one, or import the folders into '
                'two stores.'
            )
    return [seen[key] for key in sorted(seen)]


def match_patient(pattern: str | None, text: str, default: str) -> str:
    """Extract the patient id from a path with a regular expression.

    Args:
        pattern (str, optional): The first group (or the group ``patient``)
            is the id; None returns ``default``.
        text (str): What is searched, e.g. the path relative to the source.
        default (str): Id used without a pattern.

    Raises:
        UserError: When the pattern is invalid, has no group or does not
            match.
    """
    if pattern is None:
        return default
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f'patient pattern {pattern!r} is not a regular expression: {error}'
        ) from None
    if not compiled.groups:
        raise UserError(
            f'patient pattern {pattern!r} has no group; put brackets around '
            r'the patient id, e.g. "(\d+)_\d+\.png"'
        )
    found = compiled.search(text)
    if not found:
        raise UserError(
            f'patient pattern {pattern!r} does not match {text!r}; the '
            'first group of the pattern must be the patient id'
        )
    if 'patient' in compiled.groupindex:
        return found['patient']
    return found[1]


def class_names(text: str) -> tuple[str, ...]:
    """Class names from a JSON file, or from 'name,name,...' (1, 2, ...)."""
    if text.endswith('.json') or ',' not in text and Path(text).is_file():
        return read_classes(text)
    names = [name.strip() for name in text.split(',')]
    return ('background', *[name for name in names if name])


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class names from JSON.

    Accepts a list of names (index = label value) or an object that maps
    label values to names, or names to values, also under the key 'labels'
    (nnU-Net, Decathlon); a missing 0 becomes 'background'.

    Raises:
        UserError: When the file is missing, not JSON, or its values have
            gaps.
    """
    try:
        content = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f'class file {path}: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'class file {path} is not JSON: {error}') from None
    if isinstance(content, dict) and 'labels' in content:
        content = content['labels']
    if isinstance(content, list):
        content = dict(enumerate(content))
    if (
        isinstance(content, dict)
        and content
        and all(isinstance(value, int) for value in content.values())
    ):
        content = {value: name for name, value in content.items()}
    help_text = (
        f'class file {path} must be a list of names or an object {{"1": "liver", ...}}'
    )
    if not isinstance(content, dict):
        raise UserError(f'{help_text}, found {type(content).__name__}')
    try:
        names = {int(key): value for key, value in content.items()}
    except (TypeError, ValueError):
        raise UserError(f'{help_text}; its keys are {sorted(content)[:5]}') from None
    if not all(isinstance(value, str) for value in names.values()):
        raise UserError(f'{help_text}; every name must be a string')
    names.setdefault(0, 'background')
    missing = sorted(set(range(max(names) + 1)) - set(names))
    if missing or min(names) < 0 or max(names) > 255:
        raise UserError(
            f'{help_text} for the values 0..{max(names)} (at most 255); '
            f'missing: {missing[:10]}'
        )
    return tuple(names[i] for i in range(len(names)))
