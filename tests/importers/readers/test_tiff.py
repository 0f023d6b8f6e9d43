"""Tags of TIFF pages, of both byte orders and sizes."""

import numpy as np
import pytest

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.tiff import black_is_zero
from medssl_mm.tiff import Page, first_page, read_pages
from tests.importers.tiff_files import write_tiff

PAGES = np.zeros((3, 4, 6), np.uint16)


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('big', [False, True])
def test_tags_of_every_page(tmp_path, order, big):
    path = write_tiff(tmp_path / 'a.tif', PAGES, [0, 1, 0], [6, 1, 3], order, big)
    content = path.read_bytes()
    assert list(read_pages(content)) == [Page(0, 6), Page(1, 1), Page(0, 3)]
    assert first_page(content) == Page(0, 6)


def test_files_that_end_too_early_or_never(tmp_path):
    content = write_tiff(tmp_path / 'a.tif', PAGES).read_bytes()
    with pytest.raises(ValueError, match=f'pages end at byte {len(content) - 1}'):
        list(read_pages(content[:-1]))
    first = content[4:8]
    with pytest.raises(ValueError, match='follows itself'):
        list(read_pages(content[:-4] + first))
    assert first_page(b'') == first_page(b'MM\0*') == Page(1, 1)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.uint32])
def test_the_largest_value_becomes_zero(dtype):
    most = np.iinfo(dtype).max
    values = np.array([[0, 1, most]], dtype)
    turned = black_is_zero('a.tif', values)
    assert turned.dtype == dtype and turned.tolist() == [[most, most - 1, 0]]


@pytest.mark.parametrize('dtype', [np.int16, np.float32])
def test_what_is_black_among_other_numbers_is_not_known(dtype):
    with pytest.raises(CaseError, match=f'a.tif: pixels of type {dtype.__name__}'):
        black_is_zero('a.tif', np.zeros((2, 2), dtype))
