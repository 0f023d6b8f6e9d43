"""Classifier of which only the last layer learns."""

from mmpretrain.models.classifiers.image import ImageClassifier

from medssl_mm.models.utils import FrozenBackbone
from medssl_mm.registry import MODELS


@MODELS.register_module()
class FrozenImageClassifier(FrozenBackbone, ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with a frozen backbone.

    See :class:`medssl_mm.models.utils.FrozenBackbone`.

    Args:
        *args: Arguments of mmpretrain's ``ImageClassifier``.
        **kwargs: The same.
    """
