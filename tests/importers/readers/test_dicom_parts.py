"""Several volumes in one series: parted by place, then by what differs there."""

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence

from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.readers.dicom_series import group_series
from tests.importers.dicom_files import (
    item,
    make_slice,
    stored_values,
    write_enhanced,
    write_series,
)


def write_images(folder, facts, count=4, **changes):
    """Several images at each of ``count`` places, with the facts of each image."""
    folder.mkdir(parents=True, exist_ok=True)
    volumes = [stored_values(count, seed=number) for number in range(len(facts))]
    for index in range(count):
        for number, fact in enumerate(facts):
            values = {
                key: value(index) if callable(value) else value
                for key, value in fact.items()
            }
            name = f'{number * 7 % len(facts)}-{index}.dcm'
            make_slice(
                volumes[number][index], (0, 0, 3 * index), **{**changes, **values}
            ).save_as(folder / name, enforce_file_format=True)
    return volumes


def parts_of(folder):
    series, _ = group_series(folder)
    return {one.part: one for one in series}


def check(parts, volumes, names):
    assert set(parts) == set(names)
    for name, stored in zip(names, volumes):
        array, affine, problems = read_series(parts[name].files, parts[name].frames)
        np.testing.assert_array_equal(
            array.transpose(2, 1, 0), stored.astype(int) - 1024
        )
        np.testing.assert_allclose(affine[:3, 2], (0, 0, 3))
        assert problems == []


@pytest.mark.parametrize(
    'facts, names',
    [
        (
            [dict(TemporalPositionIdentifier=n) for n in (1, 2, 3)],
            ['time-1', 'time-2', 'time-3'],
        ),
        ([dict(EchoNumbers=n) for n in (1, 2)], ['echo-1', 'echo-2']),
        ([dict(DiffusionBValue=b) for b in (0, 50, 800)], ['b-0', 'b-50', 'b-800']),
        (
            [dict(AcquisitionNumber=n) for n in (1, 2)],
            ['acquisition-1', 'acquisition-2'],
        ),
        (
            [dict(ImageType=['ORIGINAL', 'PRIMARY', 'M', k]) for k in ('IP', 'OP')],
            ['type-IP', 'type-OP'],
        ),
        (
            [dict(EchoNumbers=e, InversionTime=t) for e in (1, 2) for t in (90, 250)],
            [f'echo-{e}_ti-{t}' for e in (1, 2) for t in (90, 250)],
        ),
    ],
)
def test_what_differs_in_one_place_parts_a_series(tmp_path, facts, names):
    volumes = write_images(tmp_path, facts)
    check(parts_of(tmp_path), volumes, names)


def test_phases_are_told_by_the_order_of_their_times(tmp_path):
    facts = [
        dict(AcquisitionTime=lambda i, n=n: f'1200{10 * n + i:02d}.{i}')
        for n in range(3)
    ]
    volumes = write_images(tmp_path, facts)
    check(parts_of(tmp_path), volumes, ['time-1', 'time-2', 'time-3'])


def test_facts_that_change_along_a_volume_part_nothing(tmp_path):
    """Step-and-shoot scanners count every slice as an acquisition."""
    folder = tmp_path
    for index, pixels in enumerate(stored_values()):
        make_slice(pixels, (0, 0, 3 * index), AcquisitionNumber=index).save_as(
            folder / str(index), enforce_file_format=True
        )
    assert list(parts_of(folder)) == ['']


def test_copies_are_no_further_volume(tmp_path):
    write_series(tmp_path, AcquisitionNumber=1)
    (tmp_path / 'copy').write_bytes((tmp_path / 'image0').read_bytes())
    parts = parts_of(tmp_path)
    assert list(parts) == [''] and len(parts[''].files) == 6


def test_images_that_nothing_tells_apart_stay_together(tmp_path):
    write_images(tmp_path, [{}, {}])
    assert list(parts_of(tmp_path)) == ['']


@pytest.mark.parametrize('reverse', [False, True])
def test_orientations_sizes_and_frames_of_reference(tmp_path, reverse):
    """The parts have the same names whatever the files are called."""
    names = 'zyx' if reverse else 'xyz'
    write_series(tmp_path / names[0])
    write_series(
        tmp_path / names[1],
        step=(3.0, 0, 0),
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    write_series(tmp_path / names[2], stored_values(4, 9, 9))
    parts = parts_of(tmp_path)
    assert set(parts) == {'12x10_axial', '12x10_sagittal', '9x9'}
    assert [len(parts[name].files) for name in sorted(parts)] == [5, 5, 4]


def test_a_frame_of_reference_parts_unless_files_have_lost_it(tmp_path):
    write_series(tmp_path / 'a', FrameOfReferenceUID='1.5')
    write_series(tmp_path / 'b', step=(0, 0, -3.0))
    assert list(parts_of(tmp_path)) == ['']
    write_series(tmp_path / 'b', step=(0, 0, -3.0), FrameOfReferenceUID='1.6')
    parts = parts_of(tmp_path)
    assert len(parts) == 2 and all(name.startswith('reference-') for name in parts)


def test_a_turn_from_slice_to_slice_is_no_stack(tmp_path):
    for index, pixels in enumerate(stored_values()):
        angle = index * np.pi / 5
        directions = [np.cos(angle), np.sin(angle), 0, 0, 0, -1]
        make_slice(pixels, (0, 0, 0), ImageOrientationPatient=directions).save_as(
            tmp_path / str(index), enforce_file_format=True
        )
    assert list(parts_of(tmp_path)) == ['']


def test_frames_of_one_file_are_parted(tmp_path):
    write_series(tmp_path / 'slices')
    path = write_enhanced(
        tmp_path / 'out' / 'one.dcm', tmp_path / 'slices', (*range(5), *range(5))
    )
    whole = pydicom.dcmread(path)
    pixels = np.frombuffer(whole.PixelData, np.uint16).reshape(10, 12, 10).copy()
    pixels[5:] += 1
    whole.PixelData = pixels.tobytes()
    for index, group in enumerate(whole.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence = Sequence(
            [item(TemporalPositionIndex=1 + index // 5)]
        )
    whole.save_as(path)
    parts = parts_of(tmp_path / 'out')
    check(parts, [pixels[:5], pixels[5:]], ['time-1', 'time-2'])
    assert parts['time-2'].frames == {str(path): [5, 6, 7, 8, 9]}
