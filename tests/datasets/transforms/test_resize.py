import numpy as np
import pytest

from medssl_mm.datasets.transforms import RandomCropView, ResizeAndPad


def test_resize_keeps_shape_and_notes_the_padding():
    image = np.random.default_rng(0).random((100, 200)).astype(np.float32)
    results = ResizeAndPad(size=128, pad_value=-1)(dict(img=image))
    assert results['img'].shape == results['img_shape'] == (128, 128)
    assert results['img_padding_size'] == [0, 0, 0, 64]
    assert (results['img'][64:] == -1).all()
    assert results['img'][:64].mean() == pytest.approx(image.mean(), abs=0.01)
    tall = ResizeAndPad(size=(64, 96))(dict(img=image.T))
    assert tall['img_padding_size'] == [0, 64, 0, 0]


def test_resize_without_aspect_stretches():
    results = ResizeAndPad(size=(40, 30), keep_aspect=False)(
        dict(img=np.ones((9, 50), np.float32))
    )
    assert results['img'].shape == (40, 30)
    assert results['img_padding_size'] == [0, 0, 0, 0]


def test_resize_refuses_a_loaded_label():
    with pytest.raises(ValueError, match='put LoadSliceLabel after'):
        ResizeAndPad(size=8)(
            dict(img=np.ones((9, 9), np.float32), seg_fields=['gt_seg_map'])
        )


@pytest.mark.parametrize(
    'step',
    [
        ResizeAndPad(32, pad_value=0.25),
        ResizeAndPad(90, keep_aspect=False),
        RandomCropView(24, rotation=40, pad_value=0.25),
    ],
)
def test_colour_is_resized_and_cropped_channel_by_channel(step):
    picture = np.random.default_rng(0).random((40, 60, 3)).astype(np.float32)

    def run(image):
        return step(dict(img=image, rng=np.random.default_rng(3)))['img']

    for channel in range(3):
        np.testing.assert_allclose(
            run(picture)[..., channel], run(picture[..., channel].copy()), atol=1e-6
        )


def test_the_minimum_of_colour_fills_all_channels():
    picture = np.full((20, 40, 3), [0.2, 0.5, 0.9], np.float32)
    padded = ResizeAndPad(40, pad_value='minimum')(dict(img=picture))['img']
    np.testing.assert_allclose(padded[-1, 0], 0.2)


def test_labels_are_resized_like_the_image_on_request():
    y, x = np.mgrid[:120, :90]
    disc = (x - 40) ** 2 + (y - 70) ** 2 < 30**2
    results = ResizeAndPad(64, resize_labels=True)(
        dict(
            img=disc.astype(np.float32),
            label=disc.astype(np.uint8),
            seg_fields=['label'],
        )
    )
    assert results['img_padding_size'] == [0, 16, 0, 0]
    assert (results['label'][:, 48:] == 255).all()
    wrong = (results['img'] > 0.5) != (results['label'] == 1)
    assert wrong[:, :48].mean() < 0.02
