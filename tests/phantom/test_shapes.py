import numpy as np

from medssl_mm.phantom.shapes import ellipsoid, tube, union, without


def points():
    rng = np.random.default_rng(0)
    return rng.uniform(-30, 30, (3, 400))


def test_sphere_distance_is_exact():
    x, y, z = points()
    found = ellipsoid((3, -2, 1), (10, 10, 10)).distance(x, y, z)
    wanted = np.sqrt((x - 3) ** 2 + (y + 2) ** 2 + (z - 1) ** 2) - 10
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_tube_distance_equals_dense_sampling():
    x, y, z = points()
    ends = np.array([[-20.0, 0, 0], [5, 10, 0], [20, 10, 15]])
    found = tube(ends, 3.0, smooth=False).distance(x, y, z)
    share = np.linspace(0, 1, 400)[:, None]
    line = np.concatenate(
        [a + share * (b - a) for a, b in zip(ends[:-1], ends[1:], strict=True)]
    )
    wanted = np.linalg.norm(np.stack([x, y, z], 1)[:, None] - line, axis=2).min(1) - 3
    np.testing.assert_allclose(found, wanted, atol=0.01)


def test_union_and_difference_are_the_set_operations():
    x, y, z = points()
    one, two = ellipsoid((0, 0, 0), (15, 9, 12)), ellipsoid((8, 0, 0), (9, 14, 9), 30)
    in_one = one.distance(x, y, z) < 0
    in_two = two.distance(x, y, z) < 0
    assert in_one.any() and in_two.any() and (in_one & in_two).any()
    assert ((union(one, two).distance(x, y, z) < 0) == (in_one | in_two)).all()
    assert ((without(one, two).distance(x, y, z) < 0) == (in_one & ~in_two)).all()
