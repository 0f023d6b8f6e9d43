#!/usr/bin/env python
r"""Compare outputs of models fine-tuned on few and on many labels.

For each method the Kolmogorov-Smirnov distance, per class, between the output
probabilities of two models on the same test images. A FEW and a MANY are
folders that tools/test.py wrote (with predictions.csv); a NAME that is given
several times has several seeds. A pair of two seeds with the same labels
tells how large the distance is without any effect of the labels. Read it
beside the AUROC: models that give every image the same output have distance
0. Prints a table and writes output_distributions.json and .png.

Example:
  python tools/analysis/output_distributions.py --out work_dirs/ks \
      --pair random work_dirs/random-10pct/test work_dirs/random-100pct/test \
      --pair moco work_dirs/moco-10pct/test work_dirs/moco-100pct/test
"""

from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--pair',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'FEW', 'MANY'),
        help='method and its two evaluation folders',
    )
    parser.add_argument(
        '--few', default='few labels', help='what FEW is called (default: few labels)'
    )
    parser.add_argument(
        '--many',
        default='many labels',
        help='what MANY is called (default: many labels)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        required=True,
        help='folder to write to; must hold no comparison yet',
    )
    return parser.parse_args()


def read_pairs(pairs):
    """Read all predictions and check that they are of the same images."""
    from medssl_mm.results import read_predictions

    first, methods = None, {}
    for name, *folders in pairs:
        for kind, folder in zip(('few', 'many'), folders):
            found = read_predictions(folder)
            first = first or (folder, found)
            for what in ('classes', 'image_ids', 'multi_label'):
                if getattr(found, what) != getattr(first[1], what):
                    raise UserError(
                        f'{folder} and {first[0]} are not of the same '
                        f'{what.replace("_", " ")}; compare models on the '
                        'test images of one split'
                    )
            # Of two exclusive classes the second says everything.
            part = slice(1 if found.exclusive_pair else 0, None)
            methods.setdefault(name, dict(few=[], many=[]))[kind].append(
                found.probabilities[:, part]
            )
    predictions = first[1]
    names = predictions.classes[1 if predictions.exclusive_pair else 0 :]
    return methods, names, predictions


def main():
    """Compare, print, draw."""
    args = parse_args()
    if (args.out / 'output_distributions.json').exists():
        raise UserError(
            f'{args.out}/output_distributions.json exists; choose another --out'
        )
    from medssl_mm.analysis.output_distributions import Comparison
    from medssl_mm.results import distributions

    methods, classes, predictions = read_pairs(args.pair)
    comparisons = [
        Comparison(name, tuple(content['few']), tuple(content['many']))
        for name, content in methods.items()
    ]
    images, patients = len(predictions.image_ids), len(set(predictions.patients))
    paths = distributions.write_comparisons(
        comparisons,
        classes,
        args.out,
        few=args.few,
        many=args.many,
        images=images,
        patients=patients,
        pairs=[
            dict(method=name, few=str(few), many=str(many))
            for name, few, many in args.pair
        ],
    )
    distributions.print_comparisons(
        comparisons,
        classes,
        f'Kolmogorov-Smirnov distance of output probabilities, {args.few} '
        f'against {args.many}; {images} images of {patients} patients',
    )
    print(f'written: {", ".join(map(str, paths))}')


if __name__ == '__main__':
    run_tool(main)
