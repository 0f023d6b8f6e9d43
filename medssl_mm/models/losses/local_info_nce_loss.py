"""InfoNCE between the regions of two views."""

from typing import Any

from torch import Tensor, nn

from medssl_mm.functional import contrastive
from medssl_mm.models.utils import patients_of
from medssl_mm.registry import MODELS


@MODELS.register_module()
class LocalInfoNCELoss(nn.Module):
    """Finds the own region among regions of the other view.

    See :func:`medssl_mm.functional.contrastive.local_info_nce`, whose logs
    (``chance_level``, ``top1``, ``valid_share``) go with it.

    Args:
        temperature (float): Divisor of the cosines. Defaults to 0.2.
        negatives (str): ``'image'`` or ``'batch'``. Defaults to 'image'.
        mask_same_patient (bool): Whether regions of other images of the query's
            own patient are left out of the negatives of ``'batch'``; the samples
            must name their ``patient_id``. Defaults to False;
            :class:`medssl_mm.models.algorithms.MultiLevelMoCo` hands its own
            setting on.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        negatives: str = 'image',
        mask_same_patient: bool = False,
    ) -> None:
        super().__init__()
        self.mask_same_patient = mask_same_patient and negatives == 'batch'
        self.settings: dict[str, Any] = dict(
            temperature=temperature, negatives=negatives
        )

    def forward(self, query: Any, key: Any, context: Any) -> dict[str, Tensor]:
        """Compare :class:`medssl_mm.models.necks.LocalRegions`."""
        patients = None
        if self.mask_same_patient:
            features = query.features
            patients = patients_of(context.data_samples, len(features), features.device)
        loss, logs = contrastive.local_info_nce(
            query.features,
            key.features,
            valid=query.valid & key.valid,
            return_logs=True,
            patients=patients,
            **self.settings,
        )
        return dict(loss=loss, **logs)
