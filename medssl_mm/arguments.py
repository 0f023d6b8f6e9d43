"""What the command lines of the tools have in common; imports nothing heavy."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Any

from medssl_mm.errors import UserError

__all__ = [
    'add_config_options',
    'add_sample_arguments',
    'check_positive',
    'tool_parser',
]


def tool_parser(text: str | None, **settings: Any) -> ArgumentParser:
    """Make a parser that shows the text of a tool, its docstring, line by line.

    Args:
        text (str, optional): Shown above the options.
        **settings: Further ones of ``ArgumentParser``.
    """
    return ArgumentParser(
        description=text, formatter_class=RawDescriptionHelpFormatter, **settings
    )


def add_config_options(
    parser: ArgumentParser, about: str = 'change settings of the config'
) -> None:
    """Add ``--cfg-options KEY=VALUE ...``, which may be given several times."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help=about,
    )


def check_positive(args: Namespace, *names: str) -> None:
    """Refuse options that are 0 or less; those that are None were not given.

    Raises:
        UserError: Names the option.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and not value > 0:
            raise UserError(f'--{name.replace("_", "-")} must be positive')


def add_sample_arguments(parser: ArgumentParser) -> None:
    """Add the options of what is measured of pretrainings, and where."""
    parser.add_argument(
        '--subset',
        default='val',
        help='subset of the split of the pretraining data (default: val)',
    )
    parser.add_argument(
        '--num-samples', type=int, default=256, help='images (default: 256)'
    )
    parser.add_argument(
        '--positions',
        type=int,
        default=7,
        help='side of the grid of positions taken of a map (default: 7)',
    )
    parser.add_argument(
        '--stride',
        type=int,
        metavar='PIXELS',
        help='of the last map of all models (default: the smallest one among them)',
    )
    parser.add_argument(
        '--batch-size', type=int, default=32, help='images at once (default: 32)'
    )
    parser.add_argument('--device', default='cpu', help='default: cpu')
