"""From checkpoints of one kind to checkpoints of another."""

from .architectures import ARCHITECTURES, Architecture
from .convert import (
    TARGETS,
    Converted,
    backbone_settings,
    convert,
    convert_named,
    named_for,
    names_for_hosts,
    read_weights,
)
from .decorrelation import (
    batch_norm_transform,
    export_backbone,
    fold_into_following,
    fold_into_preceding,
    neck_settings,
    prefixes_of,
)
from .pretraining import config_of, trained_transform
from .reading import weights_file
from .rules import Rule, grouped
from .sources import SOURCES, Source

__all__ = [
    'ARCHITECTURES',
    'SOURCES',
    'TARGETS',
    'Architecture',
    'Converted',
    'Rule',
    'Source',
    'backbone_settings',
    'batch_norm_transform',
    'config_of',
    'convert',
    'convert_named',
    'export_backbone',
    'fold_into_following',
    'fold_into_preceding',
    'grouped',
    'named_for',
    'names_for_hosts',
    'neck_settings',
    'prefixes_of',
    'read_weights',
    'trained_transform',
    'weights_file',
]
