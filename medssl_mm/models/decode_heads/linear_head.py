"""Linear decoder: what frozen features can tell, pixel by pixel."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor

from medssl_mm.registry import MODELS


@MODELS.register_module()
class LinearHead(BaseDecodeHead):
    """Batch normalisation and one 1x1 convolution on backbone features.

    The normalisation makes the result independent of the scale of the
    features, which differs by orders of magnitude between pretraining
    methods. The backbone is frozen by
    :class:`medssl_mm.models.segmentors.FrozenEncoderDecoder`, not here.

    Args:
        in_channels (int | Sequence[int]): Channels of the chosen stages.
        num_classes (int): Classes, background included.
        in_index (int | Sequence[int]): Which backbone outputs are used;
            several are resized to the first one and concatenated. Defaults
            to -1.
        norm_cfg (dict): Normalisation before the convolution. Defaults to
            ``dict(type='BN')``.
        dropout_ratio (float): Channel dropout before the convolution.
            Defaults to 0.0.
        **kwargs: Further arguments of mmseg's ``BaseDecodeHead``, such as
            ``loss_decode``.
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_classes: int,
        in_index: int | Sequence[int] = -1,
        norm_cfg: dict | None = None,
        dropout_ratio: float = 0.0,
        **kwargs: Any,
    ) -> None:
        channels = [in_channels] if isinstance(in_channels, int) else list(in_channels)
        indices = [in_index] if isinstance(in_index, int) else list(in_index)
        several = not isinstance(in_index, int)
        if several == isinstance(in_channels, int) or len(indices) != len(channels):
            raise ValueError(
                'in_channels and in_index must be two numbers or two lists of '
                f'one length, got in_channels={in_channels} and '
                f'in_index={in_index}'
            )
        super().__init__(
            in_channels=channels if several else in_channels,
            in_index=indices if several else in_index,
            channels=sum(channels),
            num_classes=num_classes,
            # mmseg warns about two classes unless this is given.
            out_channels=kwargs.pop('out_channels', num_classes),
            input_transform='resize_concat' if several else None,
            norm_cfg=norm_cfg or dict(type='BN'),
            dropout_ratio=dropout_ratio,
            **kwargs,
        )
        self.norm = build_norm_layer(self.norm_cfg, sum(channels))[1]

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Map backbone features to class scores.

        Shape: inputs, one ``(N, C_i, H_i, W_i)`` per backbone output.
            Returns ``(N, num_classes, H, W)`` at the resolution of the first
            chosen stage.
        """
        return self.cls_seg(self.norm(self._transform_inputs(inputs)))
