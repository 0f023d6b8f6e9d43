import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.picture import (
    find_pictures,
    fit_square,
    read_colour_picture,
    read_grey,
    read_grey_picture,
    read_mask,
    read_picture,
)
from tests.datasets.images import make_picture, write_picture
from tests.importers.tiff_files import SIDES, write_tiff


def codes(problems):
    return [p.code for p in problems]


def test_colours_come_in_rgb_order(tmp_path):
    picture = make_picture(0)
    path = str(write_picture(tmp_path / 'a.png', picture))
    found, problems = read_colour_picture(path)
    np.testing.assert_array_equal(found, picture)
    assert not problems


def test_transparency_is_dropped(tmp_path):
    grey = make_picture(0, channels=1)
    picture = np.dstack([grey] * 3 + [np.full_like(grey, 9)])
    path = str(write_picture(tmp_path / 'a.png', picture))
    found, problems = read_grey_picture(path)
    np.testing.assert_array_equal(found, grey)
    assert codes(problems) == ['transparent'] and '256 pixels' in problems[0].message
    np.testing.assert_array_equal(read_colour_picture(path)[0], picture[..., :3])
    picture[..., 3] = 255
    path = str(write_picture(tmp_path / 'b.png', picture))
    assert not read_colour_picture(path)[1]


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.jpg'])
@pytest.mark.parametrize('turn', range(1, 9))
def test_pictures_are_turned_as_viewers_turn_them(tmp_path, suffix, turn):
    pixels = cv2.resize(make_picture(0), (24, 16))
    image = Image.fromarray(pixels)
    image.getexif()[274] = turn
    path = tmp_path / f'a{suffix}'
    image.save(path, exif=image.getexif())
    found, problems = read_picture(str(path))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_allclose(found, expected, atol=3)  # two decoders of JPEG
    assert codes(problems) == ['turned'] * (turn > 1)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('turn', sorted(SIDES))
def test_deep_tiff_is_turned_and_told(tmp_path, dtype, turn):
    stored = np.arange(96, dtype=dtype).reshape(8, 12)
    path = write_tiff(tmp_path / 'a.tif', [stored], orientation=turn)
    found, problems = read_picture(str(path))
    np.testing.assert_array_equal(found, SIDES[turn](stored))
    assert codes(problems) == ['turned']
    assert f'orientation {turn}' in problems[0].message


@pytest.mark.parametrize('order', '<>')
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_black_is_zero_at_any_depth(tmp_path, dtype, order):
    shown = (np.arange(96).reshape(8, 12) * 2).astype(dtype)
    one = write_tiff(tmp_path / 'one.tif', [shown], 1, order=order)
    zero = write_tiff(tmp_path / 'zero.tif', [~shown], 0, order=order)
    for path in (one, zero):
        found, _ = read_picture(str(path))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, shown)


def test_broken_numbers_with_white_as_zero_are_refused(tmp_path):
    path = write_tiff(tmp_path / 'a.tif', np.ones((1, 8, 9), np.float32), 0)
    with pytest.raises(CaseError, match=r'a\.tif: pixels of type float32') as caught:
        read_picture(str(path))
    assert caught.value.code == 'white-is-zero'


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_of_several_pages_the_first_is_taken_and_told(tmp_path, suffix):
    pages = [Image.fromarray(make_picture(seed)) for seed in range(3)]
    path = tmp_path / f'a{suffix}'
    pages[0].save(path, save_all=True, append_images=pages[1:])
    found, problems = read_picture(str(path))
    np.testing.assert_array_equal(found, np.asarray(pages[0]))
    assert codes(problems) == ['several-pages'] and '3 pages' in problems[0].message


def test_grey_and_colour_are_told_apart(tmp_path):
    grey = make_picture(0, channels=1)
    path = str(write_picture(tmp_path / 'grey.png', grey))
    np.testing.assert_array_equal(read_grey_picture(path)[0], grey)
    found, problems = read_colour_picture(path)
    assert codes(problems) == ['grey'] and (found == grey[..., None]).all()
    coloured = np.dstack([grey] * 3)
    coloured[2, 3] = 1, 2, 3
    path = str(write_picture(tmp_path / 'colour.png', coloured))
    with pytest.raises(CaseError, match='colour.png: 1 coloured pixels'):
        read_grey_picture(path)


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize(
    'damage',
    [
        lambda content: b'',
        lambda content: content[: len(content) // 2],
        lambda content: b'text',
        lambda content: content[:-12],
    ],
)
def test_incomplete_files_are_refused(tmp_path, suffix, damage):
    path = write_picture(tmp_path / f'a{suffix}', make_picture(0, 64))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CaseError, match=rf'a\{suffix}: the file is .*copy'):
        read_colour_picture(str(path))


def test_damage_in_the_middle(tmp_path):
    path = write_picture(tmp_path / 'a.png', make_picture(0, 64))
    content = bytearray(path.read_bytes())
    content[60:-60] = bytes(len(content) - 120)
    path.write_bytes(content)
    with pytest.raises(CaseError, match='a.png: the image data is damaged'):
        read_colour_picture(str(path))


