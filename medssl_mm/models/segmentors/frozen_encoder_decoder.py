"""Encoder-decoder whose backbone is an untouched feature extractor."""

from collections.abc import Sequence
from typing import Any

from mmseg.models.segmentors.encoder_decoder import EncoderDecoder
from torch import Tensor

from medssl_mm.backbones import backbone_of
from medssl_mm.errors import UserError
from medssl_mm.models.utils import FeatureCache, FrozenBackbone
from medssl_mm.registry import MODELS


@MODELS.register_module()
class FrozenEncoderDecoder(FrozenBackbone, EncoderDecoder):
    """mmseg's ``EncoderDecoder`` with a frozen backbone.

    See :class:`medssl_mm.models.utils.FrozenBackbone`.

    Args:
        *args: Arguments of mmseg's ``EncoderDecoder``.
        feature_cache_gib (float): Keep up to so many GiB of features, of the
            stages that the decode heads read, for images that come again bit
            for bit: those of a training pipeline without random steps, and of
            every validation. Worth its memory for small images only. Defaults
            to 0.0.
        **kwargs: Arguments of mmseg's ``EncoderDecoder``.

    Raises:
        UserError: A cache is asked for beside a neck, which is trained.
    """

    def __init__(
        self, *args: Any, feature_cache_gib: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._cache = None
        if feature_cache_gib:
            if self.with_neck:
                raise UserError(
                    'feature_cache_gib keeps what the decode heads read, but '
                    'here they read a neck, which is trained; remove one of '
                    'the two'
                )
            heads: list[Any] = [self.decode_head]
            if self.with_auxiliary_head:
                extra: Any = self.auxiliary_head
                heads += extra if hasattr(extra, '__iter__') else [extra]
            stages: list[int] = []
            for head in heads:
                index = head.in_index
                stages += [index] if isinstance(index, int) else index
            outputs = backbone_of(self.backbone).outputs
            self._cache = FeatureCache(
                self.backbone,
                [stage % outputs for stage in stages],
                int(feature_cache_gib * 2**30),
            )

    def extract_feat(self, inputs: Tensor) -> Sequence[Tensor | None]:
        """Compute features without an autograd graph in the backbone.

        Shape: inputs ``(N, C, H, W)``. Returns one map per output of the
            backbone; with a cache, None for those that no head reads.
        """
        if self._cache is None:
            return super().extract_feat(inputs)
        return self._cache(inputs)
