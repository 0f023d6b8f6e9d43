#!/usr/bin/env python
r"""Compare the features of networks by centred kernel alignment (CKA).

--before and --after: feature reuse, the similarity of each stage before and
after fine-tuning, for one or several methods; over all images (the linear
values exactly, batch by batch), and over random subsets of 1000 images with
mean and standard deviation. Writes reuse.json and reuse.png.

--layers: every residual block of one network with every block of another.
Writes layers.json and layers.png.

Both on pooled features of the test images of a classification config, linear
and Gaussian kernel. The last maps of all networks have one stride, the smallest
among them or --stride: strides beyond it are turned into dilations, so that each
network stays the function that it is and all features are means over as many
positions. Stride, images and what each network normalises by are written down.
The bandwidth of the Gaussian kernel is a fraction of the median
distance of two images; --absolute-bandwidth takes it in feature units, as
some published results do, where the value follows the scale of the features
more than their similarity: the ratio to the median distance is printed.
"random" and "random:1" stand for random weights of seeds 0 and 1. A NAME that
is given several times, before and after, has several seeds, in this order.

Examples:
  python tools/analysis/cka.py CONFIG --before moco=moco.pth mse=mse.pth \
      --after moco=moco-tuned.pth mse=mse-tuned.pth
  python tools/analysis/cka.py CONFIG --layers moco=moco.pth random \
      --kernel linear --unbiased --out DIR
"""

import logging

from medssl_mm.arguments import check_positive, tool_parser
from medssl_mm.checkpoint_features import (
    SUBSETS,
    add_arguments,
    check_arguments,
    open_source,
    parse_weights,
    sources_by_name,
)
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('config', help='classification config')
    parser.add_argument(
        '--before',
        nargs='+',
        default=[],
        metavar='NAME=PATH',
        help='pretrained checkpoints, or encoders: NAME=ENCODER[:PATH]',
    )
    parser.add_argument(
        '--after',
        nargs='+',
        default=[],
        metavar='NAME=PATH',
        help='the fine-tuned ones, of the same names',
    )
    parser.add_argument(
        '--layers', nargs=2, default=[], metavar='NAME=PATH', help='any two checkpoints'
    )
    parser.add_argument(
        '--kernel',
        choices=['linear', 'rbf'],
        default='linear',
        help='of the heat map (default: linear)',
    )
    width = parser.add_mutually_exclusive_group()
    width.add_argument(
        '--bandwidth',
        type=float,
        default=0.8,
        help='in median distances (default: 0.8)',
    )
    width.add_argument(
        '--absolute-bandwidth',
        type=float,
        metavar='SIGMA',
        help='in feature units instead',
    )
    parser.add_argument(
        '--unbiased',
        action='store_true',
        help='also the unbiased estimate (heat map: only it)',
    )
    parser.add_argument(
        '--subset',
        default='test',
        choices=SUBSETS,
        help='images that are compared (default: test)',
    )
    parser.add_argument(
        '--stride',
        type=int,
        help='pixels per cell of the last map of every network (default: the '
        'smallest among them)',
    )
    parser.add_argument(
        '--num-subsets',
        type=int,
        default=50,
        help='random subsets; 0 for none (default: 50)',
    )
    parser.add_argument(
        '--subset-size', type=int, default=1000, help='images of one (default: 1000)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the random subsets (default: 0)'
    )
    parser.add_argument(
        '--max-images',
        type=int,
        help='of the heat map, spread evenly over the subset (default: all)',
    )
    add_arguments(parser)
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    if not args.before and not args.layers:
        raise UserError('nothing to compare: give --before and --after, or --layers')
    check_positive(
        args, 'bandwidth', 'absolute_bandwidth', 'subset_size', 'max_images', 'stride'
    )
    if args.num_subsets < 0:
        raise UserError('--num-subsets must not be negative')
    check_arguments(
        args,
        'cka',
        [
            f'{name}.json'
            for name, wanted in (('reuse', args.before), ('layers', args.layers))
            if wanted
        ],
    )


