"""The one interface between a source format and a store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.leftovers import left_out
from medssl_mm.importers.naming import digest_of, find_files, folded
from medssl_mm.store.splits import Split

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

    def __post_init__(self) -> None:
        if self.severity not in (ERROR, WARNING):
            raise ValueError(
                f"severity must be '{ERROR}' or '{WARNING}', got {self.severity!r}"
            )


def error(code: str, message: str) -> Problem:
    """Make a problem that leaves the case out."""
    return Problem(ERROR, code, message)


def warning(code: str, message: str) -> Problem:
    """Make a problem that is listed only."""
    return Problem(WARNING, code, message)


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

    def __reduce__(self) -> tuple:  # two arguments: the default cannot unpickle it
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
            files of a case that is spread over many; ``problem`` (code,
            message) leaves it out. Defaults to {}.
        name (str): What the source calls it, where the id is shorter or has
            other letters. Defaults to '': as the id.
    """

    case_id: str
    patient_id: str
    image: str
    label: str | None = None
    extra: dict = field(default_factory=dict)
    name: str = ''


@dataclass
class LoadedCase:
    """Arrays and geometry of one case, in the canonical orientation.

    Args:
        image (np.ndarray): ``(Z, H, W)``, or ``(Z, C, H, W)`` of several
            channels; int16 HU for CT, otherwise float32, int16 or uint8. Not
            cast silently: values that do not fit belong into ``problems``.
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


@dataclass(frozen=True)
class Discovery:
    """What a source folder holds: the cases, and what is true of them all.

    The kinds of data sets (volumes, images with class labels) are subclasses;
    whatever the import does differently for them is a method here.

    Args:
        cases (Sequence[SourceCase]): The cases, sorted by id.
        name (str): Name of the data set; part of every split's hash.
        classes (tuple[str]): Class names.
        notes (Sequence[str]): Warnings about the data set as a whole.
        lists (dict): Published lists: protocol to subset to names. What the
            names are (cases, patients) the importer knows.
    """

    cases: Sequence[SourceCase]
    name: str
    classes: tuple[str, ...]
    notes: Sequence[str] = ()
    lists: dict[str, dict[str, Collection[str]]] = field(default_factory=dict)

    unit: ClassVar[str] = 'case'  # what a case is called in messages
    batch_size: ClassVar[int | str] = 1  # cases that joblib sends at a time
    reports_every_case: ClassVar[bool] = True  # else those with findings

    def without_cases(self) -> Discovery:
        """What a worker needs: hundred thousand cases stay behind."""
        return replace(self, cases=(), notes=(), lists={})

    def create_writer(
        self,
        out: str | Path,
        import_options: dict | None = None,
        overwrite: bool = False,
    ) -> Any:
        """Start or continue writing the store (see its ``create``)."""
        raise NotImplementedError

    def stage(
        self,
        case: SourceCase,
        loaded: Any,
        writer: Any,
        stat: Sequence,
        digests: dict,
    ) -> tuple[Any, list[Problem]]:
        """Check a loaded case and hand it to the writer.

        Args:
            case (SourceCase): The case.
            loaded (LoadedCase | LoadedImage): What the importer loaded.
            writer: Of :meth:`create_writer`.
            stat (Sequence): (path, bytes, mtime in ns) per source file.
            digests (dict): ``source_sha256``, ``label_sha256``.

        Returns:
            tuple: CaseInfo or ImageInfo (None: unusable, nothing is
            staged); list[Problem].
        """
        raise NotImplementedError

    def duplicate(self, original: str, same_patient: bool, how: str = '') -> Problem:
        """Describe a case whose pixels are those of ``original``.

        Args:
            original (str): The case that is kept.
            same_patient (bool): Whether both are of one patient.
            how (str): What differs, of :meth:`near_copies`. Defaults to ''.
        """
        raise NotImplementedError

    def near_copies(
        self, names: Sequence[str], gone: Collection[str], writer: Any
    ) -> dict[str, tuple[str, str]]:
        """Find copies that are mirrored, of another type or on another scale.

        Args:
            names (Sequence[str]): Cases of the store, none equal to another.
            gone (Collection[str]): Those that are no longer in the source.
            writer: Of :meth:`create_writer`.

        Returns:
            dict: Case id of the copy to that of the case to keep, and what
            differs. None are found, unless a kind of data knows better.
        """
        return {}

    def contradictions(self, same: Sequence[SourceCase]) -> dict[str, Problem]:
        """Say what is wrong with cases of the same pixels, by case id.

        Nothing is, unless a kind of data knows better.
        """
        return {}

    def classes_of(self, store: Any) -> Callable[[str], Iterable[int]]:
        """Function from case id to its classes, for stratified splits.

        Raises:
            UserError: When a case of this kind has no classes of its own.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Importer:
    """Base class: finds the cases of a source folder and loads one.

    A subclass sets the class attributes, declares its options as fields by
    :func:`.options.option`, and implements :meth:`discover` and :meth:`load`. An
    importer never changes: what is found goes into the Discovery. It is
    pickled to the workers.

    Attributes:
        name (str): Name on the command line.
        layout (str): The expected tree, shown when nothing is found.
        source_needed (bool): False when ``src`` may be empty or missing
            because the importer makes its data.
        without (tuple[str]): Options of a base class that it does not take.
        tells_rest (bool): Whether the import lists the files that are no case's;
            False where :meth:`discover` says why it passes over each.
        guesses_patients (bool): Whether names of usual layouts tell the patients
            where nothing else does: of data that no published rule describes.
    """

    name: ClassVar[str] = ''
    layout: ClassVar[str] = ''
    source_needed: ClassVar[bool] = True
    without: ClassVar[tuple[str, ...]] = ()
    tells_rest: ClassVar[bool] = True
    guesses_patients: ClassVar[bool] = False

    @classmethod
    def options(cls) -> dict[str, dict]:
        """Options by name, with their keywords for argparse."""
        return {
            f.name: f.metadata['option']
            for f in fields(cls)
            if 'option' in f.metadata and f.name not in cls.without
        }

    def given(self) -> dict:
        """Options that were set, by name."""
        values = {name: getattr(self, name) for name in self.options()}
        return {name: value for name, value in values.items() if value is not None}

    def kept(self) -> dict:
        """What a store remembers of the options that were set, by name."""
        forms = {f.name: f.metadata.get('kept') for f in fields(self)}
        return {
            name: value if (form := forms[name]) is None else form(value)
            for name, value in self.given().items()
        }

    def discover(self, src: Path) -> Discovery:
        """List the cases under ``src``.

        Raises:
            UserError: When nothing is found; says which layout was expected
                (see :meth:`nothing_found`).
        """
        raise NotImplementedError

    def load(self, case: SourceCase) -> LoadedCase | LoadedImage:
        """Read one case.

        Raises:
            CaseError: When the case cannot be used. Any other exception is
                reported as 'unreadable' with its text.
        """
        raise NotImplementedError

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Protocols that the data set ships, over the imported cases.

        Args:
            found (Discovery): Of the import.
            cases (Sequence[CaseInfo | ImageInfo]): Of the finished store.

        Returns:
            tuple: splits, may be empty; notes for the user.
        """
        return [], []

    def source_files(self, case: SourceCase) -> tuple[list[str], list[str]]:
        """Files that decide the content of a case: (image, label) files."""
        image = case.extra.get('image_files') or files_of(case.image)
        label = case.extra.get('label_files') or files_of(case.label)
        return list(image), list(label)

    def same_label(
        self, previous: Any, case: SourceCase, label_files: Sequence[str]
    ) -> bool:
        """Tell whether a case was labelled then as it is now.

        Args:
            previous (CaseInfo | ImageInfo): The case as imported before.
            case (SourceCase): The case as found now.
            label_files (Sequence[str]): Its label files.
        """
        return previous.labelled == (case.label is not None or bool(label_files))

    def nothing_found(self, src: str | Path, detail: str = '') -> UserError:
        """Make the error for a folder without cases of this layout."""
        rest = left_out(Path(src), ()) if self.tells_rest else []
        detail = ''.join(f' {text.rstrip(".")}.' for text in (detail, *rest) if text)
        return UserError(
            f"no cases for '{self.name}' under {src}.{detail} Expected "
            f'layout:\n{self.layout.rstrip()}'
        )


def files_of(path: str | None) -> list[str]:
    """List a file, or the files under a folder; sorted."""
    if path is None:
        return []
    if Path(path).is_dir():
        return sorted(map(str, find_files(Path(path))))
    return [str(path)]


def check_unique(cases: Iterable[SourceCase], folders: bool = True) -> list[SourceCase]:
    """Sort cases by id; ids that are one name on disk get a digest of their names.

    Args:
        cases (Iterable[SourceCase]): The cases.
        folders (bool): Whether the ids are names of folders, so that they must
            differ in more than their case. Defaults to True.

    Returns:
        list[SourceCase]: Those that have even their name in common get the
        finding 'same-name': which of them is meant cannot be told.
    """
    groups: dict[str, list[SourceCase]] = defaultdict(list)
    for case in cases:
        groups[folded(case.case_id) if folders else case.case_id].append(case)
    kept = {}
    for group in groups.values():
        for case in group:
            own = case if len(group) == 1 else _told_apart(group, case)
            kept[own.case_id] = own
    return [kept[case_id] for case_id in sorted(kept)]


def _told_apart(group: Sequence[SourceCase], case: SourceCase) -> SourceCase:
    """A case whose id others have as well, with an id of its own."""
    name = case.name or case.case_id
    same = [c.image for c in group if (c.name or c.case_id) == name]
    extra = case.extra
    if len(same) > 1:
        message = (
            f'{" and ".join(same[:4])} are all called {name!r}; keep one of them, '
            'rename the others, or import the folders into stores of their own.'
        )
        extra = {'problem': ('same-name', message), **extra}
        name = case.image
    case_id = f'{case.case_id}-{digest_of(name)}'
    patient = case_id if case.patient_id == case.case_id else case.patient_id
    return replace(case, case_id=case_id, patient_id=patient, extra=extra, name=name)
