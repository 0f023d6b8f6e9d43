#!/usr/bin/env python
r"""Measure how well encoders transfer: encoders x data sets x protocols.

TABLE.yaml lists encoders (configs/encoders, with their weights), data sets
(configs/data, or an image set with its split) and protocols: few_shot
(prototypes), knn (nearest neighbours), linear (logistic regression, 45 costs) and
finetune (SGD with early stopping; the best weights are tested). What is finished
is skipped, what was interrupted goes on; several processes, also of other
tables, share the work. Features of an encoder on a data set are computed once.

Mode strict parts patients; compat repeats splits and formulas of the published
comparison. Written are transfer.jsonl, .csv, .json, .md, .png and report.html:
accuracy, mean per-class accuracy and macro AUROC with intervals over patients,
paired differences from the baseline, scaled performance by domain, correlations
with ImageNet top-1 (and with --measures).

Examples:
  python tools/transfer.py --list
  python tools/transfer.py configs/tables/transfer_small.yaml --dry-run
  python tools/transfer.py configs/tables/transfer_small.yaml --jobs 2
  python tools/transfer.py TABLE.yaml --datasets busi --protocols linear \
      --export-features work_dirs/features_npy
"""

from pathlib import Path

from medssl_mm import executors
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('table', nargs='?', help='YAML file, see configs/tables')
    parser.add_argument(
        '--list', action='store_true', help='show the encoders and data sets there are'
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder of the table (default: work_dirs/transfer/NAME)',
    )
    for what in ('encoders', 'datasets', 'protocols'):
        parser.add_argument(
            f'--{what}', nargs='+', metavar='NAME', help=f'only these {what}'
        )
    parser.add_argument(
        '--seeds', nargs='+', type=int, help='instead of those of the table'
    )
    parser.add_argument('--baseline', metavar='NAME', help='compare with this encoder')
    parser.add_argument(
        '--device', default='cpu', help='of frozen encoders (default: cpu)'
    )
    parser.add_argument('--batch-size', type=int, default=32, help='default: 32')
    parser.add_argument(
        '--num-workers', type=int, default=0, help='processes that load (default: 0)'
    )
    parser.add_argument(
        '--measures',
        nargs='+',
        default=[],
        type=Path,
        metavar='CSV',
        help='further numbers of encoders to correlate with, as the tools in '
        'tools/analysis write them: columns encoder, measure, value and perhaps '
        'dataset and mode',
    )
    parser.add_argument(
        '--export-features',
        type=Path,
        metavar='DIR',
        help='write the features as .npy with a .csv of ids, patients, subsets, labels',
    )
    executors.add_options(parser)
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    if args.table is None and not args.list:
        raise UserError('give a TABLE.yaml, or --list')
    executors.check_options(args)
    if args.batch_size < 1:
        raise UserError('--batch-size must be at least 1')
    if args.num_workers < 0:
        raise UserError('--num-workers must not be negative')


def show_known():
    """Print encoders and data sets."""
    import pandas as pd

    from medssl_mm.datasets.image_sets import known_set
    from medssl_mm.datasets.shared_sets import image_configs
    from medssl_mm.encoders import encoder_names, find_weights, read_settings
    from medssl_mm.results import show_table

    rows = []
    for name in encoder_names():
        known = read_settings(name)
        try:
            there = str(find_weights(known))
        except UserError:
            there = ', '.join(known.file_names) or 'random, or NAME:FILE'
        top1 = known.imagenet_top1
        rows.append(
            [
                name,
                known.title,
                known.group,
                f'{known.embedding_length}',
                f'{known.preprocessing.size}',
                '' if top1 is None else f'{top1:g}',
                there,
            ]
        )
    columns = ['encoder', 'title', 'group', 'length', 'px', 'top-1', 'weights']
    show_table(pd.DataFrame(rows, columns=columns), left=3)
    rows = []
    for name, (images, what) in image_configs().items():
        root = Path(images['data_root'])
        row = known_set([root.name])
        there = 'yes' if (root / 'dataset.json').is_file() else 'no'
        rows.append([name, what, row.domain if row else '', str(root), there])
    columns = ['data set', 'what it is', 'domain', 'folder', 'there']
    show_table(pd.DataFrame(rows, columns=columns), left=5)


def main():
    """Run the steps of the table and write it."""
    args = parse_args()
    check(args)
    if args.list:
        show_known()
        return
    from medssl_mm import experiments
    from medssl_mm.results.transfer import TransferResults, read_measures

    table = experiments.load_transfer(
        args.table, args.encoders, args.datasets, args.protocols, args.seeds
    )
    measures = [one for path in args.measures for one in read_measures(path)]
    baseline = args.baseline or table.baseline
    names = [entry.name for entry in table.encoders]
    if args.baseline and args.baseline not in names:
        raise UserError(
            f'--baseline {args.baseline} is none of the encoders {", ".join(names)}'
        )
    planned = experiments.plan_transfer(
        table,
        args.device,
        args.batch_size,
        args.num_workers,
        allow_seen=args.allow_seen,
    )
    if executors.shows_only(args):
        results = f'; {len(planned.cells)} results'
        executors.show_plan(args, planned.engine, planned.steps, results)
    for note in planned.notes:
        print(f'note: {note}')
    if executors.shows_only(args):
        return
    if not args.no_run:
        planned.write_tasks()
    errors = executors.run_steps(args, planned.engine, planned.steps)
    if args.export_features:
        for path in experiments.export_features(planned, args.export_features):
            print(f'written: {path}')
    cells = list(experiments.finished_cells(planned, print))
    if cells:
        results = TransferResults(
            cells, baseline if baseline in names else None, measures
        )
        results.print(table.title)
        out = args.out or Path('work_dirs', 'transfer', table.name)
        note = ' '.join([table.note, *(f'{one}.' for one in planned.notes)]).strip()
        paths = results.write(out, table.title, note)
        print('written: ' + ', '.join(map(str, paths)))
    left = len(planned.cells) - len(cells)
    if left:
        print(f'{left} of {len(planned.cells)} results are not finished')
    if errors:
        raise UserError(f'{len(errors)} steps failed:\n' + '\n'.join(errors))
    if not cells:
        raise UserError('no result is finished yet, so there is no table')


if __name__ == '__main__':
    run_tool(main)
