"""Optimizer wrappers, and which parameters decay."""

from medssl_mm.engine.optimizers.autocast_optim_wrapper import (
    AutocastOptimWrapper,
)
from medssl_mm.engine.optimizers.weight_decay_constructor import (
    WeightDecayConstructor,
)

__all__ = ['AutocastOptimWrapper', 'WeightDecayConstructor']
