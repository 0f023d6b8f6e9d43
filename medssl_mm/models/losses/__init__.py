"""Loss modules: they hold settings, the formulas are in functional."""

from .barlow_twins_loss import BarlowTwinsLoss
from .dense_info_nce_loss import DenseInfoNCELoss
from .dice import SoftDiceLoss
from .feature_mse_loss import FeatureMSELoss
from .info_nce_loss import InfoNCELoss
from .latent_prediction_loss import LatentPredictionLoss
from .local_info_nce_loss import LocalInfoNCELoss
from .nt_xent_loss import NTXentLoss
from .vicreg_loss import VICRegLocalLoss, VICRegLoss

__all__ = [
    'BarlowTwinsLoss',
    'DenseInfoNCELoss',
    'FeatureMSELoss',
    'InfoNCELoss',
    'LatentPredictionLoss',
    'LocalInfoNCELoss',
    'NTXentLoss',
    'SoftDiceLoss',
    'VICRegLocalLoss',
    'VICRegLoss',
]
