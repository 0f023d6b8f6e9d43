"""The store of past keys that serve as negatives."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import gather, world_size


class KeyQueue(nn.Module):
    """First-in first-out store of L2-normalised keys.

    Method of `Momentum Contrast <https://arxiv.org/abs/1911.05722>`_, alg. 1.
    The buffers ``queue`` (one key per column) and ``queue_ptr`` have
    upstream's names and shapes, so that checkpoints can be exchanged. It
    starts with random directions.

    Args:
        queue_len (int): Number of keys kept.
        feat_dim (int): Length of a key. Defaults to 128.
        with_patients (bool): Whether it knows the patient of each key, in the buffer
            ``queue_patients``. Defaults to False.

    Raises:
        ValueError: When a size is not positive.
    """

    queue: Tensor
    queue_ptr: Tensor
    queue_patients: Tensor

    def __init__(
        self, queue_len: int, feat_dim: int = 128, with_patients: bool = False
    ) -> None:
        super().__init__()
        if queue_len < 1 or feat_dim < 1:
            raise ValueError(
                'queue_len and feat_dim must be positive, got '
                f'queue_len={queue_len}, feat_dim={feat_dim}'
            )
        self.queue_len = queue_len
        self.register_buffer(
            'queue', F.normalize(torch.randn(feat_dim, queue_len), dim=0)
        )
        self.register_buffer('queue_ptr', torch.zeros(1, dtype=torch.long))
        self.with_patients = with_patients
        if with_patients:  # 0: of nobody, as the random start
            self.register_buffer(
                'queue_patients', torch.zeros(queue_len, dtype=torch.long)
            )

    @property
    def rows(self) -> Tensor:
        """The keys as rows, ``(K, D)``, a view."""
        return self.queue.T

    def check_batch(self, batch_size: int) -> None:
        """Checks that whole batches fill the queue.

        Args:
            batch_size (int): Images per step over all processes.

        Raises:
            UserError: When the queue length is not a multiple of it.
        """
        if self.queue_len % batch_size == 0:
            return
        below = self.queue_len // batch_size * batch_size
        near = [str(n) for n in (below, below + batch_size) if n > 0]
        raise UserError(
            f'queue_len={self.queue_len} is not a multiple of the global '
            f'batch size {batch_size}; set queue_len={" or ".join(near)}, '
            'or, if this is the last, incomplete batch of an epoch, set '
            'drop_last=True in train_dataloader.'
        )

    def same_patient(self, patients: Tensor) -> Tensor:
        """Which keys are of the patient of a sample.

        Shape: patients ``(N,)``, numbers above 0. Returns ``(N, K)``, bool.
        """
        return patients[:, None] == self.queue_patients

    def chance_level(self, loss: Tensor, masked: Tensor | None = None) -> Tensor:
        """Loss of a guess among the own key and the negatives.

        Args:
            loss (Tensor): Whose dtype and device it gets.
            masked (Tensor, optional): Keys that are no negatives. Defaults to None.

        Shape: masked ``(N, K)``, bool. Returns a scalar.
        """
        if masked is None:
            return torch.full_like(loss.detach(), math.log(self.queue_len + 1))
        return (~masked).sum(1).to(loss.dtype).add(1).log().mean()

    @torch.no_grad()
    def enqueue(self, keys: Tensor, patients: Tensor | None = None) -> None:
        """Replaces the oldest keys by those of all processes.

        Shape: keys ``(N, D)``, N per process; patients ``(N,)``, where they are
            known, numbers above 0.
        """
        self.check_batch(len(keys) * world_size())
        keys = gather(keys)
        # Index arithmetic on the device: reading the pointer as a number
        # would make a GPU wait in every step.
        slots = torch.arange(len(keys), device=self.queue.device)
        slots = (slots + self.queue_ptr) % self.queue_len
        self.queue.index_copy_(1, slots, keys.T.to(self.queue.dtype))
        if self.with_patients:
            assert patients is not None, 'a queue of patients gets them with each key'
            self.queue_patients.index_copy_(0, slots, gather(patients))
        self.queue_ptr.add_(len(keys)).remainder_(self.queue_len)


def hoist_state(module: nn.Module, child: str) -> None:
    """Leaves a child's name out of the state dict of a module.

    The child's tensors are saved and loaded under the names that they would
    have as the module's own: how a part keeps the names of checkpoints
    written before it was a part.

    Args:
        module (nn.Module): The owner.
        child (str): Attribute name of the child.
    """
    module.register_state_dict_post_hook(partial(_hoist, child=child))
    module.register_load_state_dict_pre_hook(partial(_lower, child=child))


def _hoist(
    module: nn.Module, state_dict: dict, prefix: str, *_: Any, child: str
) -> None:
    old = f'{prefix}{child}.'
    for name in [name for name in state_dict if name.startswith(old)]:
        state_dict[prefix + name[len(old) :]] = state_dict.pop(name)


def _lower(
    module: nn.Module, state_dict: dict, prefix: str, *_: Any, child: str
) -> None:
    for name in getattr(module, child).state_dict():
        if prefix + name in state_dict:
            state_dict[f'{prefix}{child}.{name}'] = state_dict.pop(prefix + name)
