"""Runner, hooks, optimizer wrapper and log lines."""

from medssl_mm.engine.evaluation_files import EvaluationFilesHook
from medssl_mm.engine.hooks import (
    CalibrateBatchNormHook,
    CollapseMonitorHook,
    DataWaitHook,
    FiniteLossHook,
    NearestNeighbourProbeHook,
    NonFiniteLossError,
    OnlineProbeHook,
    QueueCheckHook,
    ResumableEarlyStoppingHook,
    SegmentationProbeHook,
    TargetUpdateHook,
)
from medssl_mm.engine.log_processor import ShortLogProcessor
from medssl_mm.engine.optimizers import (
    AutocastOptimWrapper,
    WeightDecayConstructor,
)
from medssl_mm.engine.pretrained import (
    CalibrateRandomBackboneHook,
    LoadReportHook,
    PretrainedBackbone,
)
from medssl_mm.engine.runner import Runner

__all__ = [
    'AutocastOptimWrapper',
    'CalibrateBatchNormHook',
    'CalibrateRandomBackboneHook',
    'CollapseMonitorHook',
    'DataWaitHook',
    'EvaluationFilesHook',
    'FiniteLossHook',
    'LoadReportHook',
    'NearestNeighbourProbeHook',
    'NonFiniteLossError',
    'OnlineProbeHook',
    'PretrainedBackbone',
    'QueueCheckHook',
    'Runner',
    'ResumableEarlyStoppingHook',
    'SegmentationProbeHook',
    'ShortLogProcessor',
    'TargetUpdateHook',
    'WeightDecayConstructor',
]
