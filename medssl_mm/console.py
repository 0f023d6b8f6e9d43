"""Where tables are printed."""

import sys


def wide_console():
    """Return a rich console: as wide as the terminal, or 140 in a pipe.

    In files and pipes rich assumes 80 columns, which breaks up the names of
    checkpoints.
    """
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)
