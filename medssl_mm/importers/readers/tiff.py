"""Grey values of TIFF files where white is zero."""

import numpy as np

from medssl_mm import tiff
from medssl_mm.importers.base import CaseError


def black_is_zero(path: str, values: np.ndarray) -> np.ndarray:
    """Turn grey values of a page where white is zero into those of the same look.

    Raises:
        CaseError: 'white-is-zero': see :func:`medssl_mm.tiff.black_is_zero`.
    """
    try:
        return tiff.black_is_zero(values)
    except ValueError as error:
        raise CaseError('white-is-zero', f'{path}: {error}') from error
