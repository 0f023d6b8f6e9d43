"""Pretrained encoders: network, own preprocessing and weights under one name.

An encoder is described by a file ``configs/encoders/NAME.py``; any network of
timm needs none, it is called ``timm/MODEL``. ``load_encoder`` makes it ready
for use.
"""

from .encoder import PretrainedEncoder, fill_encoder, load_encoder
from .preprocessing import Preprocessing
from .settings import (
    EncoderSettings,
    EncoderSource,
    encoder_names,
    find_weights,
    parse_source,
    read_settings,
)

__all__ = [
    'EncoderSettings',
    'EncoderSource',
    'Preprocessing',
    'PretrainedEncoder',
    'encoder_names',
    'fill_encoder',
    'find_weights',
    'load_encoder',
    'parse_source',
    'read_settings',
]
