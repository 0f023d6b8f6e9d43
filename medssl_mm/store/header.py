"""The header ``dataset.json``: what makes a folder a store of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from medssl_mm.errors import UserError

# Slices of one channel, and images, are written as of old; slices of several
# channels are what a reader of version 1 could not read, and uncertain labels what
# one of version 2 would take for findings.
FORMAT_VERSION, CHANNELS_VERSION, UNCERTAIN_VERSION = 1, 2, 3
DATASET_FILE = 'dataset.json'
STAGING = '.import'
# What an import that put cases in place has in common with the header: the file is
# the first thing that it moves, the header the last. Stores of before have neither.
GENERATION_FILE, GENERATION = 'generation.txt', 'generation'
SLICES: Literal['slices'] = 'slices'
IMAGES: Literal['classification'] = 'classification'
VERSIONS = {
    SLICES: (FORMAT_VERSION, CHANNELS_VERSION),
    IMAGES: (FORMAT_VERSION, CHANNELS_VERSION, UNCERTAIN_VERSION),
}
Kind = TypeVar('Kind')
# What to use for a folder of the other kind.
_READERS = {
    SLICES: 'a store of slices; use medssl_mm.SliceDataset',
    IMAGES: 'a set of images to classify; use medssl_mm.ClassificationImages',
}


def load_json(path: Path) -> dict:
    """Read a JSON file of the store; see :func:`load_as`."""
    return load_as(path, dict)


def load_as(path: Path, form: Callable[[dict], Kind]) -> Kind:
    """Read a JSON file of the store.

    Args:
        path: The file, which holds a mapping.
        form: Makes of the mapping what is wanted.

    Raises:
        UserError: When the file is damaged, or says something else.
    """
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise TypeError(f'a {type(content).__name__} instead of a mapping')
        return form(content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f'{path} is damaged ({error}); delete '
            f'{path.parent} and run tools/prepare_data.py again'
        ) from None


def load_header(root: Path, kind: str) -> dict:
    """Read the header of a finished store.

    Args:
        root: Folder of the store.
        kind: 'slices' or 'classification', what is expected.

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
    if header.get('version') not in VERSIONS[kind]:
        raise UserError(
            f'{path} has format version {header.get("version")}, this '
            f'package reads {" and ".join(map(str, VERSIONS[kind]))}; import the '
            'data set again'
        )
    classes = header.get('classes', [])
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise UserError(
            f'{path} is damaged: classes should be a list of names, got '
            f'{classes!r:.80}; import the data set again'
        )
    check_generation(root, header)
    return header


def check_generation(root: Path, header: dict) -> None:
    """Refuse a store whose header and cases are of two imports.

    Raises:
        UserError: An import was stopped while it put its cases in place, is doing so
            now, or the folder was copied in part.
    """
    path = root / GENERATION_FILE
    found = path.read_text().strip() if path.is_file() else None
    if header.get(GENERATION) != found:
        raise UserError(
            f'{root} is half one import and half another: the last one was stopped '
            'while it put its cases in place, or is doing so now. Run the same '
            'tools/prepare_data.py command again, which finishes it; a copy of such a '
            f'folder has to be copied anew, with {path.name}'
        )


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
