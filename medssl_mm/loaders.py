"""Data loaders whose workers start safely and are missed when they fail.

A process with native threads (of torch, OpenMP, a BLAS) must not fork: a lock
that one of them holds at that moment is never released in the child. So the
workers come from a fork server, a process with a single thread that has
imported what they need and is done with it: a worker starts within
milliseconds.
"""

import contextlib
import functools
import itertools
import multiprocessing
import multiprocessing.reduction
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl_mm import cores
from medssl_mm.errors import UserError
from medssl_mm.functional import distributed

__all__ = [
    'LOADER_TIMEOUT',
    'START_METHOD',
    'RowsAndImages',
    'WatchedLoader',
    'first_of_views',
    'keep_apart',
    'skip_batches',
    'start_server',
    'start_server_for',
    'timeout_of',
    'watch',
    'worker_options',
]

_METHODS = multiprocessing.get_all_start_methods()
START_METHOD = 'forkserver' if 'forkserver' in _METHODS else 'spawn'

# What a terminal or Slurm sends to all processes of a run at once. The run decides
# what happens then, and needs its workers until it has ended.
GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

# Seconds without a batch after which a run ends, where a config says nothing.
LOADER_TIMEOUT = 300
# Seconds between two looks at the clock.
_LOOK = 0.5
# Seconds that the main thread has to notice that its silent workers are dead.
_GRACE = 20
# medssl_mm.registry first: it prepares the imports of the hosts.
_PRELOADED = (
    'medssl_mm.registry',
    'medssl_mm.loaders',
    'torch.utils.data',
    'mmengine.dataset',
    'medssl_mm.datasets.registered',
)
# Hosts whose own structure our transforms pack a sample into.
_PACKED = ('mmseg', 'mmpretrain')
_ONE_THREAD = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def start_server(modules: Sequence[str] = ()) -> None:
    """Start the fork server, which imports while this process goes on.

    Called before a run's model is built, it is ready when the first worker is
    asked for. Without this call it starts with the first worker. Once it runs,
    the call does nothing.

    Args:
        modules (Sequence[str]): Further modules that the workers use, so that
            not every one of them has to import them. Defaults to ().
    """
    if START_METHOD != 'forkserver':
        return  # Windows: every worker imports for itself
    # There, this cannot be imported at all.
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([*_PRELOADED, *modules])
    # First: at its start Python unblocks some of the signals.
    with _blocked(GROUP_SIGNALS):
        resource_tracker.ensure_running()
    with _environment(dict.fromkeys(_ONE_THREAD, '1')), _blocked(GROUP_SIGNALS):
        forkserver.ensure_running()


def start_server_for(config: Mapping) -> None:
    """Start the fork server for the loaders of a config, if any has workers.

    It imports what the config imports, and of its host what its data use: the
    data sets of a host take longer than all the rest.

    Args:
        config (Mapping): Of a runner.
    """
    loaders = [config.get(f'{label}_dataloader') for label in ('train', 'val', 'test')]
    wanted = [loader for loader in loaders if loader and loader.get('num_workers')]
    if not wanted:
        return
    modules = (config.get('custom_imports') or {}).get('imports') or []
    modules = [modules] if isinstance(modules, str) else list(modules)
    host = config.get('default_scope')
    if host in _PACKED:
        modules.append(f'{host}.structures')
    types = {name for loader in wanted for name in _types(loader.get('dataset'))}
    if host != 'mmengine' and not all(name.startswith('medssl_mm.') for name in types):
        modules.append(f'{host}.datasets')
    start_server(modules)


