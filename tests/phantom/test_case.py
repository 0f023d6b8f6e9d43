import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.phantom import (
    CLASSES,
    make_phantom_case,
    write_phantom,
)
from medssl_mm.phantom.patient import INDEX
from medssl_mm.store.orientation import axis_codes, canonicalize


@pytest.fixture(scope='module')
def cases():
    return [make_phantom_case(0, index, size=80) for index in range(6)]


def world_centre(label, affine, name):
    voxels = np.argwhere(label == INDEX[name])
    return affine[:3, :3] @ voxels.mean(0) + affine[:3, 3]


def test_case_depends_on_seed_and_index_only():
    image, label, affine = make_phantom_case(3, 1, size=48)
    again, label_again, affine_again = make_phantom_case(3, 1, size=48)
    assert image.tobytes() == again.tobytes()
    assert label.tobytes() == label_again.tobytes()
    assert (affine == affine_again).all()
    for seed, index in ((4, 1), (3, 2)):
        other = make_phantom_case(seed, index, size=48)[0]
        assert other.shape != image.shape or (other != image).any()


def test_left_and_right_are_right_in_world_coordinates(cases):
    # World x grows to the right, y to anterior, z to superior.
    for _, label, affine in cases:

        def centre(name, label=label, affine=affine):
            return world_centre(label, affine, name)

        assert centre('liver')[0] > centre('spleen')[0] + 80
        assert centre('right kidney')[0] > centre('left kidney')[0] + 80
        assert centre('inferior vena cava')[0] > centre('aorta')[0] + 15
        assert centre('liver')[0] > centre('stomach')[0]
        assert centre('right adrenal gland')[0] > centre('left adrenal gland')[0]
        assert centre('pancreas')[1] > centre('left kidney')[1]
        assert centre('esophagus')[2] > centre('left kidney')[2]


def test_canonical_view_is_radiological(cases):
    for image, label, affine in cases:
        volume, _, _ = canonicalize(image, affine)
        mask, _, _ = canonicalize(label, affine)
        _, rows, columns = np.nonzero(mask == INDEX['liver'])
        _, spleen_rows, spleen_columns = np.nonzero(mask == INDEX['spleen'])
        assert columns.mean() < spleen_columns.mean()
        assert rows.mean() < spleen_rows.mean()
        # Bone away from the wall is the spine: below the aorta.
        _, aorta_rows, aorta_columns = np.nonzero(mask == INDEX['aorta'])
        near = int(aorta_columns.mean())
        bone = volume[:, :, near - 5 : near + 6] > 400
        assert np.nonzero(bone)[1].mean() > aorta_rows.mean()


def test_files_come_in_several_orientations_and_one_is_oblique():
    affines = [make_phantom_case(0, index, size=32)[2] for index in range(6)]
    assert len({axis_codes(affine) for affine in affines}) > 1
    oblique = [
        np.abs(np.sort(np.abs(affine[:3, :3]), axis=0)[:2]).max() > 0.1
        for affine in affines
    ]
    assert oblique == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    'name, low, high',
    [
        ('spleen', 55, 165),
        ('liver', 20, 135),
        ('aorta', 100, 300),
        ('gallbladder', -30, 50),
        ('pancreas', 30, 130),
        ('right kidney', 90, 220),
        ('inferior vena cava', 70, 170),
    ],
)
def test_organs_have_realistic_values(cases, name, low, high):
    medians = [
        np.median(image[label == INDEX[name]])
        for image, label, _ in cases
        if (label == INDEX[name]).any()
    ]
    assert len(medians) >= 4
    assert low < min(medians) and max(medians) < high


def test_air_fat_lung_and_bone_are_there(cases):
    for image, label, _ in cases:
        assert image.dtype == np.int16 and image.min() >= -1024
        assert (image < -950).mean() > 0.15
        assert ((image > -130) & (image < -70) & (label == 0)).mean() > 0.02
        assert (image > 300).mean() > 0.0005
        assert ((image > -930) & (image < -750)).any()


def test_patients_differ_in_every_respect(cases):
    spacings = {nibabel.affines.voxel_sizes(a).round(3).tobytes() for _, _, a in cases}
    assert len(spacings) == len(cases)
    volumes = [
        (label == INDEX['liver']).sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
        for _, label, affine in cases
    ]
    assert 500 < min(volumes) and max(volumes) < 2600
    assert max(volumes) > 1.15 * min(volumes)
    levels = [np.median(image[label == INDEX['liver']]) for image, label, _ in cases]
    assert np.ptp(levels) > 15
    noise = [image[label == INDEX['liver']].std() for image, label, _ in cases]
    assert max(noise) > 1.2 * min(noise)


def test_every_class_occurs(cases):
    present = set()
    for _, label, _ in cases:
        present |= set(np.unique(label).tolist())
    assert present == set(range(len(CLASSES)))
    for name in ('liver', 'spleen', 'left kidney', 'aorta', 'pancreas'):
        assert all((label == INDEX[name]).any() for _, label, _ in cases)


def test_noise_is_correlated_like_a_reconstruction():
    image, label, _ = make_phantom_case(0, 1, size=128)
    inside = label == INDEX['liver']
    both = inside[1:] & inside[:-1]
    left, right = image[:-1][both] * 1.0, image[1:][both] * 1.0
    assert np.corrcoef(left, right)[0, 1] > 0.3


def test_bad_settings_are_named(tmp_path):
    with pytest.raises(UserError, match='size=16'):
        make_phantom_case(0, 0, size=16)
    with pytest.raises(UserError, match='index=-1'):
        make_phantom_case(0, -1)
    with pytest.raises(UserError, match='num_patients=0'):
        write_phantom(tmp_path, 0)
