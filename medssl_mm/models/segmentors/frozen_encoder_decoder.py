"""Encoder-decoder whose backbone is an untouched feature extractor."""
from mmseg.models.segmentors.encoder_decoder import EncoderDecoder

from medssl_mm.models.utils import FrozenBackbone
from medssl_mm.registry import MODELS


@MODELS.register_module()
class FrozenEncoderDecoder(FrozenBackbone, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with a frozen backbone.

    See :class:`medssl_mm.models.utils.FrozenBackbone`.

    Args:
        *args: Arguments of mmseg's ``EncoderDecoder``.
        **kwargs: The same.
    """
