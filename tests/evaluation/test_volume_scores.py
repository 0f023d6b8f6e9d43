import itertools
import math

import numpy as np
import pytest
import torch

from medssl_mm.evaluation.volume_scores import (
    ABSENT,
    COUNTED,
    INVENTED,
    MISSED,
    score_case,
)

SPACING = (5.0, 0.7, 1.3)


def brute_surface(mask):
    """Voxels with a face neighbour outside the mask (or the volume)."""
    points = []
    for index in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            other = index.copy()
            other[axis] += step
            inside = 0 <= other[axis] < mask.shape[axis]
            if not inside or not mask[tuple(other)]:
                points.append(index)
                break
    return np.array(points)


def brute_distances(mask_a, mask_b, spacing):
    a, b = brute_surface(mask_a), brute_surface(mask_b)
    return np.array([min(math.dist(p * spacing, q * spacing) for q in b) for p in a])


def two_volumes(seed=0, shape=(5, 9, 8)):
    rng = np.random.default_rng(seed)
    reference = np.zeros(shape, np.uint8)
    reference[1:4, 2:6, 1:6] = 1
    reference[2:, 6:, 5:] = 2  # touches the border of the volume
    prediction = reference.copy()
    prediction[1:4, 2:3, 1:6] = 0
    prediction[0, 3, 3] = 1
    prediction[rng.random(shape) < 0.02] = 2
    return prediction, reference


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_distances_equal_brute_force(seed):
    prediction, reference = two_volumes(seed)
    scores = score_case(prediction, reference, 3, SPACING, tolerance_mm=1.4)
    for label, score in zip((1, 2), scores):
        forward = brute_distances(
            prediction == label, reference == label, np.array(SPACING)
        )
        backward = brute_distances(
            reference == label, prediction == label, np.array(SPACING)
        )
        assert score['status'] == COUNTED
        assert score['hd95'] == pytest.approx(
            max(np.percentile(forward, 95), np.percentile(backward, 95)), rel=1e-6
        )
        within = (forward <= 1.4).sum() + (backward <= 1.4).sum()
        assert score['nsd'] == pytest.approx(within / (len(forward) + len(backward)))


def test_equals_monai_on_the_whole_volume():
    from monai.metrics import (
        compute_dice,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    prediction, reference = two_volumes(3)
    one_hot = [
        torch.nn.functional.one_hot(torch.from_numpy(v).long(), 3).movedim(-1, 0)[None]
        for v in (prediction, reference)
    ]
    scores = score_case(prediction, reference, 3, SPACING, 1.0)
    for name, values in dict(
        dice=compute_dice(*one_hot, include_background=False),
        hd95=compute_hausdorff_distance(*one_hot, percentile=95, spacing=SPACING),
        nsd=compute_surface_dice(
            *one_hot, class_thresholds=[1.0, 1.0], spacing=SPACING
        ),
    ).items():
        np.testing.assert_allclose(
            [score[name] for score in scores], values[0], rtol=1e-6
        )


def test_known_shift():
    """A slab shifted by one slice: every number can be worked out."""
    reference = np.zeros((10, 12, 12), np.uint8)
    reference[3:6, 2:10, 2:10] = 1
    prediction = np.roll(reference, 1, axis=0)
    (score,) = score_case(prediction, reference, 2, (4.0, 1.0, 1.0), 3.0)
    assert score['dice'] == pytest.approx(2 / 3)
    assert score['hd95'] == pytest.approx(4.0)
    assert score['volume_error'] == 0 and score['relative_volume_error'] == 0
    assert score['reference_volume'] == pytest.approx(3 * 64 * 4 / 1000)  # ml


def test_single_slice_is_measured_in_its_plane():
    reference = np.zeros((1, 20, 20), np.uint8)
    reference[0, 4:14, 4:14] = 1
    prediction = np.zeros_like(reference)
    prediction[0, 5:13, 5:13] = 1
    (score,) = score_case(prediction, reference, 2, (9.0, 2.0, 2.0), 1.0)
    # Rings of one pixel that lie one pixel apart: without the plane, every
    # pixel of the square would count as surface.
    assert score['nsd'] == 0
    assert score['hd95'] == pytest.approx(2.0, abs=0.9)


def test_invariant_to_axis_order_and_flips():
    prediction, reference = two_volumes(4)
    expected = score_case(prediction, reference, 3, SPACING, 1.0)
    turned = [
        np.ascontiguousarray(v.transpose(2, 0, 1)[:, ::-1])
        for v in (prediction, reference)
    ]
    found = score_case(*turned, 3, (SPACING[2], SPACING[0], SPACING[1]), 1.0)
    for a, b in zip(expected, found):
        assert a['dice'] == b['dice']
        assert a['hd95'] == pytest.approx(b['hd95'])
        assert a['nsd'] == pytest.approx(b['nsd'])


def test_policy_of_empty_classes():
    shape = (3, 4, 5)
    reference, prediction = np.zeros((2, *shape), np.uint8)
    reference[0, 0, 0] = 1  # missed
    prediction[1, 1, 1] = 2  # invented; 3 is absent
    diagonal = math.dist((0, 0, 0), np.multiply(shape, SPACING))
    missed, invented, absent = score_case(prediction, reference, 4, SPACING)
    assert [s['status'] for s in (missed, invented, absent)] == [
        MISSED,
        INVENTED,
        ABSENT,
    ]
    for score in (missed, invented):
        assert score['dice'] == 0 and score['nsd'] == 0
        assert score['hd95'] == pytest.approx(diagonal)
    assert missed['relative_volume_error'] == -1
    assert math.isnan(invented['relative_volume_error'])
    assert math.isnan(absent['dice']) and math.isnan(absent['volume_error'])


def test_no_distance_without_spacing():
    prediction, reference = two_volumes()
    prediction[prediction == 2] = 0
    kept, missed = score_case(prediction, reference, 3)
    assert 0 < kept['dice'] < 1 and missed['dice'] == 0
    assert all(math.isnan(v) for s in (kept, missed) for v in (s['hd95'], s['nsd']))
    assert kept['reference_volume'] == (reference == 1).sum()  # voxels


def test_ignored_voxels_do_not_count():
    prediction, reference = two_volumes()
    hidden = reference.copy()
    hidden[0] = 255
    expected = score_case(prediction[1:], reference[1:], 3)
    found = score_case(prediction, hidden, 3)
    assert [s['dice'] for s in found] == [s['dice'] for s in expected]


def test_wrong_volumes_are_named():
    with pytest.raises(ValueError, match='must be volumes on one grid'):
        score_case(np.zeros((2, 3, 3), np.uint8), np.zeros((1, 3, 3)), 2)
    bad = np.full((1, 3, 3), 7, np.uint8)
    with pytest.raises(ValueError, match='the prediction holds label 7'):
        score_case(bad, np.zeros_like(bad), 3)
