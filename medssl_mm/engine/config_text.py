"""The config in a checkpoint, read without running it."""

import ast
from typing import Any


def parse_config_text(text: str) -> dict:
    """Read a config text of plain assignments; nothing is executed.

    mmengine saves the config of a run as Python text in the checkpoint.
    Running that text would run whatever someone put into the file.

    Args:
        text (str): Assignments of literals and ``dict(...)``.

    Raises:
        ValueError: Something else is in the text; the message says where.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f'the config text is no Python: {error}') from error
    values = {}
    for node in tree.body:
        if not (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
        ):
            raise _unexpected(node)
        values[node.targets[0].id] = _value(node.value)
    return values


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if getattr(node.func, 'id', None) != 'dict' or len(node.args) > 1:
            raise _unexpected(node)
        content = _value(node.args[0]) if node.args else {}
        for keyword in node.keywords:
            value = _value(keyword.value)
            content.update(value if keyword.arg is None else {keyword.arg: value})
        return content
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {
            _value(key): _value(value)
            for key, value in zip(node.keys, node.values)
            if key is not None
        }
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _unexpected(node) from None


def _unexpected(node: ast.expr | ast.stmt) -> ValueError:
    return ValueError(
        f'line {node.lineno} of the config text is not a plain value: '
        f'{ast.unparse(node)[:80]}; give the config as a file instead.'
    )
