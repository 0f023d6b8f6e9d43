#!/usr/bin/env python
r"""Make pictures from the features of encoders: what they still know of them.

For every picture a network that makes pictures from noise is trained until the
last feature map of its picture is that of the original. Several pictures are
made at once. Writes deep_image_prior.png (all encoders), _losses.png, .json,
and a folder per encoder with every picture, its original (PNG, lossless) and
previews.png; tools/analysis/perceptual_distance.py measures them.

The state is kept in --out/states every --preview-every iterations, and after
Ctrl-C; --resume goes on from there, bit by bit as without a stop. On a GPU
1000 iterations of five pictures take minutes, on two CPU cores an hour.

Example:
  python tools/analysis/deep_image_prior.py data/fundus --count 5 --encoders \
      lite0=efficientnet-lite0 random:resnet18 --out work_dirs/prior --device cuda
"""

import logging

from medssl_mm.arguments import tool_parser
from medssl_mm.encoder_analysis import (
    add_arguments,
    add_chosen_arguments,
    check_arguments,
    chosen_pictures,
    encoder_rules,
    named_encoders,
    note_enlarged,
    progress_of,
)
from medssl_mm.errors import UserError, run_tool
from medssl_mm.pictures import open_pictures


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_arguments(parser)
    add_chosen_arguments(parser, 5)
    parser.add_argument(
        '--iterations', type=int, default=1000, help='default: 1000; published: 3000'
    )
    parser.add_argument(
        '--lr', type=float, default=1e-3, help='of Adam (default: 0.001)'
    )
    parser.add_argument(
        '--preview-every', type=int, default=100, help='iterations (default: 100)'
    )
    parser.add_argument('--resume', action='store_true', help='go on after a stop')
    return parser.parse_args()


def target_maps(encoder, mode):
    """Function from images to the map that is to be met."""
    network = encoder.backbone
    if mode == 'compat' and encoder.places.family == 'DenseNet':
        # The original takes what comes before the last normalisation.
        from medssl_mm.backbones import Tap

        tap = Tap(network.transitions[-1], entering=True)
        return lambda images: encoder.places.run(images, dict(last=tap))['last']
    return encoder.maps


def invert(args, encoder, originals, state, name, bar):
    """Make the pictures of one encoder; returns arrays."""
    import numpy as np
    import torch

    from medssl_mm.analysis.deep_image_prior import FeatureInversion
    from medssl_mm.files import whole_file

    made = FeatureInversion(
        encoder,
        target_maps(encoder, args.mode),
        encoder.preprocessing,
        originals,
        args.mode,
        args.seed,
        args.lr,
    )
    steps, previews = [], []
    if state.exists() and args.resume:
        stored = torch.load(state, map_location=args.device, weights_only=True)
        made.load_state_dict(stored['made'])
        steps = stored['steps']
        previews = list(stored['previews'].numpy())

    def save():
        state.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(state) as temporary:
            shown = torch.from_numpy(np.array(previews, np.uint8))
            torch.save(
                dict(made=made.state_dict(), steps=steps, previews=shown), temporary
            )

    # As in the original: one more than asked for.
    total = args.iterations + (args.mode == 'compat')
    seen = progress_of(bar, name, total)
    seen(len(made.losses))
    try:
        while len(made.losses) < total:
            made.step()
            seen(1)
            done = len(made.losses)
            if done % args.preview_every == 0 or done == total:
                steps.append(done)
                previews.append(made.pictures())
                if done < total:
                    save()
    except KeyboardInterrupt:
        save()
        raise
    return dict(
        pictures=previews[-1],
        losses=np.array(made.losses),
        previews=np.array(previews),
        steps=np.array(steps),
    )


def check_states(args, paths):
    """Refuse to begin anew where something is unfinished, unless it is meant."""
    there = [path for path in paths if path.exists()]
    if not there or args.resume:
        return
    if not args.overwrite:
        raise UserError(
            f'{there[0]} is unfinished; add --resume to go on, or --overwrite to begin '
            'anew'
        )
    for path in there:
        path.unlink()


def main():
    """Invert, draw and write."""
    args = parse_args()
    check_arguments(
        args, 'deep_image_prior.json', count=1, iterations=1, preview_every=1
    )
    if args.lr <= 0:
        raise UserError('--lr must be above 0')
    logging.disable(logging.INFO)  # a line per initialised weight
    encoders = named_encoders(args.encoders, several=False, mode=args.mode)
    from rich.progress import Progress

    from medssl_mm.analysis.frozen import Parts
    from medssl_mm.importers.naming import safe_case_id
    from medssl_mm.results.deep_image_prior import (
        Reconstructions,
        write_reconstructions,
    )
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    whole = open_pictures(args)
    pictures = chosen_pictures(args, whole)
    results = []
    loaded = {one.key: one.load(args.device, whole) for one in encoders}
    parts = {
        key: Parts(
            args.out / 'parts',
            dict(
                weights=encoder.digest,
                preprocessing=encoder.preprocessing.model_dump(),
                pictures=pictures.content,
                mode=args.mode,
                seed=args.seed,
                lr=args.lr,
                iterations=args.iterations,
                preview_every=args.preview_every,
                **one.part_key,
            ),
        )
        for (key, encoder), one in zip(loaded.items(), encoders)
    }
    states = {
        key: args.out / 'states' / own.path(key).with_suffix('.pth').name
        for key, own in parts.items()
    }
    check_states(args, states.values())
    notes: list[str] = []
    for encoder in loaded.values():
        note_enlarged(notes, encoder, whole)
    with Progress(console=console) as bar:
        for one in encoders:
            encoder, own = loaded[one.key], parts[one.key]
            originals = [
                pictures.resized(row, encoder.preprocessing)
                for row in range(len(pictures))
            ]

            def compute(one=one, encoder=encoder, originals=originals):
                return invert(args, encoder, originals, states[one.key], one.key, bar)

            found = own.get(one.key, compute)
            states[one.key].unlink(missing_ok=True)
            results.append(
                Reconstructions(
                    one.name,
                    safe_case_id(one.key),
                    originals,
                    found['pictures'],
                    found['losses'],
                    found['previews'],
                    found['steps'],
                )
            )
    paths = write_reconstructions(
        results,
        pictures.image_ids,
        [safe_case_id(name) for name in pictures.image_ids],
        args.out,
        args.mode,
        dict(
            pictures=args.pictures,
            dataset=pictures.name,
            encoders={one.key: one.weights.source for one in encoders},
            rules=encoder_rules(encoders),
            iterations=args.iterations,
            lr=args.lr,
            seed=args.seed,
        ),
        notes,
    )
    for note in notes:
        print(f'note: {note}')
    print(f'written: {", ".join(str(path) for path in paths[-3:])} and the pictures')


if __name__ == '__main__':
    run_tool(main)
