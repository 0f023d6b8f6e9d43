"""Pictures in DICOM: what is black, what is white, and what is refused."""

import numpy as np
import pydicom
import pytest

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom_picture import read_dicom_picture
from tests.importers.dicom_files import item, make_slice


def values(seed=0, shape=(12, 10)):
    return np.random.default_rng(seed).integers(100, 3000, shape).astype(np.uint16)


def write(folder, pixels, **changes):
    path = folder / 'picture.dcm'
    changes.setdefault('Modality', 'CR')
    make_slice(pixels, (0, 0, 0), **changes).save_as(path, enforce_file_format=True)
    return str(path)


def stretched(pixels):
    """Slow reference: every value by itself."""
    low, high = int(pixels.min()), int(pixels.max())
    return np.array(
        [[round(255 * (int(v) - low) / (high - low)) for v in row] for row in pixels]
    )


def test_smallest_is_black_and_largest_is_white(tmp_path):
    pixels = values()
    found, problems = read_dicom_picture(write(tmp_path, pixels))
    assert found.dtype == np.uint8 and not problems
    np.testing.assert_array_equal(found, stretched(pixels))


def test_monochrome1_is_the_inverted_picture(tmp_path):
    pixels = values()
    plain, _ = read_dicom_picture(write(tmp_path, pixels))
    turned, _ = read_dicom_picture(
        write(tmp_path, pixels, PhotometricInterpretation='MONOCHROME1')
    )
    np.testing.assert_array_equal(turned, 255 - plain)


def test_rescale_counts(tmp_path):
    pixels = values()
    plain, _ = read_dicom_picture(write(tmp_path, pixels))
    scaled, _ = read_dicom_picture(
        write(tmp_path, pixels, RescaleSlope=3, RescaleIntercept=-7)
    )
    np.testing.assert_array_equal(scaled, plain)
    turned, _ = read_dicom_picture(
        write(tmp_path, pixels, RescaleSlope=-1, RescaleIntercept=0)
    )
    np.testing.assert_array_equal(turned, 255 - plain)


@pytest.mark.parametrize('window', ['range', 'voi'])
@pytest.mark.parametrize('kind', ['MONOCHROME1', 'MONOCHROME2'])
def test_a_constant_picture_is_black(tmp_path, window, kind):
    path = write(
        tmp_path, np.full((12, 10), 1, np.uint16), PhotometricInterpretation=kind
    )
    found, _ = read_dicom_picture(path, window)
    assert found.shape == (12, 10) and not found.any()


def test_the_windows_of_the_file(tmp_path):
    pixels = values()
    path = write(
        tmp_path,
        pixels,
        RescaleSlope=1,
        RescaleIntercept=0,
        WindowCenter=[1000, 5],
        WindowWidth=[401, 7],
    )
    found, problems = read_dicom_picture(path, 'voi')
    # PS3.3 C.11.2.1.2: black up to c - 0.5 - (w - 1) / 2, white above the same
    # distance, linear between.
    share = (pixels.astype(float) - 999.5) / 400 + 0.5
    np.testing.assert_allclose(found, 255 * np.clip(share, 0, 1), atol=0.51)
    assert not problems
    whole, _ = read_dicom_picture(path)
    np.testing.assert_array_equal(whole, stretched(pixels))


def test_a_sigmoid_and_a_table(tmp_path):
    pixels = values()
    shift = dict(RescaleSlope=1, RescaleIntercept=0)
    path = write(
        tmp_path,
        pixels,
        WindowCenter=1500,
        WindowWidth=800,
        VOILUTFunction='SIGMOID',
        **shift,
    )
    found, _ = read_dicom_picture(path, 'voi')
    share = 1 / (1 + np.exp(-4 * (pixels.astype(float) - 1500) / 800))
    np.testing.assert_allclose(found, 255 * share, atol=0.51)
    table = item(
        LUTDescriptor=[4096, 0, 12],
        LUTData=np.arange(4095, -1, -1, dtype=np.uint16).tobytes(),
    )
    path = write(
        tmp_path, pixels, VOILUTSequence=pydicom.sequence.Sequence([table]), **shift
    )
    found, _ = read_dicom_picture(path, 'voi')
    wanted = 255 * (4095.0 - pixels) / 4095
    np.testing.assert_allclose(found, wanted, atol=0.51)


def test_without_a_window_the_range_is_taken_and_told(tmp_path):
    pixels = values()
    found, problems = read_dicom_picture(write(tmp_path, pixels), 'voi')
    np.testing.assert_array_equal(found, stretched(pixels))
    assert [p.code for p in problems] == ['no-window']


