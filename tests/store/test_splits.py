"""Splits: patient-wise, seeded, nested, verified."""

import json
import pickle

import pytest

from medssl_mm.errors import UserError
from medssl_mm.store.splits import (
    Split,
    check_no_leak,
    describe_changes,
    load_split,
    make_holdout,
    make_kfold,
    rarest_classes,
    save_split,
    take_fraction,
    with_content,
)

PATIENT_OF = {f'p{p}-{c}': f'p{p}' for p in range(20) for c in range(1 + p % 3)}


def patients(cases):
    return {PATIENT_OF[c] for c in cases}


def test_holdout_divides_patients():
    split = make_holdout(PATIENT_OF, PATIENT_OF, 'made', test=0.2, val=0.1)
    parts = [patients(split[n]) for n in ('train', 'val', 'test')]
    assert [len(p) for p in parts] == [14, 2, 4]
    assert set.union(*parts) == set(PATIENT_OF.values())
    assert sum(len(split[n]) for n in ('train', 'val', 'test')) == len(PATIENT_OF)
    assert patients(split['pretrain']) == parts[0] | parts[1]
    check_no_leak(split, PATIENT_OF)


def test_draw_depends_on_seed_and_names_only():
    one = make_holdout(PATIENT_OF, PATIENT_OF, 'made', seed=3)
    shuffled = dict(reversed(list(PATIENT_OF.items())))
    assert make_holdout(shuffled, shuffled.get, 'made', seed=3) == one
    assert make_holdout(PATIENT_OF, PATIENT_OF, 'made', seed=4) != one


def test_unlabelled_cases_go_to_pretraining_only():
    labelled = [c for c in PATIENT_OF if int(PATIENT_OF[c][1:]) < 10]
    split = make_holdout(labelled, PATIENT_OF, 'made', pretrain_ids=PATIENT_OF)
    assert set(split['train']) | set(split['test']) == set(labelled)
    assert set(split['pretrain']) == set(PATIENT_OF) - set(split['test'])


def test_kfold_tests_every_patient_once():
    folds = make_kfold(PATIENT_OF, PATIENT_OF, 'made', folds=5, seed=1)
    tested = [c for s in folds for c in s['test']]
    assert sorted(tested) == sorted(PATIENT_OF)
    assert len({s.hash for s in folds}) == 5
    for split in folds:
        check_no_leak(split, PATIENT_OF)
        assert len(patients(split['test'])) == 4
    with pytest.raises(UserError, match='between 2 and .*20'):
        make_kfold(PATIENT_OF, PATIENT_OF, 'made', folds=21)


def test_fractions_are_nested_and_patient_wise():
    split = make_holdout(PATIENT_OF, PATIENT_OF, 'made', test=0.5)
    shares = [0.01, 0.1, 0.2, 0.5, 1.0]
    taken = [set(take_fraction(split, 'train', f, 5, PATIENT_OF)) for f in shares]
    for small, large in zip(taken, taken[1:]):
        assert small <= large
    assert [len(patients(t)) for t in taken] == [1, 1, 2, 5, 10]
    for cases in taken:
        whole = {c for c in split['train'] if PATIENT_OF[c] in patients(cases)}
        assert cases == whole
    other = take_fraction(split, 'train', 0.5, 6, PATIENT_OF)
    assert set(other) != taken[3]
    with pytest.raises(UserError, match='got 0'):
        take_fraction(split, 'train', 0, 5, PATIENT_OF)


@pytest.mark.parametrize(
    'one, other',
    [('train', 'test'), ('train', 'val'), ('val', 'test'), ('pretrain', 'test')],
)
def test_leak_names_the_patient(one, other):
    split = Split('bad', 'made', {one: ['p1-0', 'p2-0'], other: ['p1-1']})
    with pytest.raises(UserError, match="'p1'.*'p1-0'.*'p1-1'"):
        check_no_leak(split, PATIENT_OF)


def test_pretraining_may_see_training_patients():
    check_no_leak(
        Split('ok', 'made', dict(pretrain=['p1-0'], train=['p1-0'], test=['p2-0'])),
        PATIENT_OF,
    )


