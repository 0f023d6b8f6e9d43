#!/usr/bin/env python
"""Write model-index.yml from the tables in the READMEs of the configs.

A row is a model: its config, data and length, and the results that are there.

Example:
  python tools/model_index.py            # after a README has changed
"""

import re
from pathlib import Path

import yaml

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool
from medssl_mm.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('selfsup/*', 'segmentation', 'classification')
# Columns that describe a model; those that are not here are results.
DESCRIBING = {
    'data': 'Data',
    'data and protocol': 'Data',
    'classes': 'Classes',
    'epochs': 'Epochs',
    'iterations': 'Iterations',
    'length': 'Length',
    'weights kept by': 'Weights kept by',
    'seeds': 'Seeds',
}
IGNORED = ('config', 'checkpoint')
LINK = re.compile(r'\[([^]]*)\]\(([^)]*)\)')
# Names of a folder's methods that its tables write as `…`.
FIRST_METHOD = {'intermediate': 'moco'}


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'model-index.yml', help='default: that file'
    )
    return parser.parse_args()


def rows_of(text):
    """Yield the rows of the tables whose first column is "config", as dicts."""
    header, row = None, {}
    for line in text.splitlines():
        if not line.startswith('|'):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if header is None:
            header = cells
        elif header[0] == 'config' and not re.fullmatch('[-:|]+', cells[0]):
            before, row = row, dict(zip(header, cells, strict=True))
            row |= {
                key: before[key] for key, value in row.items() if value == 'the same'
            }
            yield row


def model_of(row, readme):
    """Turn a row into an entry of the index."""
    first = LINK.sub(r'`\1`', row['config'])
    name = re.search('`([^`]+)`', first)[1]
    name = name.replace('…', FIRST_METHOD.get(readme.parent.name, '…'), 1)
    config = readme.parent / f'{name.partition(".py")[0]}.py'
    if not config.is_file():
        raise UserError(f'{readme}: {name} names no config ({config} is not there)')
    described = {DESCRIBING[k]: v for k, v in row.items() if v and k in DESCRIBING}
    results = {
        column: value
        for column, value in row.items()
        if value and column not in DESCRIBING and column not in IGNORED
    }
    model = {
        'Name': name,
        'In Collection': title_of(readme),
        'Config': config.relative_to(ROOT).as_posix(),
        'Metadata': {key: LINK.sub(r'\1', value) for key, value in described.items()},
    }
    if results:
        model['Results'] = results
    return model


def title_of(readme):
    """Heading of a README."""
    return readme.read_text(encoding='utf-8').partition('\n')[0].removeprefix('# ')


def index():
    """Collect all collections and models, as plain data."""
    folders = [f for pattern in FOLDERS for f in (ROOT / 'configs').glob(pattern)]
    collections, models = [], []
    for readme in sorted(folder / 'README.md' for folder in folders):
        if not readme.is_file():
            continue
        text = readme.read_text(encoding='utf-8')
        collection = {'Name': title_of(readme)}
        paper = re.search(r'^\[([^]]+)\]\((https://arxiv\.org/[^)]+)\)', text, re.M)
        if paper:
            collection['Paper'] = {'Title': paper[1], 'URL': paper[2]}
        collection['README'] = readme.relative_to(ROOT).as_posix()
        collections.append(collection)
        models += [model_of(row, readme) for row in rows_of(text)]
    # Whatever inherits from `medssl_mm::...` makes mmengine look for this key.
    return {'Import': [], 'Collections': collections, 'Models': models}


def text_of(content):
    """Write the index as YAML."""
    head = '# Made by tools/model_index.py from the READMEs of the configs.\n'
    return head + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=88)


def main():
    """Write the file."""
    args = parse_args()
    content = index()
    write_whole(args.out, text_of(content))
    print(f'{len(content["Models"])} models in {args.out}')


if __name__ == '__main__':
    run_tool(main)
