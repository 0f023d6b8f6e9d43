"""What people write in files: checked by pydantic, explained in one line each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from medssl_mm.errors import UserError, similar
from medssl_mm.files import read_text

__all__ = ['Entry', 'Text', 'checked', 'read_yaml']

# Names and titles may be numbers: 2024 is a fine name.
Text = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]


class Entry(BaseModel):
    """Part of a file: unknown keys are errors, empty ones left out."""

    model_config = ConfigDict(extra='forbid', frozen=True)


Kind = TypeVar('Kind', bound=Entry)


def checked(model: type[Kind], content: Any, source: str | Path) -> Kind:
    """Turn plain data into an entry.

    Args:
        model (type): What is expected.
        content (Any): What the file says.
        source (str | Path): The file, for the message.

    Raises:
        UserError: Where, what was expected and what was found.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = '\n  '.join(_described(model, content, e) for e in error.errors())
        raise UserError(f'{source}: {problems}') from None


class _Loader(yaml.SafeLoader):
    """YAML as people mean it.

    A key may stand once; PyYAML would take the last one. Numbers are as on the
    command line: ``1e-3`` is one, ``2_2`` and ``1:30`` are names (of YAML 1.1 the
    numbers 22 and 90, and ``1e-3`` a name).
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key {key!r} stands twice', key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float | str:
        text = str(self.construct_scalar(node))
        if '_' in text or ':' in text:
            return text
        if node.tag.endswith(':int'):
            return self.construct_yaml_int(node)
        return self.construct_yaml_float(node)


for _kind in ('int', 'float'):
    _Loader.add_constructor(f'tag:yaml.org,2002:{_kind}', _Loader.construct_number)
_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'[-+]?(?:\d+\.?|\d*\.\d+)[eE][-+]?\d+$'),
    list('-+.0123456789'),
)


def read_yaml(model: type[Kind], path: str | Path, what: str) -> Kind:
    """Read and check a YAML file.

    Args:
        model (type): What is expected.
        path (str | Path): The file.
        what (str): What it is, for messages: 'table'.

    Raises:
        UserError: It is absent, no YAML, or says something else.
    """
    if not Path(path).exists():
        raise UserError(f'{what} {path} does not exist')
    text = read_text(path, what)
    try:
        content = yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # The others: a date of month 13, a list as a key, a thousand brackets.
        raise UserError(f'{what} {path} is not YAML: {error}') from error
    return checked(model, content, path)


def _described(model: type[Entry], content: Any, error: Mapping) -> str:
    """One finding of pydantic: where, what was expected, what was found."""
    where, place = '', content
    known = model
    # Tags of unions stand in the places that pydantic reports: '<name>'.
    places = [key for key in error['loc'] if not str(key).startswith('<')]
    for key in places:
        if isinstance(key, int):
            name = place[key].get('name') if isinstance(place[key], dict) else None
            where += f'[{key}]' + (f' ({name})' if name is not None else '')
            place = place[key]
        else:
            where += f'.{key}' if where else str(key)
            known = _inner(known, key) or known
            place = place.get(key) if isinstance(place, dict) else None
    found = error['input']
    if error['type'] == 'extra_forbidden':
        key = places[-1]
        return f'{where}: unknown key {key!r}{similar(str(key), known.model_fields)}'
    if error['type'] == 'missing':
        return f'{where}: missing'
    if error['type'] in ('model_type', 'dict_type'):
        return f'{where or "table"}: expected key: value lines, got {found!r}'
    message = error['msg'].removeprefix('Value error, ').removeprefix('Input ')
    message = message.replace('valid tuple', 'list')
    return f'{where}: {message}, got {found!r}'.removeprefix(': ')


def _inner(model: type[Entry], key: str) -> type[Entry] | None:
    """The kind of entries that a key holds, if it holds any."""
    field = model.model_fields.get(key)
    found = [field.annotation] if field else []
    while found:
        kind = found.pop(0)
        if isinstance(kind, type) and issubclass(kind, Entry):
            return kind
        found += get_args(kind)
    return None
