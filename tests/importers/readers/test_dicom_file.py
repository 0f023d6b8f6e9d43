"""Every usual transfer syntax is decoded in the default environment."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medssl_mm.importers.readers.dicom_file import decode, read_file, read_tags

FOLDER = Path(pydicom.__file__).parent / 'data' / 'test_files'


def shipped(name):
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f'pydicom is installed without {name}')
    return str(path)


@pytest.mark.parametrize(
    'name',
    [
        'MR_small_RLE.dcm',
        'MR_small_jp2klossless.dcm',
        'MR_small_jpeg_ls_lossless.dcm',
        'MR_small_bigendian.dcm',
        'MR_small_implicit.dcm',
    ],
)
def test_lossless_syntaxes_give_the_stored_values(name):
    expected = pydicom.dcmread(shipped('MR_small.dcm')).pixel_array
    np.testing.assert_array_equal(decode(read_file(shipped(name))), expected)


@pytest.mark.parametrize(
    'name', ['MR_small.dcm', 'MR_small_implicit.dcm', 'MR_small_bigendian.dcm']
)
def test_a_bare_data_set_is_read_in_its_own_encoding(tmp_path, name):
    """Without preamble and meta information, which would tell the syntax."""
    whole = read_file(shipped(name))
    start = 132 + 12 + whole.file_meta.FileMetaInformationGroupLength
    path = tmp_path / 'bare'
    path.write_bytes(Path(shipped(name)).read_bytes()[start:])
    np.testing.assert_array_equal(decode(read_file(str(path))), decode(whole))
    assert read_tags(path, ['Modality']).Modality == 'MR'


@pytest.mark.parametrize(
    'name, syntax, most',
    [
        ('SC_rgb_jpeg_gdcm.dcm', 'JPEG Lossless', 0),
        ('JPGExtended.dcm', 'JPEG Extended', 1),
        ('SC_rgb_jpeg_dcmtk.dcm', 'JPEG Baseline', 4),
        ('JPEG2000.dcm', 'JPEG 2000 Image', 1),
        ('JPEGLSNearLossless_16.dcm', 'JPEG-LS Lossy', 0),
    ],
)
def test_other_syntaxes_are_decoded_as_simpleitk_does(name, syntax, most):
    sitk = pytest.importorskip('SimpleITK')
    header = read_file(shipped(name))
    assert header.file_meta.TransferSyntaxUID.name.startswith(syntax)
    found = decode(header).astype(int)
    other = sitk.GetArrayFromImage(sitk.ReadImage(shipped(name)))[0].astype(int)
    assert np.abs(found - other.reshape(found.shape)).max() <= most
    assert len(np.unique(found)) > 2
