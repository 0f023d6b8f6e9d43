"""A backbone without learning: the floor under every read-out."""

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from medssl_mm.functional.handmade import count_polynomials, handmade_features
from medssl_mm.registry import MODELS


class _PixelFeatures(nn.Module):
    def __init__(self, scales: tuple[float, ...], degree: int) -> None:
        super().__init__()
        self.scales, self.degree = scales, degree

    def forward(self, images: Tensor) -> Tensor:
        return handmade_features(images, self.scales, self.degree)


@MODELS.register_module()
class HandmadeFeatures(BaseModule):
    """Features of each pixel that are computed, not learned, as a backbone.

    Polynomials of the position, the grey value, and at each scale the smoothed
    grey value, the gradient magnitude and the Laplacian of Gaussian; see
    :func:`medssl_mm.functional.handmade.handmade_features`. It returns one map at
    the resolution of the image, 28 features for one channel. They are as the
    images are scaled: a decoder normalises them, as
    :class:`medssl_mm.models.decode_heads.LinearHead` does.

    Args:
        in_channels (int): Channels of the images; each has grey-value features
            of its own. Defaults to 1.
        scales (Sequence[float]): Standard deviations of the Gaussians in pixels.
            Defaults to (1, 2, 3, 5, 8, 13).
        degree (int): Largest degree of the polynomials. Defaults to 3.
        init_cfg (dict, optional): There is nothing to initialise. Defaults to
            None.

    Raises:
        ValueError: When a setting is out of range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        scales: Sequence[float] = (1, 2, 3, 5, 8, 13),
        degree: int = 3,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if in_channels < 1 or degree < 1 or any(sigma <= 0 for sigma in scales):
            raise ValueError(
                'HandmadeFeatures: in_channels and degree must be 1 or more and scales '
                f'above 0 pixels, got in_channels={in_channels}, degree={degree}, '
                f'scales={tuple(scales)}'
            )
        self.in_channels = in_channels
        self.out_channels = count_polynomials(degree) + in_channels * (
            1 + 3 * len(scales)
        )
        self.pixel_features = _PixelFeatures(tuple(scales), degree)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the only map.

        Shape: ``(N, in_channels, H, W)`` -> one ``(N, out_channels, H, W)``.
        """
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f'HandmadeFeatures: images have {images.shape[1]} channels, '
                f'in_channels is {self.in_channels}'
            )
        return (self.pixel_features(images),)
