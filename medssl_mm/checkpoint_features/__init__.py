"""Features of encoders for the images of a config or an image set.

What needs torch is imported when it is asked for: `--help` of the tools,
whose options are defined here, must not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .arguments import (
    add_arguments,
    add_weights_arguments,
    check_arguments,
    compared_weights,
    open_source,
)
from .subsets import (
    ALL,
    SUBSETS,
    Labels,
    Subset,
    check_no_shared_patients,
    open_labelled,
    read_labels,
)
from .weights import Weights, parse_weights, sources_by_name

if TYPE_CHECKING:
    from .extract import EncoderFeatures
    from .images import ImageSubsets, config_of_datasets, config_of_images
    from .seen import compare_seen

__all__ = [
    'ALL',
    'SUBSETS',
    'EncoderFeatures',
    'ImageSubsets',
    'Labels',
    'Subset',
    'Weights',
    'add_arguments',
    'add_weights_arguments',
    'check_arguments',
    'check_no_shared_patients',
    'compare_seen',
    'compared_weights',
    'config_of_datasets',
    'config_of_images',
    'open_labelled',
    'open_source',
    'parse_weights',
    'read_labels',
    'sources_by_name',
]


_LATE = dict(
    EncoderFeatures='extract',
    ImageSubsets='images',
    compare_seen='seen',
    config_of_images='images',
    config_of_datasets='images',
)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f'{__name__}.{_LATE[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
