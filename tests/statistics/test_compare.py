import csv

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.results import resample_cases
from medssl_mm.statistics import paired_difference


def write(path, values, patients=None):
    with open(path, 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['case_id', 'patient_id', 'class', 'dice'])
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                writer.writerow(
                    [
                        f'c{i}',
                        patients[i] if patients else f'p{i}',
                        f'o{j}',
                        '' if np.isnan(value) else value,
                    ]
                )
    return path


def test_pairing_removes_the_variation_between_patients(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.random((12, 2))
    first = write(tmp_path / 'a.csv', base)
    second = write(tmp_path / 'b.csv', base + 0.03)
    arms = [[resample_cases(path, samples=500)] for path in (first, second)]
    result = paired_difference(*arms)
    assert result.estimate == pytest.approx(0.03)
    assert result.low == pytest.approx(0.03) and result.units == 12
    assert paired_difference(*arms[::-1]).estimate == pytest.approx(-0.03)
    (alone,) = arms[0]
    low, high = np.percentile(alone.values[1:], [2.5, 97.5])
    assert result.high - result.low < 0.1 * (high - low)


def test_runs_of_one_method_are_averaged(tmp_path):
    base = np.random.default_rng(0).random((6, 1))
    one, two, other = (
        resample_cases(write(tmp_path / f'{n}.csv', base + shift), samples=100)
        for n, shift in zip('abc', (0.0, 0.02, 0.05))
    )
    assert paired_difference([one, two], [other]).estimate == pytest.approx(0.04)


def test_other_cases_are_refused(tmp_path):
    first = write(tmp_path / 'a.csv', np.ones((3, 1)))
    second = write(tmp_path / 'b.csv', np.ones((4, 1)))
    parts = [[resample_cases(path, samples=10)] for path in (first, second)]
    with pytest.raises(UserError, match='not of the same cases'):
        paired_difference(*parts)
