"""A Runner whose interrupted runs continue exactly."""

import collections
import contextlib
import logging
import multiprocessing
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine
import torch
import torchvision
from mmengine.config import Config
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner import Runner as BaseRunner
from torch import nn
from torch.utils.data import DataLoader

from medssl_mm import loaders, provenance
from medssl_mm.engine import checkpoints, contract, taps
from medssl_mm.engine.hooks.safe_checkpoint_hook import VALIDATED
from medssl_mm.engine.loops import EpochTrainLoop
from medssl_mm.engine.observing import inner_model
from medssl_mm.engine.seen import RunRecord
from medssl_mm.errors import UserError
from medssl_mm.functional import distributed
from medssl_mm.registry import RUNNERS
from medssl_mm.version import __version__

_NOISE = (
    'Exp name: ',
    'Distributed training is not used',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
# Runners that this process has made, by the second in which it did.
_made_at: collections.Counter[str] = collections.Counter()


@RUNNERS.register_module()
class Runner(BaseRunner):
    """mmengine's Runner with checkpoints that can be trusted.

    - Checkpoints are complete or absent (written under another name first),
      hold plain types only, and hold the random states of every rank. Weights that
      are infinite or not a number are not saved, nor resumed from.
    - Resuming restores everything that influences training, after any
      iteration. A damaged newest checkpoint is skipped with a warning. A
      validation that was due is done; other settings than the checkpoint was
      trained with are applied and listed.
      The transforms may draw from the global generators only in the main
      process, or, if the checkpoint is of the end of an epoch, in workers that
      start anew every epoch.
    - The best checkpoint is there at any moment once there was one.
    - Validation leaves the random generators as they were.
    - Data loaders draw from a generator of their own.
    - They hold what the weights have seen (:mod:`medssl_mm.provenance`), and
      cases are not scored that a network was trained on, or chosen by.
    - Every runner of a process has its own timestamp, and so its own logger,
      visualizer, default scope and log folder.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._resuming = False
        self._testing = False
        self._random_states: list[dict] | None = None
        self._pending_random_state: dict | None = None
        self._validation_due = False
        self._inside_epoch = False
        self._infinite: dict[str, torch.Tensor] = {}
        self._contract: dict | None = None
        self._loading = ''
        self._state_before_validation: dict = {}
        self._record = RunRecord()
        self._file_name = ''
        super().__init__(*args, **_with_labels(kwargs))

    @classmethod
    def from_cfg(cls, cfg: Config) -> 'Runner':
        """Build a runner; what its workers need is imported meanwhile."""
        loaders.start_server_for(cfg)
        return super().from_cfg(cfg)

    def setup_env(self, env_cfg: dict) -> None:
        """Set up the environment as upstream does, with an unused timestamp.

        Upstream's has whole seconds, and what carries it in its name is
        shared: the second of two runners made at once would write its log
        into the folder of the first.
        """
        super().setup_env(dict(env_cfg, mp_cfg=_mp_cfg(env_cfg)))
        # The ranks must agree, also when one of them has made runners alone.
        number = max(distributed.gather_objects(_made_at[self._timestamp]))
        _made_at[self._timestamp] = number + 1
        if number:
            self._timestamp += f'_{number}'

    def save_checkpoint(
        self, out_dir: str, filename: str, *args: Any, **kwargs: Any
    ) -> None:
        """Save a checkpoint as upstream does, but all or nothing.

        To be called on every rank: the random states are gathered.

        Raises:
            UserError: The weights are infinite or not a number, or the file cannot
                be written.
        """
        distributed.unify_buffers(self.model)
        self._require_finite(Path(out_dir, filename))
        self._file_name = filename
        # The best is saved inside a validation, which leaves no trace.
        state = self._state_before_validation or checkpoints.random_state()
        self._random_states = distributed.gather_objects(state)
        local = isinstance(get_file_backend(str(out_dir)), LocalBackend)
        if not local:
            super().save_checkpoint(out_dir, filename, *args, **kwargs)
            return
        temporary = Path(out_dir, f'.{os.getpid()}.{filename}.tmp')
        try:
            super().save_checkpoint(str(out_dir), temporary.name, *args, **kwargs)
            if distributed.is_main_process():
                with open(temporary, 'rb+') as file:
                    os.fsync(file.fileno())
                os.replace(temporary, Path(out_dir, filename))
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise UserError(
                f'cannot write the checkpoint {Path(out_dir, filename)}: '
                f'{error}. Free space or choose another --work-dir, then '
                'continue with --resume'
            ) from error

    def _require_finite(self, path: Path) -> None:
        """Refuse to save what nothing can be resumed from; on every rank."""
        ruined = checkpoints.ruined_weights(
            inner_model(self).state_dict(), self._infinite
        )
        found = [one for one in distributed.gather_objects(ruined) if one]
        if found:
            raise UserError(
                f'{path} is not written: {len(found[0])} weights are infinite or not '
                f'a number, such as {found[0][0]}, though no loss was before they '
                f'changed, so a gradient must have been. {checkpoints.ADVICE}'
            )

    def register_hook(self, hook: Any, priority: Any = None) -> None:
        """Register a hook; mmengine's of checkpoints is replaced by ours."""
        if isinstance(hook, Mapping) and hook.get('type') == 'CheckpointHook':
            hook = dict(hook, type='medssl_mm.SafeCheckpointHook')
        super().register_hook(hook, priority)

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> dict:
        """Load weights; to resume or test, they must fit the model."""
        exact = self._resuming or self._testing
        if exact:
            kwargs['strict'] = True
        self._loading = str(filename)
        try:
            return super().load_checkpoint(filename, *args, **kwargs)
        except FileNotFoundError as error:
            raise UserError(f'checkpoint {filename} does not exist') from error
        except RuntimeError as error:
            if not exact:
                raise
            raise UserError(
                f'{filename} is not of the model in the config: {error}'
            ) from error

    def load_or_resume(self) -> None:
        """Load or resume, from the newest intact checkpoint by default."""
        if self._has_loaded or not self._resume:
            super().load_or_resume()
            return
        automatic = self._resume == 'auto' or self._load_from is None
        path = None if automatic else self._load_from
        if automatic:
            path = distributed.gather_objects(self._find_checkpoint())[0]
            if isinstance(path, UserError):
                raise path
        elif '://' not in str(path):
            damage = checkpoints.damage_of(str(path))
            if damage:
                raise UserError(f'checkpoint to resume from: {path} {damage}')
        if path is None:
            self.logger.info(
                f'No checkpoint in {self.work_dir}: training from the start.'
            )
            if self._load_from is not None:
                self.load_checkpoint(self._load_from)
            return
        schedule = contract.Schedule(self)
        self._resuming = True
        try:
            self.resume(path)
        finally:
            self._resuming = False
        # Unless the step has been validated. Inside an epoch none ends here.
        self._validation_due = not self._inside_epoch
        self._follow(schedule)

    def _follow(self, schedule: contract.Schedule) -> None:
        """Apply and tell what differs from the run of the checkpoint."""
        if self._contract is None:
            self.logger.warning(
                'The checkpoint is of an earlier version and does not say with '
                'which data and settings it was trained: not compared.'
            )
        else:
            contract.follow_batches(self, self._contract)
            found = contract.differences(self._contract, contract.contract_of(self))
            if found:
                self.logger.warning(
                    'Resumed with other settings or data than the checkpoint was '
                    'trained with; from here on the new ones apply:\n  '
                    + '\n  '.join(found)
                )
        changes = schedule.go_on()
        if changes:
            self.logger.warning(
                'The optimizer goes on as a new run with these settings would at '
                f'iteration {self.iter}: ' + ', '.join(changes)
            )

    def train(self) -> nn.Module:
        """Train; a rank that the others wait for in vain is named.

        Raises:
            UserError: Also when another training is in the work directory.
        """
        with checkpoints.claim_folder(self.work_dir), _explained():
            return super().train()

    def val(self) -> dict[str, float]:
        """Validate; a rank that the others wait for in vain is named."""
        with _explained():
            return super().val()

    def test(self) -> dict[str, float]:
        """Test; weights that do not fit the model are an error."""
        self._testing = True
        try:
            with _explained():
                return super().test()
        finally:
            self._testing = False

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the training loop; one over epochs can go on inside an epoch."""
        if not isinstance(loop, dict):
            return super().build_train_loop(loop)
        settings = dict(loop)
        if settings.pop('by_epoch', settings.get('type') == 'EpochBasedTrainLoop'):
            settings.pop('type', None)
            return EpochTrainLoop(self, self._train_dataloader, **settings)
        return super().build_train_loop(loop)

    @property
    def seen_in_test(self) -> dict[str, Any] | None:
        """What the weights have seen of the last test, for its results."""
        return self._record.in_test

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        """Call the hooks, and do this class's part before or after them."""
        if self.world_size > 1 and fn_name.startswith('before_'):
            distributed.note_progress(self._place(fn_name, kwargs.get('batch_idx')))
        if fn_name == 'before_train':
            self._check_number_of_batches()
            self._infinite = {
                name: value.clone()
                for name, value in inner_model(self).state_dict().items()
                if checkpoints.ruined_weights({name: value})
            }
            self._record.start_training(self)
        if fn_name == 'before_test':
            self._record.start_test(self)
        if fn_name == 'before_val':
            distributed.unify_buffers(self.model)
            self._state_before_validation = checkpoints.random_state()
        if fn_name == 'after_load_checkpoint':
            self._take_over(kwargs['checkpoint'])
        super().call_hook(fn_name, **kwargs)
        if fn_name == 'before_save_checkpoint':
            self._complete(kwargs['checkpoint'])
        elif fn_name == 'after_val':
            checkpoints.set_random_state(self._state_before_validation)
            self._state_before_validation = {}
        elif fn_name == self._stage_that_ends_setup():
            if self._pending_random_state is not None:
                checkpoints.set_random_state(self._pending_random_state)
                self._pending_random_state = None
            self._validate_if_due()

    def _validate_if_due(self) -> None:
        """Validate the step of the checkpoint if the killed run has not."""
        due, self._validation_due = self._validation_due, False
        loop = self._train_loop
        if not due or self.val_loop is None or not loop.iter:
            return
        if isinstance(loop, EpochBasedTrainLoop):
            step, end = loop.epoch, loop.max_epochs
        elif isinstance(loop, IterBasedTrainLoop):
            step, end = loop.iter, loop.max_iters
        else:
            return
        if self.message_hub.runtime_info.get(VALIDATED) == step:
            return
        loop._decide_current_val_interval()
        if step >= loop.val_begin and (step % loop.val_interval == 0 or step == end):
            self.logger.info('Validating the step of the checkpoint, which is due.')
            self.val_loop.run()

    def _place(self, stage: str, batch: int | None) -> str:
        """Words for where the run is."""
        if batch is not None and not stage.startswith('before_train'):
            return f'batch {batch + 1} ({stage})'
        return f'iteration {self.iter + 1} ({stage})'

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model for distributed training, also on CPUs."""
        if (
            model_wrapper_cfg is None
            and self.distributed
            and not torch.cuda.is_available()
        ):
            return MMDistributedDataParallel(
                module=model,
                broadcast_buffers=False,
                find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            )
        return super().wrap_model(model_wrapper_cfg, model)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict,
        seed: int | None = None,
        diff_rank_seed: bool = False,
    ) -> DataLoader:
        """Build a data loader that leaves the global generator alone.

        Otherwise each start of an iterator would draw from it, and a resumed
        run, which starts one more, would differ. Its workers are started and
        looked after by :mod:`medssl_mm.loaders`; besides upstream's
        keys a config may have ``label``, the loader's name in messages.
        """
        if not isinstance(dataloader, dict):
            return BaseRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        settings = dict(dataloader)
        label = settings.pop('label', 'data')
        timeout = settings.pop('timeout', loaders.LOADER_TIMEOUT)
        settings.setdefault('generator', torch.Generator().manual_seed(seed or 0))
        options = loaders.worker_options(settings.get('num_workers', 0), label)
        settings['num_workers'] = options.pop('num_workers')
        if not settings['num_workers']:
            # torch refuses them, also where only the number was set to 0.
            for name in ('persistent_workers', 'prefetch_factor'):
                settings.pop(name, None)
        loader = BaseRunner.build_dataloader(
            {**options, **settings}, seed=seed, diff_rank_seed=diff_rank_seed
        )
        return loaders.watch(loader, label, timeout)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger, without lines that say nothing."""
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(_worth_reading)
        return logger

    def get_hooks_info(self) -> str:
        """List the hooks in the order of their priority."""
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def _log_env(self, env_cfg: dict) -> None:
        """Log what one needs to repeat the run; upstream asks compilers."""
        if torch.cuda.is_available():
            device = torch.cuda.get_device_name()
        else:
            device = f'CPU, {torch.get_num_threads()} thread(s)'
        self.logger.info(
            f'medssl_mm {__version__}, torch {torch.__version__}, torchvision '
            f'{torchvision.__version__}, mmengine {mmengine.__version__}, '
            f'Python {platform.python_version()}; {self.world_size} '
            f'process(es) on {device}; seed {self.seed}; work directory '
            f'{self.work_dir}'
        )

    def _check_number_of_batches(self) -> None:
        # Otherwise the run ends at once, and looks like a success.
        loader = self.train_dataloader
        try:
            batches = len(loader)
        except TypeError:  # an endless sampler
            return
        if batches == 0:
            raise UserError(
                f'the training data ({len(loader.dataset)} samples, '
                f'{self.world_size} process(es)) do not fill one batch of '
                f'{loader.batch_size} per process; set '
                'train_dataloader.batch_size lower, or '
                'train_dataloader.drop_last=False'
            )

    def _find_checkpoint(self) -> str | UserError | None:
        if not distributed.is_main_process():
            return None
        try:
            return checkpoints.find_intact(
                self.work_dir, self.logger.warning, inner_model(self).state_dict()
            )
        except UserError as error:
            # To be raised on every rank, so that none waits for this one.
            return error

    def _stage_that_ends_setup(self) -> str:
        # The stage after which an uninterrupted run stood when it saved.
        loop = self._train_loop
        if isinstance(loop, EpochTrainLoop) and not loop.batches_done:
            return 'before_train'
        return 'before_train_epoch'

    def _complete(self, checkpoint: dict) -> None:
        checkpoint['random_states'] = self._random_states
        loop, meta = self._train_loop, checkpoint['meta']
        if isinstance(loop, EpochTrainLoop):
            # None at an end, also of the epoch that this one says it is after.
            inside = meta['epoch'] == loop.epoch
            meta['epoch_progress'] = loop.progress() if inside else None
        checkpoint['contract'] = contract.contract_of(self)
        checkpoint[provenance.KEY] = self._record.entry(self._file_name)
        taps.attach_taps(checkpoint, inner_model(self))
        dropped = checkpoints.plain_checkpoint(checkpoint)
        if dropped:
            self.logger.warning(
                'Log information that a checkpoint cannot hold was left out: '
                + ', '.join(dropped)
            )

    def _take_over(self, checkpoint: dict) -> None:
        if not isinstance(checkpoint, Mapping):
            raise UserError(
                f'{self._loading} holds no named weights, but a '
                f'{type(checkpoint).__name__}; give one that a training wrote'
            )
        model: Any = inner_model(self)
        weights = checkpoint.get('state_dict', checkpoint)
        if isinstance(weights, Mapping):
            checkpoints.require_finite(weights, self._loading, model.state_dict())
        if isinstance(getattr(model, 'backbone', None), nn.Module):
            told = taps.compare_taps(
                model.backbone,
                checkpoint,
                self._loading,
                allow=bool(self.cfg.get(taps.ALLOW)),
            )
            self.logger.info(f'{self._loading}: {told}')
        checkpoints.restore_history(checkpoint)
        self._record.take_over(checkpoint, self._loading or 'weights')
        if not self._resuming:
            return
        self._contract = checkpoint.get('contract')
        if isinstance(self._train_loop, EpochTrainLoop):
            facts = (self._contract or {}).get('facts') or {}
            meta = checkpoint['meta']
            self._train_loop.resume_inside(meta, facts.get('batches of an epoch'))
            self._inside_epoch = bool(meta.get('epoch_progress'))
        states = checkpoint.get('random_states')
        if states is not None and len(states) == self.world_size:
            self._pending_random_state = states[self.rank]
            buffers = checkpoint['meta'].get('buffers_of_ranks')
            if buffers:  # inside an epoch every rank has its own
                checkpoint['state_dict'].update(buffers[self.rank])
            return
        found = 'none' if states is None else f'those of {len(states)}'
        self.logger.warning(
            f'This run has {self.world_size} process(es), the checkpoint '
            f'holds the random states of {found}: training continues, but '
            'not exactly as it would have without the interruption.'
        )


def _worth_reading(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NOISE)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        message = distributed.failure_of(error)
        if message is None:
            raise
        raise UserError(message) from error


def _with_labels(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Tell each loader its name, and how long a batch may take."""
    labelled = dict(arguments)
    for label in ('train', 'val', 'test'):
        settings = arguments.get(f'{label}_dataloader')
        if isinstance(settings, dict):
            timeout = loaders.timeout_of(settings, arguments.get('env_cfg'))
            labelled[f'{label}_dataloader'] = dict(
                settings, label=label, timeout=timeout
            )
    return labelled


def _mp_cfg(environment: Mapping[str, Any]) -> dict[str, Any]:
    settings = dict(environment.get('mp_cfg') or {})
    if 'mp_start_method' not in settings:
        # Upstream's default is fork, and it warns of any change.
        multiprocessing.set_start_method(loaders.START_METHOD, force=True)
        settings['mp_start_method'] = loaders.START_METHOD
    return settings
