"""Errors whose message is meant for the person at the keyboard."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """A setting, file or installation that the user can put right.

    The message says what was expected, what was found, where, and what to do.
    Tools print it without a traceback.
    """


class InstallError(UserError):
    """A package is missing, doubled or of the wrong version.

    Not an ``ImportError`` on purpose: mmengine's registries swallow those.
    """


def similar(name: str, names: Iterable[str]) -> str:
    """Say which of some names was probably meant, or what there is.

    Args:
        name (str): What was given.
        names (Iterable[str]): What would have been right.

    Returns:
        str: ``; did you mean X?``, ``; there are: X, Y``, or nothing.
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, 1, 0.5)
    if close:
        return f'; did you mean {close[0]}?'
    return f'; there are: {", ".join(sorted(names))}' if names else ''


def run_tool(main: Callable[[], object]) -> None:
    """Run the ``main`` function of a tool and turn user errors into exit 2.

    Args:
        main (Callable): Takes no argument; its return value is ignored.
    """
    for stream in (sys.stdout, sys.stderr):
        # Names need not be text, nor a terminal know all letters.
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')
    try:
        main()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) went away; nothing is wrong.
        sys.stderr.close()
        sys.exit(141)
