import numpy as np
import pytest
import torch

from medssl_mm.analysis.frozen import Parts, check_frozen, features_of, pixels_of
from medssl_mm.errors import UserError
from tests.analysis.plain import Plain, convolution, pictures


def test_features_do_not_depend_on_the_batches():
    encoder = convolution()
    images = [pixels_of(image) for image in pictures(7)]
    counts = []
    found = features_of(encoder, Plain(), images, 3, counts.append)
    alone = [encoder(image[None].float() / 255)[0] for image in images]
    torch.testing.assert_close(found, torch.stack(alone))
    assert counts == [3, 3, 1]


def test_training_mode_is_refused_and_named():
    encoder = convolution()
    encoder[1].train()
    with pytest.raises(ValueError, match=r'1 is in training mode; call eval\(\)'):
        check_frozen(encoder)
    with pytest.raises(ValueError, match='training mode'):
        features_of(encoder, Plain(), [pixels_of(pictures(1)[0])])


def test_features_that_are_not_finite_are_refused():
    encoder = convolution()
    encoder[0].weight[0] = torch.nan
    with pytest.raises(UserError, match='not finite'):
        features_of(encoder, Plain(), [pixels_of(pictures(1)[0])])


def test_parts_are_computed_once_per_settings(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        return dict(values=np.arange(3.0))

    name = 'a/b: Ä'
    for settings in (dict(seed=0), dict(seed=0), dict(seed=1)):
        found = Parts(tmp_path / 'parts', settings).get(name, compute)
        np.testing.assert_array_equal(found['values'], [0, 1, 2])
    assert len(calls) == 2
    assert len(list((tmp_path / 'parts').iterdir())) == 2


def test_a_part_that_failed_leaves_nothing(tmp_path):
    def fail():
        raise RuntimeError('stopped')

    parts = Parts(tmp_path, {})
    with pytest.raises(RuntimeError):
        parts.get('one', fail)
    assert not list(tmp_path.iterdir())


def test_a_damaged_part_is_named(tmp_path):
    parts = Parts(tmp_path, {})
    parts.get('one', lambda: dict(values=np.arange(100)))
    path = parts.path('one')
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=f'{path.name} is damaged'):
        parts.get('one', dict)
