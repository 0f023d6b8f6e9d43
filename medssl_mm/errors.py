"""Errors whose message is meant for the person at the keyboard."""

import sys


class UserError(ValueError):
    """A setting, file or installation that the user can put right.

    The message says what was expected, what was found, where, and what to do.
    Tools print it without a traceback.
    """


class InstallError(UserError):
    """A package is missing, doubled or of the wrong version.

    Not an ``ImportError`` on purpose: mmengine's registries swallow those.
    """


def run_tool(main):
    """Run the ``main`` function of a tool and turn user errors into exit 2.

    Args:
        main (callable): Takes no argument; its return value is ignored.
    """
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
