import pytest

from medssl_mm.errors import UserError
from medssl_mm.results.images import (
    ClassificationEvaluation,
    read_predictions,
)
from medssl_mm.statistics import Predictions
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
