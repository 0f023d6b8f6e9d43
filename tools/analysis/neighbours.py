#!/usr/bin/env python
r"""Show which images encoders take for similar: the nearest neighbours of some.

Every image is a query once, its neighbours are the nearest images of other
patients by the cosine of pooled features; the table says how many are of the
class of the query. The sheets show some queries of every class: neighbours of
the same class have a blue frame, others an orange, dashed one. Writes a sheet
per encoder, neighbours.json, .csv and .md.

Example:
  python tools/analysis/neighbours.py data/fundus --encoders \
      lite0=efficientnet-lite0 random:resnet18 --out work_dirs/neighbours
"""

import logging

from medssl_mm.arguments import tool_parser
from medssl_mm.encoder_analysis import (
    add_arguments,
    check_arguments,
    encoder_rules,
    named_encoders,
    note_enlarged,
    picture_note,
    progress_of,
)
from medssl_mm.errors import UserError, run_tool
from medssl_mm.pictures import open_pictures


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    add_arguments(parser)
    parser.add_argument(
        '--neighbours', type=int, default=5, help='of every query (default: 5)'
    )
    parser.add_argument(
        '--per-class', type=int, default=2, help='queries shown (default: 2)'
    )
    return parser.parse_args()


def main():
    """Compute the features, search, draw and print."""
    args = parse_args()
    check_arguments(args, 'neighbours.json', neighbours=1, per_class=1)
    logging.disable(logging.INFO)  # a line per initialised weight
    encoders = named_encoders(args.encoders, mode=args.mode)
    import numpy as np
    from rich.progress import Progress

    from medssl_mm.analysis.frozen import Parts, features_of, pixels_of
    from medssl_mm.analysis.neighbours import choose_queries, nearest_images
    from medssl_mm.importers.naming import safe_case_id
    from medssl_mm.results.neighbours import (
        draw_neighbours,
        print_neighbours,
        write_neighbours,
    )
    from medssl_mm.results.screen import wide_console

    console = wide_console()
    pictures = open_pictures(args)
    if not pictures.classes:
        raise UserError(
            f'{pictures.name} has no classes, so no neighbour is right or wrong; put '
            'the pictures of each class into a folder, or import them with a table'
        )
    notes = [*picture_note(pictures), *encoder_rules(encoders)]
    unknown = int((~pictures.known).sum())
    if unknown:
        notes.append(f'{unknown} images left out: their label is not known')
    pictures = pictures.take(np.flatnonzero(pictures.known))
    rows = np.arange(len(pictures))
    shown = choose_queries(
        pictures.targets, pictures.patients, args.per_class, args.seed
    )
    results, sheets = [], {}
    with Progress(console=console) as bar:
        for one in encoders:
            encoder = one.load(args.device, pictures)
            note_enlarged(notes, encoder, pictures)
            preprocessing = encoder.preprocessing
            parts = Parts(
                args.out / 'parts',
                dict(
                    weights=encoder.digest,
                    preprocessing=preprocessing.model_dump(),
                    pictures=pictures.content,
                    **one.part_key,
                ),
            )

            def compute(encoder=encoder, name=one.key):
                images = (
                    pixels_of(pictures.resized(row, encoder.preprocessing))
                    for row in rows
                )
                seen = progress_of(bar, name, len(rows))
                found = features_of(
                    encoder, encoder.preprocessing, images, args.batch_size, seen
                )
                return dict(features=found.numpy())

            result = nearest_images(
                one.name,
                parts.get(one.key, compute)['features'],
                pictures.targets,
                pictures.patients,
                rows,
                rows,
                args.neighbours,
                one.number,
            )
            results.append(result)
            sheets[f'neighbours_{safe_case_id(one.key)}.png'] = draw_neighbours(
                result,
                rows,
                shown,
                lambda row, own=preprocessing: pictures.resized(row, own),
                pictures.label,
            )
    print_neighbours(results, notes, console)
    paths = write_neighbours(
        results,
        args.out,
        dict(
            mode=args.mode,
            pictures=args.pictures,
            dataset=pictures.name,
            encoders={one.key: one.weights.source for one in encoders},
            seed=args.seed,
        ),
        pictures.image_ids,
        rows,
        shown,
        sheets,
        notes,
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
