#!/usr/bin/env python
r"""Cut a pretraining checkpoint down to what a downstream network needs.

With --from it reads weights of other projects as well, and with --to gives them
the names of another library. All of a file is used, or listed as dropped; what
is missing or left over is an error, as is an option that the source cannot use.

Without --from the result holds the backbone, and the decorrelation in the form
chosen by --decorrelation: dropped, or folded into a 1x1 convolution after the
backbone (into the convolution before it where it stands inside the backbone).

Example:
  python tools/convert_checkpoint.py work_dirs/pretrain/epoch_200.pth \
      --out backbone.pth --decorrelation fold
  python tools/convert_checkpoint.py --list
  python tools/convert_checkpoint.py moco_v2_800ep_pretrain.pth.tar \
      --from moco-v2 --to mmpretrain --out moco-v2.pth
"""

from pathlib import Path

from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool
from medssl_mm.files import whole_file


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('checkpoint', type=Path, nargs='?')
    parser.add_argument('--out', type=Path, help='file to write; must not exist')
    parser.add_argument(
        '--from', dest='source', metavar='SOURCE', help='what the file is, see --list'
    )
    parser.add_argument(
        '--to',
        dest='target',
        metavar='TARGET',
        help='with --from: torchvision, timm, mmpretrain (default) or mmseg',
    )
    parser.add_argument(
        '--list', action='store_true', help='list the sources and their networks'
    )
    parser.add_argument(
        '--decorrelation',
        choices=('drop', 'fold'),
        default='drop',
        help='of a pretraining of this package; default: drop',
    )
    parser.add_argument(
        '--config',
        type=Path,
        help='with --decorrelation fold: config of the pretraining (default: the one '
        'saved in the checkpoint)',
    )
    parser.add_argument(
        '--encoder',
        choices=('online', 'target'),
        help='of a source that has both: the one that learns, or its slow copy '
        '(default: target for BYOL, else online)',
    )
    args = parser.parse_args()
    if not args.list and not (args.checkpoint and args.out):
        parser.error('give a checkpoint and --out, or --list')
    if args.target and not args.source:
        parser.error('--to needs --from SOURCE: what the file is, see --list')
    return args


def list_sources():
    """Print what can be read, of which networks, and for whom."""
    from medssl_mm.converters import ARCHITECTURES, SOURCES, TARGETS

    print('sources (--from):')
    for name, source in SOURCES.items():
        print(f'  {name:<20}{source.title}\n{"":<22}{", ".join(source.architectures)}')
    print('targets (--to):')
    for target in TARGETS:
        able = [
            name
            for name, architecture in ARCHITECTURES.items()
            if target in architecture.twins or target.startswith('mm')
        ]
        print(f'  {target:<20}{", ".join(able)}')


def read_state_dict(args):
    """Return what the checkpoint holds, and its tensors."""
    from medssl_mm.engine.pretrained import find_state_dict, read_checkpoint

    checkpoint = read_checkpoint(args.checkpoint)
    return checkpoint, find_state_dict(checkpoint, str(args.checkpoint))


def folds(args):
    """Whether the decorrelation of a pretraining is to be kept."""
    from medssl_mm.converters import SOURCES

    source = SOURCES.get(args.source or 'medssl_mm')
    return args.decorrelation == 'fold' and bool(source and source.pretraining)


def read_decorrelation(args):
    """Return the tensors of a checkpoint, and its decorrelation as a map."""
    from medssl_mm.converters import config_of, trained_transform

    checkpoint, state_dict = read_state_dict(args)
    settings = config_of(checkpoint, args.checkpoint, args.config).get('model', {})
    return state_dict, trained_transform(
        settings.get('decorrelation'), state_dict, args.encoder
    )


def convert_source(args, transform):
    """Return the tensors of a file of a named source, and what was done."""
    from medssl_mm.converters import (
        ARCHITECTURES,
        SOURCES,
        backbone_settings,
        convert,
        grouped,
        named_for,
        neck_settings,
    )
    from medssl_mm.converters.decorrelation import FOLDED

    converted = convert(
        args.checkpoint, args.source, args.encoder, args.decorrelation, transform
    )
    target = args.target or 'mmpretrain'
    tensors = named_for(converted, target)
    notes = [
        f'{args.source}: {converted.architecture}, {len(tensors)} tensors',
        *converted.notes,
        f'dropped: {grouped(converted.dropped) or "nothing"}',
    ]
    if target in ('torchvision', 'timm'):
        twin = ARCHITECTURES[converted.architecture].twins[target]
        notes.append(f'network: {twin} of {target}')
        if SOURCES[args.source].padding and 'resnet' in twin:
            notes.append(
                'note: it was trained with the padding of TensorFlow, which this '
                'network lacks; the one of --to mmpretrain has it'
            )
        return tensors, notes
    strict, compat = (backbone_settings(converted, m) for m in ('strict', 'compat'))
    notes.append(f'backbone: {strict}')
    folded = tensors.get(f'{FOLDED}bias')
    if folded is not None:
        notes.append(f'neck: {neck_settings(len(folded), str(args.out))}')
    if compat != strict:
        notes.append(f"backbone with torch's padding: {compat}")
    return dict(state_dict=tensors), notes


def seen_in_source(args):
    """What the weights have seen that are converted."""
    from medssl_mm.engine.seen import seen_in_file
    from medssl_mm.provenance import Seen

    try:
        return seen_in_file(args.checkpoint)
    except UserError:  # of a library that torch does not read
        return Seen(unknown=(args.checkpoint.name,))


def main():
    """Convert one checkpoint."""
    args = parse_args()
    if args.list:
        list_sources()
        return
    if args.out.exists():
        raise UserError(f'{args.out} exists; choose another --out')
    import torch

    from medssl_mm.converters import export_backbone
    from medssl_mm.engine.checkpoints import require_finite
    from medssl_mm.provenance import attach

    if args.config and not folds(args):
        raise UserError(
            f'--config {args.config} has no meaning here: it is read for '
            '--decorrelation fold of a pretraining of this package; leave it out'
        )
    if folds(args):
        state_dict, transform = read_decorrelation(args)
    else:
        state_dict, transform = None, None
    if args.source:
        content, notes = convert_source(args, transform)
    else:
        state_dict = state_dict or read_state_dict(args)[1]
        try:
            tensors, notes = export_backbone(
                state_dict, args.decorrelation, transform, args.encoder
            )
        except ValueError as error:
            raise UserError(f'{args.checkpoint}: {error}') from error
        require_finite(tensors, str(args.checkpoint))
        content = dict(state_dict=tensors)
    seen = seen_in_source(args)
    content = attach(content, seen)
    notes += seen.words()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(args.out) as temporary:
        torch.save(content, temporary)
    print('\n'.join(notes))
    print(f'written: {args.out}')


if __name__ == '__main__':
    run_tool(main)
