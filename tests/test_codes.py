"""The tables of data/README.md name every finding of the source, and no other."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAKERS = {'error', 'warning', 'make', 'CaseError'}
CODE = re.compile(r'[a-z0-9]+(-[a-z0-9]+)*')


def _texts(node):
    """Strings that an expression may be: itself, or one of two."""
    parts = (node.body, node.orelse) if isinstance(node, ast.IfExp) else (node,)
    return {p.value for p in parts if isinstance(p, ast.Constant)}


def _pair(node):
    """The code of a problem as a pair of code and message."""
    code, message = node.elts
    made = isinstance(message, (ast.JoinedStr, ast.Call))
    named = isinstance(message, ast.Name) and message.id == 'message'
    return _texts(code) if made or named else set()


def codes_of_source():
    found = set()
    for path in (ROOT / 'medssl_mm' / 'importers').rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text('utf-8'))):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, 'id', '')
                found |= _texts(node.args[0]) if name in MAKERS else set()
            elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
                found |= _pair(node)
    return {text for text in found if isinstance(text, str) and CODE.fullmatch(text)}


def codes_of_tables():
    text = (ROOT / 'data' / 'README.md').read_text('utf-8')
    text = text.split('## What the import checks')[1].split('## The store')[0]
    found, column = set(), None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('|').split(' | ')]
        if not line.startswith('|'):
            column = None
        elif column is None:
            column = {'code': 0, 'what': -1}[cells[0].strip('| ')]
        else:
            found |= set(re.findall(r'`([a-z0-9-]+)`', cells[column]))
    return found


def test_the_tables_name_every_finding_and_no_other():
    source = codes_of_source()
    assert len(source) > 70
    assert source == codes_of_tables()
