#!/usr/bin/env python
r"""Compare evaluated runs: table, figures and a self-contained HTML page.

A run is GROUP/LABEL=DIR, where DIR holds metrics.json and cases.csv of
medssl_mm.VolumeMetric (and predictions/, for the overlays), or metrics.json
and predictions.csv of medssl_mm.ClassificationMetric; GROUP is what is
compared with each other, LABEL what differs. The same GROUP/LABEL again adds
a seed. A curve is LABEL=WORK_DIR of a training run.

Example:
  python tools/make_report.py --out work_dirs/report.html \
      --run 'linear/random=work_dirs/a/test' \
      --run 'linear/MoCo v2=work_dirs/b/test' \
      --baseline random --curve 'MoCo v2=work_dirs/pretrain'
"""

from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--run',
        action='append',
        required=True,
        metavar='GROUP/LABEL=DIR',
        help='an evaluated run',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='HTML file; the table is written beside it '
        '(table.md, table-wide.md, table.csv, table.png)',
    )
    parser.add_argument(
        '--baseline',
        metavar='LABEL',
        help='what the others of a group are compared with',
    )
    parser.add_argument(
        '--curve',
        action='append',
        default=[],
        metavar='LABEL=WORK_DIR',
        help='a training run',
    )
    parser.add_argument('--title', default='Comparison of runs')
    parser.add_argument('--lead', default='', help='a sentence or two below the title')
    parser.add_argument(
        '--command',
        action='append',
        default=[],
        help='a command to show at the end; repeatable',
    )
    parser.add_argument(
        '--num-cases',
        type=int,
        default=3,
        help='cases in the overlay figure (default: 3)',
    )
    return parser.parse_args()


def split_pair(text, option, example):
    """Part NAME=DIR and check that the folder exists."""
    name, equals, folder = text.partition('=')
    if not (name and equals and folder):
        raise UserError(f'{option} takes {example}, got {text!r}')
    if not Path(folder).is_dir():
        raise UserError(f'{option} {text}: folder {folder} does not exist')
    return name, Path(folder)


def main():
    """Build the report."""
    args = parse_args()
    from medssl_mm import results

    folders = {}
    for text in args.run:
        name, folder = split_pair(text, '--run', 'GROUP/LABEL=DIR')
        group, slash, label = name.partition('/')
        if not slash:
            raise UserError(f'--run takes GROUP/LABEL=DIR, got {text!r}')
        folders.setdefault((group, label), []).append(folder)
    runs = [
        results.Run(group, label, tuple(found))
        for (group, label), found in folders.items()
    ]
    curves = dict(split_pair(text, '--curve', 'LABEL=WORK_DIR') for text in args.curve)
    rows = results.build_report(
        args.out,
        runs,
        title=args.title,
        lead=args.lead,
        baseline=args.baseline,
        curves=curves,
        commands=args.command,
        num_cases=args.num_cases,
    )
    results.write_table(rows, args.out.parent, args.title)
    results.print_table(rows, args.title)
    print(f'report: {args.out.resolve()}')


if __name__ == '__main__':
    run_tool(main)
