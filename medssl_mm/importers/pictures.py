"""Pictures of one's own with class labels, and sets that are no more than that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.importers.base import (
    CaseError,
    LoadedImage,
    Problem,
    SourceCase,
)
from medssl_mm.importers.images import ImageDiscovery, ImageFiles
from medssl_mm.importers.naming import readable
from medssl_mm.importers.options import option
from medssl_mm.importers.patients import Person, patients_of
from medssl_mm.importers.readers.picture import (
    ALL_SUFFIXES,
    DICOM,
    find_pictures,
    read_picture,
    scale_to_bytes,
    stretch,
)
from medssl_mm.store.images import classes_of_label, is_known
from medssl_mm.store.splits import make_holdout

SUBSETS = ('train', 'val', 'test')
# What folders and columns call the subsets.
SUBSET_NAMES = dict(
    train='train',
    training='train',
    val='val',
    valid='val',
    validation='val',
    dev='val',
    test='test',
    testing='test',
)
VAL_SHARE = 0.1  # of the training patients, where no validation subset is given
LOOKED_AT = 64  # pictures that tell size and colours
LARGEST_SIDE = 224  # pixels, unless --size says otherwise
INNEREYE_SEED = 42
NO_PATIENTS = (
    'no patients are named: every image counts as one, so intervals are over images, '
    'and images of one patient may be in more than one subset. --patient-pattern '
    'or --patients FILE.csv names them.'
)


@dataclass(frozen=True)
class Picture:
    """A picture of a source, and what is said of it.

    Args:
        name (str): Unique name, the image's id.
        path (Path): Its file; need not exist, the import says so.
        label (int | tuple, optional): Class index, or 0/1 per class. Defaults
            to None: not known.
        subset (str, optional): 'train', 'val' or 'test', where the source has
            them. Defaults to None.
        patient (str, optional): Defaults to None: the picture's name.
        problem (tuple, optional): (code, message): the picture is left out.
            Defaults to None.
        extra (dict): What the importer needs to load it. Defaults to {}.
    """

    name: str
    path: Path
    label: int | tuple[int, ...] | None = None
    subset: str | None = None
    patient: str | None = None
    problem: tuple[str, str] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The patient, or the picture itself."""
        return self.patient or self.name

    @property
    def known(self) -> bool:
        """Whether it is usable and labelled."""
        return self.problem is None and self.label is not None and is_known(self.label)


