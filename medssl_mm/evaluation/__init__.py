"""Evaluation: predictions to scores with patient-level intervals."""

from .image_metric import ClassificationMetric
from .volume_metric import VolumeMetric

__all__ = ['ClassificationMetric', 'VolumeMetric']
