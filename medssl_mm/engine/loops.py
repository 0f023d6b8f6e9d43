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
    _inside = False

    def progress(self) -> dict[str, int] | None:
        """Describe, after an iteration, how much of the epoch is done.

        Returns:
            dict: For :meth:`resume_inside`; None between two epochs.
        """
        if not self._inside:
            return None
        batches = len(self.dataloader)
        # The number of the iteration is raised when all hooks have run.
        done = self._iter + 1 - self._first_iteration
        return dict(batches_done=done, batches=batches)

    def resume_inside(
        self, meta: Mapping[str, Any], batches: int | None = None
    ) -> None:
        """Begin where a checkpoint was written.

        Args:
            meta (Mapping): Of the checkpoint; ``epoch_progress`` is what
                :meth:`progress` gave when it was written.
            batches (int, optional): Of an epoch of the run that wrote it. Defaults
                to None, as many as now.
        """
        now = len(self.dataloader)
        if 'epoch_progress' not in meta:
            self._warn_of_repetition(meta, batches or now)
        progress = meta.get('epoch_progress')
        if not progress:
            return
        done, before = progress['batches_done'], progress['batches']
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

    @staticmethod
    def _warn_of_repetition(meta: Mapping[str, Any], batches: int) -> None:
        """Tell what becomes of a checkpoint that does not know its place."""
        epoch, done = meta.get('epoch', 0), meta.get('iter', 0)
        if done == epoch * batches:
            return
        print_log(
            f'The checkpoint was written after iteration {done}, inside an epoch of '
            f'{batches}, by a version that did not note the place: epoch {epoch + 1} '
            'begins anew, so that some of its images are trained on once more and the '
            'run has more iterations than it would have had. To go on exactly, resume '
            'from the end of an epoch.',
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
        self._inside = True
        for number, batch in enumerate(self.dataloader, done):
            self.run_iter(number, batch)
        self._inside = False
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
