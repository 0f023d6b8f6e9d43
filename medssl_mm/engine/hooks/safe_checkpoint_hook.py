"""Checkpoints of which there is always a whole one, the best included."""

import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import EpochBasedTrainLoop, Runner

from medssl_mm.files import write_whole
from medssl_mm.functional import distributed
from medssl_mm.registry import HOOKS

#: Information of a run: the epoch, or iteration, that was validated last.
VALIDATED = 'step_validated'
# Names of the files that a state replaces, which go once it is written.
_REPLACED = 'checkpoints_replaced'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which deletes before it writes.

    Here the new file comes first (the best one, then the state that names it),
    and then what it replaces goes, so that a run may be killed at any moment.
    :class:`medssl_mm.engine.runner.Runner` takes it wherever a config has
    mmengine's.

    Args:
        **kwargs: Those of mmengine's hook.
    """

    file_backend: Any  # set by mmengine's, when a training begins

    def before_train(self, runner: Runner) -> None:
        """Find what a resumed run has left, wherever its folder is now."""
        super().before_train(runner)
        hub = runner.message_hub
        if not runner.iter:
            return
        if 'last_ckpt' in hub.runtime_info:
            self.last_ckpt = self._here(hub.get_info('last_ckpt'))
            # It may have been cut short, and nothing may be left to train.
            if distributed.is_main_process() and Path(self.last_ckpt).is_file():
                write_whole(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        for key in [k for k in hub.runtime_info if k.startswith('best_ckpt')]:
            if (key == 'best_ckpt') == hasattr(self, 'best_ckpt_path'):
                self._find_best(runner, key)
        if distributed.is_main_process():
            # The run may have been killed before it came to that.
            paths = map(self._here, hub.runtime_info.get(_REPLACED, ()))
            there = filter(self.file_backend.isfile, paths)
            self._remove(dict.fromkeys(there, self.file_backend.remove))

    def _here(self, path: str) -> str:
        name = posixpath.basename(str(path))
        return str(self.file_backend.join_path(self.out_dir, name))

    def _find_best(self, runner: Runner, key: str) -> None:
        """Forget a best checkpoint that is not in this folder any more."""
        info = runner.message_hub.runtime_info
        path: str | None = self._here(info[key])
        # The other ranks may be on another machine.
        if distributed.gather_objects(self.file_backend.isfile(path))[0]:
            info[key] = path
        else:
            runner.logger.warning(
                f'The best checkpoint so far, {path}, is not there: the next '
                'validation chooses anew, without comparing with its score.'
            )
            score = key.replace('ckpt', 'score', 1)
            for gone in (key, score, VALIDATED, _REPLACED):
                info.pop(gone, None)
            path = None
        if key == 'best_ckpt':
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key.removeprefix('best_ckpt_')] = path

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Note that this step is validated, and save the best."""
        # By what the loop counts: checkpoints may be counted otherwise.
        by_epoch = isinstance(runner._train_loop, EpochBasedTrainLoop)
        step = runner.epoch if by_epoch else runner.iter
        runner.message_hub.update_info(VALIDATED, step)
        super().after_val_epoch(runner, metrics)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._removing_last(runner):
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._removing_last(runner):
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_last(self, runner: Runner) -> Iterator[None]:
        backend = self.file_backend
        if isinstance(backend, _RemovingLater):  # saving the best saves the state
            yield
            return
        later = self.file_backend = _RemovingLater(backend, runner.message_hub)
        try:
            yield
        finally:
            self.file_backend = backend
        self._remove(later.superseded)
        runner.message_hub.update_info(_REPLACED, [])

    def _remove(self, superseded: Mapping[str, Callable[[str], None]]) -> None:
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for path, remove in superseded.items():
            if path not in kept:
                remove(path)


class _RemovingLater:
    """A file backend that remembers what it is to remove, and notes it in the state."""

    def __init__(self, backend: Any, hub: MessageHub) -> None:
        self._backend = backend
        self._hub = hub
        self.superseded: dict[str, Callable[[str], None]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def _note(self, path: str, remove: Callable[[str], None]) -> None:
        self.superseded[path] = remove
        names = [posixpath.basename(path) for path in self.superseded]
        self._hub.update_info(_REPLACED, names)

    def remove(self, path: str) -> None:
        self._note(path, self._backend.remove)

    def rmtree(self, path: str) -> None:
        self._note(path, self._backend.rmtree)
