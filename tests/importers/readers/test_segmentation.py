"""Segmentations come back as the mask they were made from."""

import numpy as np
import pydicom
import pytest

from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.segmentation import (
    describe_segmentation,
    read_segmentation,
)
from tests.importers.dicom_files import (
    TILTED,
    files_of,
    make_segmentation,
    shuffle_frames,
    write_series,
)

pytest.importorskip('highdicom')
BOTH = {1: 1, 2: 2}


def make_mask(depth=5, rows=12, columns=10, empty=(), seed=0):
    mask = np.random.default_rng(seed).integers(0, 3, (depth, rows, columns))
    mask[list(empty)] = 0
    return mask.astype(np.uint8)


def save(segmentation, path):
    segmentation.save_as(path)
    return path


def read_on_series(path, folder, class_of=BOTH):
    """The label in the order of the mask: slices, rows, columns."""
    array, affine, _ = read_series(files_of(folder))
    label = read_segmentation(path, array.shape, affine, class_of)
    assert label.dtype == np.uint8
    return label.transpose(2, 1, 0)


@pytest.mark.parametrize('kind', ['BINARY', 'LABELMAP', 'FRACTIONAL'])
@pytest.mark.parametrize('empty', [(), (0, 3), (1, 2, 3), (0, 1, 3, 4)])
@pytest.mark.parametrize('omit', [False, True])
def test_mask_comes_back(tmp_path, kind, empty, omit):
    write_series(tmp_path / 'scan')
    mask = make_mask(empty=empty)
    made = make_segmentation(
        tmp_path / 'scan', mask, segmentation_type=kind, omit_empty_frames=omit
    )
    path = save(made, tmp_path / 'a.dcm')
    np.testing.assert_array_equal(read_on_series(path, tmp_path / 'scan'), mask)


@pytest.mark.parametrize('kind', ['BINARY', 'LABELMAP'])
def test_frames_in_another_order(tmp_path, kind):
    write_series(tmp_path / 'scan')
    mask = make_mask(empty=(2,))
    made = make_segmentation(tmp_path / 'scan', mask, segmentation_type=kind)
    before = [
        list(group.PlanePositionSequence[0].ImagePositionPatient)
        for group in made.PerFrameFunctionalGroupsSequence
    ]
    made = shuffle_frames(made)
    after = [
        list(group.PlanePositionSequence[0].ImagePositionPatient)
        for group in made.PerFrameFunctionalGroupsSequence
    ]
    assert before != after
    path = save(made, tmp_path / 'a.dcm')
    np.testing.assert_array_equal(read_on_series(path, tmp_path / 'scan'), mask)


def test_oblique_series(tmp_path):
    normal = np.cross(TILTED[:3], TILTED[3:])
    write_series(
        tmp_path / 'scan', step=2.5 * normal, ImageOrientationPatient=list(TILTED)
    )
    mask = make_mask()
    path = save(make_segmentation(tmp_path / 'scan', mask), tmp_path / 'a.dcm')
    np.testing.assert_array_equal(read_on_series(path, tmp_path / 'scan'), mask)


def test_segments_get_the_classes_they_are_given(tmp_path):
    write_series(tmp_path / 'scan')
    mask = make_mask()
    path = save(make_segmentation(tmp_path / 'scan', mask), tmp_path / 'a.dcm')
    described = describe_segmentation(path)
    assert described.series == '1.2.3' and described.study == '1.2'
    assert described.segments == {1: 'liver', 2: 'kidney'}
    images = {pydicom.dcmread(f).SOPInstanceUID for f in files_of(tmp_path / 'scan')}
    assert described.images == images
    label = read_on_series(path, tmp_path / 'scan', {1: 5, 2: 3})
    np.testing.assert_array_equal(label, np.array([0, 5, 3])[mask])
    for other in files_of(tmp_path / 'scan'):
        assert describe_segmentation(other) is None
    (tmp_path / 'x.txt').write_text('no DICOM')
    assert describe_segmentation(tmp_path / 'x.txt') is None


@pytest.mark.parametrize(
    'changes, code, text',
    [
        (
            dict(PixelSpacing=[0.8, 0.9]),
            'affine-mismatch',
            r'a.dcm, frame 1: .*voxels off the grid.*0\.9.*Resample',
        ),
        (dict(shift=0.4), 'affine-mismatch', r'off the grid of the series'),
        (dict(shift=7.0), 'shape-mismatch', r'outside the \(10, 12, 5\) voxels'),
    ],
)
def test_another_grid_is_refused(tmp_path, changes, code, text):
    shift = changes.pop('shift', 0.0)
    write_series(tmp_path / 'scan')
    mask = make_mask()
    folder = tmp_path / 'other'
    write_series(folder, **changes)
    made = make_segmentation(folder, mask)
    for group in made.PerFrameFunctionalGroupsSequence:
        place = group.PlanePositionSequence[0]
        x, y, z = (float(v) for v in place.ImagePositionPatient)
        place.ImagePositionPatient = [x + shift, y, z]
    changes['shift'] = shift
    path = save(made, tmp_path / 'a.dcm')
    with pytest.raises(CaseError, match=text) as caught:
        read_on_series(path, tmp_path / 'scan')
    assert caught.value.code == code


def test_segments_that_overlap(tmp_path):
    write_series(tmp_path / 'scan')
    mask = np.zeros((5, 12, 10, 2), np.uint8)
    mask[2, 3:6, 3:6, 0] = 1
    mask[2, 5:8, 5:8, 1] = 1
    path = save(make_segmentation(tmp_path / 'scan', mask), tmp_path / 'a.dcm')
    with pytest.raises(CaseError, match='1 voxels belong to class 2 and to class 1'):
        read_on_series(path, tmp_path / 'scan')
    label = read_on_series(path, tmp_path / 'scan', {1: 1, 2: 1})
    np.testing.assert_array_equal(label, mask.any(-1))


def test_probabilities_are_no_label(tmp_path):
    write_series(tmp_path / 'scan')
    mask = np.zeros((5, 12, 10), np.float32)
    mask[1, 2, 3] = 0.5
    made = make_segmentation(
        tmp_path / 'scan', mask, ('liver',), segmentation_type='FRACTIONAL'
    )
    path = save(made, tmp_path / 'a.dcm')
    with pytest.raises(CaseError, match='1 values between 0 and 1'):
        read_on_series(path, tmp_path / 'scan', {1: 1})


def test_damage(tmp_path):
    write_series(tmp_path / 'scan')
    path = save(make_segmentation(tmp_path / 'scan', make_mask()), tmp_path / 'a.dcm')
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CaseError, match='a.dcm: not a readable DICOM seg'):
        read_on_series(path, tmp_path / 'scan')