def _types(settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        if isinstance(settings.get('type'), str):
            yield settings['type']
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for value in settings:
        yield from _types(value)


def worker_options(num_workers: int, label: str = '') -> dict[str, Any]:
    """Options of a ``DataLoader`` that concern its workers.

    Args:
        num_workers (int): As the config wishes.
        label (str): Of the loader, for the message when the cores of this job
            allow fewer. Defaults to '', which says nothing.

    Returns:
        dict: ``num_workers`` and, if there are any, the start method.
    """
    allowed = cores.workers_within(num_workers)
    if allowed < num_workers and label:
        print_log(
            f'{label} loader: {allowed} worker(s) instead of {num_workers}, as this '
            f'job shares the machine and has {cores.available()} core(s)',
            logger='current',
        )
    if not allowed:
        return dict(num_workers=0)
    start_server()
    return dict(
        num_workers=allowed,
        multiprocessing_context=multiprocessing.get_context(START_METHOD),
    )


def timeout_of(loader: Mapping, environment: Mapping | None) -> float:
    """Seconds that a batch may take by a config.

    Args:
        loader (Mapping): Settings of the loader; ``timeout`` goes first.
        environment (Mapping, optional): ``env_cfg`` with ``loader_timeout``.
    """
    default = (environment or {}).get('loader_timeout', LOADER_TIMEOUT)
    return loader.get('timeout', default)


def watch(
    loader: DataLoader, label: str, timeout: float, settings: str | None = None
) -> DataLoader:
    """Let a loader end the run when a worker dies or no batch comes.

    Args:
        loader (DataLoader): Made with :func:`worker_options`; it is changed.
        label (str): Its name in messages: 'train', 'val', ...
        timeout (float): Seconds a batch may take; 0 waits for ever.
        settings (str, optional): What has ``num_workers`` and ``batch_size`` in
            the config. Defaults to None: '<label>_dataloader'.
    """
    if loader.num_workers and not isinstance(loader, WatchedLoader):
        loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
        # Torch's own time-out looks at the workers only when it is over.
        loader.timeout = 0
        # The hosts make the loader, of torch's class.
        loader.__class__ = WatchedLoader
        loader.label = label
        loader.watchdog = _Watchdog(label, timeout, settings)
    return loader


def skip_batches(loader: DataLoader, batches: int) -> None:
    """Let the next pass over a loader begin later; what is left out is not loaded.

    Args:
        loader (DataLoader): With a sampler whose order is that of its epoch.
        batches (int): How many are left out.
    """
    sampler = loader.batch_sampler
    if not isinstance(sampler, _LaterStart):
        sampler = _LaterStart(sampler)
        # Torch refuses another sampler after the start, lest its order is lost.
        vars(loader)['batch_sampler'] = sampler
    sampler.skip = batches


class _LaterStart:
    """The batches of a sampler, the first time without some at the beginning."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.skip = 0

    def __iter__(self) -> Iterator:
        # In a generator, as torch makes two iterators and uses the second.
        skip, self.skip = self.skip, 0
        yield from itertools.islice(self.sampler, skip, None)

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)['sampler'], name)


class WatchedLoader(DataLoader):
    """Torch's loader, whose iterators look after the workers; see :func:`watch`."""

    label: str
    watchdog: '_Watchdog'

    def __iter__(self) -> Any:
        """Start or reuse the workers.

        Raises:
            UserError: When they cannot be started.
        """
        try:
            living = getattr(self, '_iterator', None)
            if living is None:  # the server may still be importing
                return _WatchedBatches(super().__iter__(), self.watchdog)
            with self.watchdog.waiting(living):
                return _WatchedBatches(super().__iter__(), self.watchdog)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if not _while_pickling(error):
                raise
            raise UserError(
                f'the data set or collate function of the {self.label} loader '
                f'cannot be sent to its workers: {error}; define it at the top '
                f'level of a module, or set {self.watchdog.settings}.num_workers=0'
            ) from error
        except (EOFError, ConnectionError) as error:
            raise UserError(
                f'the workers of the {self.label} loader cannot be started: the '
                'process that starts them (multiprocessing.forkserver) has ended, '
                'possibly for lack of memory; run again with --resume'
            ) from error


def _while_pickling(error: Exception) -> bool:
    """Whether it comes from sending an object to a new process.

    Judged by the place: every version of Python words and types it its own way.
    """
    send = multiprocessing.reduction.dump.__code__
    return any(f.f_code is send for f, _ in traceback.walk_tb(error.__traceback__))


class _WatchedBatches:
    def __init__(self, batches: Any, watchdog: '_Watchdog') -> None:
        self._batches = batches
        self._watchdog = watchdog

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        with self._watchdog.waiting(self._batches):
            return next(self._batches)

    def __len__(self) -> int:
        return len(self._batches)


class _Watchdog:
    """Turns a dead or silent worker into a message.

    Torch notices within 5 s that a worker has ended. Silence is noticed by a
    thread, as the main one may be inside a call that has no time-out, such as
    fetching the memory that a frozen worker has offered.

    Args:
        label (str): Name of the loader.
        patience (float): Seconds; 0 has none to look after.
        settings (str, optional): See :func:`watch`. Defaults to None.
    """

    def __init__(
        self, label: str, patience: float, settings: str | None = None
    ) -> None:
        self.label = label
        self.patience = patience
        self.settings = settings or f'{label}_dataloader'
        self._workers: Sequence[Any] = ()
        self._since: float | None = None
        self._silent_for = 0.0
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def waiting(self, batches: Iterator | None) -> Iterator[None]:
        """Look after the workers of torch's iterator while it is waited for.

        Raises:
            UserError: When a worker ended or all were silent for too long.
        """
        if self._thread is None and self.patience:
            self._thread = threading.Thread(
                target=_look_regularly, args=(weakref.ref(self),), daemon=True
            )
            self._thread.start()
        self._workers = getattr(batches, '_workers', ())
        self._since = time.monotonic()
        try:
            yield
        except (RuntimeError, EOFError, OSError) as error:
            ended = self._ended(error)
            if not ended:
                raise
            message = self._silence() if self._silent_for else self._death(ended)
            self._kill()
            raise UserError(message) from error
        finally:
            self._since = None

    def look(self) -> None:
        """End the workers, and later this process, if the wait is too long."""
        since = self._since
        waited = 0.0 if since is None else time.monotonic() - since
        if waited > self.patience + _GRACE:
            # The main thread is not to be woken: a worker may be stuck in the
            # kernel, where no signal reaches it.
            print(f'error: {self._silence()}', file=sys.stderr, flush=True)
            os._exit(2)
        if waited > self.patience and not self._silent_for:
            self._silent_for = waited
            self._kill()

    def _ended(self, error: Exception) -> Sequence[Any]:
        # A broken connection is seen before the end of the worker is.
        patience = 0 if isinstance(error, RuntimeError) else 5
        latest = time.monotonic() + patience
        while True:
            ended = [w for w in self._workers if w.exitcode is not None]
            if ended or time.monotonic() > latest:
                return ended
            time.sleep(0.1)

    def _kill(self) -> None:
        # A frozen process ignores everything else, and would be waited for.
        for worker in self._workers:
            worker.kill()

    def _silence(self) -> str:
        name = self.settings
        own = f' or {name}.timeout' if name.endswith('_dataloader') else ''
        return (
            f'{self._whose()} has had no batch for {self._silent_for:.0f} s from its '
            f'{len(self._workers)} worker process(es): the disk or network file '
            'system does not answer, or a transform hangs. Continue with --resume; '
            f'allow slow data more time by env_cfg.loader_timeout{own} '
            f'(seconds), or look for the cause with {name}.num_workers=0'
        )

    def _death(self, ended: Sequence[Any]) -> str:
        name = self.settings
        ends = ', '.join(f'process {w.pid} {_end_of(w.exitcode)}' for w in ended)
        lost = f'{self._whose()} lost a worker: {ends}. '
        if not any(worker.exitcode == -signal.SIGKILL for worker in ended):
            return lost + (
                'Its message may stand above; otherwise look for the cause with '
                f'{name}.num_workers=0, and continue with --resume'
            )
        return lost + (
            'Unless someone killed it, memory was short: lower '
            f'{name}.num_workers or {name}.batch_size, and continue with --resume'
        )

    def _whose(self) -> str:
        ranks = distributed.world_size()
        where = f' of rank {distributed.rank()}' if ranks > 1 else ''
        return f'the {self.label} loader{where}'


def _look_regularly(watchdog: weakref.ref) -> None:
    while True:
        time.sleep(_LOOK)
        alive = watchdog()
        if alive is None:
            return
        alive.look()
        del alive


def _end_of(exitcode: int) -> str:
    if exitcode < 0:
        return f'was killed by signal {-exitcode}'
    return f'ended with code {exitcode}'


def _start_worker(then: Callable[[int], None] | None, worker_id: int) -> None:
    """Prepare a worker: it ends with the run, and OpenCV starts no threads."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if START_METHOD == 'forkserver':
        # Also where others had started the server before start_server could.
        signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
        threading.Thread(target=_end_when_told, daemon=True).start()
    if 'cv2' in sys.modules:
        sys.modules['cv2'].setNumThreads(0)
    else:  # imported later, it would take all cores
        os.environ.setdefault('OPENCV_FOR_THREADS_NUM', '1')
    if then is not None:
        then(worker_id)


def _end_with_parent() -> None:
    # After a kill -9 of the run, its fork server would wait for the workers,
    # and they for the server.
    parent = multiprocessing.parent_process()
    assert parent is not None, 'a worker has a parent'
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _blocked(signals: Sequence[int]) -> Iterator[None]:
    """Let what is started meanwhile never get some signals."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _end_when_told() -> None:
    # The signals are blocked here, see GROUP_SIGNALS; torch ends its workers so.
    parent = multiprocessing.parent_process()
    assert parent is not None, 'a worker has a parent'
    while True:
        if signal.sigwaitinfo([signal.SIGTERM]).si_pid == parent.pid:
            os._exit(0)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def first_of_views(inputs: Any) -> Tensor:
    """Return the first of several views, or the only one."""
    return inputs[0] if isinstance(inputs, (list, tuple)) else inputs


class RowsAndImages(Dataset):
    """Gives the row and the first view of each sample.

    It is here since workers import the module of what they are sent, and this one
    is light: with one of the engine each of them would import all of it.

    Args:
        dataset (Dataset): Its samples are dicts with ``inputs``.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        """Row and image, ``(C, H, W)``."""
        return int(index), first_of_views(self.dataset[index]['inputs'])


def keep_apart(
    samples: Sequence[tuple[int, Tensor]],
) -> tuple[list[int], list[Tensor]]:
    """Collate to rows and images; images may differ in size."""
    rows, images = zip(*samples, strict=True)
    return list(rows), list(images)
