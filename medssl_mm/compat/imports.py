"""Corrections of upstream packages, made when they are imported."""

import functools
import importlib.abc
import importlib.machinery
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stdout,
)
from pathlib import Path
from types import ModuleType
from typing import Any

from medssl_mm.compat.checkpoints import load_checkpoint
from medssl_mm.errors import InstallError

__all__ = ['correct_imports', 'map_config_prefixes', 'silence_noise']

_PRESENTED_MMCV = '2.0.1'
_NOISE = (
    # mmcv without compiled operators, of which none is used.
    'Fail to import ``MultiScaleDeformableAttention``',
    # medssl_mm.loaders says in one line what is wrong.
    'Got pickle error when attempting to start a worker',
    # mmpretrain's source, whenever it is compiled anew.
    '.*invalid escape sequence',
    # mmengine's call of torch's DistributedDataParallel.
    '`broadcast_buffers` is deprecated',
)


def map_config_prefixes() -> None:
    """Let configs inherit from ``mmseg::...`` and ``medssl_mm::...``."""
    from mmengine.config import Config
    from mmengine.config import utils as config_utils

    config_utils.MODULE2PACKAGE.update(mmseg='mmseg', medssl_mm='medssl_mm')
    original = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        path, scope = original(cfg_path, filename)
        return path, None if scope == 'medssl_mm' else scope

    Config._get_cfg_path = staticmethod(get_cfg_path)


def silence_noise() -> None:
    """Ignore warnings that come with every run and mean nothing here."""
    for message in _NOISE:
        warnings.filterwarnings('ignore', message=message)


def correct_imports() -> None:
    """Correct modules as they are imported, and those that are already."""
    sys.meta_path.insert(0, _CorrectingFinder())
    for name, (_, after) in _CORRECTIONS.items():
        if name in sys.modules and after is not None:
            after(sys.modules[name])


@contextmanager
def _presented_mmcv_version() -> Iterator[None]:
    import mmcv

    true_version = mmcv.__version__
    mmcv.__version__ = _PRESENTED_MMCV
    try:
        yield
    finally:
        mmcv.__version__ = true_version


def _drop_dead_locations(registry_module: ModuleType) -> None:
    from mmengine.registry import Registry

    # find_spec would import the parent packages, which takes seconds.
    root = Path(str(registry_module.__file__)).parent.parent

    def is_shipped(location: str) -> bool:
        path = root.joinpath(*location.split('.'))
        return path.with_suffix('.py').is_file() or path.is_dir()

    for registry in vars(registry_module).values():
        if isinstance(registry, Registry) and registry.scope == 'mmselfsup':
            registry._locations = [
                location for location in registry._locations if is_shipped(location)
            ]


def _restrict_unpickling(checkpoint_module: Any) -> None:
    checkpoint_module._safe_torch_load = load_checkpoint
    # torch.hub would unpickle anything that a URL delivers.
    checkpoint_module.load_url = functools.partial(
        checkpoint_module.load_url, weights_only=True
    )


@contextmanager
def _without_optional_package_notice() -> Iterator[None]:
    captured = io.StringIO()
    try:
        with redirect_stdout(captured):
            yield
    finally:
        for line in captured.getvalue().splitlines():
            if line != 'Could not import OneDL':
                print(line)


# module: (context of its import, correction afterwards)
_CORRECTIONS: dict[
    str,
    tuple[
        Callable[[], AbstractContextManager[None]], Callable[[ModuleType], None] | None
    ],
] = {
    'mmcls': (_presented_mmcv_version, None),
    'mmselfsup': (_presented_mmcv_version, None),
    'mmselfsup.registry': (nullcontext, _drop_dead_locations),
    'mmengine.runner.checkpoint': (nullcontext, _restrict_unpickling),
    'mmpretrain.datasets': (_without_optional_package_notice, None),
    'mmseg.datasets': (_without_optional_package_notice, None),
}


class _CorrectingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that need a correction and wraps their loader."""

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _CORRECTIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _CorrectingLoader(spec.loader, name)
        return spec


class _CorrectingLoader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader, name: str) -> None:
        self.loader = loader
        self.name = name

    def __getattr__(self, attribute: str) -> Any:
        # Resource readers, get_source and the like stay those of the loader.
        return getattr(self.loader, attribute)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        context, after = _CORRECTIONS[self.name]
        try:
            with context():
                self.loader.exec_module(module)
            if after is not None:
                after(module)
        except (ImportError, AssertionError) as error:
            # mmengine would hide this and then report an unknown type.
            raise InstallError(
                f'"import {self.name}" failed: {error}; the installation is '
                'broken, install the pinned set again'
            ) from error
