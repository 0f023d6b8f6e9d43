"""Loss modules: they hold settings, the formulas are in functional."""
from .dice import SoftDiceLoss
from .info_nce_loss import InfoNCELoss

__all__ = ['InfoNCELoss', 'SoftDiceLoss']
