"""Self-supervised pretraining and evaluation for medical images."""

from medssl_mm.version import __version__

__all__ = ['__version__']
