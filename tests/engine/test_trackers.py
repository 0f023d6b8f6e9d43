"""Figures of a run go where the user looks for them."""

import importlib.util

import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS, VISUALIZERS

from medssl_mm.engine import trackers
from medssl_mm.errors import InstallError, UserError


def _backends(config):
    return [one['type'] for one in config.visualizer.vis_backends]


@pytest.fixture
def all_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())


def test_trackers_of_the_config_stay(tmp_path, all_installed):
    own = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    config = Config(
        dict(
            work_dir=str(tmp_path / 'study/run'),
            visualizer=dict(type='Visualizer', vis_backends=own),
        )
    )
    trackers.add_trackers(config, ['mlflow', 'tensorboard', 'wandb', 'mlflow'])
    assert _backends(config) == [
        *('LocalVisBackend', 'TensorboardVisBackend'),
        *('MLflowVisBackend', 'WandbVisBackend'),
    ]
    # All of them are known to the host, with these settings.
    for backend in config.visualizer.vis_backends:
        VISBACKENDS.build(dict(backend, save_dir=str(tmp_path)))


def test_names_are_those_of_the_folders(tmp_path, all_installed, monkeypatch):
    for name in ('MLFLOW_TRACKING_URI', 'MLFLOW_EXPERIMENT_NAME', 'WANDB_PROJECT'):
        monkeypatch.delenv(name, raising=False)
    config = Config(dict(work_dir=str(tmp_path / 'study/run'), split='s', seed=1))
    trackers.add_trackers(config, ['mlflow', 'wandb'])
    _, mlflow, wandb = config.visualizer.vis_backends
    assert (mlflow.exp_name, mlflow.run_name) == ('study', 'run')
    assert mlflow.tracking_uri == f'sqlite:///{tmp_path}/study/mlflow.db'
    assert mlflow.tracked_config_keys == ['split']
    assert wandb.init_kwargs.project == 'study'
    again = Config(dict(work_dir=str(tmp_path / 'study/run')))
    trackers.add_trackers(again, ['wandb'])
    # A resumed run is the same run.
    assert again.visualizer.vis_backends[-1].init_kwargs.id == wandb.init_kwargs.id
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'http://there:5000')
    trackers.add_trackers(other := Config(dict(work_dir='w')), ['mlflow'])
    assert other.visualizer.vis_backends[-1].tracking_uri == 'http://there:5000'


def test_without_trackers_a_config_stays():
    config = Config(dict(work_dir='w'))
    trackers.add_trackers(config, [])
    assert 'visualizer' not in config


def test_absent_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InstallError, match=r'needs wandb; install medssl_mm\[wandb\]'):
        trackers.add_trackers(Config(dict(work_dir='w')), ['wandb'])


def test_unknown_tracker_is_refused():
    with pytest.raises(UserError, match="one of tensorboard, .*, got 'neptune'"):
        trackers.add_trackers(Config(dict(work_dir='w')), ['neptune'])


def test_tensorboard_is_written(tmp_path):
    config = Config(dict(work_dir=str(tmp_path)))
    trackers.add_trackers(config, ['tensorboard'])
    visualizer = VISUALIZERS.build(
        dict(config.visualizer, save_dir=str(tmp_path), name='of_a_test')
    )
    visualizer.add_scalar('loss', 1.0)
    visualizer.close()
    assert list(tmp_path.rglob('events.out.tfevents.*'))
