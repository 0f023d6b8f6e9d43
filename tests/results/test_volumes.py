import json

import numpy as np
import pytest

from medssl_mm import results
from medssl_mm.errors import UserError
from medssl_mm.statistics import few_patients, mean_over_seeds
from tests.results.made import CLASSES, write_folds, write_result


def test_pooled_folds_equal_one_evaluation_of_all_cases(tmp_path, scores):
    scores[0][3, 1] = np.nan
    results.pool_results(write_folds(tmp_path, scores[0]), tmp_path / 'all')
    whole = write_result(tmp_path / 'whole', scores[0])
    assert (tmp_path / 'all/cases.csv').read_text().split() == (
        whole / 'cases.csv'
    ).read_text().split()
    pooled = results.read_metrics(tmp_path / 'all')
    expected = results.read_metrics(whole)
    for name in CLASSES:
        assert pooled['per_class'][name]['dice']['mean'] == pytest.approx(
            expected['per_class'][name]['dice']['mean']
        )
    assert (pooled['cases'], pooled['patients']) == (8, 4)
    assert [split['split_hash'] for split in pooled['splits']] == ['hash0', 'hash1']
    # The interval is that of the tables.
    interval = mean_over_seeds([results.resample_cases(whole / 'cases.csv')])
    found = pooled['mean']['dice']
    assert (found['mean'], found['low'], found['high']) == pytest.approx(
        interval.numbers
    )


@pytest.mark.parametrize('cases, few', [(8, True), (40, False)])
def test_the_interval_of_all_folds_is_told(tmp_path, cases, few):
    """Of all patients together, four or twenty, whatever the folds say of theirs."""
    scores = np.random.default_rng(1).uniform(0.2, 0.8, (cases, 2))
    folders = write_folds(tmp_path, scores)
    for folder in folders:
        path = folder / 'metrics.json'
        content = json.loads(path.read_text())
        content['interval']['kind'] = 'that of the fold'
        content['notes'] = [*few_patients(content['patients']), 'a note']
        path.write_text(json.dumps(content))
    results.pool_results(folders, tmp_path / 'all')
    pooled = results.read_metrics(tmp_path / 'all')
    assert pooled['patients'] == cases // 2
    assert ('Student' in pooled['interval']['kind']) == few
    assert pooled['notes'][: -len(folders)] == few_patients(cases // 2)
    assert all(note.endswith(': a note') for note in pooled['notes'][-len(folders) :])


def test_pooling_does_not_depend_on_the_order(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    for name, order in (('a', folders), ('b', folders[::-1])):
        results.pool_results(order, tmp_path / name)
    first, second = (results.read_metrics(tmp_path / n) for n in 'ab')
    assert first['split_hash'] == second['split_hash']
    assert first['mean'] == second['mean']


def test_refuses_folds_that_overlap(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    folders.append(write_result(tmp_path / 'again', scores[0][:2], first_case=6))
    with pytest.raises(UserError, match=r'case case6 is in .*fold1.*again'):
        results.pool_results(folders, tmp_path / 'all')
    # Another case of a patient of fold 0.
    folders[2] = write_result(tmp_path / 'c', scores[0][:1], first_case=8)
    text = (folders[2] / 'cases.csv').read_text()
    (folders[2] / 'cases.csv').write_text(text.replace('p4', 'p0'))
    with pytest.raises(UserError, match='patient p0 is in .*must not overlap'):
        results.pool_results(folders, tmp_path / 'all')
    assert not (tmp_path / 'all').exists()


def test_refuses_folds_that_are_missing_or_unlike(tmp_path, scores):
    folders = write_folds(tmp_path, scores[0])
    with pytest.raises(UserError, match=r'fold2.*does not exist'):
        results.pool_results([*folders, tmp_path / 'fold2'], tmp_path)
    other = write_result(tmp_path / 'other', scores[0], data_root='elsewhere')
    with pytest.raises(UserError, match='data elsewhere and None'):
        results.pool_results([*folders, other], tmp_path / 'all')


def test_tables_that_do_not_fit_are_named(tmp_path):
    path = write_result(tmp_path, np.ones((3, 2))) / 'cases.csv'
    with pytest.raises(UserError, match="no class 'kidney'"):
        results.resample_cases(path, class_name='kidney')
    with pytest.raises(UserError, match='does not exist'):
        results.resample_cases(tmp_path / 'none.csv')
    with pytest.raises(UserError, match='lacks the columns.*nsd'):
        results.resample_cases(path, 'nsd')
    text = path.read_text()
    path.write_text(text + text.splitlines()[-1])
    with pytest.raises(UserError, match='several rows of case case2 and class spleen'):
        results.resample_cases(path)
    path.write_text(text.replace('1.0', 'good', 1))
    with pytest.raises(UserError, match="damaged in the column dice.*'good'"):
        results.resample_cases(path)


def test_names_that_look_like_numbers_or_gaps_stay_names(tmp_path):
    path = write_result(tmp_path, np.ones((2, 2))) / 'cases.csv'
    path.write_text(path.read_text().replace('case0', '007').replace('p0', 'NA'))
    found = results.read_cases(path, ['dice'])
    assert set(found['case_id']) == {'007', 'case1'}
    assert set(found['patient_id']) == {'NA'}
    assert found['hd95'].tolist() == [''] * 4


def test_a_table_that_was_cut_short_is_refused(tmp_path):
    path = tmp_path / 'cases.csv'
    rows = ['case_id,patient_id,class,dice']
    rows += [f'c{c},p{c},{name},0.5' for c in range(3) for name in 'ab']
    path.write_text('\n'.join(rows) + '\n')
    assert len(results.read_cases(path, ['dice'])) == 6
    path.write_text('\n'.join(rows[:-1]) + '\n')
    with pytest.raises(UserError, match='not complete: it has 3 cases, with 1 to 2'):
        results.read_cases(path, ['dice'])
