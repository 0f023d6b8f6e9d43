"""Parts of the momentum methods, and backbones that are not trained."""

from .channels import with_channels, with_defaults, with_missing
from .ema import ForeachEMA, cosine_decay
from .feature_cache import FeatureCache
from .frozen_backbone import FrozenBackbone
from .key_queue import KeyQueue, hoist_state
from .samples import patients_of, stated_by
from .split_batch_norm import SplitBatchNorm
from .stage_decoder import DECODER, StageDecoder

__all__ = [
    'DECODER',
    'FeatureCache',
    'ForeachEMA',
    'FrozenBackbone',
    'KeyQueue',
    'SplitBatchNorm',
    'StageDecoder',
    'cosine_decay',
    'hoist_state',
    'patients_of',
    'stated_by',
    'with_channels',
    'with_defaults',
    'with_missing',
]
