#!/usr/bin/env python
r"""Compare how linearly readable the labels are from each stage.

Logistic regression on the pooled features of frozen networks, to
convergence, with the strength of the regularisation chosen on the validation
images; macro AUROC (single-label: also macro F1) on the test images with a
95 % interval over patients; with --baseline, differences paired by patient.
Writes probe.json, probe.csv, probe.md and probe.png.

Of the config only the backbone, the data preprocessor and the data sets are
used, all with the pipeline of the test images; an encoder of configs/encoders
(NAME=ENCODER, NAME=ENCODER:PATH) brings its own network and preprocessing.
--train-on and --test-on name two image sets instead of a config; their findings are
those that both have.
Features are computed once and kept in --cache; a second run reads no image.
"random" stands for random weights of seed 0, "random:1" for those of seed 1;
their batch normalisation is calibrated on training images. A NAME that is
given several times has several seeds: table and figure show their mean, with
the interval of the mean, and every single one.

Examples:
  python tools/analysis/probe.py CONFIG --checkpoints random \
      moco=work_dirs/moco/epoch_200.pth mse=work_dirs/moco-mse/epoch_200.pth
  python tools/analysis/probe.py --train-on nih_cxr14 --test-on chexpert \
      --checkpoints lite=timm/tf_efficientnet_lite0:lite0.pth random=random:resnet50
  python tools/analysis/probe.py CONFIG --checkpoints moco=moco.pth \
      --fractions 0.01 0.1 1 --fraction-seeds 0 1 2 --jobs 4 --out DIR
"""

import logging
from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.checkpoint_features import (
    SUBSETS,
    add_arguments,
    add_weights_arguments,
    check_arguments,
    compare_seen,
    compared_weights,
    open_labelled,
    open_source,
    sources_by_name,
)
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_weights_arguments(parser, needs_config=False)
    parser.add_argument(
        '--train-on',
        metavar='DATA',
        help='instead of a config: name, or path, of a file of configs/data',
    )
    parser.add_argument(
        '--test-on',
        metavar='DATA',
        help='with --train-on: another, of which the findings count that both have',
    )
    parser.add_argument(
        '--fractions',
        nargs='+',
        type=float,
        help='shares of the training patients, 0-1 (default: as in the config)',
    )
    parser.add_argument(
        '--fraction-seeds',
        nargs='+',
        type=int,
        help='a draw of each fraction below 1 per seed (default: as in the config)',
    )
    parser.add_argument(
        '--stem', action='store_true', help='also probe what stage 1 gets'
    )
    parser.add_argument(
        '--strengths',
        nargs='+',
        type=float,
        help='of the regularisation, to choose from '
        '(default: 1e-4 to 1e3 by factors of 10)',
    )
    parser.add_argument(
        '--max-iter', type=int, default=2000, help='iterations of a fit (default: 2000)'
    )
    parser.add_argument(
        '--min-positive-patients',
        type=int,
        default=0,
        metavar='N',
        help='leave out classes found in fewer '
        'test patients, or absent in fewer (default: 0)',
    )
    parser.add_argument(
        '--bootstrap',
        type=int,
        default=2000,
        help='resamples of patients (default: 2000)',
    )
    parser.add_argument(
        '--jobs', type=int, default=1, help='probes fitted at a time (default: 1)'
    )
    parser.add_argument(
        '--attribute',
        metavar='FILE:IMAGE:COLUMN',
        help='CSV file, its column of file names, and one of a circumstance such as '
        'the view position: also score it alone, and the probes among the test '
        'images of each of its values',
    )
    add_arguments(parser)
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    both = bool(args.train_on) + bool(args.test_on)
    if both == 1 or bool(args.config) == bool(both):
        raise UserError(
            'name a classification config, or two image sets: --train-on A --test-on B'
        )
    if both and args.cfg_options:
        raise UserError('--cfg-options change a config; there is none with --train-on')
    if both:
        train, test = (Path(data).stem for data in (args.train_on, args.test_on))
        args.config = f'{train}-on-{test}'
    for name in ('fractions', 'strengths'):
        for value in getattr(args, name) or ():
            if not 0 < value <= (1 if name == 'fractions' else float('inf')):
                raise UserError(f'--{name}: {value:g} is out of range')
    if args.max_iter < 1 or args.jobs < 1 or args.bootstrap < 0:
        raise UserError(
            '--max-iter and --jobs must be positive, --bootstrap not negative'
        )
    if args.fraction_seeds and not args.fractions:
        raise UserError('--fraction-seeds draw --fractions; give these, too')
    if args.attribute and args.attribute.count(':') < 2:
        raise UserError(
            f'--attribute {args.attribute}: give FILE:IMAGE:COLUMN, such as '
            'labels.csv:file:ViewPosition'
        )
    check_arguments(args, 'probe', ['probe.json'])


def config_of_two(args):
    """Config of two image sets; None where the arguments name a config."""
    if not args.train_on:
        return None
    from medssl_mm.checkpoint_features import config_of_datasets
    from medssl_mm.datasets.shared_sets import read_images, train_on_test_on

    images = map(read_images, (args.train_on, args.test_on))
    return config_of_datasets(train_on_test_on(*images), args.config)


