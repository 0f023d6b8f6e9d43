"""Decorrelation as the released code does it: within the last residual block."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.precision import at_least_float32
from medssl_mm.functional.whitening import apply_whitening, whitening_matrix
from medssl_mm.registry import MODELS

BATCH_NORM_EPS = 1e-5


@MODELS.register_module()
class ReleaseDecorrelation(BaseModule):
    """Iterative normalisation in place of the last normalisation of a ResNet.

    For ``decorrelation`` of an algorithm, where
    :class:`medssl_mm.models.heads.DecorrelationHead` stands otherwise. It
    replaces ``bn3`` of the last bottleneck of a ResNet-50 or deeper by
    :class:`IterNorm`: in front of the residual sum, whose result is
    correlated again. It has no parameters of its own and lets maps pass.

    Args:
        num_channels (int): Channels of the last map.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.
    """

    inside_backbone = True
    on_projection = False
    stage = None
    for_levels = True

    def __init__(self, num_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.num_channels = num_channels

    def forward(self, x: Tensor) -> Tensor:
        """Return the map as it is."""
        return x

    def attach(self, backbone: nn.Module) -> None:
        """Put the iterative normalisation in.

        Args:
            backbone (nn.Module): Changed in place.

        Raises:
            UserError: When the last block of layer4 is no bottleneck of
                ``num_channels``.
        """
        block = _last_block(backbone)
        norm = getattr(block, 'bn3', None)
        channels = getattr(norm, 'num_features', None)
        if channels != self.num_channels:
            raise UserError(
                'ReleaseDecorrelation replaces bn3 of the last '
                'bottleneck of layer4 (ResNet-50 or deeper), of '
                f'num_channels={self.num_channels}; found '
                f'{"none" if norm is None else f"one of {channels}"}'
            )
        # In a list, so that it is no part of the state dict.
        self._replaced = [norm]
        block.bn3 = IterNorm(channels)

    @contextlib.contextmanager
    def detached(self, backbone: nn.Module) -> Iterator[None]:
        """Put the replaced normalisation back for the time being.

        So that weights of an ordinary ResNet can be loaded.
        """
        block = _last_block(backbone)
        norm, block.bn3 = block.bn3, self._replaced[0]
        try:
            yield
        finally:
            block.bn3 = norm

    def dense_transform(self) -> tuple[Tensor, Tensor]:
        """Refuse: there is nothing after the backbone.

        Raises:
            UserError: Always; says what to use.
        """
        raise UserError(
            'a ReleaseDecorrelation sits in the backbone; use '
            'medssl_mm.converters.export_backbone'
        )

    def extra_repr(self) -> str:
        """Return the settings."""
        return str(self.num_channels)


class IterNorm(nn.Module):
    r"""Iterative normalisation with the settings of the published code.

    `Iterative Normalization <https://arxiv.org/abs/1904.03441>`_ of all
    channels together: 5 Newton steps, which whiten in part only, the
    statistics of each process for itself, an absolute ridge, and for
    evaluation a running average of the matrices. Names and shapes in the
    state dict are those of the published checkpoints.

    Args:
        num_features (int): Channels.
        eps (float): Ridge, in units of the variance. Defaults to 1e-5.
        momentum (float): Share of a new batch in the running averages.
            Defaults to 0.1.

    Shape: ``(N, C, H, W)`` -> the same.
    """

    running_mean: Tensor
    running_wm: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(1, num_features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_features, 1, 1))
        self.register_buffer('running_mean', torch.zeros(1, num_features, 1))
        self.register_buffer('running_wm', torch.eye(num_features)[None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise a map.

        Shape: ``(N, C, H, W)``, kept; float32 or float64.
        """
        with torch.autocast(x.device.type, enabled=False):
            mean, matrix = self.running_mean[0, :, 0], self.running_wm
            if self.training:
                rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # (NHW, C)
                rows = at_least_float32(rows)
                mean = rows.mean(0)
                centred = rows - mean
                ridge = self.eps * torch.eye(
                    len(mean), dtype=rows.dtype, device=x.device
                )
                covariance = centred.T @ centred / len(rows) + ridge
                matrix = whitening_matrix(covariance[None], 'iternorm', eps=0.0)
                with torch.no_grad():
                    self.running_mean.lerp_(
                        mean[None, :, None].to(self.running_mean), self.momentum
                    )
                    self.running_wm.lerp_(matrix.to(self.running_wm), self.momentum)
            y = apply_whitening(x, mean[None], matrix)
            return y * self.weight + self.bias

    def extra_repr(self) -> str:
        """Return the settings."""
        return f'{self.num_features}, eps={self.eps:g}'


def replace_iter_norm(tensors: dict[str, Tensor], norm: str, decorrelation: str) -> str:
    """Put batch normalisation in the place of iterative normalisation.

    Args:
        tensors (dict[str, Tensor]): Of a checkpoint; changed in place.
        norm (str): Name of the normalisation.
        decorrelation (str): 'drop', or 'fold' into the convolution before it.

    Returns:
        str: What was done, in words.
    """
    scale = tensors[f'{norm}.weight'].flatten()
    shift = tensors[f'{norm}.bias'].flatten()
    mean = tensors.pop(f'{norm}.running_mean').flatten()
    matrix = tensors.pop(f'{norm}.running_wm')[0]
    note = (
        f'{norm}: scale and shift kept, whitening dropped; its running '
        'statistics must be estimated anew'
    )
    if decorrelation == 'fold':
        before, _, last = norm.rpartition('.')
        conv = f'{before}.{last.replace("bn", "conv")}.weight'
        matrix = scale[:, None] * matrix
        shift = shift - matrix @ mean
        kernel = tensors[conv]
        tensors[conv] = torch.einsum('po,oikl->pikl', matrix.to(kernel.dtype), kernel)
        # Such that variance 1 and the eps of the normalisation cancel.
        scale = torch.full_like(scale, (1 + BATCH_NORM_EPS) ** 0.5)
        note = f'{norm}: whitening folded into {conv}'
    tensors[f'{norm}.weight'] = scale
    tensors[f'{norm}.bias'] = shift
    tensors[f'{norm}.running_mean'] = torch.zeros_like(scale)
    tensors[f'{norm}.running_var'] = torch.ones_like(scale)
    tensors[f'{norm}.num_batches_tracked'] = torch.zeros((), dtype=torch.long)
    return note


def _last_block(backbone: nn.Module) -> Any:
    layer: Any = getattr(backbone, 'layer4', None)
    return layer[-1] if layer is not None else None
