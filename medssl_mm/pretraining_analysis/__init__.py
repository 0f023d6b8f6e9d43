"""What the tools share that look into pretrainings."""

from .checkpoints import MeasuredRuns, seed_of
from .models import (
    build_pretraining,
    calibrate_pretraining,
    held_out_views,
    load_pretraining,
)

__all__ = [
    'MeasuredRuns',
    'build_pretraining',
    'calibrate_pretraining',
    'held_out_views',
    'load_pretraining',
    'seed_of',
]
