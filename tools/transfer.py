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

import argparse
import shlex
from pathlib import Path

from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        '--jobs',
        type=int,
        default=1,
        help='steps that run at the same time and share the cores (default: 1)',
    )
    parser.add_argument(
        '--devices',
        nargs='+',
        default=[],
        metavar='GPUS',
        help='CUDA_VISIBLE_DEVICES of every job, e.g. 0 1',
    )
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
    parser.add_argument(
        '--keep-checkpoints', action='store_true', help='of fine-tuning, all'
    )
    parser.add_argument(
        '--dry-run', action='store_true', help='show the commands and what is finished'
    )
    parser.add_argument(
        '--no-run', action='store_true', help='only write the table of what is finished'
    )
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    if args.table is None and not args.list:
        raise UserError('give a TABLE.yaml, or --list')
    for name in ('jobs', 'batch_size'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name.replace("_", "-")} must be at least 1')
    if args.num_workers < 0:
        raise UserError('--num-workers must not be negative')


def show_known():
    """Print encoders and data sets."""
    import pandas as pd

    from medssl_mm.datasets.image_sets import IMAGE_SETS
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
    rows = [
        [
            name,
            row.title,
            row.domain,
            'yes' if Path('data', name, 'dataset.json').is_file() else 'no',
        ]
        for name, row in IMAGE_SETS.items()
    ]
    columns = ['data set', 'title', 'domain', f'in {Path("data").absolute()}']
    show_table(pd.DataFrame(rows, columns=columns), left=4)


def show_plan(planned):
    """Print every command with its state."""
    from medssl_mm import experiments

    for step in planned.steps.values():
        state = 'done' if step.done else 'resume' if step.folder.exists() else 'new'
        command = experiments.command_of(step, planned.engine, planned.steps)
        print(f'[{state}] {step.title}\n    {shlex.join(command)}')
    done = sum(step.done for step in planned.steps.values())
    print(f'{len(planned.steps)} steps, {done} finished; {len(planned.cells)} results')
    for note in planned.notes:
        print(f'note: {note}')


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
        table, args.device, args.batch_size, args.num_workers
    )
    if args.dry_run:
        show_plan(planned)
        return
    errors = []
    if not args.no_run:
        planned.write_tasks()
        errors = experiments.run_steps(
            planned.engine,
            planned.steps,
            args.jobs,
            args.devices,
            report=lambda line: print(line, flush=True),
            keep_checkpoints=args.keep_checkpoints,
        )
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
        note = ' '.join([table.note, *planned.notes]).strip()
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
