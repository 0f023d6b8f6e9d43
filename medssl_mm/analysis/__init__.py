"""What features are like; takes modules, callables and arrays."""
from .features import place_spectra
from .spectrum import Spectrum, draw_spectra, print_table, write_spectra

__all__ = [
    'Spectrum',
    'draw_spectra',
    'place_spectra',
    'print_table',
    'write_spectra',
]
