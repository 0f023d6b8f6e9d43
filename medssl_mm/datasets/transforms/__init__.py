"""Transforms of grey slices; all random ones draw from results['rng']."""

from medssl_mm.datasets.transforms.geometry import (
    RandomSliceCrop,
    ResizeSlice,
    ViewGeometry,
)
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
)
from medssl_mm.datasets.transforms.loading import (
    LoadGreyImage,
    LoadSlice,
    LoadSliceLabel,
)
from medssl_mm.datasets.transforms.packing import PackSlice, PackViews
from medssl_mm.datasets.transforms.views import SliceViews

__all__ = [
    'BlurJitter', 'CTWindow', 'EraseJitter', 'GammaJitter', 'IntensityJitter',
    'LoadGreyImage', 'LoadSlice', 'LoadSliceLabel', 'NoiseJitter',
    'PackSlice', 'PackViews', 'PercentileNormalize', 'RandomSliceCrop',
    'ResizeSlice', 'ShiftScale', 'SliceViews', 'ViewGeometry',
    'ZScoreNormalize'
]
