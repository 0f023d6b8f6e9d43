"""Imports that the processes of distributed tests share.

A fork server imports this once; the processes then start at once.
"""

import contextlib

import torch.distributed  # noqa: F401

# A test that needs a broken module reports it better than a fork server.
with contextlib.suppress(Exception):
    import medssl_mm.engine
    import medssl_mm.loaders  # noqa: F401
with contextlib.suppress(Exception):
    import medssl_mm.models.algorithms
    import medssl_mm.models.decode_heads
    import medssl_mm.models.losses  # noqa: F401
# What mmengine imports once a run starts, and what the tests import themselves.
with contextlib.suppress(Exception):
    import matplotlib.pyplot  # noqa: F401
    import pytest  # noqa: F401
    import yapf  # noqa: F401
with contextlib.suppress(Exception):
    import tests.engine.toy
    import tests.models.algorithms.toy
    import tests.numerics  # noqa: F401
