"""Errors whose message is meant for the person at the keyboard."""

import difflib
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# Exit code of a training that was told to end and can go on (EX_TEMPFAIL of
# sysexits.h: try again later).
EXIT_PREEMPTED = 75
# Environment variable with the command line that started a run, where it is not that
# of the process; for messages that say how to go on.
COMMAND = 'MEDSSL_COMMAND'


# What tells a training to end, besides Ctrl-C.
END_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


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
    """Run the ``main`` function of a tool; every error ends in one line.

    User errors have exit code 2. Others, which are bugs or nobody has thought of,
    have 1, and their traceback is in a file that the line names.

    Args:
        main (Callable): Takes no argument; its return value is ignored.
    """
    try:
        main()
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        # The reader of our output (head, less) went away; nothing is wrong.
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        if any(isinstance(one, KeyboardInterrupt) for one in _chain(error)):
            _interrupted()  # inside what makes another error of it
        name, message = _cause(error)
        if name == UserError.__name__:
            print(f'error: {message}', file=sys.stderr)
            sys.exit(2)
        print(f'error: {_one_line(error, name, message)}', file=sys.stderr)
        sys.exit(1)


@contextmanager
def nothing_to_save() -> Iterator[None]:
    """Let a signal end a run that has not begun yet, as one that can begin again."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread
        return
    former = {number: signal.signal(number, leave_unbegun) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def leave_unbegun(number: int, frame: FrameType | None = None) -> NoReturn:
    """End a run that has not begun yet; a handler of signals.

    Raises:
        SystemExit: With ``EXIT_PREEMPTED``.
    """
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        line = (
            f'{signal.Signals(number).name}: ended before the run began; nothing is '
            'lost, the same command starts it\n'
        )
        os.write(2, line.encode())  # not by print: this may be inside another one
    sys.exit(EXIT_PREEMPTED)


def _interrupted() -> NoReturn:
    print('interrupted', file=sys.stderr)
    sys.exit(130)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = list[BaseException]()
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _cause(error: Exception) -> tuple[str, str]:
    """Kind and message of an error, of one in a worker process those it had there."""
    text = str(error)
    name = 'UserError' if isinstance(error, UserError) else type(error).__name__
    wrapped = re.match(r'Caught (\w+) in [^\n]+\nOriginal Traceback', text)
    if wrapped is None:
        return name, text
    # Torch puts the traceback of the worker into the message; what the worker
    # raised is the last thing that it says.
    raised = list(re.finditer(rf'^(?:\w+\.)*{wrapped[1]}(?:: |$)', text, re.M))
    if raised:
        text = text[raised[-1].end() :].strip()
    return (name if name == 'UserError' else wrapped[1]), text


def _one_line(error: Exception, name: str, message: str) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    where = _keep_traceback(error)
    if 'BrokenExecutor' in kinds:
        return (
            'a worker process ended abruptly, most likely killed for lack of memory: '
            f'use fewer workers, and run the same command again ({where})'
        )
    if 'MemoryError' in kinds or 'OutOfMemoryError' in kinds:
        said = ' '.join(message.split())[:200]
        return (
            f'out of memory: {said or name}; lower the batch size or the number of '
            f'workers ({where})'
        )
    if isinstance(error, OSError) and error.strerror:
        file = f'{error.filename}: ' if error.filename else ''
        return f'{file}{error.strerror} ({where})'
    said = ' '.join(message.split())
    said = said[:300] + '...' * (len(said) > 300)
    return f'unexpected {name}: {said} ({where}; please report it)'


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a file of its own; say where, or show it."""
    text = ''.join(traceback.format_exception(error))
    tool = re.sub(r'\W+', '-', os.path.basename(sys.argv[0] or 'tool'))
    try:
        handle, path = tempfile.mkstemp('.log', f'medssl_mm-{tool}-')
        with open(handle, 'w', encoding='utf-8', errors='backslashreplace') as file:
            file.write(f'{sys.argv}\n{text}')
    except OSError:
        print(text, file=sys.stderr)
        return 'the traceback is above'
    return f'traceback: {path}'
