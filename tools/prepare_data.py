"""Import a data set: volumes into a slice store, images into an image set."""

import argparse
import sys
from pathlib import Path

from medssl_mm.errors import UserError, run_tool
from medssl_mm.importers import IMPORTERS, make_importer

EXAMPLES = """\
examples:
  python tools/prepare_data.py btcv --src ~/BTCV --out data/btcv --jobs 8
  python tools/prepare_data.py nifti --src ~/scans --out data/mine \\
      --images 'img/*.nii.gz' --labels 'seg/*.nii.gz' \\
      --classes liver,spleen --holdout 0.2
  python tools/prepare_data.py phantom --out data/phantom --num-patients 24
  python tools/prepare_data.py nih-cxr14 --src ~/NIH --out data/nih-cxr14 \\
      --size 512 --jobs 8

Interrupted imports go on where they stopped, a second run reads nothing
again. See data/README.md for the expected folders."""

# Options of importers: which one takes which is checked by the import.
IMPORTER_OPTIONS = {
    'images': dict(
        metavar='GLOB', help='images (medmnist: the archive), relative to --src'
    ),
    'labels': dict(metavar='GLOB', help='labels or masks'),
    'classes': dict(
        help='names of the classes 1, 2, ... separated by '
        'commas, or a JSON file (medmnist: 0, 1, ...)'
    ),
    'palette': dict(
        metavar='FILE', help='JSON: mask colour or grey value of every class'
    ),
    'modality': dict(
        choices=('CT', 'MR', 'XR', 'other'), help='CT means Hounsfield units'
    ),
    'patient_pattern': dict(
        metavar='REGEX',
        help='its first group, searched in the path below --src, is the patient id',
    ),
    'slice_pattern': dict(metavar='REGEX', help='likewise, slice number'),
    'turn': dict(
        type=int,
        metavar='DEGREES',
        help='turn PNG slices counter-clockwise by 90, 180 or 270',
    ),
    'list_file': dict(metavar='FILE', help='lines of "relative/path.png label"'),
    'lists': dict(
        metavar='DIR',
        help='folder of the published split lists (nih-cxr14, idc); default: --src',
    ),
    'offset': dict(type=int, help='HU offset of 16-bit PNG slices'),
    'num_patients': dict(type=int, metavar='N', help='phantoms to make'),
    'size': dict(
        type=int,
        help='side of a phantom slice, or of the images of an image set, pixels',
    ),
}


def parse_args():
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'name',
        metavar='NAME',
        choices=list(IMPORTERS),
        help='one of: ' + ', '.join(IMPORTERS),
    )
    parser.add_argument(
        '--src',
        type=Path,
        help='source folder (phantom: where its NIfTI files '
        'are made; default: OUT-source)',
    )
    parser.add_argument(
        '--out', type=Path, required=True, help='folder of the store, e.g. data/NAME'
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=1,
        help='worker processes (default: 1, -1: all cores)',
    )
    parser.add_argument(
        '--backend',
        choices=('loky', 'dask'),
        default='loky',
        help='joblib backend (dask needs `distributed`)',
    )
    parser.add_argument(
        '--scheduler',
        metavar='ADDRESS',
        help='running dask scheduler; default: a local one',
    )
    parser.add_argument(
        '--limit', type=int, metavar='N', help='import only the first N cases'
    )
    parser.add_argument(
        '--strict', action='store_true', help='import nothing if any case is bad'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='import everything anew'
    )
    group = parser.add_argument_group('splits, by patient')
    group.add_argument(
        '--holdout',
        type=float,
        metavar='SHARE',
        help='share of the patients held out for test',
    )
    group.add_argument(
        '--val',
        type=float,
        default=0.0,
        metavar='SHARE',
        help='with --holdout: share for validation',
    )
    group.add_argument('--folds', type=int, help='number of folds (k-fold)')
    group.add_argument(
        '--stratified',
        action='store_true',
        help='image sets: patients in proportion by their rarest class',
    )
    group.add_argument(
        '--seed', type=int, default=0, help='seed of splits and phantoms (default: 0)'
    )
    group = parser.add_argument_group('options of some importers')
    for name, keywords in IMPORTER_OPTIONS.items():
        flags = ['--' + name.replace('_', '-')]
        if name == 'classes':
            flags.append('--labels-file')
        group.add_argument(*flags, dest=name, **keywords)
    return parser.parse_args()


def parallel_backend(args):
    """Choose where the workers run; a dask cluster may be plugged in."""
    import joblib

    if args.backend == 'loky':
        return joblib.parallel_config('loky', n_jobs=args.jobs)
    try:
        from dask.distributed import Client
    except ImportError:
        raise UserError('--backend dask needs dask; pip install distributed') from None
    client = Client(args.scheduler or None)
    return joblib.parallel_config(
        'dask', n_jobs=args.jobs, client=client, wait_for_workers_timeout=60
    )


def main():
    """Import, then print findings, counts and splits."""
    args = parse_args()
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from medssl_mm.importers import report, run

    importer = make_importer(args.name)
    options = {name: getattr(args, name) for name in IMPORTER_OPTIONS}
    for name in {'seed', 'jobs'} & set(importer.options):
        options[name] = getattr(args, name)
    console = Console()
    # One job without a cluster runs in this process: no start-up cost.
    jobs = 1 if args.backend == 'loky' and args.jobs == 1 else None
    try:
        with (
            parallel_backend(args),
            Progress(
                TextColumn('importing {task.fields[name]}'),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            ) as progress,
        ):
            task = progress.add_task('import', name=args.name, visible=False)
            result = run.import_dataset(
                importer,
                args.src,
                args.out,
                options,
                jobs=jobs,
                limit=args.limit,
                strict=args.strict,
                overwrite=args.overwrite,
                progress=lambda done, total: progress.update(
                    task, completed=done, total=total, visible=True
                ),
            )
    except run.ImportFailed as failure:
        report.print_problems(failure.results, console, importer.unit)
        raise
    report.print_result(result, console, importer.unit)
    try:
        run.write_splits(
            importer,
            result,
            args.holdout,
            args.val,
            args.folds,
            args.seed,
            args.stratified,
        )
    finally:
        report.write_report(result)
        report.print_splits(result.splits, console, importer.unit)
        report.print_notes(result.notes, console)
    rejected = sum(r.status == run.REJECTED for r in result.results)
    if rejected:
        # Scripts must notice, though the other cases can be used.
        print(
            f'error: {rejected} of {len(result.results)} '
            f'{importer.unit}s were left '
            'out, see the table above and import_report.csv; the others '
            'are ready. Repair or remove the sources and run this again',
            file=sys.stderr,
        )
        sys.exit(3)


if __name__ == '__main__':
    run_tool(main)
