"""What a resumed run has in common with the run that wrote its checkpoint.

Optimizer and schedules of a checkpoint overwrite those of the config when a run
is resumed. Here what differs is found, said, and applied from there on: a
longer training goes on with the schedule that a fresh run would have there.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import ConcatDataset

from medssl_mm.engine.loops import EpochTrainLoop

__all__ = ['Schedule', 'contract_of', 'differences', 'follow_batches']

# What has no influence on the weights, or is said elsewhere.
_FREE = re.compile(
    r'(work_dir|resume|load_from|launcher|log_\w+|vis\w*|env_cfg|experiment_name'
    r'|runner_type|custom_imports|randomness|default_scope|data_root|test_\w+'
    r'|default_hooks|\w+_dataloader\.(num_workers|persistent_workers|pin_memory'
    r'|prefetch_factor|timeout))(\..*)?'
)
_SHOWN = 12  # differences in a message


def contract_of(runner: Any) -> dict[str, dict[str, Any]]:
    """Settings and facts that the weights of a run depend on.

    Returns:
        dict: ``settings``, the config by dotted keys as text, and ``facts``:
        processes, batches of an epoch, and images, split and its hash of the
        training data.
    """
    loader = runner.train_dataloader
    facts: dict[str, Any] = dict(processes=runner.world_size)
    try:
        facts['batches of an epoch'] = len(loader)
    except TypeError:  # endless
        pass
    for number, dataset in enumerate(_parts(loader.dataset)):
        name = f'training data {number + 1}' if number else 'training data'
        facts[name] = _described(dataset)
    settings = {
        key: text
        for key, text in _flat(runner.cfg._cfg_dict.to_dict())
        if not _FREE.fullmatch(key)
    }
    return dict(settings=settings, facts=facts)


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Say in what two contracts differ, the first dozen of it."""
    found = []
    for part in ('facts', 'settings'):
        was, now = old.get(part) or {}, new[part]
        for key in [*was, *(k for k in now if k not in was)]:
            pair = [str(side.get(key, 'not set')) for side in (was, now)]
            if pair[0] != pair[1]:
                found.append(f'{key}: {pair[0]} -> {pair[1]}')
    more = len(found) - _SHOWN
    return found[:_SHOWN] + ([f'and {more} more'] if more > 0 else [])


def follow_batches(runner: Any, old: Mapping) -> None:
    """Count the iterations of whole epochs as this run has them.

    Batch size and data may have changed; what goes by iterations would else go
    on at the place of another run.
    """
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        return
    now = len(loop.dataloader)
    before = (old.get('facts') or {}).get('batches of an epoch', now)
    inside = loop.batches_done if isinstance(loop, EpochTrainLoop) else 0
    if before != now and (inside or loop.iter == loop.epoch * before):
        loop._iter = loop.epoch * now + inside


class Schedule:
    """Hyperparameters of the optimizer, and its schedules, before any step.

    Args:
        runner (Runner): With optimizer and schedules built, and not yet
            resumed.
    """

    def __init__(self, runner: Any) -> None:
        self.runner = runner
        self._groups = [copy.deepcopy(group) for group in self._settings()]
        self._states = [copy.deepcopy(s.state_dict()) for s in self._schedulers()]

    def _settings(self) -> Iterator[dict[str, Any]]:
        for group in self._param_groups():
            yield {key: value for key, value in group.items() if key != 'params'}

    def _param_groups(self) -> list[dict[str, Any]]:
        wrapper = self.runner.optim_wrapper
        parts = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        return [group for part in parts for group in part.optimizer.param_groups]

    def _schedulers(self) -> list[Any]:
        found = self.runner.param_schedulers or []
        if isinstance(found, dict):
            found = [one for several in found.values() for one in several]
        return list(found)

    def go_on(self) -> list[str]:
        """Put optimizer and schedules where a fresh run has them at this step.

        The state of the optimizer (momentum, ...) stays that of the checkpoint.

        Returns:
            list[str]: What that changes; nothing where it is the same run.
        """
        schedulers = self._schedulers()
        if any(isinstance(s, ReduceOnPlateauParamScheduler) for s in schedulers):
            return []  # follows the scores, which only the checkpoint knows
        groups = self._param_groups()
        resumed = [copy.deepcopy(group) for group in self._settings()]
        states = [copy.deepcopy(scheduler.state_dict()) for scheduler in schedulers]
        for group, fresh in zip(groups, self._groups, strict=True):
            group.update(copy.deepcopy(fresh))
        for scheduler, state in zip(schedulers, self._states, strict=True):
            scheduler.load_state_dict(copy.deepcopy(state))
        self._step(schedulers)
        changed = list[str]()
        for before, now in zip(resumed, self._settings(), strict=True):
            for key in now:
                if before.get(key) != now[key]:
                    change = f'{_short(before.get(key))} -> {_short(now[key])}'
                    changed.append(f'{key} {change}')
        if not changed and [s.state_dict() for s in schedulers] != states:
            return ['the further course of the schedule']
        return list(dict.fromkeys(changed))

    def _step(self, schedulers: list[Any]) -> None:
        """Do what ParamSchedulerHook has done by now."""
        by_epoch = [s for s in schedulers if s.by_epoch]
        by_iter = [s for s in schedulers if not s.by_epoch]
        loop = self.runner.train_loop
        epochs, iterations = loop.epoch, loop.iter
        length = iterations
        if isinstance(loop, EpochBasedTrainLoop):
            length = len(loop.dataloader)
        with warnings.catch_warnings():
            # Torch's, that no step of the optimizer has come before.
            warnings.simplefilter('ignore')
            for epoch in range(epochs + 1):
                for _ in range(min(length, iterations) if by_iter else 0):
                    for scheduler in by_iter:
                        scheduler.step()
                iterations -= length
                if epoch < epochs:
                    for scheduler in by_epoch:
                        scheduler.step()


def _short(value: Any) -> str:
    return f'{value:.6g}' if isinstance(value, float) else str(value)


def _flat(content: Any, key: str = '') -> Iterator[tuple[str, str]]:
    if isinstance(content, Mapping) and content:
        for name, value in content.items():
            yield from _flat(value, f'{key}.{name}' if key else str(name))
    elif isinstance(content, (list, tuple)) and any(
        isinstance(value, Mapping) for value in content
    ):
        for number, value in enumerate(content):
            yield from _flat(value, f'{key}.{number}')
    else:
        text = repr(list(content) if isinstance(content, tuple) else content)
        yield key, re.sub(r' at 0x[0-9a-f]+', '', text)


def _parts(dataset: Any) -> list[Any]:
    if isinstance(dataset, ConcatDataset):
        return [part for inner in dataset.datasets for part in _parts(inner)]
    return [dataset]


def _described(dataset: Any) -> str:
    words = [f'{len(dataset)} samples']
    for name in ('split', 'subset', 'split_hash'):
        value = getattr(dataset, name, None)
        if isinstance(value, str) and value:
            words.append(f'{name} {value}')
    return ', '.join(words)
