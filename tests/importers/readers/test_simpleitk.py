"""NRRD, MetaImage and TIFF: geometry, units, damage."""

import re

import numpy as np
import pytest

from medssl_mm.errors import InstallError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers import load_volume, optional, source_files
from medssl_mm.importers.readers.simpleitk import read_simpleitk
from tests.importers.tiff_files import SIDES, write_tiff
from tests.importers.volume_files import SPACING, lps_affine, make_values, write_itk

pytest.importorskip('SimpleITK')
SUFFIXES = ('.nrrd', '.nhdr', '.mha', '.mhd', '.tif')


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('suffix', SUFFIXES[:4])
def test_voxels_lie_where_the_header_says(tmp_path, suffix, compressed):
    values = make_values()
    path = write_itk(tmp_path / f'a{suffix}', values, compressed=compressed)
    array, affine, problems = read_simpleitk(path)
    assert array.dtype == np.int16 and problems == []
    np.testing.assert_array_equal(array, values.T)
    wanted = np.diag([-1.0, -1, 1, 1]) @ lps_affine()  # RAS
    np.testing.assert_allclose(affine, wanted)


@pytest.mark.parametrize('suffix', ['.nrrd', '.mha'])
def test_other_axes_are_turned_back(tmp_path, suffix):
    values = make_values()
    path = write_itk(tmp_path / f'a{suffix}', values, turned=True)
    assert read_simpleitk(path)[0].shape != values.T.shape
    loaded = load_volume(path)
    np.testing.assert_array_equal(loaded.image, values)
    assert loaded.spacing == pytest.approx(SPACING[::-1])
    assert loaded.source_orientation == 'SAR'
    np.testing.assert_allclose(
        loaded.affine, np.diag([-1.0, -1, 1, 1]) @ lps_affine(), atol=1e-9
    )


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('dtype', [np.int16, np.uint8, np.uint16, np.float32])
def test_tiff_pages_are_slices_without_geometry(tmp_path, dtype, compressed):
    values = make_values().clip(0, 255).astype(dtype)
    path = write_itk(tmp_path / 'a.tif', values, compressed=compressed)
    loaded = load_volume(path)
    np.testing.assert_array_equal(loaded.image, values)
    assert loaded.image.dtype == dtype
    assert loaded.affine is None and loaded.spacing is None
    one = load_volume(write_itk(tmp_path / 'one.tiff', values[:1]))
    np.testing.assert_array_equal(one.image, values[:1])


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_black_is_zero_in_images_and_labels_are_as_stored(tmp_path, dtype):
    shown = make_values().clip(0, 200).astype(dtype)
    path = write_tiff(tmp_path / 'a.tif', ~shown, 0)
    loaded = load_volume(path)
    assert loaded.image.dtype == dtype
    np.testing.assert_array_equal(loaded.image, shown)
    assert [p.code for p in loaded.problems] == ['white-is-zero']
    label = write_tiff(tmp_path / 'l.tif', (shown % 3).astype(dtype), 0)
    found = load_volume(label, numbers=True)
    np.testing.assert_array_equal(found.image, shown % 3)
    assert not found.problems
    mixed = write_tiff(tmp_path / 'm.tif', shown, [0, 1, 1, 1, 1])
    with pytest.raises(CaseError, match=r'white is zero .* on 1 of its 5 pages'):
        load_volume(mixed)


@pytest.mark.parametrize('turn', [1, *SIDES])
def test_turned_pages_are_turned_back_or_refused(tmp_path, turn):
    values = make_values().clip(0, 255).astype(np.uint8)
    path = write_tiff(tmp_path / 'a.tif', values, orientation=turn)
    if turn not in (1, 4):
        with pytest.raises(
            CaseError, match=rf'a\.tif says .*orientation {turn}\)'
        ) as e:
            load_volume(path)
        assert e.value.code == 'not-upright'
        return
    loaded = load_volume(path)
    shown = values if turn == 1 else values[:, ::-1]
    np.testing.assert_array_equal(loaded.image, shown)
    assert [p.code for p in loaded.problems] == ['turned'] * (turn == 4)


def test_pages_turned_in_several_ways_are_refused(tmp_path):
    path = write_tiff(tmp_path / 'a.tif', np.ones((2, 9, 9), np.uint8), 1, [1, 4])
    with pytest.raises(CaseError, match=r'orientation 1, 4\)'):
        load_volume(path)


def _half(content):
    return content[: len(content) // 2]


def _flip(content):
    middle = len(content) * 3 // 4
    return content[:middle] + bytes([content[middle] ^ 0x55]) + content[middle + 1 :]


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('suffix', ['.nrrd', '.mha', '.tif'])
@pytest.mark.parametrize('damage', [_half, lambda c: b'', lambda c: b'hello'])
def test_truncated_files_are_refused(tmp_path, suffix, compressed, damage):
    path = write_itk(tmp_path / f'a{suffix}', make_values(), compressed=compressed)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CaseError, match=rf'a\{suffix} cannot be read') as caught:
        read_simpleitk(path)
    assert caught.value.code == 'unreadable'


@pytest.mark.parametrize('suffix', ['.nrrd', '.mha', '.mhd'])
def test_damaged_compression_is_noticed(tmp_path, suffix):
    """ITK itself reads a damaged MetaImage without a word."""
    path = write_itk(tmp_path / f'a{suffix}', make_values(20), compressed=True)
    data = path.with_suffix('.zraw') if suffix == '.mhd' else path
    data.write_bytes(_flip(data.read_bytes()))
    with pytest.raises(CaseError, match=rf'a\{suffix} cannot be read'):
        read_simpleitk(path)


