#!/usr/bin/env python
r"""Run the experiments behind a result table and write the table.

TABLE.yaml lists rows (pretraining config, checkpoint, or neither for random
initialisation), evaluations (segmentation or classification configs), seeds
and label fractions. Tested are the weights that validation found best. What is
finished is skipped, what was interrupted is resumed; a changed config gets
new folders. Of a finished training, the last checkpoint and the best stay.
The table, of Dice or of macro AUROC, is written as Markdown, CSV and PNG with
95 % patient-bootstrap intervals and paired differences against the baseline
row.

A list of splits makes it a cross-validation: every seed is pretrained,
trained and tested on each split, and the test cases are pooled. With
"validation: false" (splits without a validation subset) the last checkpoint
is tested; with "last_weights_below: 0.5" so it is for label fractions below.

The table says on what it was computed; "--repeat-check" computes one cell again
under other instructions and threads, as another machine would.

Example:
  python tools/run_table.py configs/tables/acdc20.yaml --dry-run
  python tools/run_table.py configs/tables/acdc20.yaml --rows random mocov2 \
      --seeds 0 --out work_dirs/tables/acdc20
  python tools/run_table.py configs/tables/curvas14.yaml \
      --splits curvas-14-5fold-fold0 --dry-run
  python tools/run_table.py configs/tables/acdc20.yaml --executor slurm --status
  python tools/run_table.py configs/tables/acdc20.yaml --rows mocov2 --seeds 0 \
      --evaluations linear-stages --fractions 1 --repeat-check avx2
"""

import math
from pathlib import Path

from medssl_mm import executors
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('table', help='YAML file, see configs/tables')
    parser.add_argument(
        '--out', type=Path, help='folder of the table (default: work_dirs/tables/NAME)'
    )
    parser.add_argument('--rows', nargs='+', metavar='NAME', help='only these rows')
    parser.add_argument(
        '--baseline',
        metavar='NAME',
        help='compare with this row instead of that of the table',
    )
    parser.add_argument(
        '--evaluations', nargs='+', metavar='NAME', help='only these evaluations'
    )
    parser.add_argument(
        '--seeds',
        nargs='+',
        type=int,
        metavar='SEED',
        help='these seeds instead of those of the table',
    )
    parser.add_argument(
        '--fractions',
        nargs='+',
        type=float,
        metavar='SHARE',
        help='these shares of the training patients (0-1)',
    )
    parser.add_argument(
        '--splits',
        nargs='+',
        metavar='NAME',
        help='only these splits of a cross-validation',
    )
    parser.add_argument(
        '--processes',
        type=int,
        metavar='N',
        help='processes of a step instead of those of the table; 0: without a launcher',
    )
    parser.add_argument(
        '--repeat-check',
        nargs='*',
        metavar='SETTING',
        help='compute one cell again under other settings of the processor (avx2, '
        'threads-1, threads-2; default: all), in folders beside, and print the spread '
        'of its scores',
    )
    executors.add_options(parser)
    return parser.parse_args()


def note_of(table, *told):
    """Join what is said below the table."""
    return ' '.join(filter(None, (table.note, table.choice, *told)))


def repeat(args, table):
    """Run one cell under several settings and write how far its scores are apart."""
    from medssl_mm import experiments, results
    from medssl_mm.experiments.repeat import SETTINGS, told_spread

    unknown = sorted(set(args.repeat_check) - set(SETTINGS))
    if unknown or executors.shows_only(args):
        raise UserError(
            f'--repeat-check knows the settings {", ".join(SETTINGS)}, got {unknown}'
            if unknown
            else '--repeat-check runs its steps: leave --dry-run and --status out'
        )
    runs, errors = experiments.repeat_check(
        table,
        lambda own, steps: executors.run_steps(args, own, steps),
        args.repeat_check or list(SETTINGS),
    )
    if runs:
        rows = results.summarize(runs, runs[0].label)
        title = f'{table.title}: {table.rows[0].title}, repeated'
        told = told_spread({row.run.label: row.score.estimate for row in rows})
        results.print_table(rows, title)
        print(told)
        out = args.out or Path('work_dirs', 'tables', f'{table.name}-repeat')
        paths = results.write_table(rows, out, title, note_of(table, told))
        print('written: ' + ', '.join(map(str, paths)))
    if errors:
        raise UserError(f'{len(errors)} steps failed:\n' + '\n'.join(errors))


def main():
    """Run the steps of the table and write it."""
    args = parse_args()
    executors.check_options(args)
    from dataclasses import replace

    from medssl_mm import experiments, results

    table = experiments.load_table(args.table)
    if args.processes is not None:
        table = replace(table, processes=args.processes)
    table = experiments.select(
        table,
        args.rows,
        args.evaluations,
        args.seeds,
        args.fractions,
        args.splits,
        args.baseline,
    )
    if args.repeat_check is not None:
        repeat(args, table)
        return
    steps, planned = experiments.plan(table)
    if executors.shows_only(args):
        executors.show_plan(args, table, steps)
        return
    stale = experiments.stale_results(steps.values())
    if stale and not args.no_run:
        raise UserError(
            f'{"; ".join(stale)}. Put the data back, or delete these folders and those '
            'of their trainings and run the table again; --no-run writes the table of '
            'what is there'
        )
    errors = executors.run_steps(args, table, steps)
    runs = experiments.finished_runs(planned, steps)
    if runs:
        baseline = next(
            (row.title for row in table.rows if row.name == table.baseline), None
        )
        costs = experiments.pretraining_costs(steps.values(), table)
        rows = [
            replace(row, cost=costs.shares.get(row.run.label, math.nan))
            for row in results.summarize(
                runs, baseline if any(run.label == baseline for run in runs) else None
            )
        ]
        results.print_table(rows, table.title)
        out = args.out or Path('work_dirs', 'tables', table.name)
        note = note_of(
            table,
            experiments.told_labels(steps.values(), table),
            costs.told,
            experiments.told_machines(steps.values()),
            *(f'{one}.' for one in stale),
        )
        paths = results.write_table(rows, out, table.title, note)
        print('written: ' + ', '.join(map(str, paths)))
    if errors:
        raise UserError(f'{len(errors)} steps failed:\n' + '\n'.join(errors))
    if not runs:
        raise UserError(
            'no seed of any row is finished yet, so there is no table'
            + (
                f' (a seed needs all {len(table.splits)} splits)'
                if len(table.splits) > 1
                else ''
            )
        )


if __name__ == '__main__':
    run_tool(main)
