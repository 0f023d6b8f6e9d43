"""Axis permutations and flips, there and back."""

import itertools

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store.orientation import (
    axis_codes,
    canonicalize,
    shear_of,
    to_source_axes,
)


def all_affines():
    """One affine for each of the 48 signed axis permutations."""
    spacing = np.array([0.7, 0.9, 2.5])
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = 0
            for axis, (world, sign) in enumerate(zip(order, signs)):
                affine[world, axis] = sign * spacing[axis]
            affine[:3, 3] = 11, -7, 3
            yield affine


def tilt(degrees=17):
    """Rotation about two axes, 4x4."""
    a = np.deg2rad(degrees)
    about_x = np.eye(4)
    about_x[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    about_z = np.eye(4)
    about_z[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return about_z @ about_x


@pytest.mark.parametrize('rotation', [np.eye(4), tilt()], ids=['straight', 'oblique'])
def test_round_trip_is_exact_for_all_48_orientations(rotation):
    array = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)
    seen = set()
    for affine in all_affines():
        volume, _, info = canonicalize(array, rotation @ affine)
        seen.add(info['source_orientation'])
        back = to_source_axes(volume, rotation @ affine)
        np.testing.assert_array_equal(back, array)
        assert info['source_shape'] == array.shape
    if (rotation == np.eye(4)).all():
        assert len(seen) == 48


@pytest.mark.parametrize('rotation', [np.eye(4), tilt()], ids=['straight', 'oblique'])
def test_every_voxel_keeps_its_place_in_the_world(rotation):
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    for affine in all_affines():
        affine = rotation @ affine
        volume, canonical, _ = canonicalize(array, affine)
        for value in (0, 17, 63, 119):
            source = np.argwhere(array == value)[0]
            z, y, x = np.argwhere(volume == value)[0]
            np.testing.assert_allclose(
                (canonical @ [x, y, z, 1])[:3], (affine @ [*source, 1])[:3], atol=1e-9
            )


def test_canonical_is_left_posterior_superior():
    array = np.zeros((4, 5, 6))
    for affine in all_affines():
        volume, canonical, info = canonicalize(array, affine)
        assert axis_codes(canonical) == 'LPS'
        spacing = np.sqrt((canonical[:3, :3] ** 2).sum(0))[::-1]
        np.testing.assert_allclose(info['spacing'], spacing)


def test_slice_shows_anterior_on_top_and_patient_right_on_the_left():
    array = np.zeros((10, 12, 3))  # RAS: x to the right, y to anterior
    array[9, 11, 2] = 1  # most right, anterior, superior
    volume, _, _ = canonicalize(array, np.eye(4))
    assert np.argwhere(volume)[0].tolist() == [2, 0, 0]


def test_bad_input():
    with pytest.raises(UserError, match='3-D volume, got shape'):
        canonicalize(np.zeros((2, 3, 4, 5)), np.eye(4))
    with pytest.raises(UserError, match='not invertible'):
        canonicalize(np.zeros((2, 3, 4)), np.diag([1, 0, 1, 1]))
    with pytest.raises(UserError, match='finite 4x4'):
        canonicalize(np.zeros((2, 3, 4)), np.full((4, 4), np.nan))


@pytest.mark.parametrize('degrees', [0, 3, 20])
def test_shear_is_the_tilt_of_the_gantry(degrees):
    affine = tilt() @ np.diag([0.7, 0.8, 3, 1])
    angle = np.deg2rad(degrees)
    step = np.array([0, np.sin(angle), np.cos(angle)])
    affine[:3, 2] = tilt()[:3, :3] @ step * 3
    assert shear_of(affine) == pytest.approx(degrees, abs=1e-5)
