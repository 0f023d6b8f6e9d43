import json
import os

import pandas as pd
import pytest
import torch
from mmengine.config import Config

from medssl_mm.analysis.choosing import MeasuredCheckpoint, agreements
from medssl_mm.errors import UserError
from medssl_mm.results.choosing import (
    draw_choosing,
    print_agreements,
    read_checkpoint_scores,
    require_seed,
    write_choosing,
)
from tests import tools
from tests.engine.hooks.test_collapse_monitor_hook import settings
from tests.models.algorithms.toy import build_ours

CHECKPOINTS = [
    MeasuredCheckpoint(run, f'epoch_{epoch}', epoch, dict(rankme=rank, loss=1 / epoch))
    for run, ranks in (('MoCo', [1.0, 4.0, 2.0]), ('SimCLR', [1.0, 2.0, 3.0]))
    for epoch, rank in zip((1, 2, 10), ranks)
]
SCORES = {
    (run, f'epoch_{epoch}'): score
    for run in ('MoCo', 'SimCLR')
    for epoch, score in zip((1, 2, 10), (0.2, 0.5, 0.4))
}


def write_table(path, scores=SCORES, **changes):
    """As tools/run_table.py writes it, with a row that is no checkpoint."""
    rows = [
        dict(
            evaluation='Linear',
            initial_weights=f'{run} @ {name}',
            fraction=1.0,
            seeds=1,
            dice=score,
            dice_low=score - 0.1,
            dice_high=score + 0.1,
            difference=0.0,
            difference_low=0.0,
            difference_high=0.0,
        )
        for (run, name), score in scores.items()
    ]
    rows.append(dict(rows[0], initial_weights='random', dice=0.9))
    for row in rows:
        row.update(changes)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_scores_are_those_of_checkpoints(tmp_path):
    assert read_checkpoint_scores(write_table(tmp_path / 'table.csv')) == SCORES


def test_what_is_no_such_table_is_refused(tmp_path):
    path = write_table(tmp_path / 'table.csv')
    with pytest.raises(UserError, match="no evaluation 'Deep', but Linear"):
        read_checkpoint_scores(path, 'Deep')
    with pytest.raises(UserError, match='no row with 20 % labels is of a checkpoint'):
        read_checkpoint_scores(path, fraction=0.2)
    several = write_table(tmp_path / 'several.csv', seeds=3)
    with pytest.raises(UserError, match='3 seeds are means over as many pretrainings'):
        read_checkpoint_scores(several)
    frame = pd.read_csv(path)
    frame.drop(columns='seeds').to_csv(path, index=False)
    with pytest.raises(UserError, match='the column seeds is missing'):
        read_checkpoint_scores(path)
    pd.concat([frame, frame.assign(evaluation='Deep')]).to_csv(path, index=False)
    with pytest.raises(UserError, match='name one of its evaluations: Linear, Deep'):
        read_checkpoint_scores(path)


def test_scores_of_another_seed_are_refused(tmp_path):
    table = tmp_path / 'table.csv'
    require_seed(write_table(table, seed_numbers='3'), dict(MoCo=3, SimCLR=None))
    require_seed(write_table(table), dict(MoCo=3))  # as it was before
    with pytest.raises(UserError, match='scores of seed 4, but MoCo .* with seed 3'):
        require_seed(write_table(table, seed_numbers='4'), dict(MoCo=3))


def test_figure_shows_measures_against_epochs_or_scores():
    plain = draw_choosing(CHECKPOINTS)
    assert [axes.get_title() for axes in plain.axes] == ['rankme', 'loss']
    assert list(plain.axes[0].lines[0].get_xdata()) == [1, 2, 10]
    scored = draw_choosing(CHECKPOINTS, SCORES)
    assert [axes.get_title() for axes in scored.axes] == ['epoch', 'rankme', 'loss']
    line = scored.axes[1].lines[0]
    assert list(line.get_xdata()) == [1, 4, 2]
    assert list(line.get_ydata()) == [0.2, 0.5, 0.4]


def test_tables_and_files(tmp_path, capsys):
    found = agreements(CHECKPOINTS, SCORES)
    print_agreements(found)
    out = capsys.readouterr().out
    assert 'by chance 13.3 points' in out
    lines = {
        line.split('│')[1].strip(): [part.strip() for part in line.split('│')[2:-1]]
        for line in out.splitlines()
        if '│' in line
    }
    # MoCo: 1 4 2 as the scores; SimCLR: 1 2 3, whose last is not the best.
    assert lines['rankme'][:2] == ['+1.00', '+0.50']
    assert lines['rankme'][3:] == ['5.0', '10.0']
    write_choosing(tmp_path, CHECKPOINTS, dict(images=5), SCORES, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'agreement.json',
        'agreement.md',
        'agreement.png',
        'measures.csv',
        'measures.png',
    ]
    content = json.loads((tmp_path / 'agreement.json').read_text())
    first = next(a for a in content['agreements'] if a['measure'] == 'rankme')
    assert (first['chosen'], first['regret']) == ('epoch_2', 0)
    frame = pd.read_csv(tmp_path / 'measures.csv')
    assert list(frame.columns) == ['run', 'checkpoint', 'epoch', 'rankme', 'loss']


