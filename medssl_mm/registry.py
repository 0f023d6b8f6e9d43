"""Registries of this package: children of mmengine's roots.

In a config the types are written with the prefix, ``medssl_mm.Name``; the
default scope stays the one of the host that runs the job. Each registry
imports its ``locations`` at the first look-up, so importing this module is
cheap.
"""

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from mmengine import registry as roots
from mmengine.logging import print_log
from mmengine.registry import Registry

from medssl_mm import compat
from medssl_mm.aliases import current_name, current_settings
from medssl_mm.errors import UserError

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'FUNCTIONS',
    'HOOKS',
    'LOG_PROCESSORS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'RUNNERS',
    'TRANSFORMS',
    'VISUALIZERS',
    'WEIGHT_INITIALIZERS',
    'build_of',
]

compat.apply()


_noticed: set[str] = set()


def _notice(message: str) -> None:
    if message not in _noticed:
        _noticed.add(message)
        print_log(f'{message}; the old form still works', 'current', logging.WARNING)


class _Registry(Registry):
    """Knows the types of before, see :mod:`medssl_mm.aliases`."""

    def get(self, key: str) -> type | Callable | None:
        prefix, dot, name = key.rpartition('.')
        return super().get(f'{prefix}{dot}{current_name(name, _notice)}')

    def build(self, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(cfg, Mapping):
            cfg = current_settings(cfg, _notice)
        return super().build(cfg, *args, **kwargs)


def build_of(registry: Registry, settings: Mapping, source: str | None) -> Any:
    """Build what a config describes.

    Args:
        registry (Registry): Where its type is looked up.
        settings (Mapping): Its config.
        source (str, optional): File of the config, for the message.

    Raises:
        UserError: Nobody has registered a type.
    """
    try:
        return registry.build(settings)
    except KeyError as error:
        # mmengine's words for a type that nobody registered.
        if 'is not in the' not in str(error):
            raise
        raise UserError(
            f'{source}: {str(error.args[0]).partition(". ")[0]}; check the '
            'spelling, and the prefix medssl_mm. of own types'
        ) from error


def _child(root: Registry, location: str) -> _Registry:
    return _Registry(root.name, parent=root, scope='medssl_mm', locations=[location])


# Where each model part lives. By name and not by location, so that a
# segmentation run does not import mmselfsup (2 s) nor a pretraining run mmseg.
MODEL_MODULES = {
    'BarlowTwinsLoss': 'medssl_mm.models.losses',
    'BarlowTwinsNeck': 'medssl_mm.models.necks',
    'CifarResNet': 'medssl_mm.models.backbones.cifar_resnet',
    'DecorrelationConv': 'medssl_mm.models.heads',
    'DecorrelationHead': 'medssl_mm.models.heads',
    'DenseContrastNeck': 'medssl_mm.models.necks',
    'DenseInfoNCELoss': 'medssl_mm.models.losses',
    'DilatedResNet': 'medssl_mm.models.backbones.dilated_res_net',
    'EncoderBackbone': 'medssl_mm.encoders.network',
    'EfficientNetAnyChannels': 'medssl_mm.models.backbones.efficient_net',
    'FeatureMSELoss': 'medssl_mm.models.losses',
    'FrozenEncoderDecoder': 'medssl_mm.models.segmentors',
    'MeanTeacher': 'medssl_mm.models.segmentors',
    'FrozenImageClassifier': 'medssl_mm.models.classifiers',
    'HandmadeFeatures': 'medssl_mm.models.backbones.handmade_features',
    'RawPixels': 'medssl_mm.models.backbones.raw_pixels',
    'InfoNCELoss': 'medssl_mm.models.losses',
    'LatentPredictionLoss': 'medssl_mm.models.losses',
    'LinearHead': 'medssl_mm.models.decode_heads',
    'LocalContrastNeck': 'medssl_mm.models.necks',
    'LocalInfoNCELoss': 'medssl_mm.models.losses',
    'MaskedRestoration': 'medssl_mm.models.algorithms',
    'MultiLevelBYOL': 'medssl_mm.models.algorithms',
    'MultiLevelHead': 'medssl_mm.models.heads',
    'MultiLevelMoCo': 'medssl_mm.models.algorithms',
    'MultiLevelSimCLR': 'medssl_mm.models.algorithms',
    'MultiLevelVICReg': 'medssl_mm.models.algorithms',
    'NTXentLoss': 'medssl_mm.models.losses',
    'PlaceProjector': 'medssl_mm.models.necks',
    'PooledNeck': 'medssl_mm.models.necks',
    'ReleaseDecorrelation': 'medssl_mm.legacy.iter_norm',
    'ReleaseLocalLoss': 'medssl_mm.legacy.local_term',
    'ResNetSamePadding': 'medssl_mm.models.backbones.res_net_same_padding',
    'ResNetSmallStem': 'medssl_mm.models.backbones.res_net_small_stem',
    'RestorationHead': 'medssl_mm.models.heads',
    'SoftDiceLoss': 'medssl_mm.models.losses',
    'SplitBatchNorm': 'medssl_mm.models.utils.split_batch_norm',
    'VICRegLocalLoss': 'medssl_mm.models.losses',
    'VICRegLoss': 'medssl_mm.models.losses',
}


class _ModelRegistry(_Registry):
    """Imports the module of a model part when it is asked for."""

    def get(self, key: str) -> type | Callable | None:
        name = key.rpartition('.')[2]
        if name in MODEL_MODULES:
            import_module(MODEL_MODULES[name])
        return super().get(key)


MODELS = _ModelRegistry(
    roots.MODELS.name,
    parent=roots.MODELS,
    scope='medssl_mm',
    # Holds nothing; without any location the host warns that this package
    # were not installed.
    locations=['medssl_mm.models'],
)
DATASETS = _child(roots.DATASETS, 'medssl_mm.datasets.registered')
DATA_SAMPLERS = _child(roots.DATA_SAMPLERS, 'medssl_mm.datasets.registered')
TRANSFORMS = _child(roots.TRANSFORMS, 'medssl_mm.datasets.registered')
FUNCTIONS = _child(roots.FUNCTIONS, 'medssl_mm.datasets.registered')
METRICS = _child(roots.METRICS, 'medssl_mm.evaluation')
HOOKS = _child(roots.HOOKS, 'medssl_mm.engine')
LOOPS = _child(roots.LOOPS, 'medssl_mm.engine')
LOG_PROCESSORS = _child(roots.LOG_PROCESSORS, 'medssl_mm.engine')
OPTIM_WRAPPERS = _child(roots.OPTIM_WRAPPERS, 'medssl_mm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    roots.OPTIM_WRAPPER_CONSTRUCTORS, 'medssl_mm.engine'
)
RUNNERS = _child(roots.RUNNERS, 'medssl_mm.engine')
VISUALIZERS = _child(roots.VISUALIZERS, 'medssl_mm.engine')
WEIGHT_INITIALIZERS = _child(roots.WEIGHT_INITIALIZERS, 'medssl_mm.engine')
