"""Series of slices: order, geometry, damage."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import group_series
from medssl_mm.store.orientation import canonicalize
from tests.importers.dicom_files import (
    AXIAL,
    CT_IMAGE,
    TILTED,
    files_of,
    item,
    make_slice,
    stored_values,
    write_enhanced,
    write_series,
)


def test_affine_is_the_position_of_every_voxel(tmp_path):
    stored = write_series(tmp_path)
    array, affine, _ = read_series(files_of(tmp_path))
    assert array.shape == (10, 12, 5)
    for column, row, index in ((0, 0, 0), (7, 2, 3), (9, 11, 4)):
        assert array[column, row, index] == int(stored[index, row, column]) - 1024
        left, posterior, superior = (
            -40 + 0.7 * column,
            -60 + 0.8 * row,
            100 + 3.0 * index,
        )
        np.testing.assert_allclose(
            affine @ (column, row, index, 1), (-left, -posterior, superior, 1)
        )


@pytest.mark.parametrize(
    'directions, turn',
    [(AXIAL, 1), (AXIAL, -1), (TILTED, 1), (TILTED, -1), ((0, 1, 0, 0, 0, -1), 1)],
)
def test_values_and_places_are_those_of_highdicom(tmp_path, directions, turn):
    highdicom = pytest.importorskip('highdicom')
    normal = np.cross(directions[:3], directions[3:])
    required = ('StudyDate', 'StudyTime', 'StudyID', 'AccessionNumber', 'KVP')
    write_series(
        tmp_path,
        step=3.0 * turn * normal,
        ImageOrientationPatient=list(directions),
        SliceThickness=3,  # without which highdicom refuses a file
        FrameOfReferenceUID='1.2.9',
        SeriesNumber=1,
        AcquisitionNumber=1,
        **dict.fromkeys((*required, 'PatientSex', 'ReferringPhysicianName'), ''),
        Manufacturer='',
    )
    slices = [pydicom.dcmread(path) for path in files_of(tmp_path)]
    other = highdicom.get_volume_from_series(slices)
    order = [2, 1, 0]  # it has (slice, row, column), and the patient's left as +x
    affine = np.diag([-1, -1, 1, 1]) @ other.affine[:, [*order, 3]]
    values, affine, _ = canonicalize(other.array.transpose(order), affine)
    array, own, problems = read_series(files_of(tmp_path))
    found, own, _ = canonicalize(array, own)
    np.testing.assert_array_equal(found, values)
    np.testing.assert_allclose(own, affine, atol=1e-9)
    assert problems == []


def test_descending_positions_give_the_same_volume(tmp_path):
    stored = stored_values()
    write_series(tmp_path / 'up', stored)
    folder = tmp_path / 'down'
    folder.mkdir()
    for index in range(5):
        make_slice(stored[index], (-40, -60, 100 + 3 * index)).save_as(
            folder / f'{9 - index}.dcm', enforce_file_format=True
        )
    up = read_series(files_of(tmp_path / 'up'))
    down = read_series(files_of(folder))
    np.testing.assert_array_equal(up[0], down[0])
    np.testing.assert_allclose(up[1], down[1])


@pytest.mark.parametrize(
    'changes, code, text',
    [
        (
            dict(skip=(2,)),
            'missing-slices',
            r'about 1 slice\(s\) missing.*3\.000 mm.*103\.00 to 109\.00 mm',
        ),
        (dict(PixelData=None), 'no-pixel-data', 'no pixel data'),
        (dict(NumberOfFrames=4), 'multi-frame', '4 frames.*dcm2niix'),
        (
            dict(ImagePositionPatient=None),
            'no-geometry',
            'ImagePositionPatient missing',
        ),
        (
            dict(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
            'bad-orientation',
            'perpendicular',
        ),
        (dict(RescaleSlope=0), 'no-rescale', 'image0: RescaleSlope is 0'),
        (dict(PixelSpacing=[0.8]), 'bad-number', 'PixelSpacing.*expected 2'),
        (dict(HighBit=15), 'bit-layout', 'HighBit is 15; expected 11'),
    ],
)
def test_bad_series_is_refused_with_its_reason(tmp_path, changes, code, text):
    write_series(tmp_path, **changes)
    with pytest.raises(CaseError, match=text) as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == code


def test_two_slices_at_one_position_are_refused(tmp_path):
    write_series(tmp_path)
    make_slice(stored_values(1)[0], (-40, -60, 106)).save_as(
        tmp_path / 'second', enforce_file_format=True
    )
    with pytest.raises(CaseError, match='106.00 mm.*of their own') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'duplicate-position'
    assert 'second' in str(caught.value)


def test_numbers_of_other_countries_name_the_file_and_the_tag(tmp_path):
    write_series(tmp_path)
    path = tmp_path / 'image2'
    content = path.read_bytes()
    path.write_bytes(content.replace(b'0.8\\0.7', b'0,8\\0,7'))
    with pytest.raises(CaseError, match="image2: PixelSpacing is .*'0,8'"):
        read_series(files_of(tmp_path))


def test_the_number_of_an_image_makes_no_volumes(tmp_path):
    volume = write_series(tmp_path / 'a')
    write_series(tmp_path / 'a' / 'b', volume + 1)
    for path in (tmp_path / 'a' / 'b').iterdir():
        dataset = pydicom.dcmread(path)
        dataset.InstanceNumber += 5
        dataset.save_as(path)
    (series,), _ = group_series(tmp_path)
    with pytest.raises(CaseError, match='5 slice .*differ in InstanceNumber') as caught:
        read_series(series.files)
    assert caught.value.code == 'duplicate-position'


def test_a_file_copied_twice_is_used_once(tmp_path):
    stored = write_series(tmp_path)
    source = tmp_path / 'image0'
    (tmp_path / 'copy').write_bytes(source.read_bytes())
    array, _, problems = read_series(files_of(tmp_path))
    assert array.shape[2] == len(stored)
    assert [problem.code for problem in problems] == ['duplicate-file']


def test_uneven_steps_are_refused_and_small_ones_reported(tmp_path):
    stored = stored_values(4)
    for name, heights in (('uneven', (0, 3, 6, 10)), ('small', (0, 3, 6, 9.1))):
        (tmp_path / name).mkdir()
        for index, height in enumerate(heights):
            make_slice(stored[index], (0, 0, height)).save_as(
                tmp_path / name / f'{index}', enforce_file_format=True
            )
    with pytest.raises(CaseError, match='6.00 and 10.00 mm') as caught:
        read_series(files_of(tmp_path / 'uneven'))
    assert caught.value.code == 'uneven-spacing'
    _, _, problems = read_series(files_of(tmp_path / 'small'))
    assert [problem.code for problem in problems] == ['spacing-jitter']


@pytest.mark.parametrize(
    'odd, what',
    [
        (dict(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), 'orientation'),
        (dict(PixelSpacing=[0.8, 0.8]), 'pixel spacing'),
    ],
)
def test_mixed_series_names_the_odd_file(tmp_path, odd, what):
    write_series(tmp_path)
    make_slice(stored_values(1)[0], (-40, -60, 115), **odd).save_as(
        tmp_path / 'odd', enforce_file_format=True
    )
    with pytest.raises(CaseError, match=f'differ in {what}.*odd') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'mixed-series'


def test_mixed_sizes_are_refused(tmp_path):
    write_series(tmp_path)
    make_slice(stored_values(1, 8, 8)[0], (-40, -60, 115)).save_as(
        tmp_path / 'odd', enforce_file_format=True
    )
    with pytest.raises(CaseError, match=r'size.*\(8, 8\): 1 file.*odd'):
        read_series(files_of(tmp_path))


def test_truncated_pixels_name_the_file(tmp_path):
    write_series(tmp_path)
    path = tmp_path / 'image3'
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CaseError, match='image3') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'damaged-pixels'


@pytest.mark.parametrize('kept, code', [(-50, 'damaged-pixels'), (0, 'unreadable')])
def test_several_bad_files_are_counted(tmp_path, kept, code):
    write_series(tmp_path)
    for number in (1, 3):
        path = tmp_path / f'image{number}'
        path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CaseError, match='^2 of 5 files.*image[13]') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == code


def test_unknown_compression_says_what_to_install(tmp_path):
    write_series(tmp_path)
    dataset = make_slice(stored_values(1)[0], (-40, -60, 115))
    dataset.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.4.201'  # HTJ2K
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([b'\x00' * 64])
    dataset['PixelData'].is_undefined_length = True
    dataset.save_as(tmp_path / 'x', enforce_file_format=True)
    with pytest.raises(CaseError, match='/x: ') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code in ('no-decoder', 'damaged-pixels')
    if caught.value.code == 'no-decoder':
        assert 'pip install pylibjpeg' in str(caught.value)


def test_a_syntax_of_a_maker_is_named(tmp_path):
    write_series(tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        own = content.replace(b'1.2.840.10008.1.2.1\0', b'1.2.840.113619.5.2\0\0')
        assert own != content
        path.write_bytes(own)
    with pytest.raises(CaseError, match='no decoder for 1.2.840.113619.5.2') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'no-decoder'


@pytest.mark.parametrize(
    'per_frame',
    [
        (),
        ('PixelMeasuresSequence', 'PlaneOrientationSequence'),
        ('PixelValueTransformationSequence',),
    ],
)
@pytest.mark.parametrize('order', [None, (3, 0, 4, 1, 2)])
def test_frames_of_one_file_equal_files(tmp_path, per_frame, order):
    write_series(tmp_path / 'slices')
    path = write_enhanced(tmp_path / 'one.dcm', tmp_path / 'slices', order, per_frame)
    one, many = read_series([str(path)]), read_series(files_of(tmp_path / 'slices'))
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_allclose(one[1], many[1])
    assert one[0].dtype == np.int16 and one[2] == []


def test_every_frame_has_its_own_rescale(tmp_path):
    stored = stored_values()
    for index, pixels in enumerate(stored):
        (tmp_path / 'slices').mkdir(exist_ok=True)
        make_slice(
            pixels, (0, 0, 3 * index), Modality='MR', RescaleSlope=1 + index
        ).save_as(tmp_path / 'slices' / f'{index}', enforce_file_format=True)
    path = write_enhanced(
        tmp_path / 'one.dcm',
        tmp_path / 'slices',
        per_frame=('PixelValueTransformationSequence',),
    )
    array, _, _ = read_series([str(path)])
    slopes = np.arange(1, 6)[:, None, None]
    np.testing.assert_array_equal(
        array.transpose(2, 1, 0), stored.astype(int) * slopes - 1024
    )


def test_enhanced_object_of_another_writer(tmp_path):
    """Frames converted by highdicom give the volume of the slices."""
    highdicom = pytest.importorskip('highdicom')
    write_series(tmp_path / 'slices', FrameOfReferenceUID='1.2.99')
    slices = [pydicom.dcmread(file) for file in files_of(tmp_path / 'slices')]
    for one in slices:
        one.SOPClassUID = CT_IMAGE
        for name in ('PatientSex', 'StudyID', 'StudyDate', 'StudyTime', 'KVP'):
            setattr(one, name, None)
        for name in ('AccessionNumber', 'ReferringPhysicianName', 'AcquisitionNumber'):
            setattr(one, name, None)
        one.SliceThickness = 3.0
    whole = highdicom.legacy.LegacyConvertedEnhancedCTImage(
        slices, generate_uid(), 1, generate_uid(), 1
    )
    whole.save_as(tmp_path / 'one.dcm')
    one = read_series([str(tmp_path / 'one.dcm')])
    many = read_series(files_of(tmp_path / 'slices'))
    np.testing.assert_array_equal(one[0], many[0])
    np.testing.assert_allclose(one[1], many[1])


def test_frames_at_one_place_are_refused(tmp_path):
    write_series(tmp_path / 'slices')
    path = write_enhanced(tmp_path / 'one.dcm', tmp_path / 'slices', (0, 1, 2, 3, 4, 2))
    with pytest.raises(CaseError, match='one.dcm, frame 3 and one.dcm, frame 6') as c:
        read_series([str(path)])
    assert c.value.code == 'duplicate-position'


def test_frames_without_a_place_are_named(tmp_path):
    write_series(tmp_path / 'slices')
    path = write_enhanced(tmp_path / 'one.dcm', tmp_path / 'slices')
    whole = pydicom.dcmread(path)
    del whole.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    whole.save_as(path)
    with pytest.raises(
        CaseError, match='ImagePositionPatient missing .one.dcm, frame 2'
    ):
        read_series([str(path)])


def test_orientations_are_compared_by_difference(tmp_path):
    """Cosines on both sides of a rounding limit are one orientation."""
    angles = np.arccos([0.9994999, 0.9995001, 0.9994999, 0.9995001, 0.9994999])
    tilt = np.array([0, -np.sin(angles[0]), np.cos(angles[0])])
    for index, angle in enumerate(angles):
        make_slice(
            stored_values()[index],
            np.array([1.0, 2, 3]) + 3 * index * tilt,
            ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), np.sin(angle)],
        ).save_as(tmp_path / str(index), enforce_file_format=True)
    assert read_series(files_of(tmp_path))[0].shape == (10, 12, 5)


def test_slices_beside_the_line_are_refused(tmp_path):
    for index, pixels in enumerate(stored_values()):
        place = (-40 + 20 * (index in (2, 3)), -60, 3 * index)
        make_slice(pixels, place).save_as(
            tmp_path / f'{index}', enforce_file_format=True
        )
    with pytest.raises(CaseError, match=r'2 lies 20\.00 mm beside the line') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'slices-shifted'


def test_a_slice_elsewhere_is_named_not_its_neighbours(tmp_path):
    for index, pixels in enumerate(stored_values(8)):
        make_slice(pixels, (40 * (index == 7), 0, 3 * index)).save_as(
            tmp_path / f'{index}', enforce_file_format=True
        )
    with pytest.raises(CaseError, match=r'^7 lies 40\.00 mm.* 1 slice') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'slices-shifted'


def test_a_rounded_tilt_is_one_line(tmp_path):
    """Positions rounded to 0.1 mm, a step of 0.04 mm across."""
    for index, pixels in enumerate(stored_values(60)):
        place = (round(0.04 * index, 1), 0, 3 * index)
        make_slice(pixels, place).save_as(
            tmp_path / f'{index}', enforce_file_format=True
        )
    assert read_series(files_of(tmp_path))[0].shape == (10, 12, 60)


def write_mixed(folder, odd, **common):
    """Four slices; the second of them is odd."""
    stored = stored_values(4)
    for index, pixels in enumerate(stored):
        changes = {**common, **(odd if index == 1 else {})}
        make_slice(pixels, (0, 0, 3 * index), **changes).save_as(
            folder / f'{index}', enforce_file_format=True
        )
    return stored


@pytest.mark.parametrize(
    'odd, what',
    [
        (dict(PhotometricInterpretation='MONOCHROME1'), 'photometric'),
        (dict(RescaleType='US'), 'unit .RescaleType.'),
        (dict(RescaleIntercept=None), 'RescaleSlope or RescaleIntercept'),
        (dict(RescaleSlope=None), 'RescaleSlope or RescaleIntercept'),
        (dict(Modality='MR'), 'modality'),
    ],
)
def test_slices_that_differ_are_refused_whichever_comes_first(tmp_path, odd, what):
    write_mixed(tmp_path, odd)
    with pytest.raises(CaseError, match=f'differ in {what}.*e.g. 1') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'mixed-series'


@pytest.mark.parametrize(
    'common, odd',
    [
        (dict(RescaleType='HU'), dict(RescaleType='')),
        (
            dict(Modality='MR', RescaleSlope=1, RescaleIntercept=0),
            dict(RescaleSlope=None, RescaleIntercept=None),
        ),
    ],
)
def test_what_the_standard_takes_for_granted_is_no_difference(tmp_path, common, odd):
    write_mixed(tmp_path, odd, **common)
    assert read_series(files_of(tmp_path))[2] == []


def test_rescale_padding_and_sign_are_those_of_each_slice(tmp_path):
    odd = dict(
        RescaleSlope=2, RescaleIntercept=-10, PixelRepresentation=1,
        PixelPaddingValue=7, BitsStored=16, HighBit=15,
    )  # fmt: skip
    stored = write_mixed(tmp_path, odd, PixelPaddingValue=9).astype(int)
    dataset = pydicom.dcmread(tmp_path / '1')
    values = stored[1] - 1000
    values[0, :2] = 7, 9
    dataset.PixelData = values.astype(np.int16).tobytes()
    dataset.save_as(tmp_path / '1')
    expected = np.where(stored == 9, -1024, stored - 1024)
    expected[1] = np.where(values == 7, -1024, 2 * values - 10)
    array, _, _ = read_series(files_of(tmp_path))
    np.testing.assert_array_equal(array.transpose(2, 1, 0), expected)


@pytest.mark.parametrize(
    'limit, padded', [(None, [-2000]), (-1998, [-2000, -1999, -1998])]
)
def test_padding_declared_without_its_sign(tmp_path, limit, padded):
    values = np.arange(-2000, -2000 + 120).reshape(12, 10)
    dataset = make_slice(
        values.astype(np.int16).view(np.uint16), (0, 0, 0), PixelRepresentation=1,
        RescaleIntercept=0, BitsStored=16, HighBit=15,
    )  # fmt: skip
    dataset.add_new('PixelPaddingValue', 'US', 65536 - 2000)
    if limit is not None:
        dataset.add_new('PixelPaddingRangeLimit', 'SS', limit)
    dataset.save_as(tmp_path / 'x', enforce_file_format=True)
    array, _, _ = read_series(files_of(tmp_path))
    expected = np.where(np.isin(values, padded), -1024, values)
    np.testing.assert_array_equal(array[..., 0].T, expected)


def test_values_of_another_unit_are_reported(tmp_path):
    write_series(tmp_path, RescaleType='MGML')
    _, _, problems = read_series(files_of(tmp_path))
    assert [problem.code for problem in problems] == ['rescale-type']


def test_a_lookup_table_takes_the_place_of_the_rescale(tmp_path):
    stored = write_series(tmp_path, RescaleSlope=None, RescaleIntercept=None)
    table = np.arange(4096, dtype=np.uint16)[::-1].copy()
    for path in files_of(tmp_path):
        dataset = pydicom.dcmread(path)
        entry = item(LUTDescriptor=[4096, 0, 16], ModalityLUTType='HU')
        entry.add_new('LUTData', 'OW', table.tobytes())
        dataset.ModalityLUTSequence = [entry]
        dataset.save_as(path)
    array, _, problems = read_series(files_of(tmp_path))
    np.testing.assert_array_equal(array.transpose(2, 1, 0), 4095 - stored.astype(int))
    assert problems == []


def test_colours_by_a_palette_are_no_values(tmp_path):
    write_series(tmp_path, PhotometricInterpretation='PALETTE COLOR')
    with pytest.raises(CaseError, match='PALETTE COLOR') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'not-grey'
