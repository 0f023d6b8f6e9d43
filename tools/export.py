#!/usr/bin/env python
r"""Write an encoder to a folder that other libraries read.

The folder holds the weights (safetensors; for hosts a .pth as well), config.json,
and a card: what its pictures must be, what it has seen, the licence of that, and
the lines of Python that use it without this package. The network of the target is
built and must give the same features; of a host that is not installed the card says
that this was not checked.

Example:
  python tools/export.py work_dirs/pretrain/epoch_200.pth --to timm --out exported
  python tools/export.py efficientnet-lite0 --to timm --out lite0
  python tools/export.py moco-v2:moco_v2_800ep_pretrain.pth.tar --to torchvision \
      --out moco-v2
"""

from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool, similar

TARGETS = ('torchvision', 'timm', 'mmpretrain', 'mmseg')


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument(
        'encoder',
        metavar='CHECKPOINT',
        help='a checkpoint of a pretraining, or an encoder: NAME, NAME:FILE or the '
        'folder of an export',
    )
    parser.add_argument('--to', required=True, help=', '.join(TARGETS))
    parser.add_argument('--out', type=Path, required=True, help='an empty folder')
    parser.add_argument(
        '--config', type=Path, help='of a pretraining (default: that in the checkpoint)'
    )
    parser.add_argument(
        '--encoder',
        dest='which',
        choices=('online', 'target'),
        help='of a pretraining with two',
    )
    parser.add_argument(
        '--decorrelation',
        choices=('drop', 'fold'),
        default='drop',
        help='of a pretraining; fold makes it a linear layer after the pooling (for '
        'hosts a neck, which is a 1x1 convolution); default: drop',
    )
    return parser.parse_args()


def main():
    """Export one encoder."""
    args = parse_args()
    if args.to not in TARGETS:
        from medssl_mm.encoders.card import NNUNET

        if 'nnu' in args.to.lower():
            raise UserError(NNUNET)
        raise UserError(f'--to {args.to!r} is unknown{similar(args.to, TARGETS)}')
    if args.out.exists() and (args.out.is_file() or any(args.out.iterdir())):
        raise UserError(f'{args.out} is not empty; choose another --out')
    from medssl_mm.encoders.export import export_encoder

    plain = export_encoder(
        args.encoder, args.to, args.out, args.config, args.which, args.decorrelation
    )
    print(f'network: {plain.name} of {plain.library}')
    print(f'written: {args.out}; read its README.md')


if __name__ == '__main__':
    run_tool(main)
