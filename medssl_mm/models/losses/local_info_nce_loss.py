"""InfoNCE between the regions of two views."""

from typing import Any

from torch import Tensor, nn

from medssl_mm.functional import contrastive
from medssl_mm.registry import MODELS


@MODELS.register_module()
class LocalInfoNCELoss(nn.Module):
    """Finds the own region among regions of the other view.

    See :func:`medssl_mm.functional.contrastive.local_info_nce`, whose logs
    (``chance_level``, ``top1``, ``valid_share``) go with it.

    Args:
        temperature (float): Divisor of the cosines. Defaults to 0.2.
        negatives (str): ``'image'`` or ``'batch'``. Defaults to 'image'.
        legacy (str, optional): ``'release'`` is the term of the method's
            released code. INERT: computed from the images only, it has no
            gradient and stays at log 400. Defaults to None.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        negatives: str = 'image',
        legacy: str | None = None,
    ) -> None:
        super().__init__()
        if legacy not in (None, 'release'):
            raise ValueError(f"legacy: None or 'release', got {legacy!r}")
        self.settings = dict(temperature=temperature, negatives=negatives)
        self.legacy = legacy

    def forward(self, query: Any, key: Any, context: Any) -> dict[str, Tensor]:
        """Compare :class:`medssl_mm.models.necks.LocalRegions`."""
        if self.legacy:
            return dict(loss=contrastive.release_local_term(*context.images))
        loss, logs = contrastive.local_info_nce(
            query.features,
            key.features,
            valid=query.valid & key.valid,
            return_logs=True,
            **self.settings,
        )
        return dict(loss=loss, **logs)
