"""What features are like; takes modules, callables and arrays."""

from .features import feature_spectrum, place_spectra
from .spectrum import Spectrum, draw_spectra, print_table, write_spectra

__all__ = [
    'Spectrum',
    'draw_spectra',
    'feature_spectrum',
    'place_spectra',
    'print_table',
    'write_spectra',
]
