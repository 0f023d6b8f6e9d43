"""What the command lines of the tools have in common; imports nothing heavy."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

__all__ = ['add_config_options', 'tool_parser']


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
