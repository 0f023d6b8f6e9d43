"""What the importers of classification images share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers import integrity
from medssl_mm.importers.base import (
    ERROR,
    Discovery,
    Importer,
    LoadedImage,
    Problem,
    SourceCase,
    check_unique,
    error,
    warning,
)
from medssl_mm.importers.options import option
from medssl_mm.importers.readers.picture import (
    find_pictures,
    fit_square,
    in_channels,
    read_picture,
)
from medssl_mm.store import (
    ImageInfo,
    ImageStore,
    ImageStoreWriter,
    Split,
    make_holdout,
)
from medssl_mm.store.compat_splits import DESCRIPTION
from medssl_mm.store.images import (
    SINGLE_LABEL,
    UNKNOWN,
    classes_of_label,
    is_known,
)
from medssl_mm.store.splits import IMAGE, PATIENT

MIN_PATIENTS = 5  # fewer cannot be divided by 60 / 20 / 20


@dataclass(frozen=True)
class ImageDiscovery(Discovery):
    """Images with class labels, as found; ``lists`` name images.

    Args:
        task (str): 'multi-label' or 'single-label'.
        channels (int): 1 (grey) or 3 (RGB).
        size (int): Side of the stored images, pixels.
        blank_allowed (bool): Whether an image of one colour is kept.
        conflicts_allowed (bool): Whether two images of the same pixels may
            have two labels.
        compat (Mapping): Lists like ``lists`` that part images regardless of
            patients, as a published comparison did.
        uncertain (bool): Whether labels may be :data:`~.store.images.UNCERTAIN`.
    """

    task: str = SINGLE_LABEL
    channels: int = 3
    size: int = 224
    blank_allowed: bool = False
    conflicts_allowed: bool = False
    compat: Mapping[str, Mapping[str, Collection[str]]] = field(default_factory=dict)
    uncertain: bool = False

    unit: ClassVar[str] = 'image'
    batch_size: ClassVar[int | str] = 'auto'  # images are many and light
    reports_every_case: ClassVar[bool] = False  # images.csv lists them

    def without_cases(self) -> Discovery:
        """What a worker needs."""
        return replace(super().without_cases(), compat={})  # type: ignore[call-arg]

    def create_writer(
        self,
        out: str | Path,
        import_options: dict | None = None,
        overwrite: bool = False,
    ) -> ImageStoreWriter:
        """Start or continue writing an image set."""
        return ImageStoreWriter.create(
            out,
            self.name,
            self.task,
            self.classes,
            self.channels,
            (self.size, self.size),
            import_options,
            overwrite,
            self.uncertain,
        )

    def stage(
        self,
        case: SourceCase,
        loaded: LoadedImage,
        writer: Any,
        stat: Sequence,
        digests: dict,
    ) -> tuple[Any, list[Problem]]:
        """Check an image and hand it to the writer."""
        problems = [
            *loaded.problems,
            *integrity.check_picture(loaded.image, self.blank_allowed),
        ]
        if any(p.severity == ERROR for p in problems):
            return None, problems
        info = writer.add_case(
            case.case_id,
            loaded.image,
            case.extra['label'],
            patient_id=case.patient_id,
            source_file=case.image,
            source_sha256=digests['source_sha256'],
            source_stat=stat,
            warnings=[(p.code, p.message) for p in problems],
        )
        return info, problems

    def duplicate(self, original: str, same_patient: bool, how: str = '') -> Problem:
        """A warning where the patient is the same.

        That is no leak, and a published count stays as it is.
        """
        if same_patient:
            return warning(
                'duplicate',
                f'pixels equal those of image {original!r} of the same patient.',
            )
        return error(
            'duplicate',
            f'image content equals that of image {original!r} of another patient. '
            'Remove one file; the same scan on both sides of a split would be a '
            'leak.',
        )

    def contradictions(self, same: Sequence[SourceCase]) -> dict[str, Problem]:
        """Errors for all, where their known labels differ: who is right?"""
        known = [case for case in same if is_known(case.extra['label'])]
        if self.conflicts_allowed or len({case.extra['label'] for case in known}) < 2:
            return {}
        shown = ', '.join(f'{case.image} ({self._names_of(case)})' for case in known)
        return {
            case.case_id: error(
                'label-conflict',
                f'one picture with several labels: {shown}. All are left out; '
                'remove the wrong ones.',
            )
            for case in same
        }

    def _names_of(self, case: SourceCase) -> str:
        indices = classes_of_label(case.extra['label'])
        return ', '.join(self.classes[index] for index in indices) or 'none'

    def classes_of(self, store: ImageStore) -> Callable[[str], Iterable[int]]:
        """Function from image id to its classes."""
        return store.classes_of


@dataclass(frozen=True)
class ImageImporter(Importer):
    """Base class: an image is a case, its label comes from a list or name.

    ``discover`` makes a SourceCase for every image with :meth:`image_case`.

    Attributes:
        classes (tuple[str]): Class names; () where the source decides.
        task (str): 'multi-label' or 'single-label'.
        channels (int): 1 (grey) or 3 (RGB).
        blank_allowed (bool): Whether an image of one colour is kept.
        conflicts_allowed (bool): Whether two images of the same pixels may
            have two labels: where the source is an archive, out of which
            nobody can take the wrong one.
    """

    classes: ClassVar[tuple[str, ...]] = ()
    task: ClassVar[str] = SINGLE_LABEL
    channels: ClassVar[int] = 3
    blank_allowed: ClassVar[bool] = False
    conflicts_allowed: ClassVar[bool] = False

    def found(self, cases: Iterable[SourceCase], **facts: Any) -> ImageDiscovery:
        """Describe what was found; facts default to the class attributes."""
        known = dict(
            name=self.name,
            classes=self.classes,
            task=self.task,
            channels=self.channels,
            blank_allowed=self.blank_allowed,
            conflicts_allowed=self.conflicts_allowed,
        )
        return ImageDiscovery(check_unique(cases, folders=False), **{**known, **facts})

    def image_case(
        self,
        image_id: str,
        patient_id: str,
        path: str | Path,
        label: Any,
        problem: tuple[str, str] | None = None,
        **extra: Any,
    ) -> SourceCase:
        """Describe one image.

        Args:
            image_id (str): Unique name.
            patient_id (str): Patient.
            path (str | Path): Its file; need not exist, the import says so.
            label (int | tuple | None): Class index, 0/1 per class, or None
                where it is not known.
            problem (tuple, optional): (code, message) of what is wrong with
                its name or label; the image is then left out. Defaults to
                None.
            extra: What :meth:`load` needs besides.
        """
        if label is None:
            label = (
                UNKNOWN if self.task == SINGLE_LABEL else (UNKNOWN,) * len(self.classes)
            )
        extra['label'] = label
        if problem:
            extra['problem'] = problem
        return SourceCase(image_id, patient_id, str(path), extra=extra)

    def strange_case(self, path: Path, src: Path, expected: str) -> SourceCase:
        """An image with a name of another form: reported and left out."""
        relative = path.relative_to(src).as_posix()
        message = f'{path}: expected {expected}; rename or remove the file.'
        return self.image_case(relative, relative, path, None, ('file-name', message))

    def named_pictures(
        self, src: Path, name_of: Callable[[Path], str], expected: str
    ) -> tuple[dict[str, Path], list[SourceCase]]:
        """Pictures below a folder by name, and cases for those of another form.

        Args:
            src (Path): The folder.
            name_of (Callable): Name of a picture by its path; '' where it has
                not the form of the set.
            expected (str): That form, for messages.

        Returns:
            tuple: Path by name; cases of pictures with another form of name, or
            with a name that others have.
        """
        files: dict[str, Path] = {}
        rivals: dict[str, list[Path]] = {}
        strange = []
        for path in find_pictures(src):
            name = name_of(path)
            if not name:
                strange.append(self.strange_case(path, src, expected))
                continue
            other = files.setdefault(name, path)
            if other != path:
                rivals.setdefault(name, [other]).append(path)
        for name, paths in rivals.items():
            files.pop(name)
            message = f'{" and ".join(map(str, paths[:4]))} have one name; keep one.'
            for path in paths:
                case_id = path.relative_to(src).as_posix()
                problem = ('same-name', message)
                strange.append(self.image_case(case_id, case_id, path, None, problem))
        return files, strange

    def check_names(self, src: Path, cases: Sequence[SourceCase]) -> None:
        """Refuse a folder in which no image has the name and place of the set.

        Raises:
            UserError: With an example, where there are images.
        """
        if not any('problem' not in case.extra for case in cases):
            detail = (
                f'{len(cases)} image(s) have another name or place, e.g. '
                f'{cases[0].image}.'
                if cases
                else ''
            )
            raise self.nothing_found(src, detail)

    def source_files(self, case: SourceCase) -> tuple[list[str], list[str]]:
        """The file of the image."""
        return [case.image], []

    def same_label(
        self, previous: ImageInfo, case: SourceCase, label_files: Sequence[str]
    ) -> bool:
        """Compare the labels themselves."""
        return previous.label == case.extra['label']

    def splits(
        self, found: Discovery, cases: Sequence[ImageInfo]
    ) -> tuple[list[Split], list[str]]:
        """Make a patient-wise 60 / 20 / 20 split, stratified by class.

        The published lists follow, where there are any.
        """
        notes = empty_classes(found.classes, cases)
        splits = [
            *self.drawn_splits(found, cases, notes),
            *list_splits(found, cases, notes),
        ]
        notes += one_class_tests(found.classes, cases, splits)
        return splits, notes

    def drawn_splits(
        self, found: Discovery, cases: Sequence[ImageInfo], notes: list[str]
    ) -> list[Split]:
        """The patient-wise split '<name>-patients'; may add a note."""
        labelled = {c.image_id: c for c in cases if c.labelled}
        patients = {c.patient_id for c in labelled.values()}
        if len(patients) < MIN_PATIENTS:
            notes.append(
                f'{len(patients)} labelled patient(s) are too few for the '
                f'split {found.name}-patients; use --folds or --holdout.'
            )
            return []
        return [
            make_holdout(
                labelled,
                {c.image_id: c.patient_id for c in cases},
                found.name,
                test=0.2,
                val=0.2,
                seed=0,
                pretrain_ids=[c.image_id for c in cases],
                protocol=f'{found.name}-patients',
                classes_of=lambda name: classes_of_label(labelled[name].label),
            )
        ]


@dataclass(frozen=True)
class ImageFiles(ImageImporter):
    """Base class: a file is an image; all are brought to one size.

    Attributes:
        default_size (int): Side of the stored images, pixels.
        pad (bool): Whether an image that is not square is padded (else
            cropped).
    """

    size: int | None = option('side of the stored images, pixels', type=int)

    default_size: ClassVar[int] = 224
    pad: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 8 <= self.side <= 4096:
            raise UserError(
                f'--size must lie between 8 and 4096 pixels, got {self.size}'
            )

    @property
    def side(self) -> int:
        """Side of the stored images, pixels."""
        return self.default_size if self.size is None else self.size

    def found(self, cases: Iterable[SourceCase], **facts: Any) -> ImageDiscovery:
        """Describe what was found; facts default to the class attributes."""
        return super().found(cases, **{'size': self.side, **facts})

    def load(self, case: SourceCase) -> LoadedImage:
        """Read one image and bring it to the size of the set."""
        pixels, problems = read_picture(case.image)
        loaded = self.form(case.image, pixels, self.channels, self.side, self.pad)
        return replace(loaded, problems=[*problems, *loaded.problems])

    def form(
        self, path: str, pixels: np.ndarray, channels: int, side: int, pad: bool
    ) -> LoadedImage:
        """Bring pixels to the channels and the size of the set."""
        pixels, problems = in_channels(pixels, channels, path)
        pixels, more = fit_square(pixels, side, path, pad)
        return LoadedImage(pixels, [*problems, *more])


def list_splits(
    found: Discovery, cases: Sequence[ImageInfo], notes: list[str]
) -> list[Split]:
    """The splits of published lists, over the images that are in the set.

    Args:
        found (Discovery): With the lists.
        cases (Sequence[ImageInfo]): Images of the set.
        notes (list[str]): Gets what the lists name and the set lacks.
    """
    known = {case.image_id for case in cases}
    splits = []
    compat = getattr(found, 'compat', {})
    for protocol, subsets in (*found.lists.items(), *compat.items()):
        there = {name: tuple(known.intersection(ids)) for name, ids in subsets.items()}
        absent = sum(
            len(ids) - len(there[name])
            for name, ids in subsets.items()
            if name != 'pretrain'
        )
        empty = [name for name, ids in there.items() if not ids]
        if absent:
            notes.append(
                f'split {protocol}: {absent} listed image(s) are not in '
                'the set and were left out'
                + (
                    f'; {", ".join(empty)} would be empty, so the split is not written'
                    if empty
                    else ''
                )
            )
        if not empty:
            text, by = (
                (DESCRIPTION, IMAGE)
                if protocol in compat
                else (_published(there), PATIENT)
            )
            splits.append(Split(protocol, found.name, there, None, text, by))
    return splits


def _published(subsets: Mapping[str, Collection[str]]) -> str:
    return f'Published lists; pretraining on {len(subsets["pretrain"])} images of them.'


def empty_classes(classes: Sequence[str], cases: Sequence[ImageInfo]) -> list[str]:
    """Say which classes have no image at all."""
    count = Counter(index for case in cases for index in classes_of_label(case.label))
    missing = [name for index, name in enumerate(classes) if not count[index]]
    if not missing:
        return []
    return [
        f'no image of the class(es) {", ".join(missing)}: nothing can be learnt or '
        'measured there. Is part of the source missing?'
    ]


def one_class_tests(
    classes: Sequence[str], cases: Sequence[ImageInfo], splits: Sequence[Split]
) -> list[str]:
    """Say of which splits the test images are all of one class."""
    label_of = {c.image_id: c.label for c in cases if isinstance(c.label, int)}
    notes = []
    for split in splits:
        labels = {label_of.get(name) for name in split.subsets.get('test', ())}
        labels -= {None, UNKNOWN}
        if len(labels) == 1:
            name = classes[labels.pop() or 0]
            notes.append(
                f'split {split.protocol}: all test images are of the class {name}; '
                'nothing can be measured on it. Import more of the source, or draw '
                'another by --holdout SHARE --stratified.'
            )
    return notes


def folder_of_lists(src: Path, lists: str | None) -> Path:
    """Folder of the published lists: the one given, or the source.

    Raises:
        UserError: When the folder does not exist.
    """
    if lists is None:
        return src
    folder = Path(lists)
    if not folder.is_dir():
        raise UserError(f'--lists {folder}: no such folder')
    return folder


def lists_option() -> Any:
    """The option ``lists`` of sets with published lists."""
    return option('folder of the published split lists; default: --src', metavar='DIR')
