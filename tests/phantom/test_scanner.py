import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medssl_mm.phantom.scanner import rotation


@pytest.mark.parametrize('degrees', [(9, 0, 0), (0, 7, 0), (0, 0, -4), (3, -5, 8)])
def test_rotation_is_right_handed_about_x_then_y_then_z(degrees):
    expected = Rotation.from_euler('xyz', degrees, degrees=True).as_matrix()
    np.testing.assert_allclose(rotation(degrees), expected, atol=1e-12)
