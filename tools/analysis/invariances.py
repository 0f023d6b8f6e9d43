#!/usr/bin/env python
r"""Measure how little the features of encoders change when the images do.

Whitened cosine of the features of an image and of its changed copies: rotated,
moved, scaled, sheared, cropped, flipped, deformed, in other colours and
brightness, blurred, ... 1 is invariant, 0 unrelated. --pairs compares two
images of each person instead, such as both eyes or two views. Writes
invariances.json, .csv, .md, .png (bars), _curves.png (against the parameter),
_copies.png (what was made of one image) and _measures.csv (for tools/transfer.py
--measures).

Finished transforms are kept in --out/parts: started again after an
interruption, the tool goes on.

Examples:
  python tools/analysis/invariances.py odir --encoders \
      lite0=efficientnet-lite0 random:resnet18 --out work_dirs/invariances
  python tools/analysis/invariances.py pictures/ --encoders resnet18:r18.pth \
      --transforms rotation h_flip --steps 36 --out work_dirs/rotation
"""

import logging

from medssl_mm.arguments import tool_parser
from medssl_mm.encoder_analysis import (
    add_arguments,
    check_arguments,
    encoder_rules,
    find_pairs,
    named_encoders,
    note_enlarged,
    picture_note,
    progress_of,
)
from medssl_mm.errors import UserError, run_tool
from medssl_mm.pictures import open_pictures

# Of the original: resized to 256, the middle cut out; pairs brought to 224 at once.
COMPAT_RESIZING = dict(
    size=224, resize_to=256, resize_mode='short', interpolation='bilinear'
)
COMPAT_PAIRS = dict(
    size=224, resize_to=224, resize_mode='short', interpolation='bicubic'
)
PAIRS = 'pairs'


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_arguments(parser)
    parser.add_argument(
        '--transforms', nargs='+', metavar='NAME', help='default: all that make sense'
    )
    parser.add_argument(
        '--pairs',
        nargs='*',
        metavar='REGEX',
        help='compare two images of each person: both eyes or views of a set that is '
        'known for them; or, of each patient, the one whose name matches the first '
        'expression with the one that matches the second, as in --pairs left right',
    )
    parser.add_argument(
        '--steps',
        type=int,
        help='copies of an image, where the transform has any number (default: 16; '
        'compat: 256)',
    )
    parser.add_argument(
        '--count', type=int, default=100, help='images that are changed (default: 100)'
    )
    return parser.parse_args()


def chosen_transforms(args, grey):
    """Names of the transforms, and a note on those left out."""
    from medssl_mm.analysis.invariances import TRANSFORMS, check_steps
    from medssl_mm.errors import similar

    for name in args.transforms or ():
        if name not in TRANSFORMS:
            raise UserError(
                f'no transform is called {name!r}{similar(name, TRANSFORMS)}'
            )
    names = args.transforms or (() if args.pairs is not None else TRANSFORMS)
    colours = [name for name in names if TRANSFORMS[name].needs_colour and grey]
    if colours and args.transforms:
        raise UserError(
            f'{", ".join(colours)} changes nothing in grey images; leave it out'
        )
    names = [name for name in names if name not in colours]
    check_steps(names, args.steps)
    note = [f'{", ".join(colours)} left out: the images are grey'] if colours else []
    return names, note


