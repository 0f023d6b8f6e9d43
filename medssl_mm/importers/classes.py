"""Class names, and the mask values that stand for them, from options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.files import read_json


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
    content = read_json(path, 'class file')
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise UserError(f'{_form(path)}, found {type(content).__name__}')
    return described_classes(path, content)


def _form(path: str | Path) -> str:
    return (
        f'class file {path} must be a list of names or an object {{"1": "liver", ...}}'
    )


def described_classes(
    path: str | Path, content: dict, notes: list[str] | None = None
) -> tuple[str, ...]:
    """Class names from the content of a class file or ``dataset.json``.

    Args:
        path (str | Path): The file, for messages.
        content (dict): Its content, or what it has under 'labels': names by value
            (``{"0": "background"}``), values by name (``{"background": 0}``) or
            regions (``{"tumour": [1, 2]}``, nnU-Net): a value is then called as
            'regions_class_order' says, else as the smallest region with it.
        notes (list[str], optional): Gets what is not as it seems. Defaults to None.

    Raises:
        UserError: No such form, or the values have gaps.
    """
    labels = content.get('labels', content)
    notes = [] if notes is None else notes
    if isinstance(labels, list):
        labels = dict(enumerate(labels))
    if not isinstance(labels, dict):
        raise UserError(f'{_form(path)}, found {type(labels).__name__}')
    if any(isinstance(value, list) for value in labels.values()):
        labels = _regions(path, labels, content.get('regions_class_order'))
        named = ', '.join(f'{value} {name}' for value, name in sorted(labels.items()))
        notes.append(
            f'{path} names regions; a voxel has one class each here: {named}. A region '
            'is all of its classes together'
        )
    elif _are_values(labels):
        inverted = {_whole(value): name for name, value in labels.items()}
        if len(inverted) < len(labels):
            raise UserError(f'{_form(path)}; two names have one value: {labels}')
        labels = inverted
    names = _by_value(path, labels)
    ignored = [value for value, name in enumerate(names) if name.lower() == 'ignore']
    if ignored:
        notes.append(
            f"{path}: the label 'ignore' ({ignored[0]}) is imported as a class; "
            'training and scores count its voxels'
        )
    return names


def _are_values(labels: dict) -> bool:
    """Tell {"liver": 1} from {"1": "liver"}; names may be figures, too."""
    values = labels.values()
    if all(type(value) is int for value in values):
        return bool(labels)
    return all(_whole(value) is not None for value in values) and not all(
        _whole(key) is not None for key in labels
    )


def _by_value(path: str | Path, labels: dict) -> tuple[str, ...]:
    """Names in the order of their values, 0 to the largest."""
    try:
        names = {int(key): value for key, value in labels.items()}
    except (TypeError, ValueError):
        keys = sorted(map(str, labels))[:5]
        raise UserError(f'{_form(path)}; its keys are {keys}') from None
    if not names or not all(isinstance(value, str) for value in names.values()):
        raise UserError(f'{_form(path)}; every name must be a string')
    names.setdefault(0, 'background')
    missing = sorted(set(range(max(names) + 1)) - set(names))
    if missing or min(names) < 0 or max(names) > 255:
        raise UserError(
            f'{_form(path)} for the values 0..{max(names)} (at most 255); '
            f'missing: {missing[:10]}'
        )
    return tuple(names[i] for i in range(len(names)))


def _whole(value: Any) -> int | None:
    """A label value as JSON or a person writes it: 1, 1.0, "1"."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _regions(path: str | Path, labels: dict, order: Any) -> dict[int, str]:
    """Names of the values that make up regions."""
    members: dict[str, list[int]] = {}
    for name, values in labels.items():
        found = [_whole(v) for v in (values if isinstance(values, list) else [values])]
        known = [value for value in found if value is not None]
        if len(known) < len(found) or not known:
            raise UserError(f'{_form(path)}; region {name!r} has the values {values!r}')
        members[name] = known
    regions = {name: values for name, values in members.items() if values != [0]}
    if isinstance(order, list) and len(order) == len(regions):
        named = dict(zip(map(_whole, order), regions))
        wanted = {value for values in members.values() for value in values} - {0}
        if set(named) == wanted:
            return {value: name for value, name in named.items() if value is not None}
    return {
        value: min((len(v), name) for name, v in members.items() if value in v)[1]
        for value in {value for values in members.values() for value in values}
    }


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
        content = read_json(palette, 'palette file')
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
