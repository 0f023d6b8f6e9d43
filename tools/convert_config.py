#!/usr/bin/env python
"""Turn the settings of another package into a config.

innereye: a YAML file of InnerEye-DeepLearning's self-supervised part, of a whole
training (dataset, train, scheduler, preprocess, augmentation) or of augmentations
alone.

Examples:
  python tools/convert_config.py innereye rsna_byol.yaml --out rsna_byol.py
  python tools/train.py rsna_byol.py
  python tools/convert_config.py innereye augmentations.yaml --out strong.py
  python tools/train.py CONFIG.py+strong.py
  python tools/convert_config.py innereye head.yaml --for probe --out head.py
  python tools/train.py CONFIG.py+PROBE.py+head.py
"""

from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool
from medssl_mm.files import whole_file


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('package', choices=('innereye',))
    parser.add_argument('file', type=Path, help='the YAML file')
    parser.add_argument(
        '--out', type=Path, required=True, help='config to write; must not exist'
    )
    parser.add_argument(
        '--for',
        dest='purpose',
        choices=('pretraining', 'probe', 'classifier'),
        help='whose pipelines a file of augmentations gives; default: pretraining',
    )
    return parser.parse_args()


def main():
    """Read, translate, write."""
    args = parse_args()
    if args.out.exists():
        raise UserError(f'{args.out} exists; give another --out, or remove it')
    if args.out.suffix != '.py':
        raise UserError(f'--out must end in .py, got {args.out}')
    from medssl_mm.converters.innereye import config_text, read_innereye

    text = config_text(read_innereye(args.file), args.file.name, args.purpose)
    with whole_file(args.out) as temporary:
        Path(temporary).write_text(text, encoding='utf-8')
    print(f'{args.out} written')


if __name__ == '__main__':
    run_tool(main)
