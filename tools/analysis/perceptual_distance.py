#!/usr/bin/env python
r"""Measure how far reconstructions are from their originals, as people see it.

Takes what tools/analysis/deep_image_prior.py wrote, or pairs of picture files.
LPIPS with three networks and their mean, and the distance in encoders
(--measures). Writes perceptual_distance.json, .csv, .md, .png, _pairs.png and
_measures.csv (for tools/transfer.py --measures).

The three networks are those of torchvision, whose weights are fetched once; on
a computer without internet the tool says which files to copy where.

Examples:
  python tools/analysis/perceptual_distance.py work_dirs/prior --out work_dirs/lpips
  python tools/analysis/perceptual_distance.py work_dirs/prior --nets none \
      --measures lite0=efficientnet-lite0 --out work_dirs/distance
  python tools/analysis/perceptual_distance.py --pairs a.png=a_made.png \
      b.png=b_made.png --out work_dirs/distance
"""

import json
import logging
import sys
from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.encoder_analysis import (
    add_arguments,
    check_arguments,
    named_encoders,
)
from medssl_mm.errors import UserError, run_tool

NETS = ('alex', 'vgg', 'squeeze')
PAIRS = 'pairs'


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        'folders', nargs='*', type=Path, help='written by deep_image_prior.py'
    )
    parser.add_argument(
        '--pairs', nargs='+', default=[], metavar='ORIGINAL=OTHER', help='picture files'
    )
    parser.add_argument(
        '--nets',
        nargs='+',
        choices=(*NETS, 'none'),
        default=list(NETS),
        help='networks of LPIPS (default: all three, and their mean)',
    )
    parser.add_argument(
        '--measures',
        nargs='+',
        default=[],
        metavar='NAME=ENCODER',
        help='encoders to measure in',
    )
    add_arguments(parser, pictures=False)
    return parser.parse_args()


def pairs_of_folder(folder):
    """Mode, data set, and pairs of files by encoder, of one folder."""
    path = folder / 'deep_image_prior.json'
    if not path.is_file():
        raise UserError(
            f'{path} does not exist; write it with tools/analysis/deep_image_prior.py'
        )
    try:
        content = json.loads(path.read_text())
        found = [
            (
                pair['encoder'],
                pair['picture'],
                folder / pair['original'],
                folder / pair['reconstruction'],
            )
            for pair in content['pairs']
        ]
        return content['mode'], content['dataset'], found
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is damaged ({error!r}); run deep_image_prior.py again'
        ) from error


def find_pairs(args):
    """Mode and data set of the reconstructions, and pairs (encoder, name, files)."""
    found, modes, datasets = [], {}, set()
    for folder in args.folders:
        mode, dataset, pairs = pairs_of_folder(folder)
        modes[mode] = folder
        datasets.add(dataset)
        found += pairs
    if len(modes) > 1:
        one, other = modes.items()
        raise UserError(
            f'{one[1]} is of {one[0]} and {other[1]} of {other[0]}: no table mixes them'
        )
    for text in args.pairs:
        original, equals, other = text.partition('=')
        if not equals:
            raise UserError(f'--pairs are given as ORIGINAL=OTHER, got {text!r}')
        found.append((PAIRS, Path(original).stem, Path(original), Path(other)))
    if not found:
        raise UserError('nothing to measure; name folders, or give --pairs')
    dataset = datasets.pop() if len(datasets) == 1 else ''
    return next(iter(modes), args.mode), dataset, found


def read_pair(original, other):
    """Two pictures of one size."""
    from medssl_mm.importers.base import CaseError
    from medssl_mm.importers.readers.picture import read_colour_picture

    pictures = []
    for path in (original, other):
        if not path.is_file():
            raise UserError(f'{path} does not exist')
        try:
            pixels, problems = read_colour_picture(str(path))
        except CaseError as error:
            raise UserError(str(error)) from error
        pictures.append(pixels)
        for problem in problems:
            if problem.code != 'grey':  # that is as good here
                print(f'warning: {problem.message}', file=sys.stderr)
    if pictures[0].shape != pictures[1].shape:
        raise UserError(
            f'{original} is {pictures[0].shape[:2]}, {other} {pictures[1].shape[:2]}: '
            'bring them to one size'
        )
    return tuple(pictures)


def originals_of(pairs, names):
    """The originals, once each however many encoders have made them anew."""
    from medssl_mm.pictures import pictures_of

    found = {}
    for encoder, own in pairs.items():
        for name, (original, _) in zip(names[encoder], own):
            found.setdefault(original.tobytes(), (f'{encoder}: {name}', original))
    return pictures_of(PAIRS, dict(found.values()))


def measure(args, pairs, originals, bar):
    """Distances by encoder and measure; the measures in their order."""
    import numpy as np

    from medssl_mm.analysis.perceptual_distance import (
        AVERAGE,
        Distance,
        encoder_distances,
        load_lpips,
        lpips_distances,
    )

    nets = [net for net in NETS if net in args.nets]
    measures = named_encoders(args.measures, several=False)
    task = bar.add_task('measuring', total=len(pairs) * (len(nets) + len(measures)))
    found = {}
    for net in nets:
        network = load_lpips(net, args.device)
        for encoder, own in pairs.items():
            found[encoder, net] = lpips_distances(network, own, args.batch_size)
            bar.advance(task)
    if len(nets) == len(NETS):
        for encoder in pairs:
            values = [found[encoder, net] for net in nets]
            found[encoder, AVERAGE] = np.mean(values, axis=0)
    for one in measures:
        network = one.load(args.device, originals)
        numbers = [number for number in network.places.names if number]

        def maps(images, network=network, numbers=numbers):
            return list(network.places.maps(images, numbers).values())

        for encoder, own in pairs.items():
            found[encoder, one.name] = encoder_distances(
                network, maps, network.preprocessing, own, args.batch_size
            )
            bar.advance(task)
    return [Distance(*key, values) for key, values in found.items()]


def main():
    """Measure, draw and print."""
    args = parse_args()
    check_arguments(args, 'perceptual_distance.json')
    if 'none' in args.nets and not args.measures:
        raise UserError('--nets none needs --measures: encoders to measure in')
    mode, dataset, files = find_pairs(args)
    logging.disable(logging.INFO)  # a line per initialised weight
    from rich.progress import Progress

    from medssl_mm.analysis.perceptual_distance import FEW_PICTURES
    from medssl_mm.results.perceptual_distance import (
        draw_pairs,
        print_distances,
        write_distances,
    )
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    pairs, names = {}, {}
    for encoder, name, original, other in files:
        pairs.setdefault(encoder, []).append(read_pair(original, other))
        names.setdefault(encoder, []).append(name)
    notes = []
    few = min(map(len, pairs.values()))
    if few < FEW_PICTURES:
        notes.append(
            f'only {few} picture{"s" * (few != 1)}: take {FEW_PICTURES} or more, the '
            'distance of a single one says little'
        )
    with Progress(console=console) as bar:
        results = measure(args, pairs, originals_of(pairs, names), bar)
    shown = (
        results[-1].measure
        if 'average' not in {r.measure for r in results}
        else ('average')
    )
    sheet = draw_pairs(
        pairs,
        names,
        {one.encoder: one.values for one in results if one.measure == shown},
        shown,
    )
    print_distances(results, mode, notes, console)
    paths = write_distances(
        results,
        args.out,
        mode,
        dict(
            folders=[str(folder) for folder in args.folders],
            dataset=dataset,
            nets=args.nets,
            measures=args.measures,
            pictures=names,
        ),
        sheet,
        notes,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
