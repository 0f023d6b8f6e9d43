"""One cell of a table under several settings of the processor."""

import json
import os
from dataclasses import replace

import pytest
import sklearn  # noqa: F401  (writes into the environment when first imported)

from medssl_mm import experiments
from medssl_mm.errors import UserError
from medssl_mm.experiments.repeat import SETTINGS, told_spread
from medssl_mm.results import summarize
from tests.experiments.conftest import plan
from tests.results.made import write_result

# Notes the environment it gets.
NOTE = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
with open(folder / 'environment.json', 'w') as file:
    json.dump(dict(os.environ), file)
"""


@pytest.fixture
def cell(table, fake_tools):
    for name in ('train.py', 'test.py'):
        path = fake_tools / 'tools' / name
        path.write_text(NOTE + path.read_text())
    return replace(
        table, rows=table.rows[1:], seeds=(0,), fractions=(1.0,), baseline=None
    )


def run(table, steps):
    return experiments.run_steps(table, steps, report=lambda line: None)


def test_a_cell_is_computed_anew_under_each_setting(cell, monkeypatch):
    monkeypatch.delenv('ONEDNN_MAX_CPU_ISA', raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    before = dict(os.environ)
    runs, errors = experiments.repeat_check(cell, run, planned=plan)
    assert errors == [] and dict(os.environ) == before
    assert [one.label for one in runs] == ['as set', *SETTINGS]
    own, _ = plan(cell)
    for one in runs:
        (folder,) = one.folders
        ours = one.label == 'as set'
        name = 'runs' if ours else f'runs-repeat-{one.label}'
        assert folder.parent == cell.runs_dir.with_name(name)
        # The pretraining too, in folders of the same names.
        assert {path.name for path in folder.parent.iterdir()} == set(own)
        wanted = {'OMP_NUM_THREADS': '7', **SETTINGS.get(one.label, {})}
        for step in folder.parent.iterdir():
            got = json.loads((step / 'environment.json').read_text())
            assert {key: got[key] for key in wanted} == wanted
            assert ('ONEDNN_MAX_CPU_ISA' in got) == (one.label == 'avx2')

    def again(table, steps):
        assert all(step.done for step in steps.values())
        return []

    assert experiments.repeat_check(cell, again, ['avx2'], plan)[1] == []


def test_failed_steps_are_told_and_the_others_compared(cell, tmp_path):
    def half(table, steps):
        if 'avx2' in table.runs_dir.name:
            return ['out of memory']
        return run(table, steps)

    runs, errors = experiments.repeat_check(cell, half, ['avx2', 'threads-1'], plan)
    assert errors == ['out of memory']
    assert [one.label for one in runs] == ['as set', 'threads-1']


def test_spread_is_of_the_scores(cell):
    runs, _ = experiments.repeat_check(cell, run, ['avx2'], plan)
    for one, dice in zip(runs, (0.5, 0.53), strict=True):
        write_result(one.folders[0], [[dice, dice]] * 6)
    rows = summarize(runs, 'as set')
    assert rows[1].difference.estimate == pytest.approx(0.03)
    told = told_spread({row.run.label: row.score.estimate for row in rows})
    assert '50.0 to 53.0, 3.0 points' in told and '2 settings' in told


def test_more_than_a_cell_is_refused(table):
    with pytest.raises(UserError, match=r'2 row\(s\), 1 eval.* 2 share.*--rows NAME'):
        experiments.repeat_check(table, run, planned=plan)
