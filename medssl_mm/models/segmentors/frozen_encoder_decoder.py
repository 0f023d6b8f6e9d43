"""Encoder-decoder whose backbone is an untouched feature extractor."""
import torch
from mmseg.models.segmentors.encoder_decoder import EncoderDecoder
from torch import Tensor

from medssl_mm.registry import MODELS


@MODELS.register_module()
class FrozenEncoderDecoder(EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with a frozen backbone.

    The backbone stays in evaluation mode, its parameters ask for no gradient
    and it runs without an autograd graph, so neither its weights nor its
    batch normalisation buffers change during training and a step costs little
    more than one forward pass. A neck, if there is one, is trained.

    Args:
        *args: Arguments of mmseg's ``EncoderDecoder``.
        **kwargs: The same.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.backbone.requires_grad_(False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> 'FrozenEncoderDecoder':
        """Set the mode of everything but the backbone."""
        super().train(mode)
        self.backbone.eval()
        return self

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Compute features without an autograd graph.

        Shape: inputs ``(N, C, H, W)``. Returns one map per backbone output.
        """
        # Not inference_mode: its tensors cannot be saved for the backward
        # pass of the decoder.
        with torch.no_grad():
            features = self.backbone(inputs)
        return self.neck(features) if self.with_neck else features
