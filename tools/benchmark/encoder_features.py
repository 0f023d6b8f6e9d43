#!/usr/bin/env python
"""Measure what features of encoders cost beside the network's own computation.

Features of a made image set are read by a bare loop (read, resize, compute), by
EncoderFeatures, which also keeps them on disk, and by a second run of that, which
finds them there. These take turns. The peak of memory is that of a process of its
own, once for a set and once for one of four times as many images. Last, the
episodes of a few-shot measurement are drawn and scored on made features.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """\
example:
  python tools/benchmark/encoder_features.py
  python tools/benchmark/encoder_features.py --encoder random:resnet18 --images 128 \\
      --rounds 5 --out work_dirs/encoder_features.json

Memory is that of Linux: pages of mapped files, which it takes back when it needs
them, count in the peak."""
# How much larger the second set is whose peak of memory is measured.
LARGER = 4


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument(
        '--encoder',
        default='random:resnet50',
        help='ENCODER, ENCODER:PATH or random:ENCODER (default: random:resnet50)',
    )
    parser.add_argument('--images', type=int, default=256, help='default: 256')
    parser.add_argument(
        '--side', type=int, default=512, help='of the made pictures, px (default: 512)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=32, help='images at a time (default: 32)'
    )
    parser.add_argument('--rounds', type=int, default=3, help='default: 3')
    parser.add_argument('--ways', type=int, default=5, help='default: 5')
    parser.add_argument('--shots', type=int, default=20, help='default: 20')
    parser.add_argument('--queries', type=int, default=15, help='default: 15')
    parser.add_argument('--episodes', type=int, default=600, help='default: 600')
    parser.add_argument(
        '--channels', type=int, default=2048, help='of made features (default: 2048)'
    )
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument(
        '--threads', type=int, help='CPU threads (default: as torch has them)'
    )
    parser.add_argument('--out', type=Path, help='JSON file of the result')
    parser.add_argument('--peak-of', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    low = dict(ways=2, images=1, side=1, batch_size=1, rounds=1, episodes=1)
    for name, value in dict(low, shots=1, queries=1, channels=1).items():
        if getattr(args, name) < value:
            raise UserError(f'--{name.replace("_", "-")} must be {value} or more')
    return args


def write_set(root, count, side):
    """Write an image set of smooth noise, a picture per person."""
    import cv2
    import numpy as np

    from medssl_mm.store.image_writer import ImageStoreWriter

    classes = ('no', 'yes')
    writer = ImageStoreWriter.create(
        root, root.name, 'single-label', classes, 3, (side, side)
    )
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        writer.add_case(
            f'image{number}',
            cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC),
            number % len(classes),
            patient_id=f'person{number}',
            source_file=f'{number}.png',
            source_stat=[(f'{number}.png', 1, 2)],
        )
    writer.finish()


def open_source(args, root, cache):
    """Features of the made set, without anything that was opened before."""
    from medssl_mm.checkpoint_features import (
        EncoderFeatures,
        ImageSubsets,
        config_of_images,
    )

    images = dict(type='medssl_mm.ClassificationImages', data_root=str(root))
    config = config_of_images(images, root.name)
    # Random weights as they are: nothing is calibrated.
    return EncoderFeatures(
        ImageSubsets(config), cache, args.device, args.batch_size, 0, 0
    )


def weights_of(args):
    """The encoder, as the tools take it."""
    from medssl_mm.checkpoint_features import parse_weights

    return parse_weights([f'encoder={args.encoder}'])[0]


def bare_loop(args, source):
    """Function that computes the features of all images and keeps them in memory."""
    import torch

    from medssl_mm.checkpoint_features import ALL
    from medssl_mm.encoders import load_encoder

    encoder = load_encoder(args.encoder).to(args.device)
    pictures = source.images.pictures(source.images.subset(ALL), encoder.preprocessing)

    @torch.inference_mode()
    def run():
        found = []
        for rows in torch.arange(len(pictures)).split(args.batch_size):
            pixels = torch.stack([pictures[row]['inputs'] for row in rows])
            pixels = pixels.to(args.device).float() / 255
            found.append(encoder(encoder.preprocessing.normalise(pixels)).cpu())
        return torch.cat(found).numpy()

    return run


def time_runs(args, folder):
    """Rows of the bare loop, a first run and a second one."""
    import numpy as np

    from medssl_mm.checkpoint_features import ALL

    root, weights = folder / 'small', weights_of(args)
    source = open_source(args, root, folder / 'kept')
    bare = bare_loop(args, source)
    number = iter(range(sys.maxsize))

    def first():
        source.cache = folder / f'run{next(number)}'
        return source.features(weights, ALL)

    def second():
        return open_source(args, root, folder / 'kept').features(weights, ALL)

    kept = second()
    if not np.allclose(kept.read(kept.places[-1]), bare(), rtol=1e-3, atol=1e-4):
        raise UserError('the bare loop gives other features: nothing to compare')
    times = benchmarking.times_in_turns(
        {'bare loop': bare, 'first run': first, 'second run': second},
        args.rounds,
        device=args.device,
    )
    return [
        dict(
            run=name,
            seconds=statistics.median(seconds),
            of_the_bare_loop=benchmarking.median_ratio(seconds, times['bare loop']),
        )
        for name, seconds in times.items()
    ]


def peak_of(args):
    """Compute the features of a set, and print the peak of memory: MiB."""
    import resource

    from medssl_mm.checkpoint_features import ALL

    with tempfile.TemporaryDirectory() as cache:
        open_source(args, args.peak_of, cache).features(weights_of(args), ALL)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def measure_peaks(args, folder):
    """Rows of the peaks of memory for both sets, each in a process of its own."""
    rows = []
    options = ['--encoder', args.encoder, '--batch-size', str(args.batch_size)]
    options += ['--device', args.device]
    options += ['--threads', str(args.threads)] if args.threads else []
    for name, count in (('small', args.images), ('large', LARGER * args.images)):
        command = [sys.executable, __file__, *options, '--peak-of', folder / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise UserError(f'the peak of memory was not measured: {done.stderr}')
        peak = json.loads(done.stdout.splitlines()[-1])
        rows.append(dict(images=count, peak_MiB=round(peak)))
    for row in rows:
        row['of_the_first'] = row['peak_MiB'] / rows[0]['peak_MiB']
    return rows


def time_episodes(args):
    """Row of the seconds that all episodes take."""
    import numpy as np

    from medssl_mm.analysis.few_shot import draw_episodes, episode_accuracies

    each = 4 * (args.shots + args.queries)
    labels = np.repeat(np.arange(args.ways), each)
    people = [f'person{number}' for number in range(len(labels))]
    shape = (len(labels), args.channels)
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    features += labels[:, None]
    rows = []
    for _ in range(args.rounds):
        start = time.perf_counter()
        drawn = draw_episodes(
            labels, people, args.ways, args.shots, args.queries, args.episodes
        )
        middle = time.perf_counter()
        episode_accuracies(features, drawn)
        rows.append((middle - start, time.perf_counter() - middle))
    drawing, scoring = (statistics.median(values) for values in zip(*rows))
    return dict(
        episodes=args.episodes,
        ways=args.ways,
        shots=args.shots,
        queries=args.queries,
        channels=args.channels,
        drawing_s=drawing,
        scoring_s=scoring,
        seconds=drawing + scoring,
    )


def main():
    """Measure and print."""
    args = parse_args()
    benchmarking.use_device(args.device, args.threads)
    if args.peak_of:
        peak_of(args)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_set(folder / 'small', args.images, args.side)
        write_set(folder / 'large', LARGER * args.images, args.side)
        runs = time_runs(args, folder)
        peaks = measure_peaks(args, folder)
    episodes = time_episodes(args)
    benchmarking.print_rows(f'features, {args.encoder}, {args.images} images', runs)
    benchmarking.print_rows('peak of memory', peaks)
    benchmarking.print_rows('few-shot episodes', [episodes])
    machine = benchmarking.machine(args.device)
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.out,
        dict(
            settings=vars(args),
            machine=machine,
            runs=runs,
            peaks=peaks,
            episodes=episodes,
        ),
    )


if __name__ == '__main__':
    run_tool(main)
