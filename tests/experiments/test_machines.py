"""What a step says of the machine that it was computed on."""

import json
from dataclasses import replace

from medssl_mm import cores, experiments
from medssl_mm.experiments.machines import machine_of, told_machines
from tests.experiments.conftest import plan


def test_processor_is_named():
    name, flags = cores.processor()
    assert name and all(isinstance(flag, str) for flag in flags)


def test_finished_steps_record_their_machine(table, fake_tools, monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    table = replace(table, amp='bfloat16', seeds=(0,), fractions=(1.0,))
    steps, _ = plan(table)
    assert told_machines(steps.values()) == ''
    assert experiments.run_steps(table, steps, report=lambda line: None) == []
    found = {
        step.kind: json.loads((step.folder / experiments.DONE).read_text())['machine']
        for step in steps.values()
    }
    for kind, machine in found.items():
        assert machine['processor'] == cores.processor()[0]
        assert machine['limits']['ONEDNN_MAX_CPU_ISA'] == 'AVX2'
        assert machine['threads'] == '3' and machine['processes'] == 1
        assert machine['precision'] == ('float32' if kind == 'test' else 'bfloat16')
        assert set(machine['versions']) >= {'torch', 'numpy'}
    told = told_machines(steps.values())
    for fact in (found['train']['processor'], 'ONEDNN_MAX_CPU_ISA=AVX2', '3 thread'):
        assert fact in told
    assert 'bfloat16' in told and 'float32' not in told


def test_machines_are_counted_and_those_of_before_are_not_known(table, fake_tools):
    table = replace(table, seeds=(0,), fractions=(1.0,))
    steps, _ = plan(table)
    experiments.run_steps(table, steps, report=lambda line: None)
    old = next(step for step in steps.values() if step.kind == 'train')
    (old.folder / experiments.DONE).write_text('{}')
    told = told_machines(steps.values())
    assert '(2 steps)' in told and 'a machine that was not recorded (1 steps)' in told


def test_threads_are_shared_by_the_processes(table, monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.delenv('MKL_NUM_THREADS', raising=False)
    monkeypatch.setattr(cores, 'available', lambda: 8)
    steps, _ = plan(table)
    step = next(iter(steps.values()))
    four = replace(table, processes=4)
    assert machine_of(step, four, {})['threads'] == '2'
    assert machine_of(step, four, {'OMP_NUM_THREADS': '5'})['threads'] == '5'
