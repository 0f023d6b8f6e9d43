#!/usr/bin/env python
r"""Compare the spectra of the features of pretraining checkpoints.

All models see the same images, and their last map has one stride: strides
beyond it are turned into dilations, so that a network computes what it did at
the positions that it had, and the same between them. Of all maps the same grid
of positions is taken. Writes spectrum.png (a panel per place, logarithmic) and
spectrum.json, both with stride, images and samples, and prints effective rank,
RankMe, alpha-ReQ and the spread of unit-length features; with "--views" also
LiDAR of the pooled features and of the projection, over as many views of each
image as the pretraining makes of it.

Instead of a checkpoint, "random" stands for untrained weights whose
normalisation is as initialised, "random-calibrated" for the same weights with
the statistics of 20 batches of training images in the backbone.

Example, on the map that the linear decoders read:
  python tools/analysis/spectrum.py random random-calibrated \
      work_dirs/mocov2/epoch_150.pth work_dirs/decorr/epoch_150.pth \
      --stride 8 --out work_dirs/spectrum --config \
      configs/selfsup/mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64.py
"""

import logging
from pathlib import Path

from medssl_mm.arguments import add_sample_arguments, check_positive, tool_parser
from medssl_mm.errors import UserError, run_tool

#: What is known of the normalisation of networks without a checkpoint.
RANDOM = {
    'random': 'as initialised: 0 and 1',
    'random-calibrated': 'statistics of 20 training batches',
}


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='CHECKPOINT',
        help='pretraining checkpoint, "random" or "random-calibrated"',
    )
    parser.add_argument(
        '--config',
        required=True,
        help='names the images; and the model of "random" '
        'and of checkpoints that hold no config',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder to write to; must hold no spectrum yet',
    )
    parser.add_argument(
        '--labels',
        nargs='+',
        help='names of the checkpoints (default: folder/file'
        '); seeds of one method share a name',
    )
    parser.add_argument(
        '--places',
        nargs='+',
        metavar='PLACE',
        help='stage1, stage2, ... (block1, ... of a Vision Transformer), '
        'decorrelated, pooled, projection (default: all that a model has)',
    )
    add_sample_arguments(parser)
    parser.add_argument(
        '--views',
        type=int,
        default=1,
        help='views of each image; from 2 on LiDAR is measured, by its authors with 50 '
        '(default: 1)',
    )
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    labels = args.labels or [
        '/'.join(Path(name).with_suffix('').parts[-2:]) for name in args.checkpoints
    ]
    if len(labels) != len(args.checkpoints):
        raise UserError(
            f'{len(args.checkpoints)} checkpoints need as many '
            f'--labels, got {len(labels)}: {", ".join(labels)}'
        )
    twice = [name for name in set(labels) if labels.count(name) > 1]
    if twice and not args.labels:
        raise UserError(
            f'several checkpoints would be called {twice[0]}; name them by --labels'
        )
    for name in args.checkpoints:
        if name not in RANDOM and not Path(name).is_file():
            raise UserError(f'checkpoint {name} does not exist')
    check_positive(args, 'num_samples', 'batch_size', 'positions', 'stride', 'views')
    if (args.out / 'spectrum.json').exists():
        raise UserError(f'{args.out}/spectrum.json exists; choose another --out')
    return labels


def chosen_places(spectra, places):
    """Keep the asked places, in the order asked for."""
    if not places:
        return spectra
    known = dict.fromkeys(s.place for s in spectra)
    absent = [place for place in places if place not in known]
    if absent:
        raise UserError(
            f'no model has features at {", ".join(absent)}, but at {", ".join(known)}'
        )
    return sorted(
        (s for s in spectra if s.place in places), key=lambda s: places.index(s.place)
    )


def main():
    """Measure, draw and print."""
    args = parse_args()
    labels = check(args)
    logging.disable(logging.INFO)  # a line per initialised weight

    from medssl_mm.analysis import place_spectra, stated
    from medssl_mm.backbones import backbone_of, set_common_stride
    from medssl_mm.engine import launch
    from medssl_mm.engine.observing import model_features
    from medssl_mm.pretraining_analysis import (
        build_pretraining,
        calibrate_pretraining,
        held_out_views,
    )
    from medssl_mm.results.spectra import print_spectra, write_spectra

    config = launch.load_config(args.config)
    count, (batches, *other_views) = held_out_views(
        config, args.subset, args.num_samples, args.batch_size, args.views
    )
    models = [
        build_pretraining(None if name in RANDOM else name, config).to(args.device)
        for name in args.checkpoints
    ]
    named = {f'{label} ({i})': m for i, (label, m) in enumerate(zip(labels, models), 1)}
    set_common_stride({n: m.backbone for n, m in named.items()}, args.stride)
    spectra = []
    for name, label, model in zip(args.checkpoints, labels, models):
        if name == 'random-calibrated':
            calibrate_pretraining(model, config, args.batch_size)
        found = place_spectra(
            model,
            lambda batch, model=model: model_features(model, batch),
            batches,
            label,
            args.positions,
            other_views,
        )
        spectra += stated(
            found,
            backbone_of(model.backbone).named_strides,
            count,
            RANDOM.get(name, 'running statistics of the training'),
        )
    spectra = chosen_places(spectra, args.places)
    paths = write_spectra(spectra, args.out)
    print_spectra(spectra)
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
