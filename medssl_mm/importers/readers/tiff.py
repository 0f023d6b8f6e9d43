"""Grey values of TIFF files where white is zero."""

import numpy as np

from medssl_mm.importers.base import CaseError


def black_is_zero(path: str, values: np.ndarray) -> np.ndarray:
    """Turn grey values of a page where white is zero into those of the same look.

    Raises:
        CaseError: 'white-is-zero': of signed or broken numbers the standard does not
            say which is black.
    """
    if values.dtype.kind != 'u':
        raise CaseError(
            'white-is-zero',
            f'{path}: pixels of type {values.dtype} where white is zero '
            '(PhotometricInterpretation 0), which is defined for unsigned whole '
            'numbers only; save the file with PhotometricInterpretation 1, its values '
            'turned or not.',
        )
    return ~values
