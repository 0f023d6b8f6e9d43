"""Collectives, the only ones of this package; with one process, no-ops.

Gradients follow this convention: every rank computes a loss, and the
gradients of the parameters are averaged over the ranks afterwards, as
``DistributedDataParallel`` does. ``gather_with_grad`` and ``mean_with_grad``
then give exactly the gradient that one process would compute on the joint
batch, both for a loss that every rank computes in full and for a loss whose
mean over the ranks is the loss of the batch. The plain collectives, which
return the gradient of the own rank only, lose a factor ``world_size``; pass
``full_gradient=False`` to reproduce results that were obtained so.
"""

import datetime
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .rank_progress import RankProgress

__all__ = [
    'barrier',
    'broadcast',
    'exchange',
    'failure_of',
    'follow_ranks',
    'gather',
    'gather_objects',
    'gather_with_grad',
    'is_main_process',
    'leave',
    'mean_with_grad',
    'note_progress',
    'rank',
    'reduce_mean',
    'shared_permutation',
    'world_size',
]

# Words of gloo, nccl and the store for a rank that is late, or gone.
_LATE = ('Timed out', 'timed out', 'timeout', 'Timeout')
_GONE = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe')
_progress: RankProgress | None = None


def world_size() -> int:
    """Return the number of processes of the run."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def rank() -> int:
    """Return the number of this process, from 0."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return 0


def is_main_process() -> bool:
    """Return whether this process is the one that writes files and logs."""
    return rank() == 0


def gather_with_grad(local: Tensor, full_gradient: bool = True) -> Tensor:
    """Concatenate the tensors of all ranks; gradients flow to every rank.

    Args:
        local (Tensor): The part of this rank; the same shape on all ranks.
        full_gradient (bool): Sum the gradients of all ranks in the backward
            pass. Defaults to True.

    Shape: ``(N, ...)`` to ``(world_size * N, ...)``, in the order of ranks.
    """
    if world_size() == 1:
        return local
    return _GatherWithGrad.apply(local, full_gradient)


def mean_with_grad(local: Tensor, full_gradient: bool = True) -> Tensor:
    """Average a tensor over the ranks; gradients flow to every rank.

    Args:
        local (Tensor): The part of this rank; the same shape on all ranks.
        full_gradient (bool): Sum the gradients of all ranks in the backward
            pass. Defaults to True.

    Shape: any, kept.
    """
    if world_size() == 1:
        return local
    return _MeanWithGrad.apply(local, full_gradient)


@torch.no_grad()
def gather(local: Tensor) -> Tensor:
    """Concatenate the tensors of all ranks, without gradient.

    Shape: ``(N, ...)`` to ``(world_size * N, ...)``, in the order of ranks.
    """
    if world_size() == 1:
        return local.detach()
    return _all_gather(local)


@torch.no_grad()
def exchange(local: Tensor, order: Tensor) -> Tensor:
    """Deal the rows of all ranks out anew, without gradient.

    Row ``i`` of the joint batch, ranks in their order, becomes what row
    ``order[i]`` was. ``exchange(exchange(x, order), order.argsort())`` is
    ``x``. A rank gets its own share only, so that the memory does not grow
    with the number of ranks as that of :func:`gather` does.

    Args:
        local (Tensor): The part of this rank; the same shape on all ranks.
        order (Tensor): A permutation of ``world_size * N``, the same on all
            ranks, as of :func:`shared_permutation`.

    Shape: ``(N, ...)``, kept.
    """
    local = local.detach()
    ranks, here, size = world_size(), rank(), len(local)
    wanted = order.to('cpu').view(ranks, size)  # by the rank that gets it
    if ranks == 1:
        return local[wanted[0].to(local.device)]
    owner = wanted // size
    leaving = [
        row[of == here] - here * size for row, of in zip(wanted, owner, strict=True)
    ]
    arriving = owner[here].bincount(minlength=ranks).tolist()
    sent = local[torch.cat(leaving).to(local.device)].contiguous()
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent, arriving, [len(rows) for rows in leaving])
    # They arrive by rank, and of one rank in the order that was asked for.
    place = owner[here].argsort(stable=True).argsort()
    return received[place.to(local.device)]


