"""Hooks."""

from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    CalibrateBatchNormHook,
)
from medssl_mm.engine.hooks.data_wait_hook import DataWaitHook
from medssl_mm.engine.hooks.finite_loss_hook import (
    FiniteLossHook,
    NonFiniteLossError,
)
from medssl_mm.engine.hooks.queue_check import QueueCheckHook

__all__ = [
    'CalibrateBatchNormHook',
    'DataWaitHook',
    'FiniteLossHook',
    'NonFiniteLossError',
    'QueueCheckHook',
]
