from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from medssl_mm.engine.hooks import QueueCheckHook
from medssl_mm.models.utils import KeyQueue

# Messages.
pytestmark = pytest.mark.exact


class Model(nn.Module):
    def __init__(self, queue_len):
        super().__init__()
        self.key_queue = KeyQueue(queue_len, feat_dim=2)


def runner(queue_len, batch=4, images=64, drop_last=True, loop=EpochBasedTrainLoop):
    """What the hook looks at of a runner."""
    loader = DataLoader(
        TensorDataset(torch.zeros(images, 1)), batch, drop_last=drop_last
    )
    return SimpleNamespace(
        model=Model(queue_len),
        train_dataloader=loader,
        train_loop=object.__new__(loop),
    )


def test_queue_that_does_not_divide():
    with pytest.raises(ValueError, match='queue_len=30 .* batch size 4'):
        QueueCheckHook().before_train(runner(30))


def test_incomplete_last_batch():
    with pytest.raises(ValueError, match='have 2 images instead of 4'):
        QueueCheckHook().before_train(runner(32, images=66, drop_last=False))


@pytest.mark.parametrize(
    'settings',
    [
        dict(queue_len=32, images=66, drop_last=True),
        dict(queue_len=32, images=64, drop_last=False),
        dict(queue_len=32, images=66, drop_last=False, loop=IterBasedTrainLoop),
        dict(queue_len=64, images=64),
    ],
)
def test_good_settings_pass_silently(settings, capsys):
    QueueCheckHook().before_train(runner(**settings))
    assert 'queue_len' not in capsys.readouterr().out


def test_queue_longer_than_the_data(capsys):
    QueueCheckHook().before_train(runner(128, images=64))
    assert 'queue_len=128 is longer than the data set (64 images)' in ' '.join(
        capsys.readouterr().out.split()
    )


def test_queues_of_terms_are_looked_at_as_well(capsys):
    run = runner(32)
    run.model.term = Model(128)
    QueueCheckHook().before_train(run)
    text = ' '.join(capsys.readouterr().out.split())
    assert 'queue_len=128 of term is longer than the data set' in text
    assert 'queue_len=32' not in text
    run.model.term = Model(30)
    with pytest.raises(ValueError, match='queue_len=30 .* batch size 4'):
        QueueCheckHook().before_train(run)


def test_other_models_are_left_alone():
    QueueCheckHook().before_train(SimpleNamespace(model=nn.Linear(1, 1)))