@pytest.mark.parametrize('pages', [2, 5])
def test_a_page_cut_off_is_noticed(tmp_path, pages):
    """ITK itself gives the pages that are left."""
    path = write_itk(tmp_path / 'a.tif', make_values(pages))
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(CaseError, match='a.tif cannot be read'):
        read_simpleitk(path)


def test_missing_and_wrong_kinds(tmp_path):
    import SimpleITK as sitk

    with pytest.raises(CaseError, match='b.mha does not exist'):
        read_simpleitk(tmp_path / 'b.mha')
    values = make_values()
    vector = sitk.GetImageFromArray(np.stack([values] * 3, -1), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / 'v.mha'))
    with pytest.raises(CaseError, match='v.mha holds colour or vector'):
        read_simpleitk(tmp_path / 'v.mha')
    four = sitk.JoinSeries([sitk.GetImageFromArray(values)] * 2)
    sitk.WriteImage(four, str(tmp_path / 'f.nrrd'))
    with pytest.raises(CaseError, match='f.nrrd has 4 axes') as caught:
        read_simpleitk(tmp_path / 'f.nrrd')
    assert caught.value.code == '4d-image'
    sitk.WriteImage(sitk.GetImageFromArray(values[0]), str(tmp_path / 's.mha'))
    with pytest.raises(CaseError, match='s.mha has 2 axes'):
        read_simpleitk(tmp_path / 's.mha')
    one = sitk.JoinSeries([sitk.GetImageFromArray(values)])
    sitk.WriteImage(one, str(tmp_path / 'one.nrrd'))
    np.testing.assert_array_equal(read_simpleitk(tmp_path / 'one.nrrd')[0], values.T)


def change(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def test_headers_without_orientation_are_told(tmp_path):
    path = write_itk(tmp_path / 'a.nrrd', make_values())
    assert read_simpleitk(path)[2] == []
    change(path, b'space: left-posterior-superior\n', b'')
    change(path, b'space directions: ', b'spacings: 1 1 1\n#')
    change(path, b'space origin: ', b'#')
    assert [p.code for p in read_simpleitk(path)[2]] == ['no-orientation']
    path = write_itk(tmp_path / 'a.mha', make_values())
    change(path, b'TransformMatrix', b'Comment')
    change(path, b'AnatomicalOrientation', b'Other')
    assert [p.code for p in read_simpleitk(path)[2]] == ['no-orientation']


@pytest.mark.parametrize(
    'old, new, told, spacing',
    [
        (b'ElementSpacing', b'Comment', 'no size of its voxels.*as 1 mm', (1, 1, 1)),
        (b'Spacing = 0', b'Spacing = -0', 'voxels of -0.*the sign', SPACING),
    ],
)
def test_voxel_sizes_that_are_guessed_are_told(tmp_path, old, new, told, spacing):
    path = write_itk(tmp_path / 'a.mha', make_values())
    change(path, old, new)
    _, affine, (problem,) = read_simpleitk(path)
    assert problem.code == 'spacing-unusual' and re.search(told, problem.message)
    np.testing.assert_allclose(np.abs(np.diag(affine)[:3]), spacing)


@pytest.mark.parametrize(
    'units, factor',
    [('"mm" "mm" "mm"', 1), ('"um" "um" "um"', 1e-3), ('"cm" ' * 3, 10)],
)
def test_units_of_nrrd(tmp_path, units, factor):
    path = write_itk(tmp_path / 'a.nrrd', make_values())
    _, plain, _ = read_simpleitk(path)
    change(path, b'kinds:', f'space units: {units}\nkinds:'.encode())
    _, affine, problems = read_simpleitk(path)
    np.testing.assert_allclose(affine[:3], factor * plain[:3])
    assert [p.code for p in problems] == ['spacing-units'] * (factor != 1)
    change(path, units.encode(), b'"mm" "mm" "inch"')
    with pytest.raises(CaseError, match='lengths in inch, mm'):
        read_simpleitk(path)


def test_detached_data_belong_to_the_source(tmp_path):
    for suffix, data in (('.mhd', 'a.raw'), ('.nhdr', 'a.raw')):
        (tmp_path / suffix[1:]).mkdir()
        path = write_itk(tmp_path / suffix[1:] / f'a{suffix}', make_values())
        assert source_files(path) == [str(path), str(path.parent / data)]
    header = tmp_path / 'list.mhd'
    header.write_text('NDims = 3\nElementDataFile = LIST\na.raw\nb.raw\n')
    assert source_files(header)[1:] == [str(tmp_path / n) for n in ('a.raw', 'b.raw')]
    header.write_text('NDims = 3\nElementDataFile = s%02d.raw 1 5 2\n')
    assert [p[-7:] for p in source_files(header)[1:]] == [
        's01.raw',
        's03.raw',
        's05.raw',
    ]
    header = tmp_path / 'list.nhdr'
    header.write_text('NRRD0004\ndimension: 3\ndata file: LIST\na.raw\nb.raw\n')
    assert source_files(header)[1:] == [str(tmp_path / n) for n in ('a.raw', 'b.raw')]
    assert source_files(tmp_path / 'x.mha') == [str(tmp_path / 'x.mha')]


def test_an_absent_library_is_named_with_its_extra():
    with pytest.raises(InstallError, match=r'medssl_mm\[readers\]'):
        optional.require('no_such_package_of_ours')
