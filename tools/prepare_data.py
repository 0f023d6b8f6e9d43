"""Import a data set: volumes into a slice store, images into an image set."""

import argparse
import sys
from pathlib import Path

from medssl_mm.errors import UserError, run_tool
from medssl_mm.importers import IMPORTERS, importer_class, make_importer
from medssl_mm.importers.options import parse_with

EXAMPLES = """\
examples:
  python tools/prepare_data.py btcv --src ~/BTCV --out data/btcv --jobs 8
  python tools/prepare_data.py nifti --src ~/scans --out data/mine \\
      --images 'img/*.nii.gz' --labels 'seg/*.nii.gz' \\
      --classes liver,spleen --holdout 0.2
  python tools/prepare_data.py phantom --out data/phantom --num-patients 24
  python tools/prepare_data.py nih-cxr14 --help      # layout and options of one

Interrupted imports go on where they stopped, a second run reads nothing
again. See data/README.md for the expected folders."""

SPLIT_OPTIONS = ('holdout', 'val', 'folds', 'seed', 'stratified', 'redraw', 'beside')


def make_parser(name, **settings):
    """Make a parser with the options that every importer has."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **settings,
    )
    add = parser.add_argument
    add('name', metavar=name, help='data set, one of: ' + ', '.join(IMPORTERS))
    add('--src', type=Path, help='source folder (phantom: where its files are made)')
    add('--out', type=Path, required=True, help='folder of the store, e.g. data/NAME')
    add('--jobs', type=int, default=1, help='worker processes (default: 1, -1: all)')
    add('--backend', choices=('loky', 'dask'), default='loky', help='of joblib')
    add('--scheduler', metavar='ADDRESS', help='running dask scheduler, else a local')
    add('--limit', type=int, metavar='N', help='import only the first N cases')
    add('--strict', action='store_true', help='import nothing if any case is bad')
    add('--overwrite', action='store_true', help='import everything anew')
    add('--prune', action='store_true', help='drop cases that left the source')
    add = parser.add_argument_group('splits, by patient').add_argument
    add('--holdout', type=float, metavar='SHARE', help='share held out for test')
    add('--val', type=float, default=0.0, metavar='SHARE', help='for validation')
    add('--folds', type=int, help='number of folds (k-fold)')
    add('--stratified', action='store_true', help='images: in proportion by class')
    add('--seed', type=int, default=0, help='of splits and phantoms (default: 0)')
    add('--redraw', action='store_true', help='replace splits that get other cases')
    add('--beside', action='store_true', help='give those a name of their own instead')
    return parser


def parse_args():
    """Parse the command line; the name of the data set decides on the options."""
    words = sys.argv[1:]
    first = words[0] if words and not words[0].startswith('-') else None
    name = first or next((word for word in words if word in IMPORTERS), None)
    if name is None:
        return make_parser('NAME', description=__doc__, epilog=EXAMPLES).parse_args()
    kind = importer_class(name)
    text = f'{kind.__doc__}\nlayout:\n{kind.layout}'
    parser = make_parser(name, description=text)
    args = parse_with(parser, name, kind.options())
    if args.name != name:
        raise UserError(f'{args.name!r} and {name!r}: give the name first')
    return args


def main():
    """Import, then print findings, counts and splits."""
    args = parse_args()
    from rich.console import Console

    from medssl_mm.importers import report, run
    from medssl_mm.importers.splits import write_splits

    options = importer_class(args.name).options()
    importer = make_importer(args.name, **{n: getattr(args, n) for n in options})
    settings = {n: getattr(args, n) for n in ('limit', 'strict', 'overwrite', 'prune')}
    splits = {n: getattr(args, n) for n in SPLIT_OPTIONS}
    console = Console()
    # One job without a cluster runs in this process: no start-up cost.
    settings['jobs'] = 1 if args.backend == 'loky' and args.jobs == 1 else None
    try:
        with (
            run.workers(args.jobs, args.backend, args.scheduler),
            report.shown_progress(console, args.name) as progress,
        ):
            result = run.import_dataset(
                importer, args.src, args.out, progress=progress, **settings
            )
    except run.ImportFailed as failure:
        report.print_problems(failure.results, console, failure.unit)
        raise
    report.print_result(result, console)
    try:
        write_splits(importer, result, **splits)
    finally:
        report.write_report(result)
        report.print_splits(result.splits, console, result.found.unit)
        report.print_notes(result.notes, console)
    run.exit_if_rejected(result)


if __name__ == '__main__':
    run_tool(main)
