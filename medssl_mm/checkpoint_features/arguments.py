"""Options that tools over features of checkpoints share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError

from .weights import Weights, parse_weights

if TYPE_CHECKING:
    from mmengine.config import Config
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from .extract import EncoderFeatures


def add_weights_arguments(parser: ArgumentParser, needs_config: bool = True) -> None:
    """Add config, checkpoints and baseline, of a tool that compares networks.

    Args:
        parser (ArgumentParser): Gets :func:`add_arguments`, too.
        needs_config (bool): Whether nothing else names the images. Defaults to
            True.
    """
    parser.add_argument(
        'config', nargs=None if needs_config else '?', help='classification config'
    )
    parser.add_argument(
        '--checkpoints',
        nargs='+',
        required=True,
        metavar='NAME=PATH',
        help='pretraining, classification or segmentation checkpoints; or '
        'NAME=ENCODER, NAME=ENCODER:PATH: an encoder of configs/encoders',
    )
    parser.add_argument(
        '--baseline', metavar='NAME', help='compare the others with this one'
    )


def compared_weights(args: Namespace) -> list[Weights]:
    """Read what :func:`add_weights_arguments` added.

    A name may be given several times, for several seeds.

    Args:
        args (Namespace): Parsed.

    Raises:
        UserError: See :func:`medssl_mm.checkpoint_features.parse_weights`; or the
            baseline is none of the names.
    """
    checkpoints = parse_weights(args.checkpoints, several=True)
    names = list(dict.fromkeys(weights.name for weights in checkpoints))
    if args.baseline and args.baseline not in names:
        raise UserError(
            f'--baseline {args.baseline} is not one of the '
            f'checkpoints {", ".join(names)}'
        )
    return checkpoints


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options that tools over :class:`EncoderFeatures` share.

    Args:
        parser (ArgumentParser): Of a tool that writes results.
    """
    parser.add_argument(
        '--out',
        type=Path,
        help='folder to write to (default: work_dirs/<config>/<tool>)',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace the results in --out'
    )
    parser.add_argument(
        '--cache',
        type=Path,
        default=Path('work_dirs/features'),
        help='folder of the features (default: work_dirs/features)',
    )
    parser.add_argument(
        '--batch-size', type=int, help='images at a time (default: as in the config)'
    )
    parser.add_argument(
        '--num-workers',
        type=int,
        help='processes that load (default: as in the config)',
    )
    parser.add_argument('--device', default='cpu', help='default: cpu')
    parser.add_argument(
        '--allow-seen',
        action='store_true',
        help='score images all the same that a network was trained on or chosen by',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        default=[],
        metavar='KEY=VALUE',
        help='change the config',
    )


def check_arguments(args: Namespace, tool: str, results: Sequence[str]) -> None:
    """Check what :func:`add_arguments` added, and set ``args.out``.

    Args:
        args (Namespace): Parsed; has ``config``, too.
        tool (str): Name of the folder by default.
        results (Sequence[str]): Files that will be written, not to be there.

    Raises:
        UserError: When a number is out of range or a result is there.
    """
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError('--batch-size must be positive')
    if args.num_workers is not None and args.num_workers < 0:
        raise UserError('--num-workers must not be negative')
    args.out = args.out or Path('work_dirs', Path(args.config).stem, tool)
    for name in results:
        if (args.out / name).exists() and not args.overwrite:
            raise UserError(
                f'{args.out / name} exists; choose another --out or add --overwrite'
            )


def open_source(
    args: Namespace, bar: Progress, console: Console, config: Config | None = None
) -> EncoderFeatures:
    """Make the source of features that the arguments of a tool ask for.

    Args:
        args (Namespace): Checked by :func:`check_arguments`.
        bar (Progress): Gets a task per checkpoint and subset.
        console (Console): Gets the notes.
        config (Config, optional): Names the images. Defaults to None: that of the
            arguments.

    Raises:
        UserError: When the config is faulty or there is no such device.
    """
    # Late: `--help` must not wait for them.
    import torch

    from medssl_mm.engine import launch

    from .extract import EncoderFeatures
    from .images import ImageSubsets

    if args.device.startswith('cuda') and not torch.cuda.is_available():
        raise UserError(f'--device {args.device}: torch sees no GPU; leave it out')
    tasks: dict[str, TaskID] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    def note(text: str) -> None:
        console.print(f'note: {text}', highlight=False, markup=False, emoji=False)

    if config is None:
        config = launch.load_config(args.config, args.cfg_options)
    return EncoderFeatures(
        ImageSubsets(config, note),
        args.cache,
        args.device,
        args.batch_size,
        args.num_workers,
        progress=progress,
        note=note,
    )
