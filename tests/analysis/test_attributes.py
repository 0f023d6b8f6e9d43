import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medssl_mm.analysis.attributes import (
    attributes_of,
    probe_attribute,
    probes_within,
    read_attribute,
)
from medssl_mm.analysis.probing import ProbeData, run_probe
from medssl_mm.errors import UserError


def confounded(seed=0):
    """Classes that are half told by an attribute; a feature that is the attribute."""
    rng = np.random.default_rng(seed)
    features, targets, values = {}, {}, {}
    for name, size in dict(train=400, val=200, test=300).items():
        lying = rng.random(size) < 0.5
        ill = rng.random(size) < np.where(lying, 0.7, 0.2)
        targets[name] = np.stack([~ill, ill], 1)
        values[name] = np.where(lying, 'AP', 'PA')
        features[name] = np.stack(
            [lying + 0.01 * rng.normal(size=size), rng.normal(size=size)], 1
        )
    patients = [f'p{n // 2}' for n in range(300)]
    return features, ProbeData(('no', 'yes'), False, targets, patients), values


def test_a_network_that_sees_only_the_attribute_knows_nothing_within_it():
    features, data, values = confounded()
    probe = run_probe(features, data, 'net', 'stage4', samples=200)
    alone = probe_attribute(values, 'view', data, samples=200)
    ill = data.targets['test'][:, 1]
    expected = roc_auc_score(ill, values['test'] == 'AP')
    assert alone.auroc.estimate == pytest.approx(expected)
    assert probe.auroc.estimate > 0.7
    within = probes_within(probe, data, values['test'], 'view', samples=200)
    assert [p.place for p in within] == ['stage4, view AP', 'stage4, view PA']
    for part, value in zip(within, ('AP', 'PA')):
        rows = values['test'] == value
        assert part.auroc.estimate == pytest.approx(
            roc_auc_score(ill[rows], probe.probabilities[rows, 1])
        )
        low, high = part.auroc.numbers[1:]
        assert low < 0.5 < high
        assert part.checkpoint == 'net' and part.strength == probe.strength


def test_a_value_with_one_class_is_left_out():
    features, data, values = confounded()
    probe = run_probe(features, data, 'net', 'stage4', samples=0)
    odd = np.where(data.targets['test'][:, 1], values['test'], 'never ill')
    found = probes_within(probe, data, odd, 'view', samples=0)
    assert found == []


def test_table(tmp_path):
    path = tmp_path / 'views.csv'
    path.write_text('file,view\na/x1.png,AP\nx2.png,\n')
    table = read_attribute(path, 'file', 'view')
    assert attributes_of(['set/x2', 'x1.dcm'], table).tolist() == ['unknown', 'AP']
    with pytest.raises(UserError, match=r'1 of 2 images are not in .*views.csv.*x3'):
        attributes_of(['x1', 'x3'], table)


@pytest.mark.parametrize(
    'text, words',
    [
        ('file,position\nx,AP\n', "no column 'view'; it has file, position"),
        ('file,view\nx.png,AP\nb/x.png,PA\n', 'image x has view AP and PA'),
        (None, 'views.csv: No such file'),
    ],
)
def test_wrong_table(tmp_path, text, words):
    path = tmp_path / 'views.csv'
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=words):
        read_attribute(path, 'file', 'view')