@dataclass(frozen=True)
class PictureImporter(ImageFiles):
    """Base class: PNG, JPEG, TIFF and DICOM files with class labels.

    Size and colours are those of the pictures, unless they are asked for or a
    class attribute says them. Grey values of DICOM files, and of deeper pictures
    with ``window='range'``, are brought to 8 bit.

    Attributes:
        default_size (int): Side of the stored images, pixels; 0: as the
            pictures, at most 224.
        channels (int): 1 (grey), 3 (RGB) or 0: as the pictures.
        no_patients (str): What to say where no patient is named.
    """

    colours: str | None = option(
        'grey or rgb; default: grey where the pictures are', choices=('grey', 'rgb')
    )
    fit: str | None = option(
        'pictures that are not square: cut their centre out (crop), add black (pad) or '
        'change their shape (stretch); default: as is usual for the set, else crop',
        choices=('crop', 'pad', 'stretch'),
    )
    window: str | None = option(
        'grey values to black and white: range (smallest and largest of each picture; '
        "the default for DICOM) or voi (the file's own window). PNG and TIFF of more "
        'than 8 bit need range',
        choices=('range', 'voi'),
    )
    split: str | None = option(
        "'innereye' or 'innereye-SEED': as InnerEye-DeepLearning, besides: a random "
        f'tenth of the images for validation; default seed: {INNEREYE_SEED}',
        metavar='NAME',
    )

    default_size: ClassVar[int] = 0
    channels: ClassVar[int] = 0
    no_patients: ClassVar[str] = NO_PATIENTS

    def __post_init__(self) -> None:
        if self.size is not None:
            super().__post_init__()
        if self.split is not None and innereye_seed(self.split) is None:
            raise UserError(
                f"--split must be 'innereye' or 'innereye-SEED' with a whole number, "
                f'got {self.split!r}'
            )

    def read(self, path: str) -> tuple[np.ndarray, list[Problem]]:
        """Read a picture of any format: ``(H, W)``, or ``(H, W, 3)`` RGB.

        Raises:
            CaseError: Unreadable.
        """
        if path.lower().endswith(DICOM):
            # Loaded for those who have such files.
            from medssl_mm.importers.readers import dicom_picture

            return dicom_picture.read_dicom_picture(path, self.window or 'range')
        pixels, problems = read_picture(path)
        if pixels.dtype != np.uint8:
            if self.window != 'range':
                raise CaseError(
                    'bit-depth',
                    f'{path}: pixels of type {pixels.dtype}, expected 8 bit; give '
                    '--window range to bring the values of each picture to 0-255, '
                    'or convert the files with a stated grey window first.',
                )
            if not np.isfinite(pixels).all():
                raise CaseError(
                    'not-finite', f'{path}: some pixels are NaN or infinite.'
                )
            pixels = scale_to_bytes(pixels, float(pixels.min()), float(pixels.max()))
        return pixels, problems

    def load(self, case: SourceCase) -> LoadedImage:
        """Read one picture and bring it to the form of the set."""
        pixels, problems = self.read(case.image)
        if self.fit == 'stretch':
            pixels = stretch(pixels, case.extra['side'])
        pad = self.pad if self.fit is None else self.fit == 'pad'
        loaded = self.form(
            case.image, pixels, case.extra['channels'], case.extra['side'], pad
        )
        return replace(loaded, problems=[*problems, *loaded.problems])

    def describe(
        self, pictures: Sequence[Picture], notes: list[str], **facts: Any
    ) -> ImageDiscovery:
        """Make the discovery of pictures, with the splits of their source.

        Args:
            pictures (Sequence[Picture]): In the order of the source.
            notes (list[str]): What there is to say besides.
            facts: Those of :meth:`found` that are not class attributes.
        """
        pictures = self.name_patients(pictures, notes)
        pictures = [replace(p, name=readable(p.name)) for p in pictures]
        form = self._form(pictures, notes)
        cases = [
            self.image_case(
                picture.name,
                picture.owner,
                picture.path,
                picture.label,
                picture.problem,
                **form,
                **picture.extra,
            )
            for picture in pictures
        ]
        if self.no_patients and not any(picture.patient for picture in pictures):
            notes.append(self.no_patients)
        lists = subset_lists(self.name, self.protocol, pictures, notes)
        if self.split:
            seed = innereye_seed(self.split) or 0
            lists[f'{self.name}-innereye-seed{seed}'] = innereye_subsets(
                pictures, seed, notes
            )
        return self.found(cases, notes=notes, lists=lists, **form, **facts)

    def name_patients(
        self, pictures: Sequence[Picture], notes: list[str]
    ) -> list[Picture]:
        """Decide on the patients of pictures that are their own so far."""
        people = [
            Person(picture.name, str(picture.path), picture.patient)
            for picture in pictures
            if picture.problem is None
        ]
        patients = patients_of(self, people, notes, 'image')
        return [
            replace(picture, patient=patients.get(picture.name, picture.patient))
            for picture in pictures
        ]

    @property
    def protocol(self) -> str:
        """Name of the split by the subsets of the source."""
        return f'{self.name}-subsets'

    def found(self, cases: Iterable[SourceCase], **facts: Any) -> ImageDiscovery:
        """Describe what was found; facts default to the class attributes."""
        facts['size'] = facts.pop('side', self.side)
        return super().found(cases, **facts)

    def picture_files(self, src: Path) -> list[Path]:
        """List the pictures below a folder; hidden folders are passed over.

        Raises:
            UserError: There are none.
        """
        files = [
            path
            for path in find_pictures(src, ALL_SUFFIXES)
            if not any(part.startswith('.') for part in path.relative_to(src).parts)
        ]
        if not files:
            raise self.nothing_found(
                src, f'There is no picture ({", ".join(ALL_SUFFIXES)}).'
            )
        return files

    def _form(self, pictures: Sequence[Picture], notes: list[str]) -> dict[str, int]:
        """Decide on ``side`` (pixels) and ``channels`` of the set; notes say how."""
        side = self.size or self.default_size
        channels = self.channels or dict(grey=1, rgb=3).get(self.colours or '', 0)
        if side and channels:
            return dict(side=side, channels=channels)
        looked = self._look_at([str(p.path) for p in pictures if p.problem is None])
        if looked:
            sides, grey = zip(*looked)
            side = side or min(LARGEST_SIDE, int(np.median(sides)))
            channels = channels or (1 if all(grey) else 3)
        side, channels = side or LARGEST_SIDE, channels or 3
        notes.append(
            f'stored at {side} x {side} pixels, {"grey" if channels == 1 else "RGB"}, '
            f'going by {len(looked)} pictures that were looked at; --size and '
            '--colours choose otherwise.'
        )
        return dict(side=side, channels=channels)

    def _look_at(self, paths: Sequence[str]) -> list[tuple[int, bool]]:
        """Shorter side, and whether it is grey, of pictures spread over the set."""
        looked = []
        places = np.linspace(0, len(paths) - 1, min(LOOKED_AT, len(paths)))
        for index in places.astype(int):
            try:
                pixels, _ = self.read(paths[index])
            except (CaseError, OSError):
                continue  # the import says what is wrong
            grey = pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all())
            looked.append((min(pixels.shape[:2]), grey))
        return looked


