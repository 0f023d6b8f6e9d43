"""Stop at the first loss that is not a number."""

import math
from collections.abc import Mapping, Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from medssl_mm.engine.checkpoints import ADVICE
from medssl_mm.errors import UserError
from medssl_mm.registry import HOOKS


class NonFiniteLossError(UserError):
    """A loss term became infinite or not a number."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops the training when a loss term is infinite or not a number.

    Looks at the values that mmengine logs anyway, so it costs nothing, and
    stops before a checkpoint with ruined weights is written. Weights that a finite
    loss has ruined, by a gradient that was not finite, are refused where they are
    saved, by :class:`medssl_mm.engine.runner.Runner`.

    Raises:
        NonFiniteLossError: Names the iteration, the loss terms and the cases
            in the batch.
    """

    # After the values are logged (10), before a checkpoint is saved (90).
    priority = 'ABOVE_NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: object = None,
        outputs: Mapping | None = None,
    ) -> None:
        """Check the loss terms of this iteration."""
        values = {
            name: runner.message_hub.get_scalar(f'train/{name}').current()
            for name in outputs or {}
            if 'loss' in name and f'train/{name}' in _scalars(runner)
        }
        wrong = {
            name: value for name, value in values.items() if not math.isfinite(value)
        }
        if not wrong:
            return
        terms = ', '.join(f'{name}={value}' for name, value in values.items())
        culprits = [name for name in wrong if name != 'loss'] or ['loss']
        raise NonFiniteLossError(
            f'{" and ".join(culprits)} is not finite at iteration '
            f'{runner.iter + 1} (epoch {runner.epoch + 1}): {terms}.'
            f'{_cases(data_batch)} {ADVICE}'
        )


def _scalars(runner: Runner) -> Mapping:
    return runner.message_hub.log_scalars


def _cases(data_batch: object, limit: int = 4) -> str:
    """Name the slices of a batch, if its samples know where they are from."""
    samples: Sequence = []
    if isinstance(data_batch, dict):
        samples = data_batch.get('data_samples') or []
    names = []
    for sample in samples:
        meta = getattr(sample, 'metainfo', {})
        if 'case_id' in meta:
            names.append(f'{meta["case_id"]}#{meta.get("slice_index", "?")}')
    if not names:
        return ''
    more = ', ...' if len(names) > limit else ''
    return f' The batch holds {", ".join(names[:limit])}{more}.'
