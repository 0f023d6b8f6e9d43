import math

import numpy as np
import pytest
import torch

from medssl_mm.analysis.feature_reuse import (
    BATCH,
    Kernel,
    bandwidth_notes,
    feature_reuse,
    layer_similarity,
    random_subsets,
)
from medssl_mm.errors import UserError
from medssl_mm.functional.cka import linear_cka, median_distance, rbf_cka

CHANNELS = dict(stage1=4, stage2=9)


def made(images=120, seed=0, common_seed=0, channels=None):
    """Features with a common part, by stage."""
    common = np.random.default_rng(common_seed).normal(size=(images, 5))
    rng = np.random.default_rng((seed, 1))
    return {
        place: (
            common @ rng.normal(size=(5, size)) + rng.normal(size=(images, size)) + 2
        ).astype(np.float32)
        for place, size in (channels or CHANNELS).items()
    }


def tensors(features):
    return {n: torch.from_numpy(v) for n, v in features.items()}


@pytest.mark.parametrize(
    'kernel', [Kernel(), Kernel(2.0, False), Kernel(0.5, unbiased=True)]
)
def test_values_are_those_of_the_functions(kernel):
    before, after = made(seed=0), made(seed=1)
    subsets = random_subsets(120, 50, 4, seed=3)
    results = feature_reuse('moco', before, after, kernel, subsets)
    assert [(r.method, r.place, r.images) for r in results] == [
        ('moco', 'stage1', 120),
        ('moco', 'stage2', 120),
    ]
    for result in results:
        x, y = (tensors(side)[result.place] for side in (before, after))

        def slow(name, x, y):
            unbiased = name.endswith('unbiased')
            if name.startswith('linear'):
                return float(linear_cka(x, y, unbiased))
            return float(rbf_cka(x, y, kernel.bandwidth, kernel.relative, unbiased))

        assert set(result.values) == set(kernel.estimates)
        for name, value in result.values.items():
            assert value == pytest.approx(slow(name, x, y), abs=1e-6)
            expected = [slow(name, x[rows], y[rows]) for rows in subsets]
            assert result.subsets[name] == pytest.approx(expected, abs=1e-6)
            assert result.spread(name) == pytest.approx(
                (np.mean(expected), np.std(expected, ddof=1))
            )
        typical = [median_distance(side) for side in (x, y)]
        assert result.median_distances == pytest.approx(typical)
        assert result.bandwidth_ratios == pytest.approx(
            [kernel.bandwidth] * 2
            if kernel.relative
            else [kernel.bandwidth / d for d in typical]
        )


def test_more_images_than_a_batch():
    images = BATCH + 300
    before, after = made(images, 0), made(images, 1)
    result, _ = feature_reuse('x', before, after, Kernel(unbiased=True))
    x, y = (tensors(side)['stage1'] for side in (before, after))
    for name in ('linear', 'linear_unbiased'):
        assert result.values[name] == pytest.approx(
            float(linear_cka(x, y, name != 'linear')), abs=1e-6
        )


def test_identity_and_rotation():
    before = made()
    for result in feature_reuse(
        'x', before, before, Kernel(unbiased=True), random_subsets(120, 40, 2, 0)
    ):
        assert result.values == pytest.approx(dict.fromkeys(result.values, 1.0))
        for values in result.subsets.values():
            assert values == pytest.approx([1, 1])
    rotated = {
        place: 3
        * values
        @ np.linalg.qr(np.random.default_rng(0).normal(size=(values.shape[1],) * 2))[
            0
        ].astype(np.float32)
        for place, values in before.items()
    }
    for result in feature_reuse('x', before, rotated, Kernel()):
        assert result.values == pytest.approx(dict(linear=1.0, rbf=1.0), abs=1e-4)


def test_other_order_of_images_is_no_similarity():
    before = made(400)
    order = np.random.default_rng(1).permutation(400)
    permuted = {place: values[order] for place, values in before.items()}
    for result in feature_reuse('x', before, permuted, Kernel(unbiased=True)):
        for name, value in result.values.items():
            if 'unbiased' in name:
                assert abs(value) < 0.05
    aligned = feature_reuse('x', before, made(400, 1), Kernel(unbiased=True))
    assert min(r.values['linear_unbiased'] for r in aligned) > 0.15


def test_subsets_are_seeded_and_without_replacement():
    one = random_subsets(500, 100, 50, seed=0)
    assert len(one) == 50
    assert all(len(set(rows.tolist())) == 100 for rows in one)
    again = random_subsets(500, 100, 50, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(one, again))
    other = random_subsets(500, 100, 50, seed=1)
    assert not any(np.array_equal(a, b) for a, b in zip(one, other))
    assert len({tuple(rows) for rows in one}) == 50
    assert random_subsets(100, 100, 50, 0) == []
    result, _ = feature_reuse('x', made(), made(seed=1), Kernel())
    assert result.subsets == {}
    assert all(map(math.isnan, result.spread('rbf')))


def test_absolute_bandwidth_is_judged_by_the_typical_distance():
    before, other = made(), made(seed=1, common_seed=1)
    near = {name: 1e-2 * values for name, values in before.items()}
    far = {name: 1e3 * values for name, values in before.items()}
    far_other = {name: 1e3 * values for name, values in other.items()}
    kernel = Kernel(0.8, relative=False)
    wide = feature_reuse('near', near, near, kernel)
    notes = bandwidth_notes(wide, kernel)
    assert 'above 4 the Gaussian kernel tends to the linear one: near ' in (notes[1])
    # No two samples are neighbours: unrelated features look the same.
    narrow = feature_reuse('far', far, far_other, kernel)
    assert narrow[0].values['rbf'] > 0.99
    assert (
        'tends to 1 for any two networks: far stage1, far stage2'
        in (bandwidth_notes(narrow, kernel)[1])
    )
    relative = feature_reuse('far', far, far_other, Kernel())
    assert relative[0].values['rbf'] < 0.6
    assert bandwidth_notes(relative, Kernel()) == []


@pytest.mark.parametrize(
    'estimate', ['linear', 'linear_unbiased', 'rbf', 'rbf_unbiased']
)
@pytest.mark.parametrize('images', [10, 60])
def test_layers(estimate, images):
    """More images than channels and fewer."""
    channels = dict(a=3, b=20, c=7)
    first = made(images, 0, channels=channels)
    second = made(images, 1, channels=dict(d=5, e=20))
    kernel, steps = Kernel(), []
    matrix = layer_similarity(first, second, estimate, kernel, progress=steps.append)
    expected = [
        [kernel.value(estimate, x, y) for y in tensors(second).values()]
        for x in tensors(first).values()
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    assert sum(steps) == 6
    own = layer_similarity(first, first, estimate, kernel)
    np.testing.assert_allclose(np.diag(own), 1, atol=1e-5)
    np.testing.assert_allclose(own, own.T, atol=1e-5)


def test_features_that_do_not_vary_are_named():
    before = made()
    dead = {**before, 'stage2': np.ones_like(before['stage2'])}
    with pytest.raises(
        UserError, match='moco .*stage1, stage2.*layer 1.*second.*not vary'
    ):
        feature_reuse('moco', before, dead, Kernel())
    with pytest.raises(
        UserError,
        match='layers stage1 and stage2.*constant|'
        'layers stage1 and stage2.*do not vary',
    ):
        layer_similarity(before, dead, 'rbf', Kernel())


def test_too_few_images():
    few = {name: values[:3] for name, values in made().items()}
    with pytest.raises(UserError, match='takes 4 samples or more, got 3'):
        feature_reuse('x', few, few, Kernel(unbiased=True))
