"""Results of before that are not of the images, labels and split of now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.experiments.plan import Step, resolved_config
from medssl_mm.results import read_metrics
from medssl_mm.store import load_split

__all__ = ['stale_results']

# Options that the test images do not depend on.
_OF_TRAINING = ('train_', 'val_', 'optim_', 'default_hooks.')


def stale_results(
    steps: Iterable[Step], resolve: Callable[[str, dict], dict] = resolved_config
) -> list[str]:
    """Find the finished tests whose data set has changed since under its name.

    Folders follow what a config says, that is names: labels that were corrected
    and splits that were drawn anew are told by the hash of the split alone.

    Args:
        steps: Of a table.
        resolve: Turns a config and options into settings. Defaults to
            :func:`medssl_mm.experiments.plan.resolved_config`.

    Returns:
        list[str]: A sentence per data set, with the folders to delete; results
        without a hash, and data sets that are not there, are not judged.
    """
    found: dict[str, list[str]] = {}
    hashes: dict[tuple, str] = {}
    for step in steps:
        if step.kind != 'test' or not step.done:
            continue
        before = read_metrics(step.folder).get('split_hash')
        own = {k: v for k, v in step.options.items() if not k.startswith(_OF_TRAINING)}
        known = step.config, repr(sorted(own.items()))
        if known not in hashes:
            hashes[known] = _hash_now(resolve(step.config, step.options))
        now = hashes[known]
        if before and now and before != now:
            why = f'split {before} when they were tested, {now} now'
            found.setdefault(why, []).append(str(step.folder))
    return [
        f'{len(folders)} finished test{"s are" if len(folders) > 1 else " is"} of '
        f'other images, labels or subsets than there are now ({why}), and so may their '
        f'trainings be: {", ".join(folders[:3])}'
        + (f' and {len(folders) - 3} more' if len(folders) > 3 else '')
        for why, folders in found.items()
    ]


def _hash_now(settings: Mapping[str, Any]) -> str:
    dataset = (settings.get('test_dataloader') or {}).get('dataset') or {}
    if not dataset.get('data_root') or dataset.get('split') is None:
        return ''
    try:
        return load_split(dataset['data_root'], dataset['split']).hash
    except UserError:  # told where the data are needed
        return ''
