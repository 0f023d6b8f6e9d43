"""The header ``dataset.json``: what makes a folder a store of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.files import write_json
from medssl_mm.store.case_info import load_json

FORMAT_VERSION = 1
DATASET_FILE = 'dataset.json'
STAGING = '.import'
SLICES, IMAGES = 'slices', 'classification'
# What to use for a folder of the other kind.
_READERS = {
    SLICES: 'a store of slices; use medssl_mm.SliceDataset',
    IMAGES: 'a set of images to classify; use medssl_mm.ClassificationImages',
}


def load_header(root: Path, kind: str) -> dict:
    """Read the header of a finished store.

    Args:
        root (Path): Folder of the store.
        kind (str): 'slices' or 'classification', what is expected.

    Raises:
        UserError: When there is no (finished) store of this kind.
    """
    path = root / DATASET_FILE
    if not path.is_file():
        remedy = (
            f'make it with `python tools/prepare_data.py NAME --src DIR --out {root}`'
        )
        if (root / STAGING).is_dir():
            raise UserError(
                f'the import into {root} was interrupted; finish it '
                'by running the same tools/prepare_data.py command again'
            )
        if not root.is_dir():
            raise UserError(f'data set {root} does not exist; {remedy}')
        what = 'slice store' if kind == SLICES else 'image set'
        raise UserError(f'{root} is no {what} (no {DATASET_FILE}); {remedy}')
    header = load_json(path)
    found = kind_of(header)
    if found != kind:
        raise UserError(f'{root} is {_READERS.get(found, repr(found))}')
    if header.get('version') != FORMAT_VERSION:
        raise UserError(
            f'{path} has format version {header.get("version")}, this '
            f'package reads {FORMAT_VERSION}; import the data set again'
        )
    return header


def kind_of(header: dict) -> str:
    """Tell what a header describes: 'slices' or 'classification'."""
    return header.get('kind', SLICES)


def default_palette(num_classes: int) -> list[list[int]]:
    """Make distinct colours, black for the background.

    The bits of the class index are spread over the three channels, most
    significant first, as in the colour map of PASCAL VOC.
    """
    palette = []
    for index in range(num_classes):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                value = (index >> (3 * bit + channel)) & 1
                colour[channel] |= value << (7 - bit)
        palette.append(colour)
    return palette


def start_staging(root: Path, header: dict, folder: str, overwrite: bool) -> None:
    """Make the staging folder of an import, or find that of an earlier one.

    Args:
        root (Path): Folder of the store.
        header (dict): Header that the store is going to have.
        folder (str): Folder to make in the staging folder.
        overwrite (bool): Drop what an earlier import staged, and accept any
            store.

    Raises:
        UserError: The folder holds another data set, or cannot be made.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f'{root} is a file; give a folder for the store')
    staging = root / STAGING
    if overwrite:
        shutil.rmtree(staging, ignore_errors=True)
    for path in (root / DATASET_FILE, staging / DATASET_FILE):
        if path.is_file() and not overwrite:
            _check_same(path, load_json(path), header)
    if root.is_dir() and not (root / DATASET_FILE).is_file():
        others = [p.name for p in root.iterdir() if p.name != STAGING]
        if others:
            raise UserError(
                f'{root} is not empty and no store (it has '
                f'{sorted(others)[:3]}); give a new folder'
            )
    try:
        (staging / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'cannot make {root}: {error.strerror}') from None
    write_json(staging / DATASET_FILE, header)


def _check_same(path: Path, found: dict, wanted: dict) -> None:
    kinds = {'kind': SLICES}
    for key in (
        'version',
        'kind',
        'name',
        'modality',
        'units',
        'task',
        'classes',
        'channels',
        'size',
        'import_options',
    ):
        default = kinds.get(key)
        if found.get(key, default) != wanted.get(key, default):
            raise UserError(
                f'{path} was made with {key}={_short(found.get(key))}, now it '
                f'is {_short(wanted.get(key))}; give another --out, or import '
                'anew with --overwrite'
            )


def _short(value, limit: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + '...'
