"""What a run takes over, sees and hands on, see :mod:`medssl_mm.provenance`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from medssl_mm.engine.hooks.probe_hook import ProbeHook
from medssl_mm.engine.observing import inner_model, own_randomness
from medssl_mm.engine.pretrained import read_checkpoint
from medssl_mm.errors import UserError
from medssl_mm.provenance import (
    CHOICE,
    KEY,
    PRETRAIN,
    TEST,
    TRAIN,
    VALIDATION,
    Cases,
    Seen,
    Shown,
    join_facts,
    require_unseen,
    seen_of,
    sentences,
)
from medssl_mm.registry import DATASETS

# Checkpoints of that name are the ones that validation found best.
_BEST = 'best_'


def seen_in_file(path: str | Path) -> Seen:
    """Read what the weights in a checkpoint have seen.

    Raises:
        UserError: The file is absent or damaged.
    """
    return seen_of(read_checkpoint(path), str(path))


def cases_of(dataset: Any) -> tuple[list[Cases], list[str]]:
    """Cases of a data set, also inside wrappers; and what has no digests.

    Args:
        dataset (Dataset): One of this package, or of a host.
    """
    if hasattr(dataset, 'cases'):
        beside = getattr(dataset, 'unlabelled', None)
        return [part.cases() for part in (dataset, beside) if part is not None], []
    inner = getattr(dataset, 'datasets', None)
    if inner is None:
        inner = [part for part in [getattr(dataset, 'dataset', None)] if part]
    if not inner:
        root = getattr(dataset, 'data_root', '') or ''
        return [], [f'{type(dataset).__name__} {root}'.strip()]
    found = [cases_of(part) for part in inner]
    return [c for cases, _ in found for c in cases], [u for _, us in found for u in us]


def _shown(stage: str, dataset: Any) -> Seen:
    cases, unknown = cases_of(dataset)
    joined = Seen(unknown=tuple(f'the data of {what}' for what in unknown))
    for part in cases:
        joined |= Seen((Shown.of(stage, part),))
    return joined


class RunRecord:
    """What the weights of a run have seen: before it, and in it.

    Its entry in a checkpoint is the same on all processes, and in a run that was
    interrupted the same as in one that was not.
    """

    def __init__(self) -> None:
        self.before = Seen()
        self.own = Seen()
        self.choice = Seen()
        self.always_chosen = False
        self.in_test: dict[str, Any] | None = None

    def take_over(self, checkpoint: Mapping, source: str) -> None:
        """Add what loaded weights have seen."""
        self.before |= seen_of(checkpoint, source)

    def entry(self, filename: str = '') -> dict[str, Any]:
        """What a checkpoint of that name holds."""
        return self.seen(filename).to_plain()

    def seen(self, filename: str = '') -> Seen:
        """What the weights in a checkpoint of that name have seen."""
        found = self.before | self.own
        if self.always_chosen or filename.startswith(_BEST):
            found |= self.choice
        return found

    # ---------------------------------------------------------------- training

    def start_training(self, runner: Runner) -> None:
        """Note what the run will see; refuse to score what must be new.

        Which weights will be tested is not known yet, so that a validation may
        choose some by test cases is only told.

        Raises:
            UserError: Validation cases are trained on, or test cases were, or the
                pretraining saw what its split keeps apart.
        """
        model = inner_model(runner)
        self.before |= _of_parts(model)
        for line in self.before.words():
            runner.logger.info(f'Initial weights: {line}')
        stage = TRAIN if _predicts(model) else PRETRAIN
        self.own = _shown(stage, runner.train_dataloader.dataset)
        if runner.val_loop is not None:
            self.choice = _shown(CHOICE, runner.val_dataloader.dataset)
        self.always_chosen = _always_chosen(runner)
        chooses = any(getattr(hook, 'save_best', None) for hook in runner.hooks)
        seen = self.seen(_BEST if chooses else '')
        allow = bool(runner.cfg.get('allow_seen'))
        for name, dataset, role, told in _scored(runner):
            for cases in cases_of(dataset)[0]:
                facts = require_unseen(
                    seen, cases, f'{name} of this run', role, allow, told
                )
                # That it is not known has been said above.
                _warn(sentences(facts, unknown=False), name)

    # -------------------------------------------------------------------- test

    def start_test(self, runner: Runner) -> None:
        """Compare the test cases; the metrics get what was found.

        Raises:
            UserError: The weights have seen test cases that they must not.
        """
        source = str(getattr(runner, '_load_from', None) or 'the network')
        cases, unknown = cases_of(runner.test_dataloader.dataset)
        allow = bool(runner.cfg.get('allow_seen'))
        seen = self.seen()
        self.in_test = join_facts(
            [require_unseen(seen, part, source, TEST, allow) for part in cases]
        )
        if unknown and seen.shown:
            runner.logger.info(
                f'Not compared with what {source} has seen: the test data '
                f'({", ".join(unknown)}) have no digests of their images'
            )
        _warn(sentences(self.in_test), source)
        for metric in runner.test_evaluator.metrics:
            if hasattr(metric, 'seen'):
                metric.seen = self.in_test


def _warn(lines: list[str], source: str) -> None:
    for line in lines:
        print_log(f'{source}: {line}', logger='current', level=logging.WARNING)


def _of_parts(model: nn.Module) -> Seen:
    """What the weights have seen that parts of a model were initialised with."""
    found = Seen()
    for module in model.modules():
        own = getattr(module, KEY, None)
        settings = getattr(module, 'init_cfg', None)
        if isinstance(own, Seen):
            found |= own
        elif isinstance(settings, Mapping) and settings.get('type') == 'Pretrained':
            path = str(settings.get('checkpoint'))
            local = Path(path).is_file()
            found |= seen_in_file(path) if local else Seen(unknown=(path,))
    return found


def _predicts(model: nn.Module) -> bool:
    """Whether a model is trained with labels, not pretrained."""
    heads = (getattr(model, name, None) for name in ('decode_head', 'head'))
    return any(hasattr(head, 'predict') for head in heads)


def _always_chosen(runner: Runner) -> bool:
    """Whether validation decides about all weights: when they end, or their rate."""
    schedulers = runner.param_schedulers or []
    if isinstance(schedulers, Mapping):
        schedulers = [one for part in schedulers.values() for one in part]
    return any(isinstance(hook, EarlyStoppingHook) for hook in runner.hooks) or any(
        getattr(one, 'need_val_args', False) for one in schedulers
    )


Scored = tuple[str, Any, str, tuple[str, ...]]


def _scored(runner: Runner) -> Iterator[Scored]:
    """What a run scores: name, data set, what for, and stages that refuse nothing."""
    if runner.val_loop is not None:
        dataset = runner.val_dataloader.dataset
        yield 'val_dataloader', dataset, VALIDATION, (CHOICE,)
    settings = runner.cfg.get('test_dataloader') or {}
    if isinstance(settings, Mapping) and settings.get('dataset'):
        yield from _opened('test_dataloader', settings['dataset'], (CHOICE,), TEST)
    for hook in runner.hooks:
        if isinstance(hook, ProbeHook) and hook.scored_dataset:
            # It looks on while its own run pretrains; its scores are no results.
            told = (CHOICE, PRETRAIN)
            yield from _opened(type(hook).__name__, hook.scored_dataset, told)


def _opened(
    name: str, settings: Mapping, told: tuple[str, ...], role: str | None = None
) -> Iterator[Scored]:
    """Build a data set to look at its index; one that is not there is told."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # said when it is used
    try:
        with own_randomness():
            dataset = DATASETS.build(copy.deepcopy(dict(settings)))
            cases, _ = cases_of(dataset)
    except (UserError, OSError) as error:
        logging.disable(level)
        _warn([f'not compared with what the network has seen: {error}'], name)
        return
    finally:
        logging.disable(level)
    roles = {part.role for part in cases}
    yield name, dataset, role or (TEST if TEST in roles else VALIDATION), told
