"""Evaluation: slices to volumes, volumes to scores with intervals."""
from .volume_metric import VolumeMetric

__all__ = ['VolumeMetric']