def test_an_unusable_window(tmp_path):
    path = write(tmp_path, values(), WindowCenter=5, WindowWidth=0)
    with pytest.raises(CaseError, match='--window range'):
        read_dicom_picture(path, 'voi')


def test_padding_is_black_and_does_not_count(tmp_path):
    pixels = values()
    pixels[:3] = 4095
    for kind in ('MONOCHROME2', 'MONOCHROME1'):
        found, _ = read_dicom_picture(
            write(
                tmp_path,
                pixels,
                PixelPaddingValue=4095,
                PhotometricInterpretation=kind,
            )
        )
        wanted = stretched(pixels[3:])
        wanted = wanted if kind == 'MONOCHROME2' else 255 - wanted
        assert not found[:3].any()
        np.testing.assert_array_equal(found[3:], wanted)


def colour_file(folder, pixels, kind, **changes):
    dataset = make_slice(
        np.zeros(pixels.shape[:2], np.uint16),
        (0, 0, 0),
        SamplesPerPixel=3,
        PlanarConfiguration=0,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PhotometricInterpretation=kind,
        **changes,
    )
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(folder / 'colour.dcm', enforce_file_format=True)
    return str(folder / 'colour.dcm')


def test_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    found, _ = read_dicom_picture(colour_file(tmp_path, pixels, 'RGB'))
    np.testing.assert_array_equal(found, pixels)
    grey = np.full((12, 10, 3), 128, np.uint8)
    grey[..., 0] = np.arange(12)[:, None] * 20
    found, _ = read_dicom_picture(colour_file(tmp_path, grey, 'YBR_FULL'))
    np.testing.assert_array_equal(found, grey[..., :1].repeat(3, 2))


@pytest.mark.parametrize(
    'changes, code, text',
    [
        (dict(PixelData=None), 'no-pixel-data', 'no pixel data'),
        (dict(NumberOfFrames=4), 'multi-frame', '4 frames.*files of their own'),
        (dict(PixelData=b'12345678'), 'damaged-pixels', 'cannot be decoded'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, code, text):
    path = write(tmp_path, values(), **changes)
    with pytest.raises(CaseError, match=text) as caught:
        read_dicom_picture(path)
    assert caught.value.code == code and 'picture.dcm' in str(caught.value)


def test_no_dicom_file(tmp_path):
    (tmp_path / 'a.dcm').write_bytes(b'nothing of the kind' * 20)
    with pytest.raises(CaseError, match=r'a\.dcm: not a readable DICOM file') as caught:
        read_dicom_picture(str(tmp_path / 'a.dcm'))
    assert caught.value.code == 'unreadable'


def test_jpeg_baseline_of_the_real_pair(realdata):
    """The same pixels, once MONOCHROME2 and once called MONOCHROME1."""
    folder = realdata / 'rsna_sample'
    (plain_file,) = folder.glob('1.2.276*.dcm')
    plain, _ = read_dicom_picture(str(plain_file))
    turned, _ = read_dicom_picture(str(folder / 'Fake_MONOHR1.dcm'))
    assert plain.shape == (1024, 1024) and (plain.min(), plain.max()) == (0, 255)
    np.testing.assert_array_equal(turned, 255 - plain)
    # The lungs are darker than what is between them, the corner is black.
    assert plain[400:600, 250:350].mean() < plain[400:600, 480:560].mean()


def test_jpeg_2000_equals_the_series_reader(realdata):
    from medssl_mm.importers.readers.dicom import read_series

    path = min((realdata / 'totalsegmentator_tests/example_ct_dicom').iterdir())
    found, _ = read_dicom_picture(str(path))
    volume, _, _ = read_series([str(path)])
    np.testing.assert_array_equal(found, stretched(volume[..., 0].T))


def test_a_damaged_real_file(realdata, tmp_path):
    (file,) = (realdata / 'rsna_sample').glob('1.2.276*.dcm')
    content = file.read_bytes()
    start = content.index(b'\xff\xd8\xff')  # of the JPEG
    (tmp_path / 'a.dcm').write_bytes(
        content[: start + 2] + b'\0' * 600 + content[start + 602 :]
    )
    with pytest.raises(CaseError, match='cannot be decoded.*Copy the file') as caught:
        read_dicom_picture(str(tmp_path / 'a.dcm'))
    assert caught.value.code == 'damaged-pixels'
