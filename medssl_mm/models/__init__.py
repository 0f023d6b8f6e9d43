"""Networks, heads and losses; each is imported when it is asked for."""

from importlib import import_module
from typing import Any

# First, because it corrects the hosts that the parts import.
from medssl_mm.registry import MODEL_MODULES


def __getattr__(name: str) -> Any:
    if name in MODEL_MODULES:
        return getattr(import_module(MODEL_MODULES[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
