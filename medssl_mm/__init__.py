"""Self-supervised pretraining and evaluation for medical images."""

from importlib import import_module
from typing import Any

from medssl_mm.version import __version__

__all__ = ['__version__', 'load_encoder']


def __getattr__(name: str) -> Any:
    if name == 'load_encoder':  # late: it needs torch and the hosts
        return import_module('medssl_mm.encoders').load_encoder
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
