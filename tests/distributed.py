"""Run a function in several gloo processes."""

import io
import multiprocessing
import os
import signal
import tempfile
import traceback
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

import torch

from medssl_mm.loaders import GROUP_SIGNALS
from tests.rounding import imitated_rounding
from tests.waiting import PATIENCE

_context = multiprocessing.get_context('forkserver')
_context.set_forkserver_preload(['tests.preload'])


def start_server():
    """Start what the processes come from, in the background, with its imports.

    The first server of this process serves its loaders, too.
    """
    forkserver.ensure_running()


def run_processes(function, world_size, *args, timeout=PATIENCE):
    """Call ``function(*args)`` in every process of a gloo group.

    Args:
        function (callable): Of module level, so that it can be pickled. It
            finds its rank by ``medssl_mm.functional.distributed.rank()``.
        world_size (int): Number of processes.
        *args: Picklable arguments, the same on all ranks.
        timeout (float): Seconds until the processes are given up.

    Returns:
        list: The results in the order of ranks; they may hold tensors.

    Raises:
        Exception: What the first failing rank raised, caused by an error with
            its rank and traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, 'store'))
        processes, receivers = [], {}
        for rank in range(world_size):
            receiver, sender = _context.Pipe(duplex=False)
            process = _context.Process(
                target=_run,
                args=(sender, store, rank, world_size, function) + (args,),
            )
            process.start()
            sender.close()
            processes.append(process)
            receivers[receiver] = rank
        try:
            return _collect(receivers, timeout)
        finally:
            for process in processes:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()


def run_alone(function, *args, timeout=PATIENCE):
    """Call ``function(*args)`` in a fresh process and return its exit code.

    For functions that do not come back, such as one that kills itself. It
    computes with the threads and the rounding of this process, bit for bit.
    """
    process = _context.Process(
        target=_run_quietly, args=(function, args, torch.get_num_threads())
    )
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f'{function.__name__} took over {timeout} s')
    return process.exitcode


def _collect(receivers, timeout):
    results = {}
    waiting = dict(receivers)
    while waiting:
        ready = wait(list(waiting), timeout)
        if not ready:
            raise TimeoutError(
                f'ranks {sorted(waiting.values())} gave no result in {timeout} s'
            )
        for receiver in ready:
            rank = waiting.pop(receiver)
            try:
                content = receiver.recv_bytes()
            except EOFError:
                raise RuntimeError(f'rank {rank} died') from None
            ok, value, text = torch.load(io.BytesIO(content), weights_only=False)
            if not ok:
                raise value from RuntimeError(f'on rank {rank}:\n{text}')
            results[rank] = value
    return [results[rank] for rank in sorted(results)]


def _run(sender, store, rank, world_size, function, args):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    # On a machine with fewer GPUs than ranks mmengine's logger looks for a missing one.
    os.environ['CUDA_VISIBLE_DEVICES'] = ''
    _heed_signals()
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            'gloo',
            init_method=f'file://{store}',
            rank=rank,
            world_size=world_size,
        )
        with imitated_rounding():
            outcome = (True, function(*args), '')
    except BaseException as error:
        outcome = (False, error, traceback.format_exc())
    buffer = io.BytesIO()
    try:
        torch.save(outcome, buffer)
    except Exception:
        buffer = io.BytesIO()
        text = outcome[2] or repr(outcome[1])
        torch.save((False, RuntimeError(text), text), buffer)
    sender.send_bytes(buffer.getvalue())
    sender.close()
    if outcome[0]:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def _heed_signals():
    """Undo what a fork server of loaders hands on, if it was the first to start."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


def _run_quietly(function, args, threads):
    _heed_signals()
    torch.set_num_threads(threads)
    with imitated_rounding():
        function(*args)
