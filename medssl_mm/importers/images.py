"""What the importers of classification images share."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    CaseError,
    Importer,
    LoadedImage,
    SourceCase,
)
from medssl_mm.importers.pictures import (
    fit_square,
    read_colour_picture,
    read_grey_picture,
)
from medssl_mm.store.header import IMAGES
from medssl_mm.store.images import (
    SINGLE_LABEL,
    UNKNOWN,
    ImageInfo,
    classes_of_label,
)
from medssl_mm.store.splits import Split, make_holdout

MIN_PATIENTS = 5  # fewer cannot be divided by 60 / 20 / 20


class ImageImporter(Importer):
    """Base class: an image is a case, its label comes from a list or name.

    ``discover`` makes a SourceCase for every image with :meth:`image_case`.
    Published splits are kept in ``lists`` (subset name to image ids), which
    stays in the main process.

    Attributes:
        task (str): 'multi-label' or 'single-label'.
        channels (int): 1 (grey) or 3 (RGB).
        size (int): Side of the stored images, pixels.
        pad (bool): Whether an image that is not square is padded (else
            cropped).
        blank_allowed (bool): Whether an image of one colour is kept.
    """

    kind = IMAGES
    unit = 'image'
    task = SINGLE_LABEL
    channels = 3
    size = 224
    pad = False
    blank_allowed = False
    options: tuple[str, ...] = ('size',)
    lists: dict | None = None

    def __getstate__(self):
        # Pickled for every image that a worker is sent: labels and lists of
        # a hundred thousand must stay behind.
        return {
            key: value
            for key, value in self.__dict__.items()
            if key not in ('lists', 'notes')
        }

    def set_size(self, size: int | None) -> None:
        """Take the size from the command line.

        Raises:
            UserError: Not between 8 and 4096 pixels.
        """
        if size is None:
            return
        if not 8 <= size <= 4096:
            raise UserError(f'--size must lie between 8 and 4096 pixels, got {size}')
        self.size = size

    def image_case(
        self,
        image_id: str,
        patient_id: str,
        path: str | Path,
        label,
        problem: tuple[str, str] | None = None,
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
        """
        if label is None:
            label = (
                UNKNOWN if self.task == SINGLE_LABEL else (UNKNOWN,) * len(self.classes)
            )
        extra = dict(label=label)
        if problem:
            extra['problem'] = problem
        return SourceCase(image_id, patient_id, str(path), extra=extra)

    def source_files(self, case: SourceCase) -> tuple[list[str], list[str]]:
        """The file of the image."""
        if 'problem' in case.extra:
            raise CaseError(*case.extra['problem'])
        return [case.image], []

    def same_label(
        self, previous: ImageInfo, case: SourceCase, label_files: Sequence[str]
    ) -> bool:
        """Compare the labels themselves."""
        return previous.label == case.extra['label']

    def load(self, case: SourceCase) -> LoadedImage:
        """Read one image and bring it to the size of the set."""
        read = read_grey_picture if self.channels == 1 else (read_colour_picture)
        pixels, problems = read(case.image)
        pixels, more = fit_square(pixels, self.size, case.image, self.pad)
        return LoadedImage(pixels, [*problems, *more])

    def splits(self, cases: Sequence[ImageInfo]) -> list[Split]:
        """Make a patient-wise 60 / 20 / 20 split, stratified by class.

        The published lists follow, where there are any.
        """
        self._note_classes(cases)
        return [*self.drawn_splits(cases), *self.list_splits(cases)]

    def drawn_splits(self, cases: Sequence[ImageInfo]) -> list[Split]:
        """The patient-wise split '<name>-patients'."""
        labelled = {c.image_id: c for c in cases if c.labelled}
        patients = {c.patient_id for c in labelled.values()}
        if len(patients) < MIN_PATIENTS:
            self.notes = [
                *self.notes,
                (
                    f'{len(patients)} labelled patient(s) are too few for the '
                    f'split {self.name}-patients; use --folds or --holdout.'
                ),
            ]
            return []
        return [
            make_holdout(
                labelled,
                {c.image_id: c.patient_id for c in cases},
                self.name,
                test=0.2,
                val=0.2,
                seed=0,
                pretrain_ids=[c.image_id for c in cases],
                protocol=f'{self.name}-patients',
                classes_of=lambda name: classes_of_label(labelled[name].label),
            )
        ]

    def list_splits(self, cases: Sequence[ImageInfo]) -> list[Split]:
        """The splits of published lists, over the images that were found."""
        known = {case.image_id for case in cases}
        splits = []
        for protocol, subsets in (self.lists or {}).items():
            found = {name: known.intersection(ids) for name, ids in subsets.items()}
            absent = sum(
                len(ids) - len(found[name])
                for name, ids in subsets.items()
                if name != 'pretrain'
            )
            empty = [name for name, ids in found.items() if not ids]
            if absent:
                self.notes = [
                    *self.notes,
                    (
                        f'split {protocol}: {absent} listed image(s) are not in '
                        'the set and were left out'
                        + (
                            f'; {", ".join(empty)} would be empty, so the split '
                            'is not written'
                            if empty
                            else ''
                        )
                    ),
                ]
            if not empty:
                splits.append(
                    Split(
                        protocol,
                        self.name,
                        found,
                        None,
                        'Published lists; pretraining on '
                        f'{len(found["pretrain"])} images of them.',
                    )
                )
        return splits

    def _note_classes(self, cases: Sequence[ImageInfo]) -> None:
        """Say which classes have no image at all."""
        count = Counter(
            index for case in cases for index in classes_of_label(case.label)
        )
        missing = [name for index, name in enumerate(self.classes) if not count[index]]
        if missing:
            self.notes = [
                *self.notes,
                (
                    f'no image of the class(es) {", ".join(missing)}: nothing can '
                    'be learnt or measured there. Is part of the source '
                    'missing?'
                ),
            ]


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a header: (line number, row by column).

    Raises:
        UserError: When it is no such file.
    """
    try:
        with open(path, newline='', encoding='utf-8-sig') as file:
            reader = csv.DictReader(file)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f'{path}, line {reader.line_num}: expected '
                        f'{len(reader.fieldnames)} columns as in the header; '
                        'found another number.'
                    )
                rows.append((reader.line_num, row))
    except OSError as error:
        raise UserError(f'label list {path}: {error.strerror}') from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'label list {path} is no CSV file: {error}') from None
    if not rows:
        raise UserError(f'label list {path} holds no rows below its header')
    return rows


def need_columns(path: Path, rows, names: Sequence[str]) -> None:
    """Refuse a CSV file that lacks a column.

    Raises:
        UserError: Names the missing and the present columns.
    """
    present = list(rows[0][1])
    missing = [name for name in names if name not in present]
    if missing:
        raise UserError(
            f'label list {path} has no column {", ".join(missing)}; its '
            f'columns are {", ".join(map(repr, present[:16]))}'
        )


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
