"""Quirks of upstream versions, each handled here and nowhere else.

``apply`` is cheap: it checks the installed versions by their metadata and
registers an import hook. The heavy packages are corrected at the moment
somebody imports them, so that a segmentation run never pays for mmselfsup.

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

import functools
import gc
import importlib.abc
import importlib.machinery
import importlib.metadata
import io
import logging
import os
import re
import sys
import warnings
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

from medssl_mm.errors import InstallError, UserError

__all__ = [
    'apply',
    'check_install',
    'end_distributed_process',
    'init_process_group',
    'load_checkpoint',
]

# import name: (distribution that works, other one that writes the same files)
_DISTRIBUTIONS = {
    'torch': ('torch', None),
    'torchvision': ('torchvision', None),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmselfsup': ('mmselfsup', None),
    'mmcls': ('mmcls', None),
}
# Seconds that ranks wait for one another, where a config says nothing.
COLLECTIVE_TIMEOUT = 600
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
_applied = False


def apply():
    """Check the installation and correct the upstream packages; idempotent.

    Raises:
        InstallError: A package is missing, doubled or of a wrong version.
    """
    global _applied
    if _applied:
        return
    check_install()

    from mmengine.config import Config
    from mmengine.config import utils as config_utils

    config_utils.MODULE2PACKAGE.update(mmseg='mmseg', medssl_mm='medssl_mm')
    original = Config._get_cfg_path

    def get_cfg_path(cfg_path, filename):
        path, scope = original(cfg_path, filename)
        return path, None if scope == 'medssl_mm' else scope

    Config._get_cfg_path = staticmethod(get_cfg_path)
    for message in _NOISE:
        warnings.filterwarnings('ignore', message=message)
    sys.meta_path.insert(0, _CorrectingFinder())
    for name, (_, after) in _CORRECTIONS.items():
        if name in sys.modules and after is not None:
            after(sys.modules[name])
    _applied = True


def check_install(version_of=None):
    """Compare the installed distributions with what this package needs.

    Args:
        version_of (callable, optional): Maps a distribution name to its
            version, or None when it is absent. Defaults to the metadata of
            the running interpreter.

    Raises:
        InstallError: Lists every problem and one command for each.
    """
    version_of = version_of or _installed_version
    ranges = _required_ranges()
    problems = []
    for module, (wanted, rival) in _DISTRIBUTIONS.items():
        # Lower bound first; the order of a set of bounds is no fixed one.
        bounds = sorted(map(str, ranges[wanted]), reverse=True)
        requirement = wanted + ','.join(bounds)
        found = version_of(wanted)
        other = version_of(rival) if rival else None
        if found and other:
            problems.append(
                f'{wanted} {found} and {rival} {other} are both installed '
                f'and overwrite each other\'s files of "{module}"; run: pip '
                f'uninstall -y {rival} {wanted} && pip install '
                f'"{requirement}"'
            )
        elif other:
            problems.append(
                f'"{module}" comes from {rival} {other}, which does not work '
                f'with current PyTorch; run: pip uninstall -y {rival} && pip '
                f'install "{requirement}"'
            )
        elif not found:
            problems.append(
                f'{wanted} is not installed; run: pip install "{requirement}"'
            )
        elif not ranges[wanted].contains(found, prereleases=True):
            problems.append(
                f'{wanted} {found} is installed, {requirement} is needed; '
                f'run: pip install "{requirement}"'
            )
    problems += _torchvision_problem(version_of('torch'), version_of('torchvision'))
    if problems:
        raise InstallError(
            f'the installation under {sys.prefix} cannot work:\n  - '
            + '\n  - '.join(problems)
        )


def init_process_group(launcher='pytorch', timeout=COLLECTIVE_TIMEOUT):
    """Join the process group of a distributed run, with or without a GPU.

    The group is made before mmengine's Runner is built, which then leaves it
    alone. nccl is used when CUDA is there, gloo otherwise.

    Args:
        launcher (str): ``pytorch`` (torchrun's environment variables) or
            ``slurm`` (those of srun). Defaults to 'pytorch'.
        timeout (int): Seconds a collective may wait. Defaults to
            ``COLLECTIVE_TIMEOUT``.

    Raises:
        UserError: The launcher's environment variables are not set.
    """
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    if launcher == 'slurm':
        _environment_from_slurm()
    elif launcher != 'pytorch':
        raise UserError(f'launcher must be pytorch or slurm, got {launcher!r}')
    needed = ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT']
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher} needs the environment variables '
            f'{", ".join(missing)}, which are not set; start the run with '
            'tools/dist_train.sh CONFIG N (torchrun) or tools/slurm_train.sh'
        )
    if dist.is_initialized():
        return
    if launcher == 'pytorch':
        _die_with_parent()
    options = dict(timeout=timedelta(seconds=timeout))
    if torch.cuda.is_available():
        local_rank = int(os.environ['LOCAL_RANK'])
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f'process {local_rank} of this node finds only '
                f'{torch.cuda.device_count()} GPU(s); start at most that '
                'many processes per node, or set CUDA_VISIBLE_DEVICES='
                ' (empty) to train on the CPU'
            )
        torch.cuda.set_device(local_rank)
        options.update(backend='nccl', device_id=torch.device('cuda', local_rank))
    else:
        options.update(backend='gloo')
    dist.init_process_group(**options)


def end_distributed_process():
    """End a process that has left its group; on a single one, do nothing.

    Threads that torch leaves behind can abort the interpreter's teardown
    ('terminate called without an active exception', seen with gloo on a busy
    machine), and the launcher then reports a finished run as failed. So the
    teardown is left out, after what matters of it.
    """
    if int(os.environ.get('WORLD_SIZE', 1)) == 1:
        return
    gc.collect()  # data loaders end their workers
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def load_checkpoint(file, map_location=None, weights_only=None):
    """Read a checkpoint without running code from the file.

    Besides tensors and plain containers only numpy arrays and mmengine's
    ``HistoryBuffer`` are accepted: checkpoints of the OpenMMLab packages hold
    those.

    Args:
        file (str or file object): What to read.
        map_location (optional): As in ``torch.load``. Defaults to None.
        weights_only (bool, optional): False trusts the file fully; None and
            True do not. Defaults to None.

    Raises:
        UserError: The file holds other objects, or is damaged.
    """
    import pickle

    import torch

    if weights_only is False:
        return torch.load(file, map_location=map_location, weights_only=False)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r'GLOBAL (\S+)', str(error))
        what = f' ({found[1]})' if found else ''
        raise UserError(
            f'{file}: not a checkpoint that can be read safely: it is '
            f'damaged or holds Python objects other than tensors{what}. If '
            'you trust its origin, write its weights to a new file once: '
            "python -c \"import torch; c = torch.load('OLD', map_location="
            "'cpu', weights_only=False); torch.save({'state_dict': "
            "c.get('state_dict', c)}, 'NEW')\""
        ) from error
    except (UserError, OSError):
        raise
    except Exception as error:
        # torch meets a truncated or foreign file with almost any error.
        raise UserError(
            f'{file}: cannot be read as a checkpoint ({error}); the file is '
            'truncated or not one that torch.save wrote'
        ) from error


def _installed_version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _required_ranges():
    """Map each distribution that this package requires to its version range.

    The ranges are stated in requirements/runtime.txt, of which an installed
    package holds a copy in its metadata. A source tree comes first: it may be
    newer than the metadata of its editable installation, or not installed.
    """
    from packaging.requirements import Requirement

    root = Path(__file__).resolve().parents[1]
    stated = root / 'requirements' / 'runtime.txt'
    if (root / 'pyproject.toml').is_file() and stated.is_file():
        lines = stated.read_text(encoding='utf-8').splitlines()
        lines = [line.split('#')[0].strip() for line in lines]
    else:
        try:
            lines = importlib.metadata.requires('medssl_mm') or []
        except importlib.metadata.PackageNotFoundError:
            raise InstallError(
                f'{root} holds medssl_mm without its metadata and without '
                'requirements/runtime.txt; install it by pip, or take the whole '
                'source tree'
            ) from None
    requirements = [Requirement(line) for line in lines if line]
    return {
        requirement.name: requirement.specifier
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({'extra': ''})
    }


def _version(text):
    from packaging.version import Version

    return Version(text)


def _torchvision_problem(torch_version, torchvision_version):
    """Report an unmatched pair: torch 2.N goes with torchvision 0.(N+15)."""
    if not torch_version or not torchvision_version:
        return []
    torch, vision = _version(torch_version), _version(torchvision_version)
    wanted = f'0.{torch.minor + 15}'
    same_build = None in (torch.local, vision.local) or torch.local == vision.local
    if torch.major != 2:
        return []
    if f'{vision.major}.{vision.minor}' == wanted and same_build:
        return []
    return [
        f'torch {torch_version} and torchvision {torchvision_version} are '
        f'not a matched pair; run: pip install "torch=={torch.public}" '
        f'"torchvision=={wanted}.*" (both from the same index)'
    ]


@contextmanager
def _presented_mmcv_version():
    import mmcv

    true_version = mmcv.__version__
    mmcv.__version__ = _PRESENTED_MMCV
    try:
        yield
    finally:
        mmcv.__version__ = true_version


def _drop_dead_locations(registry_module):
    from mmengine.registry import Registry

    # find_spec would import the parent packages, which takes seconds.
    root = Path(registry_module.__file__).parent.parent

    def is_shipped(location):
        path = root.joinpath(*location.split('.'))
        return path.with_suffix('.py').is_file() or path.is_dir()

    for registry in vars(registry_module).values():
        if isinstance(registry, Registry) and registry.scope == 'mmselfsup':
            registry._locations = [
                location for location in registry._locations if is_shipped(location)
            ]


def _restrict_unpickling(checkpoint_module):
    checkpoint_module._safe_torch_load = load_checkpoint
    # torch.hub would unpickle anything that a URL delivers.
    checkpoint_module.load_url = functools.partial(
        checkpoint_module.load_url, weights_only=True
    )


@contextmanager
def _without_optional_package_notice():
    captured = io.StringIO()
    try:
        with redirect_stdout(captured):
            yield
    finally:
        for line in captured.getvalue().splitlines():
            if line != 'Could not import OneDL':
                print(line)


# module: (context of its import, correction afterwards)
_CORRECTIONS = {
    'mmcls': (_presented_mmcv_version, None),
    'mmselfsup': (_presented_mmcv_version, None),
    'mmselfsup.registry': (nullcontext, _drop_dead_locations),
    'mmengine.runner.checkpoint': (nullcontext, _restrict_unpickling),
    'mmpretrain.datasets': (_without_optional_package_notice, None),
    'mmseg.datasets': (_without_optional_package_notice, None),
}


class _CorrectingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that need a correction and wraps their loader."""

    def find_spec(self, name, path=None, target=None):
        if name not in _CORRECTIONS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _CorrectingLoader(spec.loader, name)
        return spec


class _CorrectingLoader(importlib.abc.Loader):
    def __init__(self, loader, name):
        self.loader = loader
        self.name = name

    def __getattr__(self, attribute):
        # Resource readers, get_source and the like stay those of the loader.
        return getattr(self.loader, attribute)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
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


def _safe_globals():
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    core = getattr(np, '_core', None) or np.core
    kinds = ['float16', 'float32', 'float64', 'int32', 'int64', 'uint8']
    return [
        np.ndarray,
        np.dtype,
        core.multiarray._reconstruct,
        core.multiarray.scalar,
        (core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
        (core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
        *(type(np.dtype(kind)) for kind in [*kinds, 'bool', 'uint32']),
        HistoryBuffer,
        (_history_method, 'builtins.getattr'),
        (_history_method, '__builtin__.getattr'),
    ]


def _history_method(owner, name):
    """Stand in for ``getattr`` in a pickled ``HistoryBuffer``."""
    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(HistoryBuffer, name)
    raise UserError(
        f'the checkpoint asks for the attribute {name!r} of {owner!r}, which '
        'is not allowed'
    )


def _die_with_parent():
    """End this process when its launcher is killed.

    torchrun starts each process in a session of its own; without this they
    would train on, unseen, after a kill -9, into the folder that a resumed
    run is using. Linux only.
    """
    import ctypes
    import signal

    parent_death_signal = 1  # PR_SET_PDEATHSIG of sys/prctl.h
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(parent_death_signal, signal.SIGKILL, 0, 0, 0)


def _environment_from_slurm():
    import subprocess

    if 'SLURM_PROCID' not in os.environ:
        raise UserError(
            '--launcher slurm works inside srun only (SLURM_PROCID is not '
            'set); use tools/slurm_train.sh'
        )
    if 'MASTER_ADDR' not in os.environ:
        nodes = os.environ['SLURM_NODELIST']
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostname', nodes],
            capture_output=True,
            text=True,
            check=True,
        )
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    # One port per job, so that two jobs can share a node.
    job = int(os.environ.get('SLURM_JOB_ID', 0))
    os.environ.setdefault('MASTER_PORT', str(20000 + job % 20000))
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['LOCAL_RANK'] = os.environ['SLURM_LOCALID']
