"""Optimizer wrappers."""

from medssl_mm.engine.optimizers.autocast_optim_wrapper import (
    AutocastOptimWrapper,
)

__all__ = ['AutocastOptimWrapper']
