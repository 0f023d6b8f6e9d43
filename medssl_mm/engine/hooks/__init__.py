"""Hooks."""

from medssl_mm.engine.hooks.calibrate_batch_norm_hook import (
    CalibrateBatchNormHook,
)
from medssl_mm.engine.hooks.collapse_monitor_hook import CollapseMonitorHook
from medssl_mm.engine.hooks.data_wait_hook import DataWaitHook
from medssl_mm.engine.hooks.early_stopping_hook import ResumableEarlyStoppingHook
from medssl_mm.engine.hooks.finite_loss_hook import (
    FiniteLossHook,
    NonFiniteLossError,
)
from medssl_mm.engine.hooks.nearest_neighbour_probe_hook import (
    NearestNeighbourProbeHook,
)
from medssl_mm.engine.hooks.online_probe_hook import OnlineProbeHook
from medssl_mm.engine.hooks.queue_check import QueueCheckHook
from medssl_mm.engine.hooks.safe_checkpoint_hook import SafeCheckpointHook
from medssl_mm.engine.hooks.segmentation_probe_hook import (
    SegmentationProbeHook,
)
from medssl_mm.engine.hooks.target_update_hook import TargetUpdateHook

__all__ = [
    'CalibrateBatchNormHook',
    'CollapseMonitorHook',
    'DataWaitHook',
    'FiniteLossHook',
    'NearestNeighbourProbeHook',
    'NonFiniteLossError',
    'OnlineProbeHook',
    'QueueCheckHook',
    'ResumableEarlyStoppingHook',
    'SafeCheckpointHook',
    'SegmentationProbeHook',
    'TargetUpdateHook',
]
