import numpy as np
import pytest

from medssl_mm import results
from medssl_mm.errors import UserError


def test_curves_of_a_resumed_run_are_joined(tmp_path):
    for folder, lines in (
        (
            '20240101_1',
            [
                '{"loss": 3.0, "step": 10}',
                '{"loss": 2.0, "step": 20}',
                '{"loss": 1.9, "st',
            ],
        ),
        (
            '20240102_1',
            ['{"loss": 2.5, "step": 20}', '{"volume/mDice": 0.5, "step": 20}'],
        ),
    ):
        log = tmp_path / folder / 'vis_data'
        log.mkdir(parents=True)
        (log / 'scalars.json').write_text('\n'.join(lines))
    curves = results.read_scalars(tmp_path)
    np.testing.assert_array_equal(curves['loss'], [[10, 3.0], [20, 2.5]])
    np.testing.assert_array_equal(curves['volume/mDice'], [[20, 0.5]])
    with pytest.raises(UserError, match=r'scalars\.json'):
        results.read_scalars(tmp_path / 'absent')


def test_each_loss_term_has_its_own_panel_and_chance_level():
    def points(*values):
        return np.array([[10 * i, value] for i, value in enumerate(values)])

    local = 'stage3_local_info_nce'
    moco = {
        'loss': points(6.0, 5.0),
        'loss_contrastive': points(6.0, 5.0),
        'chance_level': points(5.55, 5.55),
        'contrastive_top1': points(0.1, 0.2),
    }
    both = {
        **moco,
        'loss': points(8.0, 7.5),
        f'loss_{local}': points(2.0, 1.5),
        f'{local}_chance_level': points(2.1, 2.2),
        'loss_stage4_feature_mse': points(0.1, 0.1),
    }
    labels = {'loss': points(2.0, 1.0), 'volume/mDice': points(0.1, 0.6)}
    panels = {
        panel.title: panel
        for panel in results.curve_panels({'MoCo': moco, 'local': both})
    }
    assert list(panels) == [
        'loss_contrastive',
        f'loss_{local}',
        'loss_stage4_feature_mse',
        'score',
    ]
    assert [run for run, _, _ in panels['loss_contrastive'].lines] == ['MoCo', 'local']
    assert [run for run, _, _ in panels[f'loss_{local}'].lines] == ['local']
    # Drawn once, though both runs log it; each term beside its own only.
    (chance,) = panels['loss_contrastive'].chance
    np.testing.assert_array_equal(chance, moco['chance_level'])
    (chance,) = panels[f'loss_{local}'].chance
    np.testing.assert_array_equal(chance, both[f'{local}_chance_level'])
    assert not panels['loss_stage4_feature_mse'].chance
    assert [label for _, label, _ in panels['score'].lines] == [
        'MoCo (contrastive_top1)',
        'local (contrastive_top1)',
    ]
    total, score = results.curve_panels({'linear': labels})
    assert (total.title, score.title) == ('loss', 'score')
    assert not total.chance
    with pytest.raises(UserError, match='neither a loss nor a score'):
        results.curve_panels({'empty': {'lr': points(0.1)}})


def test_probes_have_panels_with_their_start():
    def points(*values):
        return np.array([[10 * i, value] for i, value in enumerate(values)])

    def moco(*values):
        return {
            'loss_contrastive': points(5.0, 4.0),
            'probe/my_online_macro_AUROC': points(*values),
            'probe/my_online_macro_F1': points(*values),
            'probe/my_online_loss': points(*values),
            'online_probe_loss': points(*values),
        }

    first, second = moco(0.7, 0.6, 0.9), moco(0.6, 0.8)
    second['probe/stage4_Dice'] = points(0.0, 0.3)[1:]
    panels = {p.title: p for p in results.curve_panels({'a': first, 'b': second})}
    assert list(panels) == [
        'loss_contrastive',
        'my_online probe: macro_AUROC',
        'stage4 probe: Dice',
    ]
    auroc = panels['my_online probe: macro_AUROC']
    assert auroc.starts == [('a', 0.7), ('b', 0.6)]
    assert [run for run, _, _ in auroc.lines] == ['a', 'b']
    np.testing.assert_array_equal(auroc.lines[0][2], [[10, 0.6], [20, 0.9]])
    # Measured after training had begun: no start.
    assert panels['stage4 probe: Dice'].starts == []
