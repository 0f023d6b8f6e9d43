"""Looks before the training whether the key queue suits the data."""

import logging

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from medssl_mm.errors import UserError
from medssl_mm.models.utils import KeyQueue
from medssl_mm.registry import HOOKS


@HOOKS.register_module()
class QueueCheckHook(Hook):
    """Checks the lengths of a model's key queues before the first step.

    They must be a multiple of the global batch size, every batch must be
    complete, and they should be shorter than the data set: otherwise a queue
    holds a key of the very image that is contrasted, which is then pushed
    away from itself. Models without a queue are left alone.

    Raises:
        UserError: When the queue cannot be filled by whole batches.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare queue, batch and data set."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        queues = {
            place: part
            for place, part in model.named_modules()
            if isinstance(part, KeyQueue)
        }
        if not queues:
            return
        loader = runner.train_dataloader
        batches = loader.batch_sampler
        for queue in queues.values():
            queue.check_batch(batches.batch_size * get_world_size())
        left_over = len(loader.sampler) % batches.batch_size
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch and left_over and not batches.drop_last:
            raise UserError(
                f'the last batch of every epoch would have {left_over} '
                f'images instead of {batches.batch_size}, and a key queue '
                'takes whole batches only; set '
                'train_dataloader.drop_last=True'
            )
        images = len(loader.dataset)
        for place, queue in queues.items():
            if queue.queue_len <= images:
                continue
            owner = place.rpartition('key_queue')[0]
            print_log(
                f'queue_len={queue.queue_len}{f" of {owner[:-1]}" * bool(owner)} is '
                f'longer than the data set ({images} images): every image meets its '
                'own earlier key among the negatives, which can keep the model from '
                'learning. Set model.queue_len to a multiple of the global '
                'batch size below the number of images.',
                logger='current',
                level=logging.WARNING,
            )