def subset_lists(
    name: str, protocol: str, pictures: Sequence[Picture], notes: list[str]
) -> dict[str, dict[str, list[str]]]:
    """The split by the subsets of a source, if it has two or three.

    Without a validation subset a tenth of the training patients becomes one,
    stratified by class, seed 0. Pictures without a label serve pretraining.

    Args:
        name (str): The data set.
        protocol (str): Name of the split.
        pictures (Sequence[Picture]): All of the source.
        notes (list[str]): Gets what was left out.
    """
    parts = {
        subset: [p for p in pictures if p.known and p.subset == subset]
        for subset in reversed(SUBSETS)
    }
    if not parts['train'] or not (parts['val'] or parts['test']):
        return {}
    subsets = apart(protocol, parts, notes)
    if 'val' not in subsets:
        subsets.update(_drawn_val(name, pictures, subsets['train']))
    tested = {p.owner for p in pictures if p.subset == 'test'}
    pretrain = [
        *subsets['train'],
        *subsets.get('val', ()),
        *(
            p.name
            for p in pictures
            if not p.known and not p.problem and p.owner not in tested
        ),
    ]
    return {protocol: dict(subsets, pretrain=pretrain)}


def apart(
    protocol: str, parts: Mapping[str, Sequence[Picture]], notes: list[str]
) -> dict[str, list[str]]:
    """Names of the pictures of each part, without patients of an earlier one.

    Args:
        protocol (str): Name of the split.
        parts (Mapping): Subset to pictures; the test subset first, which stays
            whole. Empty ones are left out.
        notes (list[str]): Gets how many pictures were given up.
    """
    taken: set[str] = set()
    subsets, given_up = {}, 0
    for subset, members in parts.items():
        kept = [p.name for p in members if p.owner not in taken]
        taken |= {p.owner for p in members}
        given_up += len(members) - len(kept)
        if kept:
            subsets[subset] = kept
    if given_up:
        notes.append(
            f'split {protocol}: {given_up} image(s) show a patient, or have the '
            f'pixels, of one in a later subset ({", ".join(reversed([*parts]))}); they '
            'are in the set, but not in that split.'
        )
    return subsets


def _drawn_val(
    name: str, pictures: Sequence[Picture], train: Sequence[str]
) -> dict[str, list[str]]:
    """Part training patients into 'train' and 'val', stratified by class."""
    owners = {p.name: p.owner for p in pictures}
    labels = {p.name: p.label for p in pictures if p.label is not None}
    drawn = make_holdout(
        train,
        owners,
        name,
        test=VAL_SHARE,
        seed=0,
        classes_of=lambda image_id: classes_of_label(labels[image_id]),
    )
    return dict(train=list(drawn['train']), val=list(drawn['test']))


def innereye_seed(text: str) -> int | None:
    """Seed of 'innereye' or 'innereye-SEED'; None where it is neither."""
    word, _, seed = text.partition('-')
    if word != 'innereye' or seed and not seed.isdecimal():
        return None
    return int(seed) if seed else INNEREYE_SEED


def innereye_order(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation indices as InnerEye-DeepLearning draws them.

    ``torch.utils.data.random_split`` of the whole set with a seeded generator;
    a tenth, rounded down, is for validation.

    Args:
        count (int): Images.
        seed (int): The original's ``random_seed``.
    """
    import torch  # only where this split is asked for

    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    train = count - int(VAL_SHARE * count)
    return order[:train].numpy(), order[train:].numpy()


def innereye_subsets(
    pictures: Sequence[Picture], seed: int, notes: list[str]
) -> dict[str, list[str]]:
    """The split of InnerEye-DeepLearning: random, neither by patient nor class.

    Differs in one thing: a patient (or equal pixels) on two sides stays on the
    later one of train, val and test.

    Args:
        pictures (Sequence[Picture]): In the order of the source; those of its
            test subset stay there.
        seed (int): Of the draw.
        notes (list[str]): Gets how many images were given up so.
    """
    drawn = [p for p in pictures if p.known and p.subset != 'test']
    train, val = innereye_order(len(drawn), seed)
    parts = dict(
        test=[p for p in pictures if p.known and p.subset == 'test'],
        val=[drawn[index] for index in val],
        train=[drawn[index] for index in train],
    )
    subsets = apart('innereye', parts, notes)
    subsets['pretrain'] = list(subsets['train'])
    return subsets