def test_split_refuses_nonsense():
    with pytest.raises(UserError, match="unknown subset 'training'"):
        Split('bad', 'made', dict(training=['a']))
    with pytest.raises(UserError, match="'a'.*more than once"):
        Split('bad', 'made', dict(train=['a', 'b', 'a']))
    with pytest.raises(UserError, match=r"no subset 'val'.*\['train'\]"):
        Split('ok', 'made', dict(train=['a']))['val']
    with pytest.raises(UserError, match='none is left for training'):
        make_holdout(['p1-0', 'p1-1'], PATIENT_OF, 'made')


def test_file_round_trip(tiny_store):
    split = load_split(tiny_store.root, 'tiny')
    assert split.protocol == 'tiny' and len(split['train']) == 2
    path = tiny_store.root / 'splits' / 'tiny.json'
    assert load_split(None, path) == split
    assert pickle.loads(pickle.dumps(split)) == split
    assert len(split.hash) == 12 and int(split.hash, 16) >= 0


def test_hash_covers_the_cases_not_the_description():
    one = Split('a', 'made', dict(train=['x', 'y'], test=['z']))
    assert (
        one.hash
        == Split('a', 'made', dict(test=['z'], train=['y', 'x']), None, 'words').hash
    )
    assert one.hash != Split('a', 'made', dict(train=['x'], test=['z'])).hash
    assert one.hash != Split('b', 'made', dict(train=['x', 'y'], test=['z'])).hash


def test_the_hash_tells_what_is_in_the_cases(tiny_store):
    split = load_split(tiny_store.root, 'tiny')
    prints = {c: tiny_store.fingerprint_of(c) for c in tiny_store.case_ids}
    assert len(set(prints.values())) == len(prints)
    full = with_content(split, prints.get)
    assert full.hash == f'{split.hash}-{full.content}' and len(full.content) == 12
    assert pickle.loads(pickle.dumps(full)) == full
    save_split(tiny_store.root, full)
    assert load_split(tiny_store.root, 'tiny') == full
    for case_id in split.case_ids:
        other = with_content(split, {**prints, case_id: 'x'}.get)
        assert other.hash != full.hash and other.cases_hash == split.hash
    save_split(tiny_store.root, with_content(split, {**prints, 'p0-0': 'x'}.get))
    with pytest.raises(UserError, match='other images or labels'):
        load_split(tiny_store.root, 'tiny')
    save_split(tiny_store.root, split)
    path = tiny_store.root / 'splits' / 'tiny.json'
    path.write_text(path.read_text().replace('"seed"', '"version": 3, "seed"'))
    with pytest.raises(UserError, match='version 3; this package reads 1 and 2'):
        load_split(tiny_store.root, 'tiny')
    save_split(tiny_store.root, split)


def test_what_changes_between_two_splits():
    old = Split('a', 'made', dict(train=['x', 'y', 'z'], test=['t'], pretrain=['x']))
    new = Split('a', 'made', dict(train=['t', 'y', 'z'], test=['n', 'm']))
    text = describe_changes(old, new, 'image')
    assert text == (
        "2 image(s) came (e.g. 'm'), 1 image(s) went (e.g. 'x'), 1 of the others "
        "change sides (e.g. 't': test -> train)"
    )
    assert describe_changes(old, old) == 'none came, none went'


def test_changed_or_foreign_files_are_refused(tiny_store, tmp_path):
    split = load_split(tiny_store.root, 'tiny')
    path = save_split(tmp_path, split)
    content = json.loads(path.read_text())
    content['subsets']['train'] += content['subsets']['test']
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='changed by hand'):
        load_split(tiny_store.root, path)
    path.write_text('{"train": []}')
    with pytest.raises(UserError, match='no split file'):
        load_split(tiny_store.root, path)
    with pytest.raises(UserError, match='available there: tiny'):
        load_split(tiny_store.root, 'btcv-18-12')


def test_cases_and_patients_are_checked_against_the_store(make_store, tmp_path):
    root = make_store(tmp_path / 's', patients=2, cases_per_patient=2).root
    save_split(root, Split('gone', 'tiny', dict(train=['p7-0'])))
    with pytest.raises(UserError, match="does not have, e.g. 'p7-0'"):
        load_split(root, 'gone')
    save_split(root, Split('leak', 'tiny', dict(train=['p0-0'], test=['p0-1'])))
    with pytest.raises(UserError, match="leaks: patient 'p0'"):
        load_split(root, 'leak')


