"""Networks that the hosts lack, and theirs with a change.

Each is imported when it is asked for: most need mmpretrain, which a segmentation
does not.
"""

from importlib import import_module
from typing import Any

from medssl_mm.registry import MODEL_MODULES


def __getattr__(name: str) -> Any:
    module = MODEL_MODULES.get(name, '')
    if module.startswith(f'{__name__}.'):
        return getattr(import_module(module), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
