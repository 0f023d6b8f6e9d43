import pytest
from mmengine.logging import MessageHub
from mmengine.structures import BaseDataElement

from medssl_mm.engine.hooks import FiniteLossHook, NonFiniteLossError
from tests.engine import toy

# Messages.
pytestmark = pytest.mark.exact


def test_training_stops_at_the_iteration_and_saves_nothing(tmp_path):
    model = dict(type='ToyModel', bad_from=6)
    with pytest.raises(
        NonFiniteLossError,
        match=r'loss_fit is not finite at iteration 6 \(epoch 2\): loss=nan, '
        r'loss_fit=nan, loss_size=0\.\d+\..*learning rate',
    ):
        toy.train(toy.config(tmp_path, model=model))
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_cases_of_the_batch_are_named():
    class Run:
        message_hub = MessageHub('test_cases')
        iter = 9
        epoch = 0

    Run.message_hub.update_scalar('train/loss', float('inf'))
    samples = [
        BaseDataElement(metainfo=dict(case_id='0001', slice_index=i)) for i in range(5)
    ]
    with pytest.raises(NonFiniteLossError, match=r'0001#0, .*0001#3, \.\.\.'):
        FiniteLossHook().after_train_iter(
            Run, 9, dict(data_samples=samples), dict(loss=float('inf'))
        )
