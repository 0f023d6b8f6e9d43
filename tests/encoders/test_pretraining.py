"""The preprocessing of a pretraining, as its config says."""

import numpy as np
import pytest
import torch

from medssl_mm.encoders.pretraining import pretrained_encoder
from medssl_mm.errors import UserError
from medssl_mm.registry import TRANSFORMS
from tests.encoders.test_export import CT, GREY, UNIT, literal, write_pretraining

HALF = dict(type='medssl_mm.ShiftScale', mean=0.5, std=0.25)
ZSCORE = dict(type='medssl_mm.ZScoreNormalize', per='slice')
CROP = dict(type='medssl_mm.RandomCropView', size=64)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp('pretraining') / 'epoch_1.pth'
    write_pretraining(path, GREY, UNIT)
    return path


def encoder_of(checkpoint, folder, *pipelines, preprocessor=None):
    """The encoder of the checkpoint by a config of these sets."""
    sets = [
        dict(type='medssl_mm.SliceDataset', data_root='data/ct', pipeline=list(steps))
        for steps in pipelines
    ]
    model = dict(backbone=GREY)
    if preprocessor:
        model['data_preprocessor'] = preprocessor
    loader = dict(dataset=dict(type='ConcatDataset', datasets=sets))
    config = folder / 'config.py'
    config.write_text(
        f'model = {literal(model)}\ntrain_dataloader = {literal(loader)}\n'
    )
    return pretrained_encoder(checkpoint, config)


@pytest.mark.parametrize(
    'steps',
    [
        [UNIT],
        [dict(type='medssl_mm.ShiftScale', mean=100.0, std=50.0)],
        [CT],
        [CT, HALF],
        [UNIT, HALF],
        [dict(type='medssl_mm.TorchvisionSteps', steps=[])],
        [
            UNIT,
            dict(
                type='medssl_mm.TorchvisionSteps',
                steps=[dict(type='Normalize', mean=[0.5], std=[0.2])],
            ),
        ],
        [],
    ],
)
def test_values_are_those_of_the_training(checkpoint, tmp_path, steps):
    """A picture is 0 to 255; of a window what that makes 0 to 255."""
    picture = np.random.default_rng(0).integers(0, 256, (8, 9), dtype=np.uint8)
    image = picture
    if CT in steps:
        image = picture / np.float32(255) * 500 - 200  # HU of level 50, width 500
    results = dict(img=image, rng=np.random.default_rng(0))
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    crop = dict(type='medssl_mm.CropViews', crop=CROP)
    made, _ = encoder_of(checkpoint, tmp_path, [*steps, crop])
    found = made.preprocessing.normalise(torch.from_numpy(picture / 255)[None, None])
    expected = torch.from_numpy(np.asarray(results['img'], np.float64))
    torch.testing.assert_close(found[0, 0], expected, rtol=1e-4, atol=1e-4)


def test_the_preprocessor_of_the_host_comes_last(checkpoint, tmp_path):
    preprocessor = dict(mean=[0.5], std=[0.25])
    made, _ = encoder_of(checkpoint, tmp_path, [UNIT], preprocessor=preprocessor)
    assert (made.preprocessing.mean, made.preprocessing.std) == ((0.5,), (0.25,))
    preprocessor = dict(mean=[127.5], std=[51.0])
    made, _ = encoder_of(checkpoint, tmp_path, [], preprocessor=preprocessor)
    assert (made.preprocessing.mean, made.preprocessing.std) == ((0.5,), (0.2,))


def test_sets_of_different_files_with_the_same_values(checkpoint, tmp_path):
    made, notes = encoder_of(checkpoint, tmp_path, [CT], [UNIT])
    assert made.preprocessing.normalisation == 'unit' and 'window' in notes


@pytest.mark.parametrize(
    'pipelines, message',
    [
        ([[ZSCORE]], 'epoch_1.pth: .*by its own mean and deviation .ZScoreNormalize'),
        ([[UNIT], [UNIT, HALF]], 'the sets of the pretraining are normalised in 2'),
        (
            [
                [
                    UNIT,
                    dict(
                        type='medssl_mm.CropViews', crop=CROP, transforms=[[HALF], []]
                    ),
                ]
            ],
            'the views of the pretraining are normalised in 2 ways',
        ),
    ],
)
def test_what_no_preprocessing_does_is_refused(
    checkpoint, tmp_path, pipelines, message
):
    with pytest.raises(UserError, match=message):
        encoder_of(checkpoint, tmp_path, *pipelines)
