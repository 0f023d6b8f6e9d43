"""A small table, and tools that only leave behind what real ones do."""

from dataclasses import replace

import pytest
import torch

from medssl_mm import experiments
from medssl_mm.encoders import load_encoder
from medssl_mm.experiments import run
from tests.checkpoint_features.test_encoder import describe
from tests.experiments.made import write_set

TABLE = """
title: Toy
baseline: random
seeds: [0, 1]
fractions: [1.0, 0.5]
processes: 0
rows:
  - {name: random, title: random init}
  - {name: moco, title: MoCo, pretrain: pretrain.py}
evaluations:
  - {name: linear, config: linear.py}
"""
# Stands in for tools/train.py and tools/test.py: writes what they write.
FAKE_TOOL = """
import pathlib, sys
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index('--work-dir') + 1])
with open({log!r}, 'a') as file:
    print(folder.name.rsplit('-', 1)[0], file=file)
if pathlib.Path({broken!r}).exists() and 'train-linear-moco' in folder.name:
    print('out of memory')
    sys.exit(3)
if '--resume' in arguments:
    (folder / 'last.pth').touch()
    (folder / 'last_checkpoint').write_text(str(folder / 'last.pth'))
else:
    assert pathlib.Path(arguments[1]).exists()
    (folder / 'metrics.json').write_text('{{}}')
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / 'toy.yaml'
    path.write_text(TABLE)
    return replace(experiments.load_table(path), runs_dir=tmp_path / 'runs')


def resolve(config, options):
    return {'config': config, **options}


def plan(table):
    return experiments.plan(table, resolve)


@pytest.fixture
def fake_tools(tmp_path, monkeypatch):
    folder = tmp_path / 'tools'
    folder.mkdir()
    code = FAKE_TOOL.format(log=str(tmp_path / 'log'), broken=str(tmp_path / 'broken'))
    for name in ('train.py', 'test.py'):
        (folder / name).write_text(code)
    monkeypatch.setattr(run, 'tools_folder', lambda: folder)
    return tmp_path


def log_of(folder):
    return (folder / 'log').read_text().split()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two sets of sixteen patients, an encoder with weights, a working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ('one', 'two'):
        write_set(tmp_path / name)
    path = describe(tmp_path / 'small.py', 'size=16, normalisation="unit"')
    network = load_encoder(f'random:{path}', seed=4).backbone
    torch.save(network.state_dict(), tmp_path / 'small.pth')
    return tmp_path
