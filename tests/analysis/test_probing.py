import dataclasses
import math
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medssl_mm.analysis.probing import (
    COSTS,
    ProbeData,
    difference,
    fit_linear,
    fit_path,
    run_probe,
    summarize,
)
from medssl_mm.errors import UserError
from medssl_mm.results.probes import probe_notes
from medssl_mm.statistics import patient_weights
from medssl_mm.statistics.compare import two_level

SIZES = dict(train=80, val=50, test=60)
STRENGTHS = (1e-2, 1e-1, 1.0)


def made(multi_label=True, classes=3, seed=0, channels=6):
    """Features that tell the classes, with noise."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(classes, channels))
    features, targets = {}, {}
    for name, size in SIZES.items():
        noise = rng.normal(size=(size, channels))
        if multi_label:
            targets[name] = rng.random((size, classes)) < 0.4
        else:
            targets[name] = np.eye(classes, dtype=bool)[rng.integers(0, classes, size)]
        # Channels of very different scales.
        features[name] = (
            (0.7 * targets[name] @ directions + noise)
            * 10.0 ** np.arange(-2, channels - 2)
            + 5
        ).astype(np.float32)
    patients = np.array([f'p{n // 2}' for n in range(SIZES['test'])])
    names = tuple(f'class {n}' for n in range(classes))
    return features, ProbeData(names, multi_label, targets, patients)


def reference(features, data, strength, subset):
    """Probabilities of models fitted one by one, from zero."""
    train = np.asarray(features['train'], float)
    parts = []
    targets = data.targets['train']
    columns = targets.T if data.multi_label else [targets.argmax(1)]
    for target in columns:
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(
                C=1 / (strength * len(train)), tol=1e-8, max_iter=100000
            ),
        )
        model.fit(train, target)
        found = model.predict_proba(np.asarray(features[subset], float))
        parts.append(found[:, 1:] if data.multi_label else found)
    return np.concatenate(parts, axis=1)


def aurocs(probabilities, targets):
    return [roc_auc_score(t, p) for t, p in zip(targets.T, probabilities.T)]


@pytest.mark.parametrize('multi_label, classes', [(True, 3), (False, 3), (False, 2)])
def test_equals_separate_fits(multi_label, classes):
    features, data = made(multi_label, classes)
    by_val = {
        strength: np.mean(
            aurocs(reference(features, data, strength, 'val'), data.targets['val'])
        )
        for strength in STRENGTHS
    }
    best = max(sorted(STRENGTHS, reverse=True), key=by_val.get)
    probabilities = reference(features, data, best, 'test')
    truth = data.targets['test']

    probe = run_probe(features, data, 'moco', 'stage2', strengths=STRENGTHS, samples=30)
    assert (probe.checkpoint, probe.place) == ('moco', 'stage2')
    assert probe.strength == best and probe.train_images == 80
    assert probe.val_auroc == pytest.approx(by_val[best], abs=1e-4)
    expected = aurocs(probabilities, truth)
    assert probe.auroc.estimate == pytest.approx(np.mean(expected), abs=1e-4)
    for score, value in zip(probe.per_class.values(), expected):
        assert score.estimate == pytest.approx(value, abs=1e-4)
    decided = probabilities.argmax(1)
    # Every resample scored with its images repeated.
    weights = patient_weights(data.patients, 30, 0)
    drawn = []
    for row in weights:
        chosen = np.repeat(np.arange(60), row)
        drawn.append(
            (
                np.mean(aurocs(probabilities[chosen], truth[chosen])),
                f1_score(truth[chosen].argmax(1), decided[chosen], average='macro'),
            )
        )
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    assert probe.auroc.low == pytest.approx(low[0], abs=1e-3)
    assert probe.auroc.high == pytest.approx(high[0], abs=1e-3)
    if multi_label:
        assert probe.f1 is None
    else:
        assert probe.f1.estimate == pytest.approx(
            f1_score(truth.argmax(1), decided, average='macro')
        )
        assert probe.f1.low == pytest.approx(low[1])
        assert probe.f1.high == pytest.approx(high[1])
    assert not probe.left_out and not probe.notes
    assert probe.at_end == (best != 0.1)
    one = run_probe(features, data, strengths=[0.1], samples=0)
    assert not one.at_end and not probe_notes([one])


def test_path_from_strong_to_weak():
    features, data = made()
    train = StandardScaler().fit_transform(features['train'].astype(float))
    targets = data.targets['train']
    lengths = []
    for strength, predict, failed in fit_path(train, targets, True, (1e-3, 1e1, 1e-1)):
        lengths.append(strength)
        assert not failed
        # At the minimum, the gradient of the mean loss is that of the
        # penalty: smaller for a weaker one.
        residual = (predict(train) - targets).T @ train / len(train)
        lengths.append(np.abs(residual).max())
    assert lengths[::2] == [1e1, 1e-1, 1e-3]
    assert lengths[1] > lengths[3] > lengths[5]


def test_scale_and_offset_of_the_features_do_not_matter():
    features, data = made()
    other = {
        name: 1000 * values.astype(float) - 30 for name, values in features.items()
    }
    one, two = (
        run_probe(f, data, strengths=STRENGTHS, samples=0) for f in (features, other)
    )
    assert one.auroc.estimate == pytest.approx(two.auroc.estimate, abs=1e-4)
    assert math.isnan(one.auroc.low)


def test_separable_and_meaningless_features():
    features, data = made()
    telling = {name: data.targets[name].astype(np.float32) for name in SIZES}
    assert run_probe(telling, data, samples=10).auroc.estimate == 1
    rng = np.random.default_rng(0)
    noise = {
        name: rng.normal(size=(size, 4)).astype(np.float32)
        for name, size in SIZES.items()
    }
    probe = run_probe(noise, data, samples=300)
    assert probe.auroc.low < 0.5 < probe.auroc.high


def test_more_channels_than_images_and_constant_channels():
    features, data = made(channels=12)
    rng = np.random.default_rng(0)
    wide = {
        name: np.concatenate(
            [
                values,
                rng.normal(size=(len(values), 200)),
                np.full((len(values), 3), 7.0),
            ],
            axis=1,
        )
        for name, values in features.items()
    }
    probe = run_probe(wide, data, samples=0)
    assert probe.auroc.estimate > 0.6 and not probe.notes


def changed(data, subset, column, value, rows=slice(None)):
    targets = {name: t.copy() for name, t in data.targets.items()}
    targets[subset][rows, column] = value
    return ProbeData(data.classes, data.multi_label, targets, data.patients)


def test_classes_with_one_value_are_named_and_left_out():
    features, data = made(classes=4)
    whole = run_probe(features, data, strengths=[0.1], samples=20)
    part = changed(changed(data, 'train', 0, False), 'test', 2, True)
    probe = run_probe(features, part, strengths=[0.1], samples=20)
    assert probe.left_out == {
        'class 0': '0 of 80 training images',
        'class 2': '60 of 60 test images',
    }
    assert list(probe.per_class) == ['class 1', 'class 3']
    for name, score in probe.per_class.items():
        assert score == whole.per_class[name]
    assert probe.auroc.estimate == pytest.approx(
        np.mean([s.estimate for s in probe.per_class.values()])
    )
    assert probe_notes([probe])[0] == (
        '100 % of the labels: left out class 2 (60 of 60 test images), '
        'class 0 (0 of 80 training images); means are over the other 2 of 4 '
        'classes'
    )


def test_classes_of_few_test_patients_are_left_out_on_request():
    features, data = made(classes=3)
    rare = changed(data, 'test', 1, False)
    rare.targets['test'][:4, 1] = True  # the patients p0 and p1
    probe = run_probe(
        features,
        dataclasses.replace(rare, min_positive_patients=3),
        strengths=[0.1],
        samples=20,
    )
    assert probe.left_out == {'class 1': '2 test patients with it, 3 are asked for'}
    whole = run_probe(
        features,
        dataclasses.replace(rare, min_positive_patients=2),
        strengths=[0.1],
        samples=20,
    )
    assert not whole.left_out
    assert probe.per_class == {
        name: whole.per_class[name] for name in ('class 0', 'class 2')
    }


def test_single_label_class_without_training_images():
    features, data = made(multi_label=False, classes=3)
    train = data.targets['train']
    rows = np.flatnonzero(~train[:, 2])
    features = {**features, 'train': features['train'][rows]}
    data = ProbeData(
        data.classes, False, {**data.targets, 'train': train[rows]}, data.patients
    )
    probe = run_probe(features, data, strengths=[0.1], samples=20)
    assert list(probe.left_out) == ['class 2']
    probabilities = reference(
        features,
        ProbeData(data.classes[:2], False, {'train': train[rows][:, :2]}, ()),
        0.1,
        'test',
    )
    # Its test images still count as not of the others.
    expected = aurocs(probabilities, data.targets['test'][:, :2])
    assert [s.estimate for s in probe.per_class.values()] == pytest.approx(
        expected, abs=1e-4
    )


def test_nothing_left_to_score():
    features, data = made(multi_label=False, classes=2)
    empty = changed(changed(data, 'test', 0, True), 'test', 1, False)
    with pytest.raises(
        UserError,
        match=r'moco stage1: no class.*class 0 '
        r'\(60 of 60 test images\), class 1 \(0 of 60',
    ):
        run_probe(features, empty, 'moco', 'stage1')


def test_single_class_validation_set():
    features, data = made()
    undefined = data
    for column in range(3):
        undefined = changed(undefined, 'val', column, column == 1)
    with pytest.raises(
        UserError,
        match=r'AUROC is undefined on the '
        r'validation images \(class 0 \(0 of 50.*class 1 '
        r'\(50 of 50.*one --strengths',
    ):
        run_probe(features, undefined)
    probe = run_probe(features, undefined, strengths=[0.1], samples=0)
    assert math.isnan(probe.val_auroc) and not probe.data_notes
    # One class fewer to choose by is said.
    part = changed(data, 'val', 0, False)
    probe = run_probe(features, part, strengths=STRENGTHS, samples=0)
    assert probe.data_notes == [
        'strength chosen without class 0 (0 of 50 validation images)'
    ]


def test_fits_that_do_not_converge_are_told():
    features, data = made()
    probe = run_probe(
        features, data, 'moco', 'stage3', strengths=(1e-4, 10.0), max_iter=1, samples=0
    )
    assert len(probe.notes) == 1
    assert 'not converged after 1 iterations' in probe.notes[0]
    assert 'strength 0.0001 (class 0, class 1, class 2)' in probe.notes[0]
    assert probe_notes([probe])[0].startswith('moco stage3: not converged')
    features, data = made(multi_label=False)
    probe = run_probe(features, data, strengths=(1e-4, 1.0), max_iter=1, samples=0)
    assert 'strength 0.0001' in probe.notes[0]


def test_few_patients_and_rare_classes_are_told():
    features, data = made()
    rare = changed(changed(data, 'test', 0, False), 'test', 0, True, [3])
    few = ProbeData(
        rare.classes, True, rare.targets, np.array([f'p{n // 10}' for n in range(60)])
    )
    probe = run_probe(features, few, strengths=[0.1], samples=400)
    rare_note, few_note = probe.data_notes
    # (1 - 1/6)^6 of the resamples lack the patient.
    assert float(rare_note.split('class 0 ')[1].split(' %')[0]) == pytest.approx(
        33.5, abs=6
    )
    assert few_note.startswith('only 6 test patients')
    assert not math.isnan(probe.per_class['class 0'].low)


def test_summary_of_seeds_resamples_their_mean():
    features, data = made()
    noise = np.random.default_rng(1)
    fits = [
        run_probe(
            {
                n: v + 3 * number * noise.normal(size=v.shape)
                for n, v in features.items()
            },
            data,
            'moco',
            'stage1',
            strengths=(0.1,),
            samples=200,
            number=number,
        )
        for number in range(3)
    ]
    (single,) = summarize(fits[:1])
    assert single.auroc == fits[0].auroc and math.isnan(single.spread('auroc'))
    (both,) = summarize(fits)
    values = [fit.auroc.estimate for fit in fits]
    assert both.spread('auroc') == pytest.approx(np.std(values, ddof=1))
    assert both.f1 is None and both.probes == tuple(fits)
    # Slow reference: all fits on every resample of the patients.
    weights = patient_weights(data.patients, 200, seed=0)
    curve = np.mean([fit.drawn[:, 0] for fit in fits], axis=0)
    probabilities = reference(features, data, 0.1, 'test')
    drawn = []
    for times in weights[:5]:
        index = np.repeat(np.arange(60), times)
        drawn.append(
            np.mean(
                [
                    roc_auc_score(
                        data.targets['test'][index, c], probabilities[index, c]
                    )
                    for c in range(3)
                ]
            )
        )
    assert fits[0].drawn[:5, 0] == pytest.approx(drawn, abs=1e-4)
    assert both.auroc.estimate == pytest.approx(np.mean(values)) == curve_of(fits)[0]
    patients = len(set(data.patients))
    expected, _ = two_level(curve_of(fits, join=False), patients)
    assert both.auroc.low == pytest.approx(expected.low)
    assert both.auroc.high == pytest.approx(min(1, expected.high))
    assert both.auroc.estimate - both.auroc.low > 1.9 * curve.std()


def curve_of(fits, join=True):
    values = np.stack([[fit.auroc.estimate, *fit.drawn[:, 0]] for fit in fits])
    return values.mean(0) if join else values


def test_difference_is_paired_by_patient():
    features, data = made()
    noise = np.random.default_rng(1)
    noisy = {n: v + 0.3 * noise.normal(size=v.shape) for n, v in features.items()}
    rows = summarize(
        [
            run_probe(values, data, name, 'stage1', strengths=(0.1,), samples=300)
            for name, values in (('moco', features), ('mse', noisy))
        ]
    )
    found = difference(rows[1], rows[0], 'auroc')
    probabilities = [
        reference(values, data, 0.1, 'test') for values in (noisy, features)
    ]
    drawn = []
    for times in patient_weights(data.patients, 300, seed=0):
        index = np.repeat(np.arange(60), times)
        truth = data.targets['test'][index]
        drawn.append(
            np.subtract(
                *(
                    np.mean([roc_auc_score(truth[:, c], p[index, c]) for c in range(3)])
                    for p in probabilities
                )
            )
        )
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=1e-3)
    assert found.high == pytest.approx(high, abs=1e-3)
    assert found.estimate == pytest.approx(
        rows[1].auroc.estimate - rows[0].auroc.estimate
    )
    # Narrower than the interval of either alone: the patients are the same.
    assert found.high - found.low < rows[1].auroc.high - rows[1].auroc.low
    none = difference(rows[0], rows[0], 'auroc')
    assert none.numbers == (0.0, 0.0, 0.0) and none.p == 1.0
    assert difference(rows[1], rows[0], 'f1') is None


def linear_problem(classes=2, seed=0):
    rng = np.random.default_rng(seed)
    sizes = dict(train=80, val=40, test=60)
    centres = rng.normal(size=(classes, 5))
    labels = {name: rng.integers(0, classes, size) for name, size in sizes.items()}
    features = {
        name: centres[own] + rng.normal(size=(len(own), 5))
        for name, own in labels.items()
    }
    targets = {name: own[:, None] == np.arange(classes) for name, own in labels.items()}
    data = ProbeData(
        tuple(f'c{n}' for n in range(classes)),
        False,
        targets,
        [str(n) for n in range(60)],
    )
    return features, labels, data


def test_the_grid_of_costs():
    """1e6 to 1e-5 in steps of a quarter of a decade; one is 5623.413."""
    assert len(COSTS) == 45
    np.testing.assert_allclose(COSTS, 1 / np.logspace(-6, 5, 45))
    assert any(abs(cost - 5623.413) < 1e-3 for cost in COSTS)


@pytest.mark.parametrize(
    'classes, by', [(2, 'accuracy'), (3, 'auroc'), (3, 'accuracy')]
)
def test_linear_protocol_by_hand(classes, by):
    """Each cost fitted on its own; the best, of equal ones the largest, again."""
    features, labels, data = linear_problem(classes)
    costs = (100.0, 1.0, 0.1, 0.01, 1e-4)
    found = fit_linear(features, data, costs, by, tolerance=1e-8)

    def fit(names, cost):
        x, y = (np.concatenate([of[n] for n in names]) for of in (features, labels))
        return LogisticRegression(C=cost, tol=1e-8, max_iter=5000).fit(x, y)

    quality = {}
    for cost in costs:
        model = fit(['train'], cost)
        chances = model.predict_proba(features['val'])
        quality[cost] = (
            (chances.argmax(1) == labels['val']).mean()
            if by == 'accuracy'
            else roc_auc_score(labels['val'], chances, multi_class='ovr')
        )
    assert found.quality == pytest.approx(quality, abs=1e-9)
    best = max(c for c in costs if quality[c] == max(quality.values()))
    assert found.cost == best
    final = fit(['train', 'val'], best).predict_proba(features['test'])
    np.testing.assert_allclose(found.probabilities, final, atol=1e-5)
    assert found.converged and not found.failed


def test_two_rows_of_weights_are_one_at_twice_the_cost():
    """What older scikit-learn fitted for two classes with 'multinomial'."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    features, labels, data = linear_problem(2)
    found = fit_linear(features, data, [0.05], 'accuracy', softmax=True, tolerance=1e-9)
    x = np.concatenate([features['train'], features['val']])
    y = np.concatenate([labels['train'], labels['val']])

    def objective(flat):
        weights, bias = flat[:10].reshape(2, 5), flat[10:]
        likelihood = log_softmax(x @ weights.T + bias, 1)[np.arange(len(y)), y].sum()
        return -0.05 * likelihood + (weights**2).sum() / 2

    best = minimize(objective, np.zeros(12), options=dict(gtol=1e-8)).x
    expected = softmax(features['test'] @ best[:10].reshape(2, 5).T + best[10:], 1)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-4)
    other = fit_linear(features, data, [0.05], 'accuracy', tolerance=1e-9)
    assert not np.allclose(found.probabilities, other.probabilities, atol=1e-3)


