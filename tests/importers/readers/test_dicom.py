"""Series of slices: order, geometry, damage."""

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom import group_series, read_series
from tests.importers.dicom_files import (
    CT_IMAGE,
    files_of,
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
    with pytest.raises(CaseError, match='106.00 mm.*phases') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'duplicate-position'
    assert 'second' in str(caught.value)


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


def test_a_mosaic_is_refused(tmp_path):
    write_series(tmp_path, ImageType=['ORIGINAL', 'PRIMARY', 'M', 'ND', 'MOSAIC'])
    with pytest.raises(CaseError, match='MOSAIC.*dcm2niix') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'mosaic'


def test_two_patients_under_one_uid_are_two_series(tmp_path):
    for name in ('a', 'b'):
        write_series(tmp_path / name, PatientID=name)
    series, skipped = group_series(tmp_path)
    assert [(s.person, len(s.files)) for s in series] == [('a', 5), ('b', 5)]
    assert not skipped


def test_files_without_preamble_are_read(tmp_path):
    stored = write_series(tmp_path)
    for path in sorted(tmp_path.iterdir())[:2]:
        path.write_bytes(path.read_bytes()[132:])
    dataset = pydicom.dcmread(sorted(tmp_path.iterdir())[2])
    del dataset.file_meta  # and one without any meta information
    dataset.save_as(sorted(tmp_path.iterdir())[2], implicit_vr=True, little_endian=True)
    (tmp_path / 'notes.txt').write_text('nothing')
    (series,), skipped = group_series(tmp_path)
    assert len(series.files) == 5 and skipped == {'no DICOM file': 1}
    array, _, _ = read_series(series.files)
    np.testing.assert_array_equal(array.transpose(2, 1, 0), stored.astype(int) - 1024)