def reuse(args, source, kernel, pairs, bar, console):
    """Compare before and after; print and write."""
    from medssl_mm.analysis import feature_reuse
    from medssl_mm.backbones import STEM
    from medssl_mm.results import similarity, write_results

    images = len(source.images.subset(args.subset).image_ids)
    subsets = feature_reuse.random_subsets(
        images, args.subset_size, args.num_subsets, args.seed
    )
    if args.num_subsets and not subsets:
        source.note(
            f'{images} {args.subset} images: no random subsets of '
            f'{args.subset_size}; a smaller --subset-size makes some'
        )
    results = []
    for before, after in pairs:
        found = [source.features(w, args.subset) for w in (before, after)]
        places = [p for p in found[0].places if p != STEM]
        task = bar.add_task(
            f'CKA {before.name}', total=len(places) * (1 + len(subsets))
        )
        results += feature_reuse.feature_reuse(
            before.name,
            *({p: f.read(p) for p in places} for f in found),
            kernel,
            subsets,
            args.device,
            lambda steps, task=task: bar.advance(task, steps),
            before.number,
        )
    bar.stop()
    similarity.print_reuse(results, kernel, console)
    sources, tuned = (sources_by_name(side) for side in zip(*pairs))
    content = dict(
        **common(args, source, kernel),
        methods={
            name: dict(before=own, after=tuned[name]) for name, own in sources.items()
        },
        normalisation={
            before.name: dict(
                before=source.normalisation(before), after=source.normalisation(after)
            )
            for before, after in pairs
        },
        random_subsets=dict(size=args.subset_size, count=len(subsets), seed=args.seed),
        notes=feature_reuse.bandwidth_notes(results, kernel),
        stages=similarity.reuse_content(results),
    )
    return write_results(
        args.out, {'reuse.json': content, 'reuse.png': similarity.draw_reuse(results)}
    )


def layers(args, source, kernel, pair, bar):
    """Compare all blocks of two networks; write."""
    import numpy as np

    from medssl_mm.analysis import feature_reuse
    from medssl_mm.results import similarity, write_results

    found = [source.features(w, args.subset, 'blocks') for w in pair]
    images = len(found[0].image_ids)
    count = min(images, args.max_images or images)
    rows = np.linspace(0, images - 1, count).round().astype(int)
    sides = [{p: f.read(p)[rows] for p in f.places} for f in found]
    estimate = args.kernel + '_unbiased' * args.unbiased
    task = bar.add_task('CKA of the layers', total=len(sides[0]) * len(sides[1]))
    matrix = feature_reuse.layer_similarity(
        *sides, estimate, kernel, args.device, lambda steps: bar.advance(task, steps)
    )
    names = tuple(w.name for w in pair)
    places = tuple(list(side) for side in sides)
    content = dict(
        **common(args, source, kernel),
        checkpoints={w.name: w.source for w in pair},
        normalisation={w.name: source.normalisation(w) for w in pair},
        images=count,
        estimate=estimate,
        layers=dict(zip(names, places)),
        matrix=matrix.tolist(),
    )
    figure = similarity.draw_layers(matrix, places, names, estimate)
    return write_results(args.out, {'layers.json': content, 'layers.png': figure})


def common(args, source, kernel):
    """Describe what both comparisons were made with."""
    subset = source.images.subset(args.subset)
    return dict(
        config=args.config,
        subset=args.subset,
        protocol=subset.protocol,
        split_hash=subset.split_hash,
        stride=source.stride,
        bandwidth=kernel.bandwidth,
        bandwidth_unit='median distance' if kernel.relative else 'features',
    )


def main():
    """Extract, compare, draw and print."""
    args = parse_args()
    check(args)
    before, after = (
        parse_weights(texts, several=True) for texts in (args.before, args.after)
    )
    pair = parse_weights(args.layers)
    tuned = {(weights.name, weights.number): weights for weights in after}
    pairs = [(weights, tuned.get((weights.name, weights.number))) for weights in before]
    if len(before) != len(after) or any(w is None for _, w in pairs):
        raise UserError(
            '--before and --after must have the same names, each as often, '
            f'got {", ".join(w.name for w in before) or "none"} and '
            f'{", ".join(w.name for w in after) or "none"}'
        )
    logging.disable(logging.INFO)  # a line per initialised weight
    from rich.progress import Progress

    from medssl_mm.analysis.feature_reuse import Kernel
    from medssl_mm.results.screen import wide_console

    absolute = args.absolute_bandwidth
    kernel = Kernel(absolute or args.bandwidth, absolute is None, args.unbiased)
    console, paths = wide_console(), []
    for compare in (reuse, layers):
        if not (before if compare is reuse else pair):
            continue
        with Progress(console=console) as bar:
            source = open_source(args, bar, console)
            stride = source.bring_to_stride([*before, *after, *pair], args.stride)
            source.note(f'the last map of every network at stride {stride} px')
            if compare is reuse:
                paths += reuse(args, source, kernel, pairs, bar, console)
            else:
                paths += layers(args, source, kernel, pair, bar)
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
