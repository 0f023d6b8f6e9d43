"""Strides of a network turned into dilations, so that it stays the same function.

A window (of a convolution or pooling) looks at places of the image that lie
some pixels apart: its dilation times the stride of what it moves over. Two
networks with the same weights compute the same at the positions that both
have if that distance is the same for each of their windows, whatever their
strides are (`DeepLab <https://arxiv.org/abs/1606.00915>`_, section 3.1).
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.errors import UserError

from .lookup import backbone_of, find_family


class DilatedAvgPool2d(nn.Module):
    """Mean over a window of cells that lie apart, at every position.

    Cells outside the map do not count, as in
    ``AvgPool2d(ceil_mode=True, count_include_pad=False)``, which is its value at
    the positions that this one has.

    Args:
        kernel_size (int): Cells per side.
        dilation (int): Distance of two of them, in cells.

    Shape: ``(N, C, H, W)`` -> the same.
    """

    def __init__(self, kernel_size: int, dilation: int) -> None:
        super().__init__()
        self.kernel_size, self.dilation, self.stride = kernel_size, dilation, 1

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        pad = self.dilation * (self.kernel_size - 1)
        kernel = x.new_ones(1, 1, self.kernel_size, self.kernel_size)
        inside = F.pad(x.new_ones(1, 1, *x.shape[2:]), (0, pad, 0, pad))
        padded = F.pad(x, (0, pad, 0, pad)).flatten(0, 1).unsqueeze(1)
        total = F.conv2d(padded, kernel, dilation=self.dilation)
        count = F.conv2d(inside, kernel, dilation=self.dilation)
        return (total / count).view_as(x)

    def extra_repr(self) -> str:
        """Both settings."""
        return f'kernel_size={self.kernel_size}, dilation={self.dilation}'


def tap_distances(network: nn.Module) -> dict[str, int] | None:
    """Pixels of the image between neighbouring taps of each window.

    Args:
        network (nn.Module): Backbone of a known family; not changed.

    Returns:
        dict[str, int]: By the name of the module, of those that are larger
        than one cell; None for a network of another family.
    """
    if find_family(network) is None:
        return None
    windows = {n: w for n, w in _windows(network).items() if _one(w.kernel_size) > 1}
    if not windows:
        return {}
    strides = backbone_of(network).input_strides(windows)
    return {
        name: stride * _one(getattr(windows[name], 'dilation', 1))
        for name, stride in strides.items()
    }


def different_taps(
    ours: Mapping[str, int], theirs: Mapping[str, int]
) -> dict[str, tuple[int, int]]:
    """Windows of which two networks make something else with the same weights.

    Args:
        ours (Mapping[str, int]): :func:`tap_distances` of a network.
        theirs (Mapping[str, int]): Of the other one.

    Returns:
        dict[str, tuple[int, int]]: Pixels in either network, by the name of
        the window; 0 where one lacks it.
    """
    names = dict.fromkeys((*ours, *theirs))
    pairs = {name: (ours.get(name, 0), theirs.get(name, 0)) for name in names}
    shared = {_block(name) for name in ours} & {_block(name) for name in theirs}
    return {
        name: pair
        for name, pair in pairs.items()
        # A stage that one of them lacks is no difference.
        if pair[0] != pair[1] and _block(name) in shared
    }


def _block(name: str) -> str:
    """What a window is a part of: 'layer2.0' of 'layer2.0.downsample.0'."""
    parts = name.split('.')[:-1]
    return '.'.join(parts[:-1] if parts[-1:] == ['downsample'] else parts)


def set_output_stride(network: nn.Module, output_stride: int) -> None:
    """Turn the strides of a network beyond one into dilations, in place.

    The network computes what it did at the positions that it had, and the same
    at those between. Its parameters and their names stay.

    Args:
        network (nn.Module): Backbone of a known family, of strides and
            without dilations.
        output_stride (int): Pixels of the image per cell of the last map.

    Raises:
        UserError: No stage has that stride, or a window cannot be dilated.
    """
    backbone = backbone_of(network)
    known = sorted({stride for place, stride in backbone.strides.items() if place})
    if output_stride not in known:
        raise UserError(
            f'output_stride={output_stride} of {type(network).__name__} must be the '
            f'stride of one of its stages: {", ".join(map(str, known))}'
        )
    windows = _windows(network)
    for name, before in backbone.input_strides(windows).items():
        window = windows[name]
        behind = before * _one(window.stride)
        if behind > output_stride:
            after = min(before, output_stride)
            # Of a stage that loses its stride, the first window keeps its dilation.
            made = _dilated(window, name, before // after)
            network.set_submodule(name, made)


def set_common_stride(
    networks: Mapping[str, nn.Module], stride: int | None = None
) -> int:
    """Bring the last maps of some networks to one stride, in place.

    Each stays the function that it is, see :func:`set_output_stride`, so that
    maps of networks that were trained at different strides have as many cells.

    Args:
        networks (Mapping[str, nn.Module]): Backbones of known families, by name.
        stride (int, optional): Pixels of the image per cell. Defaults to None:
            the smallest one among them.

    Returns:
        int: The stride.

    Raises:
        UserError: One has a smaller stride, or cannot be dilated.
    """
    views = {name: backbone_of(network) for name, network in networks.items()}
    own = {name: view.strides[view.last] for name, view in views.items()}
    common = min(own.values()) if stride is None else stride
    told = ', '.join(f'{name} {value}' for name, value in own.items())
    for name, network in networks.items():
        if own[name] < common:
            raise UserError(
                f'{name} has stride {own[name]}, which cannot be made {common}; '
                f'choose {min(own.values())} or less (strides: {told})'
            )
        if own[name] > common:
            try:
                set_output_stride(network, common)
            except UserError as error:
                raise UserError(
                    f'the last map of {name} cannot be brought to stride {common} '
                    f'(strides: {told}), so that it does not compare: {error}'
                ) from error
    return common


def _dilated(window: Any, name: str, factor: int) -> nn.Module:
    """The window with stride 1 and a multiple of its dilation."""
    size, padding = _one(window.kernel_size), window.padding
    if type(window) is nn.AvgPool2d and not window.count_include_pad:
        if not _one(padding):
            return DilatedAvgPool2d(size, factor)
    dilation = factor * _one(getattr(window, 'dilation', 1))
    # A subclass may pad by itself.
    if (
        type(window) is not nn.Conv2d
        or isinstance(padding, str)
        or 2 * _one(padding) != _one(window.dilation) * (size - 1)
    ):
        raise UserError(
            f'{name} ({window}) cannot be dilated: only convolutions that are padded '
            'alike on all sides and means without padding can'
        )
    window.stride, window.dilation = (1, 1), (dilation, dilation)
    window.padding = (factor * _one(padding),) * 2
    # Of modes other than zeros.
    window._reversed_padding_repeated_twice = [factor * _one(padding)] * 4
    return window


def _windows(network: nn.Module) -> dict[str, Any]:
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, DilatedAvgPool2d)
    return {name: m for name, m in network.named_modules() if isinstance(m, kinds)}


def _one(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[0]
