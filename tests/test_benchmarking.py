import json

import pytest

from medssl_mm import benchmarking


def test_functions_take_turns_and_another_goes_first(capsys):
    calls = []
    times = benchmarking.times_in_turns(
        {name: lambda name=name: calls.append(name) for name in 'abc'},
        rounds=4,
        burst=2,
        warm_up=1,
    )
    assert ''.join(calls) == 'abc' + 'aabbcc' + 'bbccaa' + 'ccaabb' + 'aabbcc'
    assert {name: len(seconds) for name, seconds in times.items()} == dict(
        a=4, b=4, c=4
    )
    assert min(map(min, times.values())) >= 0


def test_ratio_is_that_of_the_same_round():
    # A busy machine doubled the second round of both.
    assert benchmarking.median_ratio([2, 4, 2], [1, 2, 1]) == 2


def test_rates_count_the_calls():
    numbers = []
    rates = benchmarking.rates_in_turns(
        dict(only=numbers.append), rounds=2, seconds=0.01
    )
    assert len(rates['only']) == 2 and numbers.count(0) == 2
    assert numbers[:3] == [0, 1, 2]


def test_report_is_written_whole_or_not_at_all(tmp_path, capsys):
    benchmarking.write_report(None, dict(a=1))
    assert capsys.readouterr().out == ''
    path = tmp_path / 'new' / 'report.json'
    benchmarking.write_report(path, dict(path=path, shape=(1, 2)))
    assert json.loads(path.read_text()) == dict(path=str(path), shape=[1, 2])
    assert 'report.json' in capsys.readouterr().out
    assert [p.name for p in path.parent.iterdir()] == ['report.json']


def test_missing_gpu_is_a_user_error(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ValueError, match='--device cuda was asked for'):
        benchmarking.use_device('cuda')


def test_machine_and_rows(capsys):
    where = benchmarking.machine()
    assert where['device'] == 'cpu' and where['gpu'] is None
    assert where['cpu'] and where['threads'] >= 1
    benchmarking.print_machine(dict(where, cpu='made', bf16=['amx_bf16']))
    shown = ' '.join(capsys.readouterr().out.split())
    assert shown.startswith('measured on made, bf16 instructions: amx_bf16, ')
    benchmarking.print_machine(dict(where, cpu='made', bf16=[], gpu='card'))
    shown = ' '.join(capsys.readouterr().out.split())
    assert shown.startswith('measured on card, made, bf16 instructions: none, ')
    benchmarking.print_rows('made', [dict(group_size=8, ratio=1.23456)])
    shown = capsys.readouterr().out
    assert 'group size' in shown and '1.23' in shown and '1.2345' not in shown
