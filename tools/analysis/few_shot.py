#!/usr/bin/env python
r"""Compare how well a few labelled images per class tell the classes apart.

Prototypical classification on the pooled features of frozen networks: in
every episode --ways classes, --shots labelled images of each and --queries
others are drawn; an image gets the class whose labelled images have the
nearest mean feature. Nothing is trained. All networks see the same episodes.
Writes few_shot.json, few_shot.csv, few_shot.md and few_shot.png.

Of the config only the backbone, the data preprocessor and the data sets are
used, all with the pipeline of the test images; an encoder of configs/encoders
(NAME=ENCODER, NAME=ENCODER:PATH) brings its own network and preprocessing.
Features are computed once and kept in --cache; a second run reads no image.
"random" stands for random weights of seed 0, "random:1" for those of seed 1. A
NAME that is given several times has several seeds: shown is their mean.

No patient is on both sides of an episode, where the data set names patients.
Images of --subsets are pooled; of a set that a network was pretrained on,
leave the subsets out that it has seen.

Examples:
  python tools/analysis/few_shot.py CONFIG --checkpoints random moco=moco.pth
  python tools/analysis/few_shot.py CONFIG --checkpoints random moco=moco.pth \
      --baseline random --ways 5 --shots 1 5 20 --subsets train val test
"""

import logging

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
from medssl_mm.provenance import sentences


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_weights_arguments(parser)
    parser.add_argument(
        '--ways',
        type=int,
        help='classes of an episode (default: 2, or 5 of five classes and more)',
    )
    parser.add_argument(
        '--shots',
        nargs='+',
        type=int,
        default=[20],
        help='labelled images of each class (default: 20)',
    )
    parser.add_argument(
        '--queries',
        type=int,
        default=15,
        help='images of each class to be named (default: 15)',
    )
    parser.add_argument('--episodes', type=int, default=600, help='default: 600')
    parser.add_argument('--seed', type=int, default=0, help='of the episodes')
    parser.add_argument(
        '--subsets',
        nargs='+',
        choices=SUBSETS,
        default=['test'],
        help='whose images are pooled (default: test)',
    )
    parser.add_argument(
        '--by-image',
        action='store_true',
        help='let a patient be on both sides of an episode, as many papers do',
    )
    parser.add_argument(
        '--all-places',
        action='store_true',
        help='every stage instead of the last one',
    )
    add_arguments(parser)
    return parser.parse_args()


def check(args):
    """Refuse what cannot work before the libraries are loaded."""
    for name in ('queries', 'episodes'):
        if getattr(args, name) < 1:
            raise UserError(f'--{name} must be 1 or more')
    if min(args.shots) < 1 or (args.ways is not None and args.ways < 2):
        raise UserError('--shots must be 1 or more, --ways 2 or more')
    args.shots = sorted(set(args.shots))
    args.subsets = [name for name in SUBSETS if name in args.subsets]
    check_arguments(args, 'few_shot', ['few_shot.json'])


def open_images(source, names):
    """Subsets, classes, rows of the labelled; class and patient of each of these."""
    import numpy as np

    subsets, labels = open_labelled(source.images, names)
    for name, found in labels.items():
        if found.multi_label:
            raise UserError(
                'few-shot episodes need images of one class each; the '
                f'{name} images have several labels: choose a config '
                'with one label per image'
            )
    known = [labels[name].known for name in names]
    numbers = [labels[name].targets.argmax(1) for name in names]
    patients = None
    if all(subset.has_patients for subset in subsets.values()):
        patients = np.concatenate(
            [np.array(subsets[name].patients)[labels[name].known] for name in names]
        )
    classes = labels[names[0]].classes
    return subsets, classes, known, np.concatenate(numbers), patients


def draw(args, source, numbers, patients, classes):
    """Episodes of every number of shots."""
    from medssl_mm.analysis.few_shot import draw_episodes

    if patients is None and not args.by_image:
        source.note(
            'the data set names no patients: images of one person may be on both '
            'sides of an episode'
        )
    ways = args.ways or (5 if len(set(numbers)) >= 5 else 2)
    return ways, {
        shots: draw_episodes(
            numbers,
            None if args.by_image else patients,
            ways,
            shots,
            args.queries,
            args.episodes,
            args.seed,
            classes,
        )
        for shots in args.shots
    }


def main():
    """Extract, draw the episodes and compare."""
    args = parse_args()
    check(args)
    checkpoints = compared_weights(args)
    logging.disable(logging.INFO)  # a line per initialised weight
    import numpy as np
    from rich.progress import Progress

    from medssl_mm.analysis.few_shot import FewShot, episode_accuracies
    from medssl_mm.results.few_shot import print_few_shot, write_few_shot
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    notes, results = [], []
    with Progress(console=console) as bar:
        source = open_source(args, bar, console)
        subsets, classes, known, numbers, patients = open_images(source, args.subsets)
        seen = compare_seen(
            source, checkpoints, list(subsets.values()), allow=args.allow_seen
        )
        ways, episodes = draw(args, source, numbers, patients, classes)
        for weights in checkpoints:
            features = [source.features(weights, name) for name in args.subsets]
            places = features[0].places
            for place in places if args.all_places else places[-1:]:
                parts = zip(features, known)
                rows = np.concatenate([f.read(place)[own] for f, own in parts])
                results += [
                    FewShot(
                        weights.name,
                        place,
                        shots,
                        episode_accuracies(rows, drawn),
                        drawn.digest,
                        weights.number,
                    )
                    for shots, drawn in episodes.items()
                ]
    apart = all(drawn.by_patient for drawn in episodes.values())
    side = 'no patient is' if apart else 'a patient may be'
    notes.append(
        f'{side} on both sides of an episode; {len(numbers)} images of '
        f'{len(set(classes))} classes from the {", ".join(args.subsets)} images'
    )
    notes += [
        f'{name}: {line}' for name, facts in seen.items() for line in sentences(facts)
    ]
    title = f'{ways}-way, {args.queries} queries, {args.episodes} episodes'
    print_few_shot(results, title, args.baseline, notes, console)
    paths = write_few_shot(
        results,
        args.out,
        dict(
            config=args.config,
            checkpoints=sources_by_name(checkpoints),
            protocol=subsets[args.subsets[0]].protocol,
            split_hash=subsets[args.subsets[0]].split_hash,
            subsets=args.subsets,
            classes=list(classes),
            images=len(numbers),
            patients=None if patients is None else len(set(patients)),
            ways=ways,
            shots=args.shots,
            queries=args.queries,
            episodes=args.episodes,
            seed=args.seed,
            by_patient=apart,
            baseline=args.baseline,
            seen=seen,
        ),
        ways,
        args.baseline,
        notes,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
