"""An epoch may begin anywhere; a run that does so is in test_preemption.py."""

from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from medssl_mm.engine.loops import EpochTrainLoop


class _Run:
    """Notes which batches the model gets at which iteration."""

    def __init__(self):
        self.seen = []
        self.hooks = []
        self.visualizer = SimpleNamespace()
        self.model = SimpleNamespace(
            train=lambda: None, train_step=lambda batch, **_: self.seen.append(batch)
        )
        self.optim_wrapper = self.val_loop = None

    def call_hook(self, name, batch_idx=None, **_):
        self.hooks.append((name, batch_idx))


def _loop(batches=4, epochs=2):
    run = _Run()
    data = DataLoader(list(range(batches)), batch_size=1, collate_fn=lambda b: b[0])
    return run, EpochTrainLoop(run, data, max_epochs=epochs)


def _numbers(run):
    return [number for name, number in run.hooks if name == 'before_train_iter']


def test_epochs_are_whole_as_a_rule():
    run, loop = _loop()
    loop.run()
    assert run.seen == [0, 1, 2, 3] * 2
    assert loop.iter == 8 and loop.epoch == 2


def test_rest_of_an_epoch_keeps_its_numbers():
    run, loop = _loop()
    loop.resume_inside(dict(epoch_progress=dict(batches_done=3, batches=4)))
    loop._epoch, loop._iter = 0, 3
    loop.run()
    assert run.seen == [3, 0, 1, 2, 3]
    assert _numbers(run) == [3, 0, 1, 2, 3]
    assert loop.iter == 8
    names = [name for name, _ in run.hooks]
    assert names.count('before_train_epoch') == names.count('after_train_epoch') == 2


def test_epoch_of_which_nothing_is_left_is_ended():
    run, loop = _loop(epochs=1)
    loop.resume_inside(dict(epoch_progress=dict(batches_done=4, batches=4)))
    loop._iter = 4
    loop.run()
    assert run.seen == [] and loop.epoch == 1
    assert ('after_train_epoch', None) in run.hooks


def test_progress_is_told_inside_and_after():
    run, loop = _loop()
    told = []
    run.model.train_step = lambda *_, **__: told.append(loop.progress())
    loop.run_epoch()
    assert told[0] == dict(batches_done=1, batches=4)
    assert told[-1] == dict(batches_done=4, batches=4)
    loop.run_epoch()
    assert told[4] == dict(batches_done=1, batches=4)


@pytest.mark.parametrize('meta', [{}, dict(epoch_progress=None)])
def test_checkpoint_of_an_epoch_is_gone_on_from_as_before(meta):
    run, loop = _loop()
    loop.resume_inside(meta)
    loop._epoch, loop._iter = 1, 4
    loop.run()
    assert run.seen == [0, 1, 2, 3]


def test_nothing_is_told_between_two_epochs():
    run, loop = _loop()
    assert loop.progress() is None
    loop.run_epoch()
    assert loop.progress() is None


@pytest.mark.parametrize(
    'epoch, iteration, batches, warns',
    [
        (1, 4, None, False),  # the end of an epoch
        (1, 6, None, True),
        (0, 4, None, True),  # of an epoch that it does not call done
        (2, 6, 3, False),  # of a run with other batches
        (2, 8, 3, True),
    ],
)
def test_checkpoint_without_a_place_is_told_of(capfd, epoch, iteration, batches, warns):
    run, loop = _loop()
    loop.resume_inside(dict(epoch=epoch, iter=iteration), batches)
    said = capfd.readouterr()
    message = f'iteration {iteration}, inside an epoch of {batches or 4}'
    assert (message in said.out + said.err) == warns
    assert not loop.batches_done
