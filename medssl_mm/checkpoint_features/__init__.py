"""Features of checkpoints for the images of a classification config.

``CheckpointFeatures`` is imported when it is asked for: `--help` of the tools,
whose options are defined here, must not wait for torch.
"""

from typing import TYPE_CHECKING, Any

from .arguments import (
    add_arguments,
    add_weights_arguments,
    check_arguments,
    compared_weights,
    open_source,
)
from .subsets import (
    SUBSETS,
    Labels,
    Subset,
    check_no_shared_patients,
    open_labelled,
    read_labels,
)
from .weights import Weights, parse_weights, sources_by_name

if TYPE_CHECKING:
    from .extract import CheckpointFeatures

__all__ = [
    'SUBSETS',
    'CheckpointFeatures',
    'Labels',
    'Subset',
    'Weights',
    'add_arguments',
    'add_weights_arguments',
    'check_arguments',
    'check_no_shared_patients',
    'compared_weights',
    'open_labelled',
    'open_source',
    'parse_weights',
    'read_labels',
    'sources_by_name',
]


def __getattr__(name: str) -> Any:
    if name == 'CheckpointFeatures':
        from .extract import CheckpointFeatures

        return CheckpointFeatures
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
