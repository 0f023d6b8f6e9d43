"""A backbone without learning: small pictures, the floor under image features."""

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm.registry import MODELS


class _SmallPicture(nn.Module):
    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, self.side).flatten(1)[..., None, None]


@MODELS.register_module()
class RawPixels(BaseModule):
    """The pixels of a picture that was made small, as features of an image.

    What a linear model finds in them is the strongest simple baseline on small sets:
    an encoder has to be better to be of use.

    Args:
        in_channels (int): Channels of the images. Defaults to 3.
        side (int): Pixels that are left of a side, each a mean. Defaults to 16.
        init_cfg (dict, optional): There is nothing to initialise. Defaults to
            None.

    Raises:
        ValueError: When a setting is out of range.
    """

    def __init__(
        self, in_channels: int = 3, side: int = 16, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if in_channels < 1 or side < 1:
            raise ValueError(
                'RawPixels: in_channels and side must be 1 or more, got '
                f'in_channels={in_channels}, side={side}'
            )
        self.in_channels = in_channels
        self.out_channels = in_channels * side**2
        self.pixel_features = _SmallPicture(side)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the features.

        Shape: ``(N, in_channels, H, W)`` -> one ``(N, out_channels, 1, 1)``.
        """
        if images.shape[1] != self.in_channels:
            raise ValueError(
                f'RawPixels: images have {images.shape[1]} channels, in_channels is '
                f'{self.in_channels}'
            )
        return (self.pixel_features(images),)
