"""Features of checkpoints for the images of a classification config."""

from .arguments import add_arguments, check_arguments, open_source
from .extract import CheckpointFeatures
from .subsets import (
    SUBSETS,
    Labels,
    Subset,
    check_no_shared_patients,
    read_labels,
)
from .weights import Weights, parse_weights, sources_by_name

__all__ = [
    'SUBSETS',
    'CheckpointFeatures',
    'Labels',
    'Subset',
    'Weights',
    'add_arguments',
    'check_arguments',
    'check_no_shared_patients',
    'open_source',
    'parse_weights',
    'read_labels',
    'sources_by_name',
]
