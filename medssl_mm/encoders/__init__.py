"""Pretrained encoders: network, own preprocessing and weights under one name.

An encoder is described by a file ``configs/encoders/NAME.py``; any network of
timm needs none, it is called ``timm/MODEL``. ``load_encoder`` makes it ready
for use.

All but the preprocessing, which workers that load pictures need, is imported
when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from .compat import ComparedEncoder, compared_encoder
    from .encoder import PretrainedEncoder, fill_encoder, load_encoder
    from .seen import seen_by
    from .settings import (
        EncoderSettings,
        EncoderSource,
        encoder_names,
        find_weights,
        parse_source,
        read_settings,
        weights_digest,
    )

__all__ = [
    'ComparedEncoder',
    'EncoderSettings',
    'EncoderSource',
    'Preprocessing',
    'PretrainedEncoder',
    'compared_encoder',
    'encoder_names',
    'fill_encoder',
    'find_weights',
    'load_encoder',
    'parse_source',
    'read_settings',
    'seen_by',
    'weights_digest',
]

_MODULES = dict(
    ComparedEncoder='compat',
    PretrainedEncoder='encoder',
    compared_encoder='compat',
    fill_encoder='encoder',
    load_encoder='encoder',
    seen_by='seen',
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = _MODULES.get(name, 'settings')
    return getattr(import_module(f'{__name__}.{module}'), name)
