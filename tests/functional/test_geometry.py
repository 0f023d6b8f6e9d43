import numpy as np
import pytest
import torch

from medssl_mm.functional.geometry import (
    apply_affine,
    cell_centres,
    crop_matrix,
    inside_view,
    invert_affine,
    mutual_nearest,
    overlap_points,
    patch_std,
    sample_map,
    to_unit_range,
    view_box,
)


def matrices(number):
    rng = np.random.default_rng(0)
    made = []
    for _ in range(number):
        x0, y0, width, height = rng.uniform(5, 60, 4)
        made.append(
            crop_matrix(
                (x0, y0, x0 + width, y0 + height),
                (20, 30),
                rng.random() < 0.5,
                rng.uniform(-90, 90),
            )
        )
    return torch.from_numpy(np.stack(made))


def test_whole_image_is_the_identity():
    matrix = crop_matrix((0, 0, 30, 20), (20, 30))
    np.testing.assert_allclose(matrix, [[1, 0, 0], [0, 1, 0]], atol=1e-12)


def test_flip_and_quarter_turn_by_hand():
    flipped = crop_matrix((0, 0, 30, 20), (20, 30), flip=True)
    np.testing.assert_allclose(flipped @ (0, 3, 1), (29, 3))
    # A window turned counter-clockwise by 90 degrees has its top left
    # corner at the bottom left of the image.
    turned = crop_matrix((0, 0, 20, 20), (20, 20), rotation=90)
    np.testing.assert_allclose(turned @ (0, 0, 1), (0, 19), atol=1e-9)


def test_turning_agrees_with_numpy():
    image = np.arange(25.0).reshape(5, 5)
    v, u = np.mgrid[:5, :5]
    matrix = crop_matrix((0, 0, 5, 5), (5, 5), rotation=90)
    x, y = (np.rint(r[0] * u + r[1] * v + r[2]).astype(int) for r in matrix)
    # The content turns the other way round: clockwise.
    np.testing.assert_array_equal(image[y, x], np.rot90(image, k=-1))


def test_inverse_and_composition():
    one, two = matrices(6), matrices(12)[6:]
    points = torch.rand(6, 9, 2, dtype=torch.float64) * 20
    torch.testing.assert_close(
        apply_affine(invert_affine(one), apply_affine(one, points)), points
    )
    there = apply_affine(invert_affine(two), apply_affine(one, points))
    torch.testing.assert_close(apply_affine(two, there), apply_affine(one, points))


@pytest.mark.parametrize('view, cells', [((32, 48), (4, 6)), ((30, 30), (1, 7))])
def test_cells_are_the_means_of_their_pixels(view, cells):
    centres = cell_centres(view, cells).reshape(*cells, 2)
    step_y, step_x = view[0] / cells[0], view[1] / cells[1]
    for row in range(cells[0]):
        for column in range(cells[1]):
            assert centres[row, column].tolist() == pytest.approx(
                [(column + 0.5) * step_x - 0.5, (row + 0.5) * step_y - 0.5]
            )


def test_unit_range_is_that_of_grid_sample():
    image = torch.rand(1, 1, 12, 16, dtype=torch.float64)
    points = torch.tensor([[3.0, 5.0], [15.0, 11.0], [0.0, 0.0]], dtype=torch.float64)
    grid = to_unit_range(points, (12, 16))
    seen = torch.nn.functional.grid_sample(image, grid[None, None], align_corners=False)
    wanted = [image[0, 0, int(y), int(x)] for x, y in points]
    torch.testing.assert_close(seen.flatten(), torch.stack(wanted))
    # The same coordinates hold for a feature map of any stride.
    coarse = to_unit_range(cell_centres((12, 16), (3, 4)), (12, 16))
    torch.testing.assert_close(
        coarse, to_unit_range(cell_centres((3, 4), (3, 4)), (3, 4))
    )


def test_inside():
    points = torch.tensor([[-0.5, 0.0], [-0.6, 0.0], [15.5, 11.5], [8.0, 12.0]])
    assert inside_view(points, (12, 16)).tolist() == [True, False, True, False]
    inner = torch.tensor([[1.5, 0.5], [1.4, 0.5], [1.5, 0.4], [13.5, 10.5]]).double()
    found = inside_view(inner, (12, 16), margin=(1, 2)).tolist()
    assert found == [True, False, False, True]


