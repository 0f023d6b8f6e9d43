"""Mixed precision on GPUs and CPUs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from medssl_mm.registry import OPTIM_WRAPPERS

_DTYPES = ('bfloat16', 'float16')


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Runs the forward pass under autocast, on the device of the model.

    bfloat16 works on CPUs and GPUs and needs no loss scaling. float16 works
    on GPUs, with dynamic loss scaling. Gradient accumulation and clipping are
    those of mmengine's ``OptimWrapper``.

    Args:
        dtype (str): ``bfloat16`` or ``float16``. Defaults to 'bfloat16'.
        initial_scale (float): First loss scale, float16 only. Defaults to
            65536.
        **kwargs: For mmengine's ``OptimWrapper``.

    Raises:
        ValueError: Unknown dtype, or float16 without a GPU.
    """

    def __init__(
        self, dtype: str = 'bfloat16', initial_scale: float = 2.0**16, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if dtype not in _DTYPES:
            raise ValueError(
                f'dtype must be one of {", ".join(_DTYPES)}, got {dtype!r}'
            )
        if dtype == 'float16' and not torch.cuda.is_available():
            raise ValueError(
                "dtype='float16' needs a CUDA device and none was found; on "
                "a CPU use dtype='bfloat16' (--amp bfloat16)"
            )
        self.dtype = getattr(torch, dtype)
        self.loss_scaler = torch.amp.GradScaler(
            'cuda', init_scale=initial_scale, enabled=dtype == 'float16'
        )

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Open the autocast region of one forward pass."""
        device_type = next(model.parameters()).device.type
        autocast = torch.autocast(device_type, dtype=self.dtype)
        with super().optim_context(model), autocast:
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Back-propagate the scaled loss."""
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Update the parameters unless a float16 gradient overflowed."""
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state with that of the loss scaler."""
        state = super().state_dict()
        state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state, also one saved without a loss scaler."""
        state_dict = dict(state_dict)
        scaler = state_dict.pop('loss_scaler', None)
        if scaler and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(scaler)
        super().load_state_dict(state_dict)
