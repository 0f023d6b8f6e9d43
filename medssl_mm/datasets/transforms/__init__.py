"""Transforms of slices and images; all draw from results['rng'] alone."""

from medssl_mm.datasets.transforms.affine import RandomAffineView
from medssl_mm.datasets.transforms.crop import RandomCropView
from medssl_mm.datasets.transforms.elastic import ElasticDeformation
from medssl_mm.datasets.transforms.hide_patches import HidePatches
from medssl_mm.datasets.transforms.intensity import (
    CTWindow,
    PercentileNormalize,
    ShiftScale,
    ZScoreNormalize,
)
from medssl_mm.datasets.transforms.jitter import (
    BlurJitter,
    EraseJitter,
    GammaJitter,
    IntensityJitter,
    NoiseJitter,
    RangeNoise,
)
from medssl_mm.datasets.transforms.loading import (
    LoadGreyImage,
    LoadSlice,
    LoadSliceLabel,
)
from medssl_mm.datasets.transforms.packing import PackImage, PackSlice, PackViews
from medssl_mm.datasets.transforms.resize import ResizeAndPad
from medssl_mm.datasets.transforms.torchvision_steps import TorchvisionSteps
from medssl_mm.datasets.transforms.views import CropViews, ImageViews
from medssl_mm.datasets.transforms.warp import ViewGeometry

__all__ = [
    'BlurJitter',
    'CTWindow',
    'ElasticDeformation',
    'EraseJitter',
    'GammaJitter',
    'HidePatches',
    'ImageViews',
    'IntensityJitter',
    'LoadGreyImage',
    'LoadSlice',
    'LoadSliceLabel',
    'NoiseJitter',
    'PackImage',
    'PackSlice',
    'PackViews',
    'PercentileNormalize',
    'RandomAffineView',
    'RandomCropView',
    'RangeNoise',
    'ResizeAndPad',
    'ShiftScale',
    'CropViews',
    'TorchvisionSteps',
    'ViewGeometry',
    'ZScoreNormalize',
]
