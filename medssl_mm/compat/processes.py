"""Processes of a distributed run: how they meet, and how they end."""

import ctypes
import gc
import logging
import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

from medssl_mm.errors import UserError

__all__ = ['COLLECTIVE_TIMEOUT', 'end_distributed_process', 'init_process_group']

# Seconds that ranks wait for one another, where a config says nothing.
COLLECTIVE_TIMEOUT = 600
_NEEDED = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


def init_process_group(
    launcher: str = 'pytorch', timeout: float = COLLECTIVE_TIMEOUT
) -> None:
    """Join the process group of a distributed run, with or without a GPU.

    The group is made before mmengine's Runner is built, which then leaves it
    alone. nccl is used when CUDA is there, gloo otherwise.

    Args:
        launcher (str): ``pytorch`` (torchrun's environment variables) or
            ``slurm`` (those of srun). Defaults to 'pytorch'.
        timeout (float): Seconds a collective may wait. Defaults to
            ``COLLECTIVE_TIMEOUT``.

    Raises:
        UserError: The launcher's environment variables are not set.
    """
    import torch.distributed as dist

    if launcher == 'slurm':
        _environment_from_slurm()
    elif launcher != 'pytorch':
        raise UserError(f'launcher must be pytorch or slurm, got {launcher!r}')
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables '
            f'{", ".join(missing)}, which are not set; start the run with '
            'tools/dist_train.sh CONFIG N (torchrun) or tools/slurm_train.sh'
        )
    if dist.is_initialized():
        return
    if launcher == 'pytorch':
        _die_with_parent()
    dist.init_process_group(timeout=timedelta(seconds=timeout), **_device_options())


def end_distributed_process(code: int = 0) -> None:
    """End a process that has left its group; on a single one, do nothing.

    Threads that torch leaves behind can abort the interpreter's teardown
    ('terminate called without an active exception', seen with gloo on a busy
    machine), and the launcher then reports a finished run as failed. So the
    teardown is left out, after what matters of it.

    Args:
        code (int): Exit code. Defaults to 0.
    """
    if int(os.environ.get('WORLD_SIZE', 1)) == 1:
        return
    gc.collect()  # data loaders end their workers
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _device_options() -> dict[str, Any]:
    """Take this process's GPU, if there are any, and choose the backend."""
    import torch

    if not torch.cuda.is_available():
        return dict(backend='gloo')
    local_rank = int(os.environ['LOCAL_RANK'])
    if local_rank >= torch.cuda.device_count():
        raise UserError(
            f'process {local_rank} of this node finds only '
            f'{torch.cuda.device_count()} GPU(s); start at most that '
            'many processes per node, or set CUDA_VISIBLE_DEVICES='
            ' (empty) to train on the CPU'
        )
    torch.cuda.set_device(local_rank)
    return dict(backend='nccl', device_id=torch.device('cuda', local_rank))


def _die_with_parent() -> None:
    """End this process when its launcher is killed.

    torchrun starts each process in a session of its own; without this they
    would train on, unseen, after a kill -9, into the folder that a resumed
    run is using. Linux only.
    """
    parent_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(parent_death_signal, signal.SIGKILL, 0, 0, 0)


def _environment_from_slurm() -> None:
    if 'SLURM_PROCID' not in os.environ:
        raise UserError(
            '--launcher slurm works inside srun only (SLURM_PROCID is not '
            'set); use tools/slurm_train.sh'
        )
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ['SLURM_NODELIST']
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostname', nodes],
            capture_output=True,
            text=True,
            check=True,
        )
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    # One port per job, so that two jobs can share a node.
    job = int(os.environ.get('SLURM_JOB_ID', 0))
    os.environ.setdefault('MASTER_PORT', str(20000 + job % 20000))
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']
