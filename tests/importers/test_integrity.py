"""Every check: what it lets through, what it says."""

from types import SimpleNamespace

import numpy as np
import pytest

from medssl_mm.importers.base import LoadedCase
from medssl_mm.importers.integrity import (
    check_affine,
    check_case,
    check_geometry,
    check_image,
    check_label,
    check_picture,
    find_duplicates,
    find_near_copies,
)
from medssl_mm.store.case_info import describe

CLASSES = ('background', 'liver', 'spleen')
AFFINE = np.diag([-1.0, -1.0, 4.0, 1.0])
SHAPE = (5, 20, 30)


def hounsfield(dtype=np.int16):
    rng = np.random.default_rng(0)
    return rng.integers(-1024, 1500, SHAPE).astype(dtype)


def codes(problems):
    return [(p.severity, p.code) for p in problems]


def test_same_grid_passes():
    assert check_geometry(SHAPE, SHAPE, AFFINE, AFFINE) == []
    assert check_geometry(SHAPE, SHAPE) == []


def test_grids_are_compared_in_mm():
    assert codes(check_geometry(SHAPE, (5, 20, 29))) == [('error', 'shape-mismatch')]
    other = AFFINE @ np.diag([1, 1.01, 1, 1])
    assert codes(check_geometry(SHAPE, SHAPE, AFFINE, other)) == [
        ('error', 'spacing-mismatch')
    ]
    for shift, expected in [
        (0.005, []),
        (0.3, [('warning', 'affine-mismatch')]),
        (0.7, [('error', 'affine-mismatch')]),
    ]:
        other = AFFINE.copy()
        other[1, 3] += shift
        found = check_geometry(SHAPE, SHAPE, AFFINE, other)
        assert codes(found) == expected
    assert '0.7 mm apart' in found[0].message


def test_a_small_rotation_shows_at_the_corners():
    angle = np.deg2rad(4)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert codes(check_geometry(SHAPE, SHAPE, AFFINE, turn @ AFFINE)) == [
        ('error', 'affine-mismatch')
    ]


def test_unusual_grids_are_told():
    assert check_affine(AFFINE) == []
    assert codes(check_affine(np.diag([0.001, 1, 1, 1]))) == [
        ('warning', 'spacing-unusual')
    ]
    sheared = AFFINE.copy()
    sheared[1, 2] = 1
    problems = check_affine(sheared)
    assert codes(problems) == [('warning', 'sheared')]
    assert '14.0 degrees' in problems[0].message


@pytest.mark.parametrize('dtype', [np.int16, np.int32, np.float32, np.float64, '>i2'])
def test_hounsfield_become_int16(dtype):
    image, problems = check_image(hounsfield(dtype), 'HU')
    assert problems == [] and image.dtype == np.int16
    np.testing.assert_array_equal(image, hounsfield())


def test_hounsfield_are_rounded_and_clipped():
    image = hounsfield(np.float32)
    image[0, 0, :3] = 10.6, -0.4, 70000
    stored, problems = check_image(image, 'HU')
    assert stored[0, 0, :3].tolist() == [11, 0, 32767]
    assert ('warning', 'clipped') in codes(problems)
    assert '1 voxels do not fit' in problems[-1].message


@pytest.mark.parametrize(
    'change, expected',
    [
        (lambda x: np.where(x > 1400, np.nan, x), ('error', 'not-finite')),
        (lambda x: np.where(x > 1400, np.inf, x), ('error', 'not-finite')),
        (lambda x: np.full_like(x, -1000), ('error', 'constant')),
        (lambda x: (x + 1024) / 2524, ('error', 'not-hounsfield')),
        (lambda x: x + 1024, ('warning', 'hounsfield-range')),
        (lambda x: x * 15, ('warning', 'hounsfield-range')),
        (lambda x: x[:, :4], ('error', 'tiny')),
        (lambda x: x[0], ('error', 'not-a-volume')),
        (lambda x: x.astype(complex), ('error', 'not-a-volume')),
    ],
)
def test_bad_images(change, expected):
    image, problems = check_image(change(hounsfield(np.float64)), 'HU')
    assert codes(problems) == [expected]
    assert (image is None) == (expected[0] == 'error')


@pytest.mark.parametrize(
    'dtype, stored',
    [
        (np.uint8, np.uint8),
        (np.int16, np.int16),
        (np.uint16, np.uint16),
        (np.int32, np.int16),
        (np.float64, np.float32),
        (np.float16, np.float32),
        (bool, np.uint8),
    ],
)
def test_other_images_keep_their_values(dtype, stored):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 200, SHAPE).astype(dtype)
    found, problems = check_image(image, 'arbitrary')
    assert problems == [] and found.dtype == stored
    np.testing.assert_array_equal(found, image)


def test_wide_integers_are_not_cut():
    image = np.random.default_rng(0).integers(0, 100000, SHAPE)
    found, _ = check_image(image, 'arbitrary')
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image)


def test_labels():
    label = np.random.default_rng(0).integers(0, 3, SHAPE)
    for dtype in (np.uint8, np.int32, np.float32, bool):
        found, problems = check_label(label.astype(dtype), CLASSES)
        assert found.dtype == np.uint8 and problems == []
        np.testing.assert_array_equal(found, label.astype(dtype))
    scaled = label * 0.99999
    np.testing.assert_array_equal(check_label(scaled, CLASSES)[0], label)