def measure(args, one, pictures, rows, names, pairs, notes, bar):
    """All results of one encoder and its shrinkage; adds to the notes."""
    from medssl_mm.analysis.frozen import Parts, features_of, pixels_of
    from medssl_mm.analysis.invariances import (
        TRANSFORMS,
        Invariance,
        fit_whitening,
        measure_invariance,
        measure_pairs,
    )

    encoder = one.load(args.device, pictures)
    preprocessing = of_pairs = encoder.preprocessing
    if args.mode == 'compat':
        preprocessing = encoder.preprocessing.model_copy(update=COMPAT_RESIZING)
        of_pairs = encoder.preprocessing.model_copy(update=COMPAT_PAIRS)

    def parts_of(preprocessing):
        content = dict(
            weights=encoder.digest,
            preprocessing=preprocessing.model_dump(),
            pictures=pictures.content,
            mode=args.mode,
            **one.part_key,
        )
        return Parts(args.out / 'parts', content)

    parts = parts_of(preprocessing)

    def clean(what, chosen, preprocessing=preprocessing):
        def compute():
            seen = progress_of(bar, f'{one.key}: {what}', len(chosen))
            images = (pixels_of(pictures.resized(row, preprocessing)) for row in chosen)
            found = features_of(encoder, preprocessing, images, args.batch_size, seen)
            return dict(features=found.numpy())

        name = f'{one.key} {what} {[int(row) for row in chosen]}'
        return parts_of(preprocessing).get(name, compute)['features']

    found, shrinkage = [], None
    if names:
        whitening = fit_whitening(clean('statistics', rows[0]), args.mode)
        shrinkage = whitening.shrinkage
    for name in names:
        parameters = TRANSFORMS[name].parameters(args.steps, args.mode)

        def changed(name=name, parameters=parameters):
            total = len(parameters) * len(rows[1])
            return measure_invariance(
                encoder,
                preprocessing,
                [pictures.read(row) for row in rows[1]],
                whitening,
                name,
                parameters,
                args.mode,
                args.batch_size,
                progress_of(bar, f'{one.key}: {name}', total),
            )

        # Whitened by the statistics, which depend on their images.
        key = f'{one.key} {name} {args.steps} {rows[1].tolist()} {rows[0].tolist()}'
        arrays = parts.get(key, changed)
        found.append(
            Invariance(
                one.name, name, args.mode, parameters, **arrays, number=one.number
            )
        )
    if pairs:
        left, right = (clean(PAIRS, side, of_pairs) for side in zip(*pairs))
        owners = [pictures.patients[row] for row, _ in pairs]
        arrays = measure_pairs(left, right, owners, args.mode)
        found.append(
            Invariance(one.name, PAIRS, args.mode, (1,), **arrays, number=one.number)
        )
    note_enlarged(notes, encoder, pictures)
    return found, shrinkage


def draw_sheet(args, one, picture, names, title):
    """What the transforms make of a picture, a few copies each."""
    import numpy as np

    from medssl_mm.analysis.invariances import TRANSFORMS, changed_images
    from medssl_mm.results.invariances import draw_copies

    preprocessing = one.load().preprocessing
    if args.mode == 'compat':
        preprocessing = preprocessing.model_copy(update=COMPAT_RESIZING)
    copies = {}
    for name in names:
        parameters = TRANSFORMS[name].parameters(args.steps, args.mode)
        shown = np.unique(np.linspace(0, len(parameters) - 1, 7).round().astype(int))
        changed = changed_images(
            picture,
            TRANSFORMS[name],
            [parameters[place] for place in shown],
            preprocessing,
            args.mode,
        )
        copies[name] = [
            preprocessing.resize(picture),
            *(copy.permute(1, 2, 0).numpy() for copy in changed),
        ]
    return draw_copies(copies, title)


def main():
    """Measure, draw and print."""
    args = parse_args()
    args.steps = args.steps or (256 if args.mode == 'compat' else 16)
    check_arguments(args, 'invariances.json', count=2, steps=2)
    logging.disable(logging.INFO)  # a line per initialised weight
    encoders = named_encoders(args.encoders, mode=args.mode)
    from rich.progress import Progress

    from medssl_mm.analysis.invariances import draw_images, draw_pairs, is_grey
    from medssl_mm.results.invariances import print_invariances, write_invariances
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    pictures = open_pictures(args)
    patients = pictures.patients if pictures.has_patients else None
    rows = draw_images(len(pictures), patients, args.count, args.seed, args.mode)
    grey = is_grey([pictures.read(row) for row in rows[1][:8]])
    names, notes = chosen_transforms(args, grey)
    notes += [*picture_note(pictures), *encoder_rules(encoders)]
    if names and len(rows[1]) < args.count:
        notes.append(
            f'{len(rows[1])} images are changed instead of {args.count}: half of the '
            'patients are left for the statistics'
        )
    pairs = None
    if args.pairs is not None:
        pairs = find_pairs(pictures, args.pairs, args.mode)
        pairs = [pairs[n] for n in draw_pairs(len(pairs), args.seed, args.mode)]
        notes.append(f'{len(pairs)} pairs of images of one person')
    results, shrinkage = [], {}
    with Progress(console=console) as bar:
        for one in encoders:
            found, share = measure(args, one, pictures, rows, names, pairs, notes, bar)
            results += found
            shrinkage[one.key] = share
    sheet = None
    if names:
        first = int(rows[1][0])
        title = pictures.image_ids[first]
        sheet = draw_sheet(args, encoders[0], pictures.read(first), names, title)
    print_invariances(results, notes, console)
    paths = write_invariances(
        results,
        args.out,
        dict(
            pictures=args.pictures,
            dataset=pictures.name,
            encoders={one.key: one.weights.source for one in encoders},
            images=len(rows[1]),
            statistics_images=len(rows[0]),
            steps=args.steps,
            seed=args.seed,
            shrinkage=shrinkage,
            pairs=None if pairs is None else len(pairs),
        ),
        notes,
        sheet,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
