"""torchrun for trainings that are told to end: python -m medssl_mm.compat.torchrun.

torchrun answers a signal by one of its own to its processes and kills them 30 s
later, whatever they are doing; it knows nothing of SIGUSR1; and its exit code is 1,
whatever theirs are. Here the processes get the signal itself and as much time as
whoever sent it gives, and the code that all of them end with is that of the run.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from medssl_mm.errors import (
    END_SIGNALS,
    EXIT_PREEMPTED,
    leave_unbegun,
    nothing_to_save,
)

__all__ = ['main']

_PASSED_ON = (signal.SIGINT, *END_SIGNALS)


def _pass_on(number: int, frame: FrameType | None) -> None:
    lists = Path('/proc/self/task').glob('*/children')
    processes = [int(word) for text in lists for word in text.read_text().split()]
    for process in processes:
        os.kill(process, number)
    if not processes:  # none is started yet
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        leave_unbegun(number, frame)


def main() -> int:
    """Run torchrun by the command line and return the exit code."""
    with nothing_to_save():  # importing torch takes seconds
        from torch.distributed import run as torchrun
        from torch.distributed.elastic.multiprocessing import api
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    answer = api._terminate_process_handler

    def handle(signum: int, frame: FrameType | None) -> None:
        (_pass_on if signum in _PASSED_ON else answer)(signum, frame)

    # torchrun registers it when it starts the processes; not for SIGUSR1.
    api._terminate_process_handler = handle
    for number in _PASSED_ON:
        signal.signal(number, handle)
    try:
        torchrun.main()
    except ChildFailedError as error:
        # Those that end a moment later are killed, so the first one counts.
        if error.get_first_failure()[1].exitcode != EXIT_PREEMPTED:
            raise
        return EXIT_PREEMPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())
