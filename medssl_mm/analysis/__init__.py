"""What features are like; takes modules, callables and arrays, and computes.

Tables and figures of it are in :mod:`medssl_mm.results`.
"""

from .spectrum import (
    Spectrum,
    feature_spectrum,
    place_spectra,
    require_comparable,
    stated,
)

__all__ = [
    'Spectrum',
    'feature_spectrum',
    'place_spectra',
    'require_comparable',
    'stated',
]
