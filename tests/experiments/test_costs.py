"""What pretrainings cost beside each other, from their logs."""

import json
from dataclasses import replace

import pytest

from medssl_mm import experiments
from medssl_mm.experiments.costs import pretraining_costs, pretraining_seconds
from tests.experiments.conftest import TABLE, plan

ROWS = """rows:
  - {name: random, title: random init}
  - {name: moco, title: MoCo, pretrain: pretrain.py}
  - {name: more, title: 'MoCo, more', pretrain: other.py}
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / 'toy.yaml'
    text = TABLE.replace('baseline: random', 'baseline: moco')
    start, end = text.index('rows:'), text.index('evaluations:')
    path.write_text(text[:start] + ROWS + text[end:])
    return replace(experiments.load_table(path), runs_dir=tmp_path / 'runs')


def finish(step, times, threads='1', parts=1, **machine):
    """Write what a finished pretraining leaves: a log of each part of the run."""
    for part in range(parts):
        folder = step.folder / f'part{part}' / 'vis_data'
        folder.mkdir(parents=True)
        lines = [
            json.dumps(dict(step=10 * (i + 1), time=seconds))
            for i, seconds in enumerate(times)
            if i % parts == part
        ]
        (folder / 'scalars.json').write_text('\n'.join(lines) + '\n{"step": 9')
    machine = dict(processor='a', threads=threads, versions=dict(torch='2'), **machine)
    (step.folder / experiments.DONE).write_text(json.dumps(dict(machine=machine)))


def pretrainings(table):
    steps = plan(table)[0].values()
    return [step for step in steps if step.kind == 'pretrain']


def test_seconds_are_of_the_iterations_alone(table):
    step, resumed, *_ = pretrainings(table)
    assert pretraining_seconds(step) is None
    # A pause of the machine in one of them.
    finish(step, [0.5, 0.5, 90.0, 0.5])
    assert pretraining_seconds(step) == pytest.approx(0.5 * 40)
    finish(resumed, [0.5, 0.5, 90.0, 0.5], parts=2)
    assert pretraining_seconds(resumed) == pytest.approx(0.5 * 40)


def test_rows_are_compared_with_the_baseline(table):
    steps = pretrainings(table)
    titles = [step.title for step in steps]
    assert titles == [
        *(f'pretrain MoCo, seed {seed}' for seed in (0, 1)),
        *(f'pretrain MoCo, more, seed {seed}' for seed in (0, 1)),
    ]
    for step, seconds in zip(steps[:2], (0.4, 0.6), strict=True):
        finish(step, [seconds] * 6)
    assert pretraining_costs(steps, table).told == ''
    for step, seconds in zip(steps[2:], (0.7, 0.8), strict=True):
        finish(step, [seconds] * 6)
    # 60 iterations; 0.5 and 0.75 s of each.
    found = pretraining_costs(steps, table)
    assert found.shares == pytest.approx({'MoCo': 1.0, 'MoCo, more': 1.5})
    assert found.told == (
        'Time of pretraining as a multiple of that of MoCo (0.5 minutes).'
    )
    assert not pretraining_costs(steps, replace(table, baseline='random')).shares


def test_other_machines_are_not_compared(table):
    base, same, other, further = pretrainings(table)
    finish(base, [1.0])
    finish(same, [1.0])
    finish(other, [9.0], threads='2')
    assert 'MoCo, more' not in pretraining_costs(pretrainings(table), table).shares
    finish(further, [2.0])
    found = pretraining_costs(pretrainings(table), table)
    assert found.shares['MoCo, more'] == pytest.approx(2)


def test_which_of_equal_gpus_it_was_does_not_matter(table):
    base, same, other, further = pretrainings(table)
    finish(base, [1.0], gpus='0')
    finish(same, [1.0], gpus='1')
    finish(other, [3.0], gpus='1')
    finish(further, [9.0], gpus='0,1')
    found = pretraining_costs(pretrainings(table), table)
    assert found.shares['MoCo, more'] == pytest.approx(3)