@pytest.mark.parametrize('iterations', [2, 4])
def test_linear_protocol_from_the_weakest_regularisation_on(iterations):
    """The loop of the published comparison, whose fits do not converge."""
    features, labels, data = linear_problem(3)
    costs = [1e-3, 10.0, 0.1, 1e3]
    x, y = (np.concatenate([of['train'], of['val']]) for of in (features, labels))
    model = LogisticRegression(max_iter=iterations, warm_start=True)
    best, most = None, -1
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for cost in sorted(costs, reverse=True):
            model.C = cost
            model.fit(features['train'], labels['train'])
            share = model.score(features['val'], labels['val'])
            if share > most:
                best, most = cost, share
        model.C = best
        expected = model.fit(x, y).predict_proba(features['test'])
    settings = dict(by='accuracy', max_iter=iterations)
    found = fit_linear(features, data, costs, weakest_first=True, **settings)
    assert found.cost == best and found.failed
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-6)
    other = fit_linear(features, data, costs, **settings)
    assert not np.allclose(other.probabilities, expected, atol=1e-4)


def test_the_order_of_fits_does_not_matter_where_they_converge():
    features, _, data = linear_problem(2)
    one, other = (
        fit_linear(features, data, [1.0, 0.01], tolerance=1e-9, weakest_first=first)
        for first in (False, True)
    )
    assert one.cost == other.cost and one.converged and other.converged
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


def test_linear_protocol_says_what_has_not_converged():
    features, _, data = linear_problem(3)
    found = fit_linear(features, data, [1e6, 1e-6], max_iter=1)
    assert 1e6 in found.failed
    assert found.converged == (found.cost not in found.failed)
    standardised = fit_linear(features, data, [1e-3], standardise=True)
    assert not np.allclose(
        standardised.probabilities, fit_linear(features, data, [1e-3]).probabilities
    )
