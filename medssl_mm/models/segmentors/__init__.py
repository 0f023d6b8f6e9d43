"""Segmentors for mmseg."""

from .frozen_encoder_decoder import FrozenEncoderDecoder
from .mean_teacher import MeanTeacher

__all__ = ['FrozenEncoderDecoder', 'MeanTeacher']