def test_bad_labels():
    label = np.zeros(SHAPE)
    found, problems = check_label(label, CLASSES)
    assert codes(problems) == [('warning', 'label-empty')]
    assert found is not None
    label[0, 0, :2] = 7, -1
    found, (problem,) = check_label(label, CLASSES)
    assert found is None and problem.code == 'label-unexpected'
    for text in ('-1 (1 voxels)', '7 (1 voxels)', '0 to 2', '2 spleen'):
        assert text in problem.message
    for value in (0.5, np.nan):
        label[0, 0, :2] = value
        found, (problem,) = check_label(label, CLASSES)
        assert found is None and problem.code == 'label-not-integer'
        assert '2 label voxels' in problem.message


def test_check_case_collects_everything():
    case = LoadedCase(hounsfield(), np.full((4, 20, 30), 9), labelled_slices=(7,))
    _, _, problems = check_case(case, 'HU', CLASSES)
    assert codes(problems) == [
        ('error', 'shape-mismatch'),
        ('error', 'label-unexpected'),
        ('error', 'labelled-slices'),
    ]


def test_duplicates_keep_the_labelled_one():
    cases = [
        SimpleNamespace(case_id=i, labelled=labelled, content_sha256=d)
        for i, labelled, d in [
            ('a', False, 'x'),
            ('b', True, 'x'),
            ('c', True, 'y'),
            ('d', True, 'x'),
        ]
    ]
    assert find_duplicates(cases) == {'a': 'b', 'd': 'b'}


@pytest.mark.parametrize('shape', [(9, 8), (9, 8, 3)])
def test_pictures_of_one_colour(shape):
    picture = np.full(shape, 7, np.uint8)
    (problem,) = check_picture(picture, False)
    assert (problem.severity, problem.code) == ('error', 'blank')
    assert check_picture(picture, True)[0].severity == 'warning'
    picture[-1, -1] += 1
    assert check_picture(picture, False) == []


def test_one_colour_need_not_be_grey():
    picture = np.zeros((9, 8, 3), np.uint8) + np.uint8([200, 10, 30])
    assert '[200, 10, 30]' in check_picture(picture, False)[0].message


def test_empty_images_are_no_duplicates():
    images = [
        SimpleNamespace(labelled=True, case_id=n, content_sha256='') for n in 'ab'
    ]
    assert find_duplicates(images) == {}


class Volumes:
    """Volumes in memory, as a store describes and opens them."""

    def __init__(self, **images):
        self.images = images

    def infos(self, labelled=()):
        return [
            SimpleNamespace(
                case_id=name,
                labelled=name in labelled,
                dtype=image.dtype.name,
                shape=(image.shape[0], *image.shape[-2:]),
                intensity=describe(image, 'arbitrary')[0],
            )
            for name, image in self.images.items()
        ]

    def open(self, name):
        return SimpleNamespace(read=lambda index: self.images[name][index])

    def copies(self, labelled=(), later=()):
        return find_near_copies(self.infos(labelled), self.open, later)


def test_near_copies_are_verified_voxel_by_voxel():
    rng = np.random.default_rng(0)
    one, other = rng.integers(-900, 900, (2, 7, 12, 10)).astype(np.int16)
    changed = one.astype(np.float32)
    changed[3, 4, 5] += 40
    noisy = one + rng.integers(-30, 31, one.shape).astype(np.int16)
    eight = np.rint((one + 900.0) * (255 / 1799)).astype(np.uint8)
    found = Volumes(
        a=one, b=other, c=changed, d=noisy, e=eight, f=one[::-1, :, ::-1].copy()
    ).copies()
    assert set(found) == {'e', 'f'}
    assert found['f'] == ('a', 'mirrored along z, x')
    assert found['e'][0] == 'a' and 'as uint8 instead of int16' in found['e'][1]
    assert 'its values times 0.1' in found['e'][1]


def test_which_of_two_near_copies_is_kept():
    image = np.random.default_rng(1).integers(0, 99, (5, 9, 8)).astype(np.int16)
    volumes = Volumes(a=image, b=image.astype(np.float32))
    assert {k: v[0] for k, v in volumes.copies().items()} == {'b': 'a'}
    assert {k: v[0] for k, v in volumes.copies(labelled='b').items()} == {'a': 'b'}
    found = volumes.copies(labelled='b', later=['b'])
    assert {k: v[0] for k, v in found.items()} == {'b': 'a'}


def test_near_copies_of_several_channels():
    rng = np.random.default_rng(2)
    image = rng.integers(0, 500, (5, 2, 9, 8)).astype(np.int16)
    scaled = image * np.float32([2, 0.5])[:, None, None] + np.float32(7)
    swapped = image[:, ::-1].astype(np.float32)
    found = Volumes(a=image, b=scaled, c=swapped).copies()
    assert set(found) == {'b'} and found['b'][0] == 'a'


def test_small_ranges_are_not_taken_for_rounding():
    masks = np.random.default_rng(3).integers(0, 2, (4, 5, 9, 8)).astype(np.uint8)
    masks[:, 0, 0] = 0
    assert Volumes(**dict(zip('abcd', masks))).copies() == {}
