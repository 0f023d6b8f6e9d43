"""The precision in which losses and statistics are computed."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Bring reduced precision to float32; float64 stays as it is.

    Shape: any, kept.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))
