#!/usr/bin/env python
r"""Measure the checkpoints of pretrainings without labels, to choose one of them.

Of every "epoch_*.pth" of a run, at the last map, the pooled features and the
projection: effective rank, RankMe, alpha-ReQ and the spread of unit-length
features; LiDAR of pooled features and projection over "--views" views of each
image; and what the training has logged since the checkpoint before: its losses,
and how often it found the right one (top1). All on the same held-out images, at
one stride. Prints which checkpoint each measure prefers.

With "--scores", the table.csv of tools/run_table.py whose rows are these
checkpoints, it also tells what each measure is worth: its rank correlation with
the score within each run, and what the preferred checkpoint scores less than the
best one, beside the plainest choice, the last checkpoint.

A checkpoint that was measured is not measured again, so an interrupted run goes on.

Example (the table pretrains and keeps the checkpoints of every 10 epochs):
  python tools/run_table.py configs/tables/acdc20_choice.yaml
  python tools/analysis/choose_checkpoint.py \
      "MoCo v2=work_dirs/tables/runs/pretrain-mocov2-seed3-..." \
      "SimCLR=work_dirs/tables/runs/pretrain-simclr-seed3-..." \
      --out work_dirs/choice --scores work_dirs/tables/acdc20_choice/table.csv \
      --config configs/selfsup/mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64.py
"""

import logging
from pathlib import Path

from medssl_mm.arguments import add_sample_arguments, check_positive, tool_parser
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        'runs',
        nargs='+',
        metavar='NAME=DIR',
        help='work directory of a pretraining, and its name (that of the row in the '
        'table of --scores)',
    )
    parser.add_argument(
        '--config', required=True, help='pretraining config that names the images'
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='folder to write to, and to go on in'
    )
    parser.add_argument('--scores', type=Path, help='table.csv of tools/run_table.py')
    parser.add_argument(
        '--evaluation', help='title of its evaluation (default: the only one)'
    )
    parser.add_argument(
        '--fraction',
        type=float,
        default=1.0,
        help='share of labels in it (default: 1)',
    )
    add_sample_arguments(parser)
    parser.add_argument(
        '--views',
        type=int,
        default=10,
        help='views of each image, for LiDAR (default: 10); 1: without',
    )
    return parser.parse_args()


def named_runs(texts):
    """Folders by name; refuses what cannot work before the libraries are loaded."""
    runs = {}
    for text in texts:
        name, equals, folder = text.partition('=')
        if not equals or not name:
            raise UserError(f'expected NAME=DIR, got {text!r}')
        if name in runs:
            raise UserError(f'two runs are called {name}')
        if not Path(folder).is_dir():
            raise UserError(f'run {name}: {folder} is no folder')
        runs[name] = Path(folder)
    return runs


def main():
    """Measure, compare, draw and print."""
    args = parse_args()
    check_positive(args, 'num_samples', 'batch_size', 'positions', 'stride', 'views')
    runs = named_runs(args.runs)
    logging.disable(logging.INFO)  # a line per initialised weight

    from medssl_mm.analysis.choosing import agreements
    from medssl_mm.engine import launch
    from medssl_mm.pretraining_analysis import MeasuredRuns, seed_of
    from medssl_mm.results import choosing

    scores = None
    if args.scores is not None:
        scores = choosing.read_checkpoint_scores(
            args.scores, args.evaluation, args.fraction
        )
        seeds = {name: seed_of(folder) for name, folder in runs.items()}
        choosing.require_seed(args.scores, seeds)
        absent = [name for name in runs if name not in {run for run, _ in scores}]
        if absent:
            raise UserError(
                f'{args.scores} has no row of a checkpoint of {", ".join(absent)}; it '
                f'has {", ".join(sorted({run for run, _ in scores}))}'
            )
    measured = MeasuredRuns(
        runs,
        launch.load_config(args.config),
        args.out / 'checkpoints',
        subset=args.subset,
        samples=args.num_samples,
        batch_size=args.batch_size,
        positions=args.positions,
        stride=args.stride,
        views=args.views,
        device=args.device,
    )
    checkpoints = measured.all()
    found = []
    if scores is None:
        choosing.print_choices(checkpoints)
    else:
        found = agreements(checkpoints, scores)
        choosing.print_agreements(found)
        lacking = [c for c in checkpoints if (c.run, c.checkpoint) not in scores]
        if lacking:
            print(
                f'note: {len(lacking)} of {len(checkpoints)} checkpoints have no score '
                'in the table, and do not count'
            )
    paths = choosing.write_choosing(
        args.out, checkpoints, measured.stated, scores, found
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
