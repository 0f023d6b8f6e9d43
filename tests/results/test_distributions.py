import json

import numpy as np
import pytest

from medssl_mm.analysis.output_distributions import Comparison, ks_distances
from medssl_mm.results import distributions
from tests.analysis.test_output_distributions import outputs


def test_summary_is_over_seeds(tmp_path, capsys):
    few, many = [outputs(0), outputs(1)], [outputs(2), outputs(3)]
    comparisons = [
        Comparison('moco', tuple(few), tuple(many)),
        Comparison('random', (few[0],), (few[0],)),
    ]
    classes = ('a', 'b', 'c')
    distributions.write_comparisons(
        comparisons, classes, tmp_path, few='10 %', many='100 %', images=50
    )
    content = json.loads((tmp_path / 'output_distributions.json').read_text())
    assert (content['few'], content['images']) == ('10 %', 50)
    values = np.stack([ks_distances(f, m) for f, m in zip(few, many)])
    found = content['methods']['moco']
    assert found['per_class']['b']['seeds'] == values[:, 1].tolist()
    assert found['mean']['mean'] == pytest.approx(values.mean())
    assert found['mean']['sd_over_seeds'] == pytest.approx(values.mean(1).std(ddof=1))
    same = content['methods']['random']['mean']
    assert same == dict(mean=0.0, sd_over_seeds=None, seeds=[0.0])
    png = (tmp_path / 'output_distributions.png').read_bytes()
    assert png.startswith(b'\x89PNG')
    distributions.print_comparisons(comparisons, classes, 'distances')
    shown = capsys.readouterr().out
    assert f'{values.mean():.3f} ± {values.mean(1).std(ddof=1):.3f}' in shown
