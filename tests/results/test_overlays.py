import numpy as np

from medssl_mm import results
from tests.results.made import write_result


def test_window_and_blank_slices():
    image = np.array([[-1000, -160, 40, 240, 3000]], np.int16)
    np.testing.assert_allclose(results.display_image(image, 'HU'), [[0, 0, 0.5, 1, 1]])
    assert (results.display_image(np.full((3, 3), 7), 'arbitrary') == 0).all()


def test_paint_labels_leaves_background_alone():
    grey = np.full((1, 3), 0.5, np.float32)
    labels = np.array([[0, 1, 255]], np.uint8)
    picture = results.paint_labels(grey, labels, [(0, 0, 0), (255, 0, 0)])
    np.testing.assert_allclose(
        picture[0], [[0.5, 0.5, 0.5], [0.75, 0.25, 0.25], [0.5, 0.5, 0.5]]
    )


def test_cases_are_chosen_by_rank(tmp_path):
    dice = np.linspace(0.9, 0.1, 5)[:, None].repeat(2, axis=1)
    dice[2] = np.nan  # nothing counted in it: no rank
    folder = write_result(tmp_path, dice)
    assert results.choose_cases(folder / 'cases.csv', 2) == ['case0', 'case4']
    assert results.choose_cases(folder / 'cases.csv', 9) == [
        'case0',
        'case1',
        'case3',
        'case4',
    ]


def test_prediction_returns_in_the_orientation_of_the_store(tmp_path, store):
    from medssl_mm.evaluation.label_nifti import write_label_nifti

    case = store.case('case0')
    label = store.read_label_volume('case0')
    (tmp_path / 'predictions').mkdir()
    assert results.read_prediction(tmp_path, case) is None
    write_label_nifti(label, case, tmp_path / 'predictions/case0.nii.gz')
    np.testing.assert_array_equal(results.read_prediction(tmp_path, case), label)
