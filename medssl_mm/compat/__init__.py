"""Quirks of upstream versions, each handled here and nowhere else.

``apply`` is cheap: it checks the installed versions by their metadata and
registers an import hook. The heavy packages are corrected at the moment
somebody imports them, so that a segmentation run never pays for mmselfsup.
No module of this package imports torch or a host when it is imported itself:
an installation that lacks one must get as far as the message that says so.

1. mmcls and mmselfsup refuse mmcv >= 2.1 on import, yet work with it: they
   see version 2.0.1 for the duration of their import.
2. mmselfsup's registries name a module that the release does not ship: such
   locations are dropped.
3. mmengine takes the config prefix ``mmseg::`` for a distribution called
   mmsegmentation: the prefix is mapped to the import name.
   The same table gets ``medssl_mm::``; unlike a host's, its bases bring no
   scope of their own, as their bare types are those of the host.
4. mmengine's launcher needs CUDA: ``init_process_group`` does not.
   Leaving a group's processes safely: ``end_distributed_process``.
5. mmengine falls back to unpickling arbitrary objects when a checkpoint does
   not load with ``weights_only=True``: that fallback is removed.
6. Warnings that come with every run and mean nothing here are silenced.
"""

from medssl_mm.compat.checkpoints import load_checkpoint
from medssl_mm.compat.imports import correct_imports, map_config_prefixes, silence_noise
from medssl_mm.compat.processes import (
    COLLECTIVE_TIMEOUT,
    end_distributed_process,
    init_process_group,
)
from medssl_mm.compat.versions import check_install
from medssl_mm.errors import InstallError

__all__ = [
    'COLLECTIVE_TIMEOUT',
    'InstallError',
    'apply',
    'check_install',
    'end_distributed_process',
    'init_process_group',
    'load_checkpoint',
]

_applied = False


def apply() -> None:
    """Check the installation and correct the upstream packages; idempotent.

    Raises:
        InstallError: A package is missing, doubled or of a wrong version.
    """
    global _applied
    if _applied:
        return
    check_install()
    map_config_prefixes()
    silence_noise()
    correct_imports()
    _applied = True
