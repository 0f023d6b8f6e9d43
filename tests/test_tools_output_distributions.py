"""The tool that compares output distributions, on tiny evaluations."""

import json

import numpy as np
import pytest

from tests import tools


def write(folder, seed, classes=('Mass', 'Hernia'), multi_label=True):
    from medssl_mm.results.images import (
        ClassificationEvaluation,
    )
    from medssl_mm.statistics import Predictions

    rng = np.random.default_rng(seed)
    values = rng.random((20, len(classes))).astype(np.float32).astype(float)
    targets = rng.random(values.shape) < 0.5
    if not multi_label:
        values[:, 0] = 1 - values[:, 1]
        targets[:, 0] = ~targets[:, 1]
    predictions = Predictions(
        classes,
        multi_label,
        tuple(f'i{n:02}' for n in range(20)),
        tuple(f'p{n // 2}' for n in range(20)),
        targets,
        values,
    )
    ClassificationEvaluation(predictions, 'toy', 'abc', None, 0.5, 0, 0).write(folder)
    return predictions


def run(*arguments):
    return tools.run('analysis/output_distributions.py', *arguments)


def test_compares_the_files_of_evaluations(tmp_path):
    from medssl_mm.analysis.output_distributions import ks_distances

    few, many = write(tmp_path / 'few', 0), write(tmp_path / 'many', 1)
    arguments = [
        '--pair',
        'moco',
        tmp_path / 'few',
        tmp_path / 'many',
        '--pair',
        'same',
        tmp_path / 'many/predictions.csv',
        tmp_path / 'many',
        '--few',
        '10 % labels',
        '--out',
        tmp_path / 'out',
    ]
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / 'out/output_distributions.json').read_text())
    assert (content['images'], content['patients']) == (20, 10)
    expected = ks_distances(few.probabilities, many.probabilities)
    found = content['methods']['moco']['per_class']
    assert [found[name]['mean'] for name in ('Mass', 'Hernia')] == (
        pytest.approx(expected)
    )
    assert content['methods']['same']['mean']['mean'] == 0
    assert f'{expected.mean():.3f}' in done.stdout
    assert '10 % labels' in done.stdout
    again = run(*arguments)
    assert again.returncode == 2
    assert 'output_distributions.json exists' in again.stderr


def test_two_exclusive_classes_are_one_column(tmp_path):
    for seed, name in enumerate(('few', 'many')):
        write(tmp_path / name, seed, ('no', 'yes'), multi_label=False)
    done = run('--pair', 'moco', tmp_path / 'few', tmp_path / 'many', '--out', tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / 'output_distributions.json').read_text())
    assert list(content['methods']['moco']['per_class']) == ['yes']


def test_bad_input_ends_in_one_message(tmp_path):
    write(tmp_path / 'few', 0)
    write(tmp_path / 'other', 0, ('Mass', 'Edema'))
    for second, message in (
        ('gone', 'gone does not exist; write it with tools/test.py'),
        ('other', 'are not of the same classes'),
    ):
        done = run(
            '--pair',
            'moco',
            tmp_path / 'few',
            tmp_path / second,
            '--out',
            tmp_path / 'out',
        )
        assert done.returncode == 2
        assert message in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()
