"""Result tables from a YAML file: which runs they need, and running them.

A table has rows (initial weights: a pretraining config, a checkpoint, or
neither for random initialisation), evaluations (segmentation or
classification configs), seeds and label fractions. Every combination becomes
up to three steps: pretrain, train, test. The folder of a step carries a hash
of its resolved config and of the steps it builds on, so a changed setting
never meets old results, and tables that share a step share its folder. An
evaluation with ``last_of: NAME`` instead of a config tests the last weights
of the models that evaluation NAME trains, instead of the best on validation.

Methods are put on a data set by ``data: NAME``, see :mod:`.table`.

Cross-validation (``splits: [NAME, ...]``): each seed does all steps on every
split, the pretraining too, and the test cases of the splits are pooled, so
that each patient is scored once per seed by a model that never saw it.

Transfer tables (encoders, data sets, protocols) share steps and their running
with these, see :mod:`.transfer_table` and :mod:`.transfer`; they are imported
when they are asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medssl_mm.experiments.checkpoints import (
    best_checkpoint,
    chosen_checkpoint,
    drop_superseded,
    last_checkpoint,
)
from medssl_mm.experiments.costs import pretraining_costs
from medssl_mm.experiments.labels import told_labels
from medssl_mm.experiments.machines import told_machines
from medssl_mm.experiments.plan import DONE, Step, plan, resolved_config
from medssl_mm.experiments.run import command_of, finished_runs, run_steps, tools_folder
from medssl_mm.experiments.stale import stale_results
from medssl_mm.experiments.table import EvaluationConfig, Row, Table, load_table, select

if TYPE_CHECKING:
    from medssl_mm.experiments.cluster import job_states, run_steps_by_slurm
    from medssl_mm.experiments.frozen import export_features
    from medssl_mm.experiments.repeat import repeat_check
    from medssl_mm.experiments.transfer import finished_cells, plan_transfer
    from medssl_mm.experiments.transfer_table import load_transfer

__all__ = [
    'DONE',
    'EvaluationConfig',
    'Row',
    'Step',
    'Table',
    'best_checkpoint',
    'chosen_checkpoint',
    'command_of',
    'drop_superseded',
    'export_features',
    'finished_cells',
    'finished_runs',
    'job_states',
    'last_checkpoint',
    'load_table',
    'load_transfer',
    'plan',
    'plan_transfer',
    'pretraining_costs',
    'repeat_check',
    'resolved_config',
    'run_steps',
    'run_steps_by_slurm',
    'select',
    'stale_results',
    'told_labels',
    'told_machines',
    'tools_folder',
]

_LATE = dict(
    export_features='frozen',
    finished_cells='transfer',
    job_states='cluster',
    load_transfer='transfer_table',
    plan_transfer='transfer',
    repeat_check='repeat',
    run_steps_by_slurm='cluster',
)


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(f'{__name__}.{_LATE[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
