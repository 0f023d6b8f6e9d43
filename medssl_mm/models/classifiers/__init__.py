"""Classifiers for mmpretrain."""

from .frozen_image_classifier import FrozenImageClassifier

__all__ = ['FrozenImageClassifier']
