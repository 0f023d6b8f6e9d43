#!/usr/bin/env python
r"""Cut a pretraining checkpoint down to what a downstream network needs.

The result holds the backbone, and the decorrelation in the form chosen by
--decorrelation: dropped, or folded into a 1x1 convolution after the backbone
(into the convolution before it where it stands inside the backbone).

Example:
  python tools/convert_checkpoint.py work_dirs/pretrain/epoch_200.pth \
      --out backbone.pth --decorrelation fold
"""

import argparse
from pathlib import Path

from medssl_mm.errors import UserError, run_tool
from medssl_mm.files import whole_file


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument(
        '--out', type=Path, required=True, help='file to write; must not exist'
    )
    parser.add_argument(
        '--decorrelation',
        choices=('drop', 'fold'),
        default='drop',
        help='default: drop',
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='config of the pretraining (default: the one saved in the checkpoint)',
    )
    parser.add_argument(
        '--encoder',
        choices=('online', 'target'),
        help='the one that learns, or its slow copy (default: target for BYOL, '
        'else online)',
    )
    return parser.parse_args()


def trained_transform(settings, state_dict, prefix):
    """Weight and bias of the decorrelation of a checkpoint, if it has one."""
    from medssl_mm.registry import MODELS

    own = {
        name.removeprefix(prefix): value
        for name, value in state_dict.items()
        if name.startswith(prefix)
    }
    if not own:
        return None
    if not settings:
        raise UserError(
            'the config has no model.decorrelation, but the '
            'checkpoint holds one; give its own --config'
        )
    settings = dict(settings)
    # It may have been left to the algorithm.
    settings.setdefault('num_channels', own['running_mean'].numel())
    head = MODELS.build(settings).eval()
    try:
        head.load_state_dict(own)
    except RuntimeError as error:
        raise UserError(
            f'model.decorrelation of the config is not that of the checkpoint: {error}'
        ) from error
    return head.dense_transform()


def read_settings(args, checkpoint):
    """Return the decorrelation settings of the run."""
    from medssl_mm.converters import parse_config_text
    from medssl_mm.engine import launch

    if args.config:
        return launch.load_config(str(args.config)).model.get('decorrelation')
    text = checkpoint.get('meta', {}).get('cfg')
    if not text:
        raise UserError(f'{args.checkpoint} holds no config; give --config')
    try:
        config = parse_config_text(text)
    except ValueError as error:
        raise UserError(f'{args.checkpoint}: {error}') from error
    return config.get('model', {}).get('decorrelation')


def main():
    """Convert one checkpoint."""
    args = parse_args()
    if args.out.exists():
        raise UserError(f'{args.out} exists; choose another --out')
    import torch

    from medssl_mm.converters import export_backbone, prefixes_of
    from medssl_mm.engine.pretrained import find_state_dict, read_checkpoint

    checkpoint = read_checkpoint(args.checkpoint)
    state_dict = find_state_dict(checkpoint, str(args.checkpoint))
    transform = None
    if args.decorrelation == 'fold':
        transform = trained_transform(
            read_settings(args, checkpoint),
            state_dict,
            prefixes_of(state_dict, args.encoder)[1],
        )
    try:
        tensors, notes = export_backbone(
            state_dict, args.decorrelation, transform, args.encoder
        )
    except ValueError as error:
        raise UserError(f'{args.checkpoint}: {error}') from error
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out) as temporary:
        torch.save(dict(state_dict=tensors), temporary)
    print('\n'.join(notes))
    print(f'written: {args.out}')


if __name__ == '__main__':
    run_tool(main)
