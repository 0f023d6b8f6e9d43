"""The cores a process may use, and their division among processes.

A job that shares the machine is told its part in ``LOKY_MAX_CPU_COUNT``: joblib
obeys it too, so that pools inside the job stay within the part.
"""

import os
import platform
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    'available',
    'job_environment',
    'processor',
    'thread_environment',
    'workers_within',
]

_PART = 'LOKY_MAX_CPU_COUNT'


def available() -> int:
    """Count the cores this process may use.

    Affinity (``taskset``, Slurm), the limit of a container and the part given
    to a job are obeyed.
    """
    # Late: it takes longer than all else that a tool needs to show its help.
    import joblib

    return joblib.cpu_count()


def processor() -> tuple[str, frozenset[str]]:
    """Name of the processor, and its instruction sets as the system calls them.

    Returns:
        tuple: The set is empty where the system does not say.
    """
    name, flags = platform.processor() or platform.machine(), set[str]()
    info = Path('/proc/cpuinfo')
    for line in info.read_text().splitlines() if info.exists() else ():
        key, _, value = line.partition(':')
        if key.strip() == 'model name':
            name = value.strip()
        elif key.strip() in ('flags', 'Features'):  # x86-64, Arm
            flags.update(value.split())
    return name, frozenset(flags)


def thread_environment(
    processes: int, cores: int, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Thread counts for processes that share cores.

    Args:
        processes (int): How many share them.
        cores (int): What they share.
        environment (Mapping, optional): What the user has set, which stays.
            Defaults to that of this process.

    Returns:
        dict[str, str]: ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS``.
    """
    environment = os.environ if environment is None else environment
    threads = str(max(1, cores // max(1, processes)))
    threads = environment.get('OMP_NUM_THREADS') or threads
    return {
        'OMP_NUM_THREADS': threads,
        'MKL_NUM_THREADS': environment.get('MKL_NUM_THREADS') or threads,
    }


def job_environment(
    jobs: int, number: int = 0, processes: int = 1, cores: int | None = None
) -> dict[str, str]:
    """Environment of one of several jobs that run at the same time.

    Args:
        jobs (int): How many share the cores. One gets them all, and its
            environment stays as it is.
        number (int): Which one, from 0; cores left over go to the first.
            Defaults to 0.
        processes (int): Processes of the job that compute, which share its
            part. Defaults to 1.
        cores (int, optional): What they share. Defaults to what this process
            may use.

    Returns:
        dict[str, str]: To be added to that of this process.
    """
    if jobs == 1:
        return {}
    cores = cores or available()
    part = max(1, cores // jobs + (number < cores % jobs))
    return {_PART: str(part), **thread_environment(processes, part)}


def workers_within(wanted: int) -> int:
    """Limit the loader's workers of a job to its part of the cores.

    Without a part the wish stays: workers that wait for a disk may well be
    more than the cores.

    Args:
        wanted (int): Number of workers of one process of the job.
    """
    if not os.environ.get(_PART):
        return wanted
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    return min(wanted, max(1, available() // processes))
