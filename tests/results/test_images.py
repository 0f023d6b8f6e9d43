import json

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.results import Measure
from medssl_mm.results.images import (
    ClassificationEvaluation,
    read_predictions,
)
from medssl_mm.statistics import Predictions, classification
from tests.statistics.test_classification import make


def evaluation(predictions, samples=0):
    return ClassificationEvaluation(
        predictions, 'toy', 'abc123', 'data/toy', 0.5, samples, 0
    )


@pytest.mark.parametrize('multi_label', [True, False])
def test_names_with_commas_and_quotes_come_back(multi_label, tmp_path):
    made = make(multi_label)
    names = ('a, b', '"c"', 'target', 'probability_x')
    made = Predictions(
        names,
        multi_label,
        tuple(f'{n}, "x"' for n in made.image_ids),
        made.patients,
        made.targets,
        made.probabilities,
    )
    evaluation(made).write(tmp_path)
    found = read_predictions(tmp_path / 'predictions.csv')
    for name in ('classes', 'multi_label', 'image_ids', 'patients'):
        assert getattr(found, name) == getattr(made, name)
    assert (found.targets == made.targets).all()
    assert found.probabilities == pytest.approx(made.probabilities)


def test_table_shows_undefined_classes_and_how_many_count():
    shown = evaluation(make(True), samples=50).text()
    assert 'toy (abc123): 60 images, 20 patients' in shown
    last = next(line for line in shown.splitlines() if '│ d ' in line)
    assert '│     - │' in last.replace('  ', ' ') or ' - ' in last
    assert last.rstrip('│ ').endswith('60')
    assert 'mean of 3 / 4 classes' in shown
    assert 'note: AUROC undefined for d (no positive image among 60)' in shown
    assert '[' not in evaluation(make(True)).text().splitlines()[4]


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda text: text.replace('probability_a', 'chance_a'),
            'is not a table of medssl_mm.ClassificationMetric: expected the columns',
        ),
        (lambda text: text.splitlines()[0] + '\n', 'and 0 row'),
        (lambda text: text[: text.rindex(',')], 'is damaged'),
        (lambda text: text.replace(',a,', ',e,', 1), 'a target is none of the classes'),
    ],
)
def test_damaged_tables_are_named(change, message, tmp_path):
    evaluation(make(False)).write(tmp_path)
    path = tmp_path / 'predictions.csv'
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=message):
        read_predictions(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match='predictions.csv does not exist'):
        read_predictions(path)


def test_a_score_of_ones_own_is_everywhere(tmp_path, monkeypatch):
    """Sensitivity, and a score without classes, each by one function."""
    monkeypatch.setattr(classification, 'SCORES', dict(classification.SCORES))
    monkeypatch.setattr('medssl_mm.results.images.SCORES', classification.SCORES)

    @classification.image_score(
        Measure('sensitivity', 'sensitivity', logged=True),
        lambda predictions, index: 'never present',
    )
    def sensitivity(predictions, weights, threshold):
        hits = weights @ (predictions.targets & predictions.decisions(threshold))
        with np.errstate(invalid='ignore'):
            return hits / (weights @ predictions.targets)

    @classification.image_score(Measure('findings', 'findings per image'))
    def findings(predictions, weights, threshold):
        return weights @ predictions.targets.sum(1) / weights.sum(1)

    made = make(True)
    found = evaluation(made, samples=20)
    targets, decided = made.targets, made.probabilities >= 0.5
    expected = [decided[targets[:, c], c].mean() for c in range(3)]
    assert found.log_values()['macro_sensitivity'] == pytest.approx(np.mean(expected))
    found.write(tmp_path)
    content = json.loads((tmp_path / 'metrics.json').read_text())
    for name, value in zip('abc', expected):
        entry = content['per_class'][name]['sensitivity']
        assert entry['mean'] == pytest.approx(value)
        assert entry['low'] < value < entry['high']
    assert content['per_class']['d']['sensitivity']['mean'] is None
    assert content['undefined']['sensitivity'] == {'d': 'never present'}
    assert content['mean']['findings']['mean'] == pytest.approx(targets.sum() / 60)
    for fact in ('sensitivity', 'findings per image', 'd (never present)'):
        assert fact in found.text()
    with pytest.raises(ValueError, match="'findings'.*another name"):
        classification.image_score(Measure('findings', 'again'))
