"""From checkpoints of one kind to checkpoints of another."""

from .config_text import parse_config_text
from .decorrelation import (
    batch_norm_transform,
    export_backbone,
    fold_into_following,
    fold_into_preceding,
    prefixes_of,
)

__all__ = [
    'batch_norm_transform',
    'export_backbone',
    'fold_into_following',
    'fold_into_preceding',
    'parse_config_text',
    'prefixes_of',
]
