"""What the benchmark tools share: taking turns, the machine, the report."""

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from medssl_mm import cores
from medssl_mm.errors import UserError
from medssl_mm.files import write_whole

__all__ = [
    'machine',
    'median_ratio',
    'print_machine',
    'print_rows',
    'rates_in_turns',
    'times_in_turns',
    'use_device',
    'write_report',
]

# Names of /proc/cpuinfo for bfloat16 instructions on x86-64 and Arm.
BF16 = {'avx512_bf16', 'amx_bf16', 'avx_ne_convert', 'bf16', 'svebf16'}


def use_device(device: str, threads: int | None = None) -> None:
    """Prepare torch for a benchmark.

    Args:
        device: 'cpu' or 'cuda'.
        threads: Threads on the CPU; None leaves them as torch has them.

    Raises:
        UserError: When a GPU is asked for and there is none.
    """
    import torch

    if device != 'cpu' and not torch.cuda.is_available():
        raise UserError(
            f'--device {device} was asked for, but torch sees no GPU; leave '
            '--device out.'
        )
    if threads:
        torch.set_num_threads(threads)


def times_in_turns(
    functions: Mapping[object, Callable[[], object]],
    rounds: int,
    burst: int = 1,
    warm_up: int = 1,
    device: str = 'cpu',
) -> dict[object, list[float]]:
    """Time functions that take turns, so that a busy moment hits all alike.

    Args:
        functions: By name.
        rounds: Measured rounds; another function goes first in each.
        burst: Calls of one function per round.
        warm_up: Calls of each function before.
        device: Where they compute; a GPU is waited for.

    Returns:
        dict: Seconds of one call, by name, one number per round: divide the
        numbers of the same round by each other.
    """
    from rich.progress import track

    names = list(functions)
    times: dict[object, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(warm_up):
            functions[name]()
    for index in track(
        range(rounds), description='rounds', transient=True, disable=len(names) == 1
    ):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            _synchronize(device)
            start = time.perf_counter()
            for _ in range(burst):
                functions[name]()
            _synchronize(device)
            times[name].append((time.perf_counter() - start) / burst)
    return times


def rates_in_turns(
    functions: Mapping[str, Callable[[int], object]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Count calls per second of functions that take turns.

    Args:
        functions: By name; called with the number of the call, from 0 in every
            turn.
        rounds: Number of turns of each.
        seconds: Length of a turn.

    Returns:
        dict: Calls per second, by name, one number per round.
    """
    rates: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            number, start = 0, time.perf_counter()
            while (spent := time.perf_counter() - start) < seconds:
                function(number)
                number += 1
            rates[name].append(number / spent)
    return rates


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Return the median, over the rounds, of one time by the other's.

    Args:
        seconds: Times of one function.
        others: Times of another one, of the same rounds.
    """
    return statistics.median(a / b for a, b in zip(seconds, others))


def machine(device: str = 'cpu') -> dict:
    """Describe what a benchmark ran on.

    Returns:
        dict: ``bf16`` lists the processor's instructions for that format, on
        which every ratio that involves it depends; empty where there are
        none, or where the system does not say.
    """
    import torch

    cpu, flags = cores.processor()
    gpu = None if device == 'cpu' else torch.cuda.get_device_name()
    return dict(
        torch=torch.__version__,
        cpu=cpu,
        bf16=sorted(flags & BF16),
        threads=torch.get_num_threads(),
        gpu=gpu,
        device=gpu or 'cpu',
    )


def print_machine(machine: Mapping) -> None:
    """Print what ``machine`` returned, in a line."""
    from rich.console import Console

    bf16 = ', '.join(machine['bf16']) or 'none'
    gpu = f'{machine["gpu"]}, ' if machine['gpu'] else ''
    Console().print(
        f'measured on {gpu}{machine["cpu"]}, bf16 instructions: {bf16}, '
        f'{machine["threads"]} thread(s), torch {machine["torch"]}',
        highlight=False,
    )


def print_rows(title: str, rows: Sequence[Mapping]) -> None:
    """Print rows of equal keys as a table.

    Args:
        title: Above the table.
        rows: Column to value.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    for name in rows[0]:
        table.add_column(name.replace('_', ' '), justify='right')
    for row in rows:
        table.add_row(
            *(
                Text(f'{value:.3g}' if isinstance(value, float) else str(value))
                for value in row.values()
            )
        )
    Console().print(table)


def write_report(path: str | Path | None, report: Mapping) -> None:
    """Write a report as JSON, complete or not at all, and say so.

    Args:
        path: None writes nothing.
        report: Numbers, texts, lists, mappings; paths become texts.
    """
    if path is None:
        return
    write_whole(Path(path), json.dumps(report, indent=2, default=str))
    print(f'written to {path}')


def _synchronize(device: str) -> None:
    if device != 'cpu':
        import torch

        torch.cuda.synchronize()
