import numpy as np
import pytest
from sklearn import metrics

from medssl_mm.statistics import Predictions, classification, patient_weights
from medssl_mm.statistics.classification import resampled_scores, score, weighted_scores


def make(multi_label, images=60, classes=4, seed=0, digits=1):
    """Predictions with many ties; the last class is in no image."""
    rng = np.random.default_rng(seed)
    values = rng.random((images, classes)).round(digits)
    if multi_label:
        targets = rng.random((images, classes)) < 0.1 + 0.5 * values
        targets[:, -1] = False
    else:
        targets = np.eye(classes, dtype=bool)[rng.integers(0, classes - 1, images)]
        values /= values.sum(1, keepdims=True)
    return Predictions(
        classes=tuple('abcdefg'[:classes]),
        multi_label=multi_label,
        image_ids=tuple(f'i{n}' for n in range(images)),
        patients=tuple(f'p{n // 3}' for n in range(images)),
        targets=targets,
        probabilities=values.astype(float),
    )


def repeat(predictions, times):
    """The same images, each as often as told."""
    index = np.repeat(np.arange(len(times)), times)
    return Predictions(
        predictions.classes,
        predictions.multi_label,
        tuple(predictions.image_ids[i] for i in index),
        tuple(predictions.patients[i] for i in index),
        predictions.targets[index],
        predictions.probabilities[index],
    )


@pytest.mark.parametrize('multi_label', [True, False])
def test_equals_scikit_learn(multi_label):
    predictions = make(multi_label)
    found = score(predictions, threshold=0.6)
    targets, values = predictions.targets, predictions.probabilities
    auroc = [metrics.roc_auc_score(targets[:, c], values[:, c]) for c in range(3)]
    np.testing.assert_allclose(found.auroc[:3], auroc, rtol=1e-6)
    assert np.isnan(found.auroc[3])
    assert found.macro_auroc == pytest.approx(np.mean(auroc))
    if multi_label:
        decided = values >= 0.6
        f1 = metrics.f1_score(targets, decided, average=None)
        accuracy = (decided == targets).mean()
    else:
        decided = values.argmax(1)
        f1 = metrics.f1_score(targets.argmax(1), decided, average=None)
        accuracy = metrics.accuracy_score(targets.argmax(1), decided)
    np.testing.assert_allclose(found.f1, f1, rtol=1e-6)
    assert found.macro_f1 == pytest.approx(f1.mean())
    assert found.accuracy == pytest.approx(accuracy)


@pytest.mark.parametrize('multi_label', [True, False])
def test_resamples_equal_scoring_the_repeated_images(multi_label):
    predictions = make(multi_label, images=24, digits=2)
    weights = patient_weights(predictions.patients, 20, seed=1)
    drawn = resampled_scores(predictions, 20, seed=1)
    for index, times in enumerate(weights):
        expected = score(repeat(predictions, times))
        for name in ('auroc', 'f1', 'accuracy', 'macro_auroc', 'macro_f1'):
            np.testing.assert_allclose(
                getattr(drawn, name)[index],
                getattr(expected, name),
                rtol=1e-6,
                err_msg=name,
            )


def test_blocks_do_not_change_the_result(monkeypatch):
    predictions = make(True)
    whole = resampled_scores(predictions, 7, seed=0)
    monkeypatch.setattr(classification, '_BLOCK', 130)
    parts = resampled_scores(predictions, 7, seed=0)
    for name in ('auroc', 'f1', 'accuracy'):
        np.testing.assert_allclose(
            getattr(parts, name), getattr(whole, name), rtol=1e-12
        )


def test_two_exclusive_classes_have_one_auroc():
    """Also where the first probability is rounded to 1."""
    tiny = np.array([1e-20, 1e-18, 0.3, 1e-19])
    positive = np.array([0, 1, 1, 0], dtype=bool)
    pair = Predictions(
        ('no', 'yes'),
        False,
        tuple('abcd'),
        tuple('abcd'),
        np.stack([~positive, positive], 1),
        np.stack([1 - tiny, tiny], 1),
    )
    np.testing.assert_array_equal(score(pair).auroc, [1, 1])
    np.testing.assert_array_equal(
        weighted_scores(pair, np.ones((1, 4))).auroc, [[1, 1]]
    )


def test_absent_and_never_predicted_class_has_no_f1():
    predictions = make(True)
    values = predictions.probabilities.copy()
    values[:, 3] = 0
    quiet = Predictions(
        predictions.classes,
        True,
        predictions.image_ids,
        predictions.patients,
        predictions.targets,
        values,
    )
    found = score(quiet)
    assert np.isnan(found.f1[3])
    assert found.macro_f1 == pytest.approx(found.f1[:3].mean())
    # Predicted somewhere although absent: wrong, so it counts.
    assert score(predictions).f1[3] == 0