@torch.no_grad()
def reduce_mean(local: Tensor) -> Tensor:
    """Average a tensor over the ranks, without gradient; for logs."""
    if world_size() == 1:
        return local.detach()
    total = local.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def unify_buffers(module: nn.Module) -> None:
    """Give the floating buffers of a module their mean over the ranks.

    Each process normalises its own part of the batch, so its running statistics
    are its own; one model is evaluated and saved.
    """
    if world_size() == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(reduce_mean(buffer))


@torch.no_grad()
def broadcast(tensor: Tensor, source: int = 0) -> Tensor:
    """Return the tensor that rank ``source`` holds.

    Args:
        tensor (Tensor): The same shape and dtype on all ranks.
        source (int): The rank that is right. Defaults to 0.
    """
    if world_size() == 1:
        return tensor
    tensor = tensor.detach().clone().contiguous()
    dist.broadcast(tensor, source)
    return tensor


def shared_permutation(length: int, device: str | torch.device = 'cpu') -> Tensor:
    """Draw one random permutation, the same on all ranks.

    Every rank draws, so that the generators stay in step; rank 0 decides.

    Args:
        length (int): Number of items to permute.
        device (str | torch.device): Where it is drawn and returned.
            Defaults to 'cpu'.

    Shape: returns ``(length,)``, int64.
    """
    return broadcast(torch.randperm(length, device=device))


def gather_objects(item: Any) -> list[Any]:
    """Return the list of picklable objects of all ranks, in their order."""
    if world_size() == 1:
        return [item]
    items = [None] * world_size()
    dist.all_gather_object(items, item)
    return items


def barrier() -> None:
    """Wait until every rank has come here."""
    if world_size() > 1:
        dist.barrier()


def follow_ranks(timeout: float = 10) -> None:
    """Let every rank note how far it is, so that a late one can be named.

    Args:
        timeout (float): Seconds to wait for the notes. Defaults to 10.
    """
    global _progress
    if world_size() == 1:
        return
    store = dist.distributed_c10d._get_default_store().clone()
    store.set_timeout(datetime.timedelta(seconds=timeout))
    _progress = RankProgress(store, rank(), world_size())


def note_progress(place: str) -> None:
    """Note that this rank has come to a place; see :func:`follow_ranks`.

    Args:
        place (str): Words such as 'iteration 12'.
    """
    if _progress is not None:
        _progress.note(place)


def failure_of(error: RuntimeError) -> str | None:
    """Say in words why a collective failed, or None for other errors.

    Args:
        error (RuntimeError): What was raised.
    """
    text = str(error)
    if world_size() == 1 or _progress is None:
        return None
    if any(words in text for words in _GONE):
        return (
            f'rank {rank()} has lost the connection to another rank, which has ended: '
            'see its message; continue with --resume'
        )
    if any(words in text for words in _LATE):
        return (
            f'rank {rank()} has waited in vain for another rank: '
            f'{_progress.missing()}. If it was busy, allow more time by '
            'env_cfg.dist_cfg.timeout (seconds); continue with --resume'
        )
    return None


def leave() -> None:
    """Leave the process group, if there is one, at the end of a run."""
    global _progress
    if world_size() > 1:
        dist.barrier()
    if _progress is not None:
        _progress.end()
        _progress = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _all_gather(local: Tensor) -> Tensor:
    local = local.detach().contiguous()
    parts = [torch.empty_like(local) for _ in range(world_size())]
    dist.all_gather(parts, local)
    return torch.cat(parts)


def _all_reduce(tensor: Tensor) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, full_gradient: bool) -> Tensor:
        ctx.full_gradient = full_gradient
        ctx.size = len(local)
        return _all_gather(local)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.full_gradient:
            grad = _all_reduce(grad)
        own = rank() * ctx.size
        return grad[own : own + ctx.size], None


class _MeanWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor, full_gradient: bool) -> Tensor:
        ctx.full_gradient = full_gradient
        return _all_reduce(local) / world_size()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        if ctx.full_gradient:
            grad = _all_reduce(grad)
        return grad / world_size(), None
