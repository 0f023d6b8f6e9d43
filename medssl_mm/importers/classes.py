"""Class names, and the mask values that stand for them, from options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError


def load_json_file(path: str | Path, what: str) -> Any:
    """Read a JSON file that a person wrote; a byte order mark is allowed.

    Args:
        path (str | Path): The file.
        what (str): What it is, for messages.

    Raises:
        UserError: Missing, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except OSError as error:
        raise UserError(f'{what} {path}: {error.strerror}') from None
    except ValueError as error:
        raise UserError(f'{what} {path} is not JSON: {error}') from None


def class_names(text: str) -> tuple[str, ...]:
    """Class names from a JSON file, or from 'name,name,...' (1, 2, ...)."""
    if text.endswith('.json') or ',' not in text and _is_file(text):
        return read_classes(text)
    names = [name.strip() for name in text.split(',')]
    return ('background', *[name for name in names if name])


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # too long for a file name
        return False


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read class names from JSON.

    Accepts a list of names (index = label value) or an object that maps
    label values to names, or names to values, also under the key 'labels'
    (nnU-Net, Decathlon); a missing 0 becomes 'background'.

    Raises:
        UserError: When the file is missing, not JSON, or its values have
            gaps.
    """
    content = load_json_file(path, 'class file')
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


def read_palette(palette: dict | str | Path) -> tuple[tuple[str, ...], list]:
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
        content = load_json_file(palette, 'palette file')
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