def classes_of(case_id):
    """Of 20 patients: 10 healthy, 6 with class 0, 4 of them with 1 too."""
    patient = int(PATIENT_OF[case_id][1:])
    if patient < 10:
        return ()
    return (0, 1) if patient < 14 else (0,)


def strata_of(cases):
    stratum = [classes_of(f'{p}-0') for p in patients(cases)]
    return {s: stratum.count(s) for s in ((), (0,), (0, 1))}


def test_patients_belong_to_their_rarest_class():
    groups = {
        p: [c for c in PATIENT_OF if PATIENT_OF[c] == p] for p in patients(PATIENT_OF)
    }
    rarest = rarest_classes(groups, classes_of)
    assert rarest['p3'] is None and rarest['p12'] == 1 and rarest['p17'] == 0


@pytest.mark.parametrize('seed', range(5))
def test_stratified_holdout_gives_each_class_its_share(seed):
    split = make_holdout(
        PATIENT_OF,
        PATIENT_OF,
        'made',
        test=0.2,
        val=0.2,
        seed=seed,
        classes_of=classes_of,
    )
    check_no_leak(split, PATIENT_OF)
    assert strata_of(split['test']) == {(): 2, (0,): 1, (0, 1): 1}
    assert strata_of(split['val']) == {(): 2, (0,): 1, (0, 1): 1}
    assert strata_of(split['train']) == {(): 6, (0,): 4, (0, 1): 2}
    assert split.protocol.endswith('-stratified')


def test_few_patients_of_a_class_are_trained_and_tested_first():
    def rare(case_id):
        patient = int(PATIENT_OF[case_id][1:])
        return (
            (0,)
            if patient < 1
            else (1,)
            if patient < 3
            else ((2,) if patient < 6 else ())
        )

    split = make_holdout(
        PATIENT_OF, PATIENT_OF, 'made', test=0.2, val=0.2, classes_of=rare
    )
    found = {
        name: {c for case in split[name] for c in rare(case)}
        for name in ('train', 'val', 'test')
    }
    assert found == dict(train={0, 1, 2}, val={2}, test={1, 2})
    assert [len(patients(split[n])) for n in ('train', 'val', 'test')] == [12, 4, 4]


def test_more_classes_than_patients_to_hold_out():
    def alone(case_id):
        return (int(PATIENT_OF[case_id][1:]),)

    def pairs(case_id):
        return (int(PATIENT_OF[case_id][1:]) // 2,)

    for classes in (alone, pairs):
        split = make_holdout(
            PATIENT_OF, PATIENT_OF, 'made', test=0.2, val=0.2, classes_of=classes
        )
        assert [len(patients(split[n])) for n in ('train', 'val', 'test')] == [12, 4, 4]
        check_no_leak(split, PATIENT_OF)
    trained = {c for case in split['train'] for c in pairs(case)}
    assert len(trained) == 10


@pytest.mark.parametrize('seed', range(5))
def test_stratified_fractions_are_nested_and_in_proportion(seed):
    split = Split('all', 'made', dict(train=PATIENT_OF))
    before = set()
    for fraction in (0.1, 0.25, 0.5, 0.75, 1):
        taken = set(
            take_fraction(split, 'train', fraction, seed, PATIENT_OF, classes_of)
        )
        assert before <= taken
        before = taken
        for stratum, number in {(): 10, (0,): 6, (0, 1): 4}.items():
            found = strata_of(taken)[stratum]
            assert abs(found - fraction * number) <= 1
    assert taken == set(PATIENT_OF)


@pytest.mark.parametrize('seed', range(5))
def test_stratified_folds(seed):
    folds = make_kfold(
        PATIENT_OF, PATIENT_OF, 'made', folds=4, seed=seed, classes_of=classes_of
    )
    for split in folds:
        found = strata_of(split['test'])
        assert found[(0, 1)] == 1 and found[()] in (2, 3)
