"""A training loop that can go on inside an epoch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop

from medssl_mm import loaders

__all__ = ['EpochTrainLoop']


class EpochTrainLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, whose first epoch may begin anywhere.

    The order of an epoch depends on its number alone, so what the interrupted
    run has seen of it is passed over without being loaded.
    """

    batches_done = 0  # of the epoch that begins next

    def progress(self) -> dict[str, int]:
        """Describe, after an iteration, how much of the epoch is done."""
        batches = len(self.dataloader)
        # The number of the iteration is raised when all hooks have run.
        done = self._iter + 1 - self._first_iteration
        return dict(batches_done=done, batches=batches)

    def resume_inside(self, meta: Mapping[str, Any]) -> None:
        """Begin where a checkpoint was written.

        Args:
            meta (Mapping): Of the checkpoint; ``epoch_progress`` is what
                :meth:`progress` gave, if it was written inside an epoch.
        """
        progress = meta.get('epoch_progress')
        if not progress:
            return
        done, before = progress['batches_done'], progress['batches']
        now = len(self.dataloader)
        self.batches_done = done if before == now else done * now // before
        if before != now:
            print_log(
                f'The checkpoint was written after {done} of {before} batches of an '
                f'epoch that has {now} now: training continues after the same share, '
                f'{self.batches_done} batches, not exactly as it would have without '
                'the interruption.',
                logger='current',
                level=logging.WARNING,
            )

    def run_epoch(self) -> None:
        """Run an epoch, or what is left of it."""
        done = self.batches_done
        self._first_iteration = self._iter - done
        self.runner.call_hook('before_train_epoch')
        self.batches_done = 0
        self.runner.model.train()
        if done:
            loaders.skip_batches(self.dataloader, done)
        for number, batch in enumerate(self.dataloader, done):
            self.run_iter(number, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