@pytest.fixture
def pretraining(tmp_path):
    """A run with three checkpoints and a log, and its config."""
    content = settings(tmp_path / 'run')
    del content['model']['decorrelation']
    content['custom_imports']['imports'] = [
        'medssl_mm.registry',
        'tests.engine.hooks.test_collapse_monitor_hook',
    ]
    Config(content).dump(tmp_path / 'toy.py')
    log = tmp_path / 'run/20260101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [
        dict(step=step, loss=10.0 - step, loss_contrastive=1.0, stage3_local_top1=0.1)
        for step in range(1, 7)
    ]
    log.write_text('\n'.join(map(json.dumps, lines)))
    for number, epoch in enumerate((2, 4, 10)):
        torch.save(
            dict(
                state_dict=build_ours(seed=number).state_dict(),
                meta=dict(
                    cfg=Config(content).pretty_text, epoch=epoch, iter=2 * (number + 1)
                ),
            ),
            tmp_path / f'run/epoch_{epoch}.pth',
        )
    return tmp_path


def command(folder, *more):
    return [
        'analysis/choose_checkpoint.py',
        f'MoCo={folder / "run"}',
        '--config',
        folder / 'toy.py',
        '--out',
        folder / 'out',
        '--num-samples',
        '6',
        '--views',
        '2',
        *more,
    ]


def test_tool_measures_once_and_compares(pretraining):
    done = tools.run(*command(pretraining))
    assert done.returncode == 0, done.stderr
    assert 'prefers' in done.stdout and 'rankme (pooled)' in done.stdout
    frame = pd.read_csv(pretraining / 'out/measures.csv')
    assert list(frame['checkpoint']) == ['epoch_2', 'epoch_4', 'epoch_10']
    # Means over the steps since the checkpoint before.
    assert list(frame['loss']) == [8.5, 6.5, 4.5]
    assert {'lidar (pooled)', 'alpha_req (last map)', 'stage3_local_top1'} < set(frame)
    places = sorted((pretraining / 'out/checkpoints/MoCo').iterdir())
    assert len(places) == 3
    times = [place.stat().st_mtime_ns for place in places]
    table = write_table(
        pretraining / 'table.csv',
        {('MoCo', 'epoch_2'): 0.1, ('MoCo', 'epoch_4'): 0.2, ('MoCo', 'epoch_10'): 0.3},
    )
    again = tools.run(*command(pretraining, '--scores', table))
    assert again.returncode == 0, again.stderr
    assert [place.stat().st_mtime_ns for place in places] == times
    content = json.loads((pretraining / 'out/agreement.json').read_text())
    assert content['settings']['images'] == 6
    loss = next(a for a in content['agreements'] if a['measure'] == 'loss')
    assert loss['spearman']['correlation'] == 1 and loss['chosen'] == 'epoch_10'
    # Another file under the name is measured anew.
    path = pretraining / 'run/epoch_4.pth'
    os.utime(path, ns=(1, 1))
    assert tools.run(*command(pretraining)).returncode == 0
    changed = [place.stat().st_mtime_ns for place in places]
    assert [a == b for a, b in zip(times, changed)] == [
        place.stem != 'epoch_4' for place in places
    ]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c.__setitem__(1, 'run'), "expected NAME=DIR, got 'run'"),
        (lambda c: c.__setitem__(1, 'a=absent'), 'run a: absent is no folder'),
        (lambda c: c.insert(1, c[1]), 'two runs are called MoCo'),
        (lambda c: c.__setitem__(9, '0'), '--views must be positive'),
    ],
)
def test_bad_input(pretraining, change, message):
    arguments = command(pretraining)
    change(arguments)
    done = tools.run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_run_without_checkpoints_or_scores(pretraining):
    table = write_table(pretraining / 'table.csv')
    arguments = command(pretraining, '--scores', table)
    arguments[1] = arguments[1].replace('MoCo=', 'BYOL=')
    done = tools.run(*arguments)
    assert 'no row of a checkpoint of BYOL; it has MoCo, SimCLR' in done.stderr
    for path in (pretraining / 'run').glob('epoch_*.pth'):
        path.unlink()
    done = tools.run(*command(pretraining))
    assert done.returncode == 2
    assert 'holds no epoch_*.pth; keep the checkpoints' in done.stderr
