#!/usr/bin/env python
"""How often the intervals of result tables hold the truth, by simulation.

Scores vary by seed, by patient and by both together, with known spreads. A
95 % interval over seeds and patients should hold the true mean in 95 of 100
experiments; beside it the percentile interval of resampled patients, which
knows nothing of seeds. Patients differ as scores do (8 points) or as differences
paired by patient do (3). With --against the interval is that of a difference to a
method of other seeds.
"""

import itertools

import numpy as np

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/interval_coverage.py --seeds 3 5 10 --patients 14 20 40
"""


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    numbers = dict(nargs='+', metavar='N')
    parser.add_argument('--seeds', type=int, default=[3, 5, 10], **numbers)
    parser.add_argument('--patients', type=int, default=[14, 20, 40], **numbers)
    parser.add_argument(
        '--seed-sd', type=float, default=[0.5, 1, 2, 3], help='points', **numbers
    )
    parser.add_argument(
        '--patient-sd', type=float, default=[3, 8], help='points', **numbers
    )
    parser.add_argument(
        '--against',
        type=int,
        default=0,
        metavar='N',
        help='seeds of a second method, none of which the first one has',
    )
    parser.add_argument('--both-sd', type=float, default=4, help='points (4)')
    parser.add_argument(
        '--skewed',
        action='store_true',
        help='patients of an exponential distribution: most good, a few very bad',
    )
    parser.add_argument('--experiments', type=int, default=1000, help='(1000)')
    parser.add_argument('--samples', type=int, default=400, help='resamples (400)')
    parser.add_argument('--output', help='folder for table.{csv,md}')
    return parser.parse_args()


def main():
    """Simulate and print."""
    args = parse_args()
    if args.against < 0:
        raise UserError(f'--against must be >= 0, got {args.against}')
    if min(args.seeds + args.patients) < 2 or min(args.experiments, args.samples) < 1:
        raise UserError('--seeds and --patients must be >= 2, the others >= 1')
    import pandas as pd
    from rich.progress import track

    from medssl_mm.results.files import csv_text, write_results
    from medssl_mm.results.screen import show_table, to_markdown

    settings = list(
        itertools.product(args.patient_sd, args.patients, args.seeds, args.seed_sd)
    )
    rows = []
    for patient_sd, patients, seeds, seed_sd in track(settings, 'settings'):
        both, alone = coverage(args, patient_sd, patients, seeds, seed_sd)
        rows.append(
            {
                'SD over patients': f'{patient_sd:g}',
                'patients': str(patients),
                'seeds': str(seeds),
                'SD over seeds': f'{seed_sd:g}',
                'seeds and patients': f'{100 * both:.1f} %',
                'patients alone': f'{100 * alone:.1f} %',
            }
        )
    frame = pd.DataFrame(rows)
    show_table(frame, 'Intervals that hold the truth')
    if args.output:
        contents = {'table.csv': csv_text(frame), 'table.md': to_markdown(frame)}
        write_results(args.output, contents)


def coverage(args, patient_sd, patients, seeds, seed_sd):
    """Share of the experiments whose interval holds 0: two-level, percentile."""
    from medssl_mm.statistics.compare import two_level

    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for _ in range(args.experiments):
        times = rng.multinomial(
            patients, np.full(patients, 1 / patients), size=args.samples
        )
        shared = patient_sd * of_patients(rng, args, patients)
        arms = []
        for count in (seeds, args.against) if args.against else (seeds,):
            scores = shared + of_seeds(rng, args, patients, count, seed_sd)
            arms.append(np.column_stack([scores.mean(1), scores @ times.T / patients]))
        found, _ = two_level(arms[0], patients, *arms[1:])
        mean = arms[0].mean(0) - (arms[1].mean(0) if args.against else 0)
        low, high = np.percentile(mean[1:], [2.5, 97.5])
        hits += found.low <= 0 <= found.high, low <= 0 <= high
    return hits / args.experiments


def of_patients(rng, args, patients):
    """How patients differ, mean 0 and SD 1. Shape: (1, patients)."""
    shape = (1, patients)
    return 1 - rng.exponential(1, shape) if args.skewed else rng.normal(0, 1, shape)


def of_seeds(rng, args, patients, seeds, seed_sd):
    """How seeds differ, and each of them by patient. Shape: (seeds, patients)."""
    own = rng.normal(0, args.both_sd, (seeds, patients))
    return rng.normal(0, seed_sd, (seeds, 1)) + own


if __name__ == '__main__':
    run_tool(main)
