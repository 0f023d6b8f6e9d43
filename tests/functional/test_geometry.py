import numpy as np
import pytest
import torch

from medssl_mm.functional.geometry import (
    apply_affine,
    cell_centres,
    crop_matrix,
    inside_view,
    invert_affine,
    to_unit_range,
    view_to_view,
)


def matrices(number):
    rng = np.random.default_rng(0)
    made = []
    for _ in range(number):
        x0, y0, width, height = rng.uniform(5, 60, 4)
        made.append(
            crop_matrix((x0, y0, x0 + width, y0 + height), (20, 30),
                        rng.random() < 0.5, rng.uniform(-90, 90)))
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
    image = np.arange(25.).reshape(5, 5)
    v, u = np.mgrid[:5, :5]
    matrix = crop_matrix((0, 0, 5, 5), (5, 5), rotation=90)
    x, y = (np.rint(r[0] * u + r[1] * v + r[2]).astype(int) for r in matrix)
    # The content turns the other way round: clockwise.
    np.testing.assert_array_equal(image[y, x], np.rot90(image, k=-1))


def test_inverse_and_composition():
    one, two = matrices(6), matrices(12)[6:]
    points = torch.rand(6, 9, 2, dtype=torch.float64) * 20
    torch.testing.assert_close(
        apply_affine(invert_affine(one), apply_affine(one, points)), points)
    there = apply_affine(view_to_view(one, two), points)
    torch.testing.assert_close(
        apply_affine(two, there), apply_affine(one, points))


@pytest.mark.parametrize('view, cells', [((32, 48), (4, 6)), ((30, 30), (1, 7))
                                         ])
def test_cells_are_the_means_of_their_pixels(view, cells):
    centres = cell_centres(view, cells).reshape(*cells, 2)
    step_y, step_x = view[0] / cells[0], view[1] / cells[1]
    for row in range(cells[0]):
        for column in range(cells[1]):
            assert centres[row, column].tolist() == pytest.approx(
                [(column + 0.5) * step_x - 0.5, (row + 0.5) * step_y - 0.5])


def test_unit_range_is_that_of_grid_sample():
    image = torch.rand(1, 1, 12, 16, dtype=torch.float64)
    points = torch.tensor([[3., 5.], [15., 11.], [0., 0.]],
                          dtype=torch.float64)
    grid = to_unit_range(points, (12, 16))
    seen = torch.nn.functional.grid_sample(
        image, grid[None, None], align_corners=False)
    wanted = [image[0, 0, int(y), int(x)] for x, y in points]
    torch.testing.assert_close(seen.flatten(), torch.stack(wanted))
    # The same coordinates hold for a feature map of any stride.
    coarse = to_unit_range(cell_centres((12, 16), (3, 4)), (12, 16))
    torch.testing.assert_close(
        coarse, to_unit_range(cell_centres((3, 4), (3, 4)), (3, 4)))


def test_inside():
    points = torch.tensor([[-0.5, 0.], [-0.6, 0.], [15.5, 11.5], [8., 12.]])
    assert inside_view(points, (12, 16)).tolist() == [
        True, False, True, False]