def test_box_around_a_view():
    box = (7.0, 9.0, 47.0, 29.0)
    for flip in (False, True):
        matrix = torch.from_numpy(crop_matrix(box, (20, 30), flip))
        torch.testing.assert_close(
            view_box(matrix, (20, 30)), torch.tensor(box).double()
        )
    # A margin of a tenth of each side.
    torch.testing.assert_close(
        view_box(matrix, (20, 30), (2.0, 3.0)),
        torch.tensor([11.0, 11.0, 43.0, 27.0]).double(),
    )
    matrix = torch.from_numpy(crop_matrix(box, (20, 30), rotation=90.0))
    torch.testing.assert_close(
        view_box(matrix, (20, 30)), torch.tensor([17.0, -1.0, 37.0, 39.0]).double()
    )


def test_overlap_points_are_the_same_places():
    views = matrices(40)[:20], matrices(40)[20:]
    shapes = (20, 30), (20, 30)
    positions = torch.rand(20, 50, 2)
    points, inside, share = overlap_points(views, shapes, positions)
    places = [apply_affine(*pair) for pair in zip(views, points)]
    torch.testing.assert_close(*places)
    met = inside_view(points[0], (20, 30)) & inside_view(points[1], (20, 30))
    assert (inside == met).all()
    assert 0 < inside.sum() < inside.numel()
    assert ((share >= 0) & (share <= 1)).all()


def test_overlap_share_of_turned_views():
    """Against counting the pixels of the smaller view that both show."""
    one, two = matrices(40)[:20], matrices(40)[20:]
    shape = (20, 30)
    steps = (torch.arange(200.0) + 0.5) / 200
    grid = torch.cartesian_prod(steps, steps)
    _, _, share = overlap_points((one, two), (shape, shape), grid)
    fine = cell_centres(shape, (200, 300))
    areas = [torch.linalg.det(m[:, :, :2]).abs() for m in (one, two)]
    for n in range(20):
        small, large = (one, two) if areas[0][n] < areas[1][n] else (two, one)
        there = apply_affine(invert_affine(large[n]), apply_affine(small[n], fine))
        expected = inside_view(there, shape).double().mean()
        assert share[n].item() == pytest.approx(expected.item(), abs=0.01)


def test_views_apart_have_nothing_in_common():
    one = torch.from_numpy(crop_matrix((0, 0, 10, 10), (20, 20)))[None]
    two = torch.from_numpy(crop_matrix((10, 0, 20, 10), (20, 20)))[None]
    positions = torch.rand(9, 2)
    _, inside, share = overlap_points((one, two), ((20, 20), (20, 20)), positions)
    assert not inside.any() and share == 0


def test_mutual_nearest_by_hand():
    distance = torch.tensor([[[1.0, 5.0, 9.0], [2.0, 6.0, 3.0], [8.0, 4.0, 7.0]]])
    column, mutual = mutual_nearest(distance)
    assert column.tolist() == [[0, 0, 1]]
    assert mutual.tolist() == [[True, False, True]]


def test_sampled_map_is_exact_for_a_linear_map():
    level = cell_centres((24, 32), (6, 4)).T.view(1, 2, 6, 4)
    points = torch.rand(1, 30, 2, dtype=torch.float64)
    points = points * torch.tensor([24.0, 20.0]) + torch.tensor([3.5, 1.5])
    torch.testing.assert_close(sample_map(level, points, (24, 32)).mT, points)
    # Beyond the last centres the edge is continued.
    corner = points.new_tensor([[[-0.5, 23.5]]])
    torch.testing.assert_close(
        sample_map(level, corner, (24, 32))[0, :, 0], level[0, :, -1, 0]
    )


def test_patch_std_equals_a_loop():
    images = 40 + torch.rand(2, 1, 12, 16).double()
    images[1] = 7.0
    found = patch_std(images, (3, 4))
    for row in range(3):
        for column in range(4):
            patch = images[:, :, 4 * row : 4 * row + 4]
            patch = patch[..., 4 * column : 4 * column + 4]
            torch.testing.assert_close(
                found[:, 0, row, column],
                patch.flatten(1).std(dim=1, correction=0),
                rtol=1e-7,
                atol=1e-6,  # the root of the rounding of a variance of 0
            )