def test_sixteen_bit_is_refused(tmp_path):
    path = write_picture(tmp_path / 'a.png', np.full((9, 9), 1000, np.uint16))
    with pytest.raises(CaseError, match='uint16, expected 8 bit'):
        read_grey_picture(str(path))


@pytest.mark.parametrize('suffix', ['.JPG', '.jpeg', '.png'])
def test_pictures_are_found_in_every_folder(tmp_path, suffix):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    wanted = tmp_path / 'a' / 'b' / f'x{suffix}'
    for path in (wanted, tmp_path / 'list.csv'):
        path.touch()
    assert find_pictures(tmp_path) == [wanted]


def test_square_of_the_right_size_stays():
    picture = make_picture(0)
    found, problems = fit_square(picture, 16, 'a.png', pad=False)
    assert found is picture and not problems


@pytest.mark.parametrize('channels', [1, 3])
def test_squares_are_averaged_down(channels):
    picture = make_picture(0, 32, channels).astype(np.float64)
    found, problems = fit_square(picture.astype(np.uint8), 16, 'a.png', pad=True)
    means = picture.reshape(16, 2, 16, 2, -1).mean((1, 3)).squeeze()
    assert np.abs(found - means).max() <= 0.5 and not problems


def test_padding_keeps_everything_cropping_the_centre():
    picture = np.zeros((16, 32), np.uint8)
    picture[:, 8:24] = 200
    padded, problems = fit_square(picture, 16, 'a.png', pad=True)
    np.testing.assert_array_equal(padded[:8, 4:12], 200)
    assert padded.sum() == 200 * 8 * 8 and codes(problems) == ['not-square']
    cropped, problems = fit_square(picture, 16, 'a.png', pad=False)
    assert (cropped == 200).all() and codes(problems) == ['not-square']
    cropped, _ = fit_square(picture.T.copy(), 16, 'a.png', pad=False)
    assert (cropped == 200).all()


def test_enlarging_is_told_and_tiny_refused():
    found, problems = fit_square(make_picture(0), 20, 'a.png', pad=False)
    assert found.shape == (20, 20, 3) and codes(problems) == ['enlarged']
    with pytest.raises(CaseError, match='a.png: 7 x 50 pixels'):
        fit_square(np.zeros((7, 50), np.uint8), 20, 'a.png', pad=False)


def test_files_of_opencv_are_read_alike(tmp_path):
    """A JPEG file equals what OpenCV says, channels turned."""
    path = write_picture(tmp_path / 'a.jpg', make_picture(0, 40))
    np.testing.assert_array_equal(
        read_colour_picture(str(path))[0], cv2.imread(str(path))[..., ::-1]
    )


@pytest.mark.parametrize('content', [b'', b'text', None])
def test_damaged_file_is_named(tmp_path, content):
    path = tmp_path / 'x.png'
    write_picture(path, make_picture(0, 60, 1))
    path.write_bytes(path.read_bytes()[:-300] if content is None else content)
    with pytest.raises(CaseError, match='x.png: the file is (empty|truncated)'):
        read_grey(str(path))


def test_coloured_image_is_refused(tmp_path):
    write_picture(tmp_path / 'x.png', make_picture(1))
    with pytest.raises(CaseError, match='coloured pixels'):
        read_grey(str(tmp_path / 'x.png'))


def test_bytes_behind_the_end_are_passed_over(tmp_path):
    for suffix in ('.png', '.jpg'):
        path = write_picture(tmp_path / f'a{suffix}', make_picture(0, 64))
        content = path.read_bytes()
        before, _ = read_colour_picture(str(path))
        path.write_bytes(content + b'\r\n')
        np.testing.assert_array_equal(read_colour_picture(str(path))[0], before)


def test_masks_of_one_bit_hold_0_and_1(tmp_path):
    mask = make_picture(0, channels=1) > 100
    Image.fromarray(mask).save(tmp_path / 'a.png')
    found = read_mask(str(tmp_path / 'a.png'), ['background', 'liver'], None)
    np.testing.assert_array_equal(found, mask)
    found = read_mask(str(tmp_path / 'a.png'), ['background', 'liver'], [0, 255])
    np.testing.assert_array_equal(found, mask)


def test_masks_with_a_colour_table_are_read_by_its_entries(tmp_path):
    index = np.arange(100, dtype=np.uint8).reshape(10, 10) % 3
    mask = Image.fromarray(index, 'P')
    mask.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30])
    mask.save(tmp_path / 'a.png')
    classes = ('background', 'a', 'b')
    np.testing.assert_array_equal(
        read_mask(str(tmp_path / 'a.png'), classes, None), index
    )
    values = [[0, 0, 0], [30, 200, 30], [200, 30, 30]]  # by colour, as before
    np.testing.assert_array_equal(
        read_mask(str(tmp_path / 'a.png'), classes, values),
        np.array([0, 2, 1], np.uint8)[index],
    )
    with pytest.raises(CaseError, match=r'value\(s\): 2 33 pixel'):
        read_mask(str(tmp_path / 'a.png'), classes[:2], None)
