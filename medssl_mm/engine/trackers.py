"""Where the figures of a run go besides its folder: TensorBoard, MLflow, W&B."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config

from medssl_mm.errors import InstallError, UserError

__all__ = ['TRACKERS', 'add_trackers']

# Of a config, what MLflow lists as parameters; all of it is kept as a file.
_PARAMETERS = (
    *('data_root', 'split', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    *('randomness', 'load_from'),
)


def _tensorboard(config: Config) -> dict[str, Any]:
    return dict(type='TensorboardVisBackend')


def _mlflow(config: Config) -> dict[str, Any]:
    folder = Path(config.work_dir).absolute()
    return dict(
        type='MLflowVisBackend',
        exp_name=os.environ.get('MLFLOW_EXPERIMENT_NAME', folder.parent.name),
        run_name=folder.name,
        tracking_uri=os.environ.get(
            'MLFLOW_TRACKING_URI', f'sqlite:///{folder.parent / "mlflow.db"}'
        ),
        tracked_config_keys=[key for key in _PARAMETERS if key in config],
    )


def _wandb(config: Config) -> dict[str, Any]:
    folder = Path(config.work_dir).absolute()
    return dict(
        type='WandbVisBackend',
        init_kwargs=dict(
            project=os.environ.get('WANDB_PROJECT', folder.parent.name),
            name=folder.name,
            # A resumed run goes on there, too.
            id=hashlib.sha256(str(folder).encode()).hexdigest()[:12],
            resume='allow',
        ),
    )


TRACKERS = {
    'tensorboard': _tensorboard,
    'mlflow': _mlflow,
    'wandb': _wandb,
}


def add_trackers(config: Config, names: Iterable[str]) -> None:
    """Let a run write to trackers as well; those of the config stay.

    Where they are is read from the environment, as their own clients do:
    ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` (by default the file
    ``mlflow.db`` beside the work directory), ``WANDB_MODE`` and ``WANDB_PROJECT``.

    Args:
        config (Config): With its ``work_dir``; it is changed.
        names (Iterable[str]): Of ``TRACKERS``.

    Raises:
        InstallError: The package of a tracker is not installed.
        UserError: There is no such tracker.
    """
    names = list(dict.fromkeys(names))
    if not names:
        return
    visualizer = config.get('visualizer') or dict(type='Visualizer')
    backends = list(visualizer.get('vis_backends') or [dict(type='LocalVisBackend')])
    for name in names:
        if name not in TRACKERS:
            raise UserError(f'--tracker is one of {", ".join(TRACKERS)}, got {name!r}')
        if importlib.util.find_spec(name) is None:
            raise InstallError(
                f'--tracker {name} needs {name}; install medssl_mm[{name}]'
            )
        backend = TRACKERS[name](config)
        if all(one.get('type') != backend['type'] for one in backends):
            backends.append(backend)
    config.visualizer = dict(visualizer, vis_backends=backends)