def draws(args, source):
    """List (fraction, seed) as asked for, or as the config has them."""
    if args.fractions is None:
        return [source.images.fraction_of_config()]
    return [
        (fraction, seed)
        for fraction in dict.fromkeys(args.fractions)
        for seed in (
            [None] if fraction == 1 else dict.fromkeys(args.fraction_seeds or [0])
        )
    ]


def probe_one(features, rows, place, **settings):
    """Read the features of one place and probe them."""
    from medssl_mm.analysis.probing import run_probe

    picked = {name: features[name].read(place)[rows[name]] for name in rows}
    return run_probe(picked, place=place, **settings)


def open_data(source):
    """Open the subsets and read their labels; say what is missing."""
    subsets, labels = open_labelled(source.images, SUBSETS)
    if not subsets['test'].has_patients:
        source.note(
            'the data set names no patients: intervals are over '
            'images, and too narrow if patients have several'
        )
    return subsets, labels


def label_fraction(source, subsets, labels, fraction, seed, least):
    """Rows and labels of the subsets with a part of the training labels."""
    import numpy as np

    from medssl_mm.analysis.probing import ProbeData

    rows = {name: labels[name].known for name in SUBSETS}
    targets = {name: labels[name].targets for name in SUBSETS}
    used = np.isin(rows['train'], source.images.rows_of_fraction(fraction, seed))
    if not used.any():
        raise UserError(
            f'{100 * fraction:g} % of the training patients have no labelled image'
        )
    rows['train'] = rows['train'][used]
    targets['train'] = targets['train'][used]
    patients = np.array(subsets['test'].patients)[rows['test']]
    return rows, ProbeData(
        labels['train'].classes, labels['train'].multi_label, targets, patients, least
    )


def attribute_probes(args, subsets, parts, probes, settings):
    """Probe the attribute alone, and score the probes within its values."""
    from medssl_mm.analysis import attributes

    path, image_column, column = args.attribute.rsplit(':', 2)
    table = attributes.read_attribute(path, image_column, column)
    found = []
    for (fraction, seed), (rows, data) in parts.items():
        values = {
            name: attributes.attributes_of(subsets[name].image_ids, table)[rows[name]]
            for name in rows
        }
        draw = dict(fraction=fraction, fraction_seed=seed)
        alone = attributes.probe_attribute(values, column, data, **draw, **settings)
        found.append(alone)
        for probe in probes:
            if (probe.fraction, probe.fraction_seed) == (fraction, seed):
                found += attributes.probes_within(
                    probe, data, values['test'], column, args.bootstrap
                )
    return found


def main():
    """Extract, fit, draw and print."""
    args = parse_args()
    check(args)
    checkpoints = compared_weights(args)
    logging.disable(logging.INFO)  # a line per initialised weight
    import joblib
    from rich.progress import Progress

    from medssl_mm.analysis import probing
    from medssl_mm.backbones import STEM
    from medssl_mm.results.probes import print_probes, write_probes
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    strengths = args.strengths or probing.STRENGTHS
    with Progress(console=console) as bar:
        source = open_source(args, bar, console, config_of_two(args))
        subsets, labels = open_data(source)
        seen = compare_seen(
            source, checkpoints, [subsets['test']], [subsets['val']], args.allow_seen
        )
        parts = {
            draw: label_fraction(
                source, subsets, labels, *draw, args.min_positive_patients
            )
            for draw in draws(args, source)
        }
        jobs = []
        for weights in checkpoints:
            features = {name: source.features(weights, name) for name in SUBSETS}
            jobs += [
                joblib.delayed(probe_one)(
                    features,
                    rows,
                    place,
                    data=data,
                    fraction=fraction,
                    fraction_seed=seed,
                    checkpoint=weights.name,
                    number=weights.number,
                    strengths=strengths,
                    max_iter=args.max_iter,
                    samples=args.bootstrap,
                )
                for (fraction, seed), (rows, data) in parts.items()
                for place in features['train'].places
                if args.stem or place != STEM
            ]
        fitting = bar.add_task('probes', total=len(jobs))
        probes = []
        for probe in joblib.Parallel(args.jobs, return_as='generator')(jobs):
            probes.append(probe)
            bar.advance(fitting)
    further = []
    if args.attribute:
        fit = dict(strengths=strengths, max_iter=args.max_iter, samples=args.bootstrap)
        further = attribute_probes(args, subsets, parts, probes, fit)
    print_probes([*probes, *further], console, args.baseline)
    paths = write_probes(
        probes,
        args.out,
        dict(
            config=args.config,
            checkpoints=sources_by_name(checkpoints),
            protocol=subsets['test'].protocol,
            split_hash=subsets['test'].split_hash,
            classes=list(labels['train'].classes),
            task='multi-label' if labels['train'].multi_label else 'single-label',
            images={name: len(labels[name].known) for name in SUBSETS},
            patients={name: len(set(s.patients)) for name, s in subsets.items()},
            strengths=list(strengths),
            max_iter=args.max_iter,
            min_positive_patients=args.min_positive_patients,
            baseline=args.baseline,
            bootstrap=dict(samples=args.bootstrap, seed=0),
            attribute=args.attribute,
            seen=seen,
        ),
        args.baseline,
        further,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
