#!/usr/bin/env python
r"""Show where encoders look: how features change when a part is covered.

A window is moved over the image; bright is where covering it changes the
features. Attentive diffusion is the share of pixels above the mean. Nothing
of the labels is used. Writes saliency.png (overlays of all encoders), .json,
.csv, .md and _measures.csv (for tools/transfer.py --measures). Finished images
are kept in --out/parts: started again after an interruption, the tool goes on.

Example:
  python tools/analysis/saliency.py data/fundus --count 6 --encoders \
      lite0=efficientnet-lite0 random:resnet18 --out work_dirs/saliency
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
from medssl_mm.errors import run_tool
from medssl_mm.pictures import open_pictures


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_arguments(parser)
    add_chosen_arguments(parser, 6)
    parser.add_argument(
        '--window',
        type=int,
        default=10,
        help='side, pixels of what the encoder takes (default: 10)',
    )
    parser.add_argument(
        '--stride',
        type=int,
        help='pixels (default: 5; compat: 1, some 54,000 images each)',
    )
    return parser.parse_args()


def resized(preprocessing, mode):
    """The preprocessing, in compat with the border that is cut off later."""
    from medssl_mm.analysis.saliency import COMPAT_SIZES

    if mode != 'compat':
        return preprocessing
    return preprocessing.model_copy(
        update=dict(
            size=COMPAT_SIZES[0],
            resize_to=COMPAT_SIZES[0],
            resize_mode='short',
            interpolation='bicubic',
        )
    )


def main():
    """Measure, draw and print."""
    args = parse_args()
    args.stride = args.stride or (1 if args.mode == 'compat' else 5)
    check_arguments(args, 'saliency.json', count=1, window=1, stride=1)
    logging.disable(logging.INFO)  # a line per initialised weight
    encoders = named_encoders(args.encoders, mode=args.mode)
    from rich.progress import Progress

    from medssl_mm.analysis.frozen import Parts, normalised, pixels_of
    from medssl_mm.analysis.saliency import (
        Saliency,
        kept_part,
        occlusion_saliency,
        require_captum,
        windows,
    )
    from medssl_mm.results.saliency import (
        draw_saliency,
        print_saliency,
        write_saliency,
    )
    from medssl_mm.results.screen import wide_console

    require_captum()
    console = wide_console()
    whole = open_pictures(args)
    pictures = chosen_pictures(args, whole)
    results, shown = [], {}
    notes = encoder_rules(encoders)
    with Progress(console=console) as bar:
        for one in encoders:
            encoder = one.load(args.device, whole)
            note_enlarged(notes, encoder, whole)
            preprocessing = resized(encoder.preprocessing, args.mode)
            parts = Parts(
                args.out / 'parts',
                dict(
                    weights=encoder.digest,
                    preprocessing=preprocessing.model_dump(),
                    mode=args.mode,
                    window=args.window,
                    stride=args.stride,
                    **one.part_key,
                ),
            )
            size = (preprocessing.size,) * 2
            each = windows(size, args.window, args.stride) + 1
            seen = progress_of(bar, one.key, each * len(pictures))
            shown[one.name, one.number] = []
            for row, name in enumerate(pictures.image_ids):
                picture = pictures.resized(row, preprocessing)
                pixels = normalised(preprocessing, [pixels_of(picture)])[0]

                def compute(encoder=encoder, pixels=pixels, seen=seen):
                    values = occlusion_saliency(
                        encoder, pixels, args.window, args.stride, args.batch_size, seen
                    )
                    return dict(values=values)

                key = f'{one.key} {name} {pictures.content}'
                if parts.path(key).exists():
                    seen(each)
                values = kept_part(parts.get(key, compute)['values'], args.mode)
                results.append(Saliency(one.name, name, values, one.number))
                shown[one.name, one.number].append(kept_part(picture, args.mode))
    labels = [pictures.label(row) for row in range(len(pictures))]
    print_saliency(results, args.mode, notes, console)
    paths = write_saliency(
        results,
        args.out,
        args.mode,
        dict(
            pictures=args.pictures,
            dataset=pictures.name,
            encoders={one.key: one.weights.source for one in encoders},
            window=args.window,
            stride=args.stride,
            seed=args.seed,
        ),
        draw_saliency(results, shown, pictures.image_ids, labels),
        notes,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
