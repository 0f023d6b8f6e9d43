"""Loss modules: they hold settings, the formulas are in functional."""
from .dice import SoftDiceLoss
from .info_nce_loss import InfoNCELoss
from .local_info_nce_loss import LocalInfoNCELoss

__all__ = ['InfoNCELoss', 'LocalInfoNCELoss', 'SoftDiceLoss']
