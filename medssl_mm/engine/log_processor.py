"""Log lines that fit on a screen."""

import datetime
from collections.abc import Mapping
from typing import Any

from mmengine.runner import LogProcessor, Runner

from medssl_mm.registry import LOG_PROCESSORS

#: Place in the message hub for the newest scores of the probes, by name: words.
PROBES = 'probes'
# Shown in the head of the line, or not at all.
_NOT_LISTED = ('time', 'data_time', 'data_wait', 'memory', 'epoch', 'iter')


@LOG_PROCESSORS.register_module()
class ShortLogProcessor(LogProcessor):
    """Writes a short text line; the values for TensorBoard are upstream's.

    At its end stand the newest scores of the probes, see :data:`PROBES`.

    Args:
        history (int): Values kept of each log scalar. Upstream keeps a
            million and copies them all at every iteration. Defaults to 10000.
        **kwargs: For mmengine's ``LogProcessor``.
    """

    def __init__(self, history: int = 10000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.history = history

    def get_log_after_iter(
        self, runner: Runner, batch_idx: int, mode: str
    ) -> tuple[dict[str, Any], str]:
        """Return the values to record and the line to show."""
        if not any(c.get('window_size') == 'global' for c in self.custom_cfg):
            for scalar in runner.message_hub.log_scalars.values():
                scalar.max_length = min(scalar.max_length, self.history)
        tag, _ = super().get_log_after_iter(runner, batch_idx, mode)
        values = {
            self._remove_prefix(name, f'{mode}/'): value for name, value in tag.items()
        }
        parts = [self._position(runner, batch_idx, mode)]
        eta = runner.message_hub.runtime_info.get('eta')
        if eta is not None:
            parts.append(f'eta {datetime.timedelta(seconds=int(eta))}')
        if 'time' in values:
            parts.append(f'{values["time"]:.3f} s/it')
        if 'data_wait' in values:
            parts.append(f'data wait {values["data_wait"]:.0%}')
        if 'memory' in values:
            parts.append(f'{values["memory"]} MB')
        if mode != 'test':
            parts += self._items(values, mode)
        if mode == 'train':
            parts += (runner.message_hub.runtime_info.get(PROBES) or {}).values()
        return tag, '  '.join(parts)

    def _collect_scalars(
        self,
        custom_cfg: list[dict],
        runner: Runner,
        mode: str,
        reserve_prefix: bool = False,
    ) -> dict[str, Any]:
        # Upstream shows a loss of a validation as the mean over the last
        # validations.
        tag = super()._collect_scalars(custom_cfg, runner, mode, reserve_prefix)
        if mode != 'train':
            scalars = runner.message_hub.log_scalars
            for name in tag:
                full = name if reserve_prefix else f'{mode}/{name}'
                if 'loss' in name and full in scalars:
                    tag[name] = scalars[full].current()
        return tag

    def _position(self, runner: Runner, batch_idx: int, mode: str) -> str:
        if mode != 'train' or self.by_epoch:
            total = self._get_dataloader_size(runner, mode)
            count = f'{batch_idx + 1:{len(str(total))}}/{total}'
        if mode != 'train':
            return f'{mode} [{count}]'
        if self.by_epoch:
            epochs = runner.max_epochs
            epoch = f'{runner.epoch + 1:{len(str(epochs))}}/{epochs}'
            return f'epoch {epoch} [{count}]'
        total = runner.max_iters
        return f'iter {runner.iter + 1:{len(str(total))}}/{total}'

    def _items(self, values: Mapping[str, Any], mode: str) -> list[str]:
        items = []
        for name, value in values.items():
            if name in _NOT_LISTED or name.endswith('base_lr'):
                continue
            if mode == 'val' and 'loss' not in name:
                continue
            if name.endswith('lr'):
                items.append(f'{name} {value:.2e}')
            elif isinstance(value, float):
                items.append(f'{name} {value:.{self.num_digits}g}')
            else:
                items.append(f'{name} {value}')
        return items
