"""Decorrelation of a feature map between the backbone and what follows."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.errors import UserError
from medssl_mm.functional.whitening import (
    METHODS,
    apply_whitening,
    dense_transform,
    shuffled_channels,
    whiten_with_moments,
    whitening_matrix,
)
from medssl_mm.registry import MODELS

LAST, PROJECTION = 'last', 'projection'


def stage_of(place: str, last: int | None = None) -> int | None:
    """Number of the stage that a decorrelation follows.

    Args:
        place (str): 'last', 'projection', or 'after_stageN', N = 0 for the stem.
        last (int, optional): Number of the last stage. Defaults to None.

    Returns:
        int | None: ``last`` for 'last', None for 'projection'.

    Raises:
        UserError: Another place.
    """
    number = str(place).removeprefix('after_stage')
    if place == LAST:
        return last
    if place == PROJECTION:
        return None
    if number == place or not number.isdecimal():
        raise UserError(
            'DecorrelationHead: place must be one of "last", "projection" and '
            f'"after_stage0" (the stem), "after_stage1", ..., got {place!r}'
        )
    return int(number)


@MODELS.register_module()
class DecorrelationHead(BaseModule):
    r"""Whitens a feature map: decorrelated channels of unit variance.

    .. math:: y = W (x - m), \quad W S W^T = I

    with the mean m and the covariance S of each group of channels over batch
    and space. In training they are those of the batch of all processes, with
    gradient; in evaluation running moments, of which W is computed when it is
    needed. The running covariance is that of the mixture of the batches
    (``E[x x^T] - E[x] E[x]^T``), not an average of inverse roots.

    Method of `Overcoming Dimensional Collapse in Self-supervised Contrastive
    Learning for Medical Image Segmentation
    <https://arxiv.org/abs/2402.14611>`_. Differs from its published code, see
    :class:`medssl_mm.legacy.iter_norm.ReleaseDecorrelation`.

    What follows the backbone (neck and, unless ``for_levels`` is off, loss
    terms on this stage) gets the whitened map. The next stage of the backbone
    does not, so that it works downstream without this head; see
    :mod:`medssl_mm.converters`.

    With ``place='projection'`` it is the embedding that is whitened, over the images
    of the batch, before the loss (and BYOL's predictor) gets it, as in `Whitening
    for Self-Supervised Representation Learning <https://arxiv.org/abs/2007.06346>`_:
    groups of fewer channels than there are images. Nothing of it stays downstream.

    Args:
        num_channels (int): Channels of the map, or of the embedding.
        num_groups (int): Channel groups that are whitened apart from each
            other. Defaults to 1.
        method (str): One of ``medssl_mm.functional.whitening.METHODS``; on a
            GPU 'newton_schulz' gives what 'zca' gives and is faster. Defaults
            to 'zca'.
        eps (float): Ridge as a share of the mean eigenvalue of a group: the
            larger, the gentler. Defaults to 1e-3.
        place (str): 'last', 'projection', or 'after_stageN' with the number N of
            another stage ('after_stage0' is the stem). Defaults to 'last'.
        momentum (float): Share of a new batch in the running moments; the
            first batches count alike. Defaults to 0.1.
        iterations (int, optional): Steps of the iterative methods. Defaults
            to None: enough.
        shuffle_seed (int, optional): Groups of channels drawn with this
            seed, instead of neighbours. Defaults to None.
        for_levels (bool): Loss terms of ``multi_level_head`` on this stage
            see the whitened map, too; otherwise the neck alone does. Defaults
            to True.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.

    Shape: ``(N, C, H, W)`` or ``(N, C)`` -> the same, float32 or float64.

    Raises:
        UserError: A setting is wrong, or the map does not have the channels.
    """

    #: Whether it sits within the backbone rather than after a stage.
    inside_backbone = False

    def __init__(
        self,
        num_channels: int,
        num_groups: int = 1,
        method: str = 'zca',
        eps: float = 1e-3,
        place: str = LAST,
        momentum: float = 0.1,
        iterations: int | None = None,
        shuffle_seed: int | None = None,
        for_levels: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_settings(num_channels, num_groups, method, eps, momentum, iterations)
        self.num_channels = num_channels
        self.num_groups = num_groups
        self.method = method
        self.eps = eps
        self.place = place
        self.stage = stage_of(place)
        self.momentum = momentum
        self.for_levels = bool(for_levels)
        self.iterations = iterations
        self._cache: tuple[Tensor, int | None, Tensor] | None = None
        size = num_channels // num_groups
        self.register_buffer('running_mean', torch.zeros(num_groups, size))
        self.register_buffer(
            'running_covariance', torch.eye(size).repeat(num_groups, 1, 1)
        )
        self.register_buffer('num_batches_tracked', torch.zeros((), dtype=torch.long))
        order = None
        if shuffle_seed is not None:
            order = shuffled_channels(num_channels, shuffle_seed)
        # Saved, so that an export needs no seed. None is left out.
        self.register_buffer('channel_order', order)

    def forward(self, x: Tensor) -> Tensor:
        """Whiten a map, or embeddings; without autocast whatever the surroundings.

        Shape: ``(N, C, H, W)`` or ``(N, C)``, kept.
        """
        if x.ndim == 2:
            return self.forward(x[:, :, None, None])[:, :, 0, 0]
        if x.ndim != 4 or x.shape[1] != self.num_channels:
            raise UserError(
                f'DecorrelationHead: the map is {tuple(x.shape)}, expected '
                f'(N, {self.num_channels}, H, W); set num_channels to the '
                f'channels of the place it follows ({self.place}), or leave it out'
            )
        if not self.training:
            return apply_whitening(
                x, self.running_mean, self.matrix(), self.channel_order
            )
        y, mean, covariance = whiten_with_moments(
            x,
            self.method,
            self.num_groups,
            self.eps,
            self.iterations,
            self.channel_order,
        )
        self._track(mean.detach(), covariance.detach())
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, covariance: Tensor) -> None:
        """Moves the running moments towards those of a batch.

        By the law of total covariance; the difference of large raw second
        moments would lose digits.
        """
        self.num_batches_tracked += 1
        # On the device: reading the count would make a GPU wait.
        share = (1 / self.num_batches_tracked).clamp_min(self.momentum)
        share = share.to(self.running_mean)
        shift = mean.to(self.running_mean) - self.running_mean
        between = shift.unsqueeze(-1) * shift.unsqueeze(-2)
        between = between * (share * (1 - share))
        self.running_covariance.lerp_(
            covariance.to(self.running_covariance), share
        ).add_(between)
        self.running_mean.add_(share * shift)

    @property
    def on_projection(self) -> bool:
        """Whether it whitens embeddings rather than a map."""
        return self.place == PROJECTION

    def matrix(self) -> Tensor:
        """Return the whitening matrices of the running moments.

        Computed anew only when the moments have changed.

        Shape: returns ``(G, C/G, C/G)``, without gradient.
        """
        moments = self.running_covariance
        # Tensors made in inference mode have no version.
        version = None if moments.is_inference() else moments._version
        if self._cache is not None and version is not None:
            known, known_version, matrix = self._cache
            if known is moments and version == known_version:
                return matrix
        with torch.inference_mode(False), torch.no_grad():
            matrix = whitening_matrix(moments, self.method, self.eps, self.iterations)
        self._cache = (moments, version, matrix)
        return matrix

    def dense_transform(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the 1x1 convolution equal to this head.

        Equal in evaluation mode.

        Shape: returns ``(C, C)`` (out, in) and ``(C,)``.
        """
        return dense_transform(self.running_mean, self.matrix(), self.channel_order)

    def __getstate__(self) -> dict:
        # A copy has tensors of its own, whose versions start anew.
        return {**self.__dict__, '_cache': None}

    def extra_repr(self) -> str:
        """Return the settings."""
        return (
            f'{self.num_channels}, num_groups={self.num_groups}, '
            f'method={self.method!r}, eps={self.eps:g}, '
            f'place={self.place!r}'
        )


@MODELS.register_module()
class DecorrelationConv(BaseModule):
    """A trained decorrelation, folded into a fixed 1x1 convolution.

    A neck of mmseg between backbone and decoder. Its weights come from
    ``tools/convert_checkpoint.py --decorrelation fold``, by ``init_cfg=dict(
    type='Pretrained', checkpoint=FILE, prefix='decorrelation_conv.')``; they
    are not trained further.

    Args:
        num_channels (int): Channels of the map.
        in_index (int): Which of the backbone's maps. Defaults to -1.
        init_cfg (dict, optional): Initialisation of mmengine. Defaults to
            None.

    Shape: maps ``(N, C_i, H_i, W_i)`` -> the same.
    """

    def __init__(
        self, num_channels: int, in_index: int = -1, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.in_index = in_index
        self.conv = nn.Conv2d(num_channels, num_channels, 1)
        self.conv.requires_grad_(False)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Decorrelate one of the maps, pass the others on."""
        maps = list(inputs)
        maps[self.in_index] = self.conv(maps[self.in_index])
        return tuple(maps)


def _check_settings(
    num_channels: int,
    num_groups: int,
    method: str,
    eps: float,
    momentum: float,
    iterations: int | None,
) -> None:
    if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
        raise UserError(
            f'DecorrelationHead: num_groups={num_groups} does not divide '
            f'num_channels={num_channels}; choose a divisor'
        )
    if method not in METHODS:
        raise UserError(
            f'DecorrelationHead: method must be one of '
            f'{", ".join(METHODS)}, got {method!r}'
        )
    if eps < 0:
        raise UserError(f'DecorrelationHead: eps must not be negative, got {eps}')
    if not 0 < momentum <= 1:
        raise UserError(
            f'DecorrelationHead: momentum must be above 0 and at most 1, got {momentum}'
        )
    if iterations is not None and method in ('zca', 'cholesky'):
        raise UserError(
            f'DecorrelationHead: {method!r} does not iterate; '
            f'leave iterations={iterations} out'
        )
