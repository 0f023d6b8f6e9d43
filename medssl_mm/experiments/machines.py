"""What the steps of a table were computed on."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from medssl_mm import cores
from medssl_mm.experiments.plan import DONE, Step
from medssl_mm.experiments.table import Table
from medssl_mm.results.evaluation import library_versions

__all__ = ['LIMITS', 'gpu_count', 'machine_of', 'told_machines']

#: Variables that keep libraries from instructions that a processor has.
LIMITS = ('ONEDNN_MAX_CPU_ISA', 'ATEN_CPU_CAPABILITY', 'MKL_ENABLE_INSTRUCTIONS')
# From the widest: results differ most between these.
_SETS = ('amx_bf16', 'avx512_bf16', 'avx512f', 'avx2', 'sve', 'asimd')
_LIBRARIES = ('torch', 'numpy', 'onedl-mmengine', 'medssl_mm')


def machine_of(
    step: Step, table: Table, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Processor, threads, precision and versions of a step on this machine.

    Args:
        step: The step.
        table: Says precision and processes.
        environment: What the step gets besides that of this process.

    Returns:
        dict: Plain types.
    """
    seen = {**os.environ, **environment}
    name, flags = cores.processor()
    processes = max(1, table.processes)
    threads = cores.thread_environment(processes, cores.available(), seen)
    return dict(
        processor=name,
        instructions=next((one for one in _SETS if one in flags), ''),
        limits={key: seen[key] for key in LIMITS if seen.get(key)},
        threads=threads['OMP_NUM_THREADS'],
        processes=processes,
        precision=(step.kind in ('pretrain', 'train') and table.amp) or 'float32',
        gpus=seen.get('CUDA_VISIBLE_DEVICES'),
        versions=library_versions(_LIBRARIES),
    )


def gpu_count(visible: str | None) -> int:
    """How many GPUs a step may see; 0 where nothing says so."""
    return len([one for one in (visible or '').split(',') if one.strip()])


def told_machines(steps: Iterable[Step]) -> str:
    """Say on what steps were computed; '' when none is finished.

    Args:
        steps: Those that are finished, and are no tests, count.
    """
    found = Counter(
        _in_words(step) for step in steps if step.done and step.kind != 'test'
    )
    if not found:
        return ''
    if len(found) == 1:
        return f'Computed on {next(iter(found))}.'
    parts = [f'{words} ({count} steps)' for words, count in found.most_common()]
    return f'Computed on {"; ".join(parts)}.'


def _in_words(step: Step) -> str:
    machine: Mapping[str, Any] = {}
    path = step.folder / DONE
    if path.is_file():
        machine = json.loads(path.read_text(encoding='utf-8')).get('machine') or {}
    if not machine:
        return 'a machine that was not recorded'
    limits = ', '.join(f'{key}={value}' for key, value in machine['limits'].items())
    instructions = limits or machine['instructions']
    gpus = gpu_count(machine['gpus'])
    torch = machine['versions'].get('torch')
    return (
        machine['processor']
        + (f' ({instructions})' if instructions else '')
        + f', {machine["processes"]} process(es) of {machine["threads"]} thread(s)'
        + (f', {gpus} GPU{"s" * (gpus > 1)}' if gpus else '')
        + f', {machine["precision"]}'
        + (f', torch {torch}' if torch else '')
    )
