"""Loss modules: they hold settings, the formulas are in functional."""

from .barlow_twins_loss import BarlowTwinsLoss
from .dice import SoftDiceLoss
from .feature_mse_loss import FeatureMSELoss
from .info_nce_loss import InfoNCELoss
from .local_info_nce_loss import LocalInfoNCELoss

__all__ = [
    'BarlowTwinsLoss',
    'FeatureMSELoss',
    'InfoNCELoss',
    'LocalInfoNCELoss',
    'SoftDiceLoss',
]
