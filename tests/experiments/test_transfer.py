"""Transfer tables: planned, run as processes, killed, resumed and written."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from medssl_mm import experiments
from medssl_mm.datasets.shared_sets import image_configs, read_images
from medssl_mm.encoders import load_encoder
from medssl_mm.errors import UserError
from medssl_mm.experiments import frozen
from medssl_mm.provenance import Seen, Shown, attach
from medssl_mm.results.transfer import TransferResults
from medssl_mm.store import open_store
from medssl_mm.store.splits import load_split
from tests import tools
from tests.checkpoint_features.test_encoder import describe
from tests.experiments.made import PROTOCOLS, plan, run_here, write_set, write_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mode='lax'), "mode: should be 'strict' or 'compat', got 'lax'"),
        (dict(protocols=['nearest']), r'protocols\[0\].kind: should be'),
        (
            dict(protocols=[dict(kind='knn', shots=3)]),
            'shots is no setting of knn; it has k, temperature, folds',
        ),
        (dict(datasets=[dict(name='x', data_root='one')]), 'needs its split'),
        (dict(baseline='none'), 'baseline: none is none of the encoders a, r'),
        (dict(protocols=['knn', 'knn']), 'needs its own name; twice: knn'),
        (
            dict(protocols=[dict(kind='finetune', search=1)]),
            'a grid has 2 or more learning rates',
        ),
        (
            dict(
                protocols=[
                    dict(
                        kind='finetune',
                        search=2,
                        options={'optim_wrapper.optimizer.lr': 0.1},
                    )
                ]
            ),
            'options and search both set optim_wrapper.optimizer.lr',
        ),
        (dict(encodrs=[]), "unknown key 'encodrs'; did you mean encoders"),
        (
            dict(protocols=[dict(kind='knn', datasets=['three'])]),
            'protocol knn: three is none of the datasets one, two',
        ),
    ],
)
def test_faulty_tables(folder, change, message):
    with pytest.raises(UserError, match=message):
        experiments.load_transfer(write_table(folder, **change))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(encoders=['resnet19']), 'encoder resnet19: no encoder .*did you mean'),
        (
            dict(encoders=[dict(name='x', encoder='resnet18', checkpoint='no.pth')]),
            'encoder x: the weights no.pth of resnet18 do not exist',
        ),
        (
            dict(datasets=['pneumoniamnits']),
            'no data config .*pneumoniamnits.*did you mean',
        ),
        (
            dict(datasets=[dict(name='x', data_root='gone', split='made')]),
            'data set x: .*gone',
        ),
        (
            dict(datasets=[dict(name='x', data_root='one', split='other')]),
            'data set x: .*other',
        ),
    ],
)
def test_what_is_not_there(folder, change, message):
    with pytest.raises(UserError, match=message):
        plan(write_table(folder, baseline=None, **change))


def test_a_part_of_a_table(folder):
    path = write_table(folder)
    planned = plan(path, encoders=['a'], datasets=['two'], protocols=['knn'])
    assert len(planned.steps) == len(planned.cells) == 1
    with pytest.raises(UserError, match='no datasets three; there are one, two'):
        experiments.load_transfer(path, datasets=['three'])


def test_folders_follow_what_results_depend_on(folder):
    def keys(**change):
        planned = plan(write_table(folder, **change))
        return {
            (c.encoder.entry.name, c.dataset.entry.name, c.protocol.name): c.path
            for c in planned.cells
        }

    first = keys()
    assert len(first) == 12
    # A setting of one protocol changes its files, titles change none.
    other = keys(
        protocols=[*PROTOCOLS[:2], dict(kind='linear', costs=[1.0])], title='x'
    )
    changed = {key for key in first if first[key] != other[key]}
    assert {key[2] for key in changed} == {'linear'} and len(changed) == 4
    assert all(first[key].parent == other[key].parent for key in changed)
    # Other weights change the folders of their encoder alone.
    network = load_encoder('random:small.py', seed=5).backbone
    torch.save(network.state_dict(), folder / 'small.pth')
    other = keys()
    assert {key[0] for key in first if first[key] != other[key]} == {'a'}
    # Random weights have a result per seed, others one.
    planned = plan(write_table(folder, seeds=[0, 1, 2]))
    counts = [c.encoder.entry.name for c in planned.cells]
    assert (counts.count('a'), counts.count('r')) == (6, 18)


def test_the_list_has_all_data_sets(folder):
    write_set(folder / 'data' / 'nih1000')
    found = tools.run('transfer.py', '--list', folder=folder)
    assert found.returncode == 0, found.stderr
    there = {}
    for line in found.stdout.splitlines():
        cells = [cell.strip() for cell in line.strip('│').split('│')]
        if len(cells) == 5 and cells[0]:
            there[cells[0]] = cells[-1]
    assert {name: there[name] for name in ('nih1000', 'nih1000-chestx7')} == {
        'nih1000': 'yes',
        'nih1000-chestx7': 'yes',
    }
    assert there['chestx7'] == there['rsna-of-nih1000'] == 'no'
    # Each can stand in a table.
    assert set(image_configs()) == set(there)
    assert all(read_images(name) for name in there)


FINETUNE = dict(kind='finetune', options={'train_cfg.max_iters': 4})


def test_fine_tuning_follows_what_is_in_the_set(folder):
    """Other pictures under the same names, or another description: new folders."""

    def keys():
        planned = plan(write_table(folder, protocols=[FINETUNE]))
        return {
            (c.encoder.entry.name, c.dataset.entry.name, step.kind): step.key
            for c in planned.cells
            for step in (c.step, planned.steps[c.step.needs[0]])
        }

    def changed():
        other = keys()
        return {key[:2] for key in first if first[key] != other[key]}

    first = keys()
    assert len(first) == 8 and not changed()
    shutil.rmtree(folder / 'one')
    write_set(folder / 'one', side=20)
    assert changed() == {('a', 'one'), ('r', 'one')}
    first = keys()
    # Labels of the same pictures.
    shutil.rmtree(folder / 'two')
    write_set(folder / 'two', label=lambda patient, number: patient // 2 % 2)
    assert changed() == {('a', 'two'), ('r', 'two')}
    first = keys()
    # What an encoder makes of the same weights.
    describe(folder / 'small.py', 'size=16, normalisation="histogram"')
    assert len(changed()) == 4


def seen_in(planned):
    results = TransferResults(experiments.finished_cells(planned))
    places = {(p.encoder, p.dataset): results.seen(p) for p in results.groups}
    return {place for place, seen in places.items() if seen}


def test_marks_follow_the_image_set_whatever_it_is_called(folder):
    """Not the entry of the table, which may have any name."""
    write_set(folder / 'rsna-of-nih1000')
    encoders = [
        dict(
            name=name, encoder='small.py', checkpoint='small.pth', trained_on=trained_on
        )
        for name, trained_on in (
            ('a', ['one']),
            ('b', ['x']),
            ('c', ['nih1000']),
            ('d', ['mimic-cxr', 'chexpert']),
        )
    ]
    planned = plan(
        write_table(
            folder,
            encoders=encoders,
            datasets=[
                dict(name='x', data_root='one', split='made'),
                dict(name='one', data_root='two', split='made'),
                dict(name='y', data_root='rsna-of-nih1000', split='made'),
                dict(name='z', data_root='two', split='made', pictures_of=['chexpert']),
            ],
            protocols=[PROTOCOLS[1]],
            baseline=None,
        )
    )
    marked = {('a', 'x'), ('c', 'y'), ('d', 'z')}
    assert {
        (task['encoder']['name'], task['dataset']['name'])
        for task in planned.tasks.values()
        if task['allow_seen']
    } == marked
    # 'x' is an entry, of the set 'one'; 'one' is an entry, of the set 'two'.
    assert [note[:25] for note in planned.notes] == [
        'a: trained_on names one, ',
        'b: trained_on names x, an',
    ]
    assert 'take the name of its image set: one or ' in planned.notes[1]
    run_here(planned)
    assert seen_in(planned) == marked


def with_record(folder, dataset, contents, patients=()):
    """Weights whose file says what they were trained on."""
    shown = Shown(
        'pretrain',
        dataset,
        'made',
        '',
        (),
        frozenset(content[:16] for content in contents),
        frozenset(patients),
    )
    weights = torch.load(folder / 'small.pth')
    torch.save(attach(dict(state_dict=weights), Seen((shown,))), folder / 'known.pth')
    return dict(name='a', encoder='small.py', checkpoint='known.pth')


def test_marks_follow_the_record_of_the_weights(folder):
    """It marks, and allows nothing: what is refused stays so."""
    write_set(folder / 'nih1000')
    more = dict(
        datasets=[
            dict(name='x', data_root='nih1000', split='made'),
            dict(name='two', data_root='two', split='made'),
        ],
        protocols=[PROTOCOLS[1]],
        baseline=None,
    )
    other = with_record(folder, 'nih1000', ['f' * 16])
    planned = plan(write_table(folder, encoders=[other], **more))
    assert not any(task['allow_seen'] for task in planned.tasks.values())
    run_here(planned)
    assert seen_in(planned) == {('a', 'x')}
    # Pictures of a set of one's own, which the record knows by their content.
    infos = open_store('two', 'classification').infos()
    own = with_record(folder, 'mine', [info.content_sha256 for info in infos])
    planned = plan(write_table(folder, encoders=[own], **more), datasets=['two'])
    run_here(planned)
    assert seen_in(planned) == {('a', 'two')}


def test_results_by_hand(folder):
    planned = plan(write_table(folder), encoders=None)
    run_here(planned)
    found = {
        (c['encoder']['name'], c['dataset']['name'], c['protocol']): c
        for c in experiments.finished_cells(planned)
    }
    assert len(found) == 12
    encoder = load_encoder('small.py:small.pth')
    store = open_store('one', 'classification')
    rows = {name: row for row, name in enumerate(store.image_ids)}
    features = np.stack(
        [
            encoder(encoder.preprocessing(store.read(row))[None])[0].numpy()
            for row in range(len(store))
        ]
    )
    labels = store.labels
    split = load_split('one', 'made')
    parts = {n: np.array([rows[i] for i in split[n]]) for n in ('train', 'val', 'test')}
    quality = {}
    for cost in (1.0, 0.01):
        model = LogisticRegression(C=cost, max_iter=1000)
        model.fit(features[parts['train']].astype(float), labels[parts['train']])
        chances = model.predict_proba(features[parts['val']])[:, 1]
        quality[cost] = roc_auc_score(labels[parts['val']], chances)
    best = max(quality, key=lambda cost: (quality[cost], cost))
    both = np.concatenate([parts['train'], parts['val']])
    model = LogisticRegression(C=best, max_iter=1000)
    model.fit(features[both].astype(float), labels[both])
    chances = model.predict_proba(features[parts['test']])

    cell = found['a', 'one', 'linear']
    assert cell['facts']['fits'][0]['cost'] == best
    ids = cell['predictions']['image_ids']
    assert sorted(ids) == sorted(split['test'])
    order = [ids.index(store.image_ids[row]) for row in parts['test']]
    np.testing.assert_allclose(
        np.array(cell['predictions']['probabilities'])[order], chances, atol=2e-3
    )
    drawn = cell['drawn']
    assert len(drawn['accuracy']) == 51
    truth = labels[parts['test']]
    assert drawn['accuracy'][0] == pytest.approx(
        (
            np.array(cell['predictions']['probabilities'])[order].argmax(1) == truth
        ).mean(),
        abs=1e-5,
    )
    assert cell['notes'] == [
        "only 4 test patients: Student's intervals, which expect a symmetrical "
        'spread; look at the single cases'
    ]
    assert cell['patients'] == 4  # those that the interval is over
    assert cell['split'] == 'made' and cell['split_hash'] == split.hash
    # The episodes are the same for all encoders.
    digests = {found[e, 'one', 'few_shot']['digest'] for e in 'ar'}
    assert len(digests) == 1
    assert found['a', 'one', 'few_shot']['facts']['by_patient']


def test_small_pictures_are_an_encoder(folder):
    """It has no weights; its features are pixels, whatever the seed."""
    entry = dict(name='pixels', encoder='random:raw-pixels')
    path = write_table(folder, encoders=[entry], baseline=None, seeds=[0, 1])
    planned = plan(path, datasets=['one'], protocols=['knn'])
    run_here(planned)
    first, second = experiments.finished_cells(planned)
    assert first['predictions'] == second['predictions']


def test_two_commands_with_other_protocols_share_a_folder(folder):
    """Each does what it was asked for, whichever wrote its task last."""
    path = write_table(folder)
    both = [plan(path, ['a'], ['one'], [protocol]) for protocol in ('knn', 'linear')]
    [[first], [second]] = [planned.steps.values() for planned in both]
    assert first.folder == second.folder
    for planned in both:
        planned.write_tasks()
    frozen.run_task(Path(first.command[-1]), lambda line: None)
    assert first.done and not second.done
    frozen.run_task(Path(second.command[-1]), lambda line: None)
    assert second.done


def test_cross_validation_tests_every_image_once(folder):
    protocols = [
        dict(kind='linear', costs=[1.0], folds=4),
        dict(kind='knn', k=2, folds=4),
    ]
    planned = plan(write_table(folder, protocols=protocols), encoders=['a'])
    run_here(planned)
    for cell in experiments.finished_cells(planned):
        assert cell['predictions']['image_ids'] == sorted(
            open_store('one', 'classification').image_ids
        )
        assert cell['patients'] == 16
        # Probabilities of two fits have no common order.
        folds, values, targets = (
            np.array(cell['predictions'][name])
            for name in ('folds', 'probabilities', 'targets')
        )
        right = pairs = 0.0
        for fold in range(4):
            of = folds == fold
            count = targets[of, 1].sum() * (1 - targets[of, 1]).sum()
            pairs += count
            right += count * roc_auc_score(targets[of, 1], values[of, 1])
        assert cell['drawn']['macro AUROC'][0] == pytest.approx(right / pairs, abs=1e-4)
    task = json.loads(Path(next(iter(planned.steps.values())).command[-1]).read_text())
    made = frozen.FrozenSet(task, lambda line: None)
    patients = np.array(made.everything.patients)
    for rows in made.rounds(4):
        sides = [set(patients[part]) for part in rows.values()]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
        assert sum(map(len, rows.values())) == 48
    with pytest.raises(UserError, match='one has 16 patients; folds=17'):
        made.rounds(17)


def test_compat_parts_images_by_a_shuffle(folder):
    """First four fifths of pandas' shuffle with seed 42; hard decisions scored."""
    planned = plan(write_table(folder, mode='compat'), encoders=['a'], datasets=['one'])
    run_here(planned)
    found = {c['protocol']: c for c in experiments.finished_cells(planned)}
    names = list(open_store('one', 'classification').image_ids)
    order = pd.Series(names).sample(frac=1, random_state=42).tolist()
    count = int(0.8 * len(names))
    linear = found['linear']
    assert sorted(linear['predictions']['image_ids']) == sorted(order[count:])
    assert linear['images']['val'] == count // 5
    truth = np.array(linear['predictions']['targets'])[:, 1]
    decided = np.array(linear['predictions']['probabilities']).argmax(1)
    assert linear['drawn']['auc'][0] == pytest.approx(
        roc_auc_score(truth, decided), abs=1e-5
    )
    assert linear['facts']['chosen_by'] == 'accuracy'
    assert linear['settings']['max_iter'] == 100
    assert not found['few_shot']['facts']['by_patient']
    assert {c['mode'] for c in found.values()} == {'compat'}


def test_several_labels_have_no_episodes(folder):
    write_set(folder / 'many', task='multi-label')
    data = [dict(name='many', data_root='many', split='made')]
    planned = plan(write_table(folder, datasets=data))
    assert planned.notes == ['many has several labels an image: no few_shot']
    assert {c.protocol.name for c in planned.cells} == {'knn', 'linear'}
    run_here(planned)
    for cell in experiments.finished_cells(planned):
        assert list(cell['drawn']) == ['macro AUROC']


@pytest.mark.parametrize(
    'protocol, message',
    [
        (dict(kind='few_shot', shots=30), r'with at most 9 shots|at most \d+'),
        (dict(kind='knn', k=50), 'one has 36 images to look neighbours up in'),
    ],
)
def test_too_few_images(folder, protocol, message):
    protocols = [dict(protocol, name='x'), PROTOCOLS[1]]
    planned = plan(write_table(folder, protocols=protocols), ['a'], ['one'])
    with pytest.raises(UserError, match=f'x: .*({message})'):
        run_here(planned)
    # The others are done all the same.
    assert [c['protocol'] for c in experiments.finished_cells(planned)] == ['knn']


QUICK = {
    **{
        f'{name}_dataloader.{key}': value
        for name in ('train', 'val', 'test')
        for key, value in (('num_workers', 0), ('persistent_workers', False))
    },
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 1,
    'train_dataloader.batch_size': 8,
    'default_hooks.checkpoint.interval': 1,
}
RATE, DECAY = (f'optim_wrapper.optimizer.{name}' for name in ('lr', 'weight_decay'))


def search_table(folder, mode, points=2):
    return write_table(
        folder,
        mode=mode,
        datasets=[dict(name='x', data_root='one', split='made')],
        protocols=[dict(kind='finetune', search=points, options=QUICK)],
        baseline=None,
    )


def finish(step, scores, monitor):
    """Pretend that a training has validated with these scores."""
    log = step.folder / 'now' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    lines = [{'loss': 1.0, 'step': 1}]
    lines += [{monitor: value, 'step': n + 1} for n, value in enumerate(scores)]
    log.write_text('\n'.join(map(json.dumps, lines)), encoding='utf-8')
    for name in ('iter_2.pth', f'best_{monitor.replace("/", "_")}_iter_1.pth'):
        if step.best or not name.startswith('best'):
            (step.folder / name).touch()
    (step.folder / 'last_checkpoint').write_text(str(step.folder / 'iter_2.pth'))
    (step.folder / 'done.json').write_text('{}')


def test_the_grid_of_a_search(folder):
    """Four rates from 1e-1 down, with no decay and four from 1e-6 up, by the rate."""
    table = experiments.load_transfer(search_table(folder, 'strict', 4))
    grid = [(p[RATE], p[DECAY] * p[RATE]) for p in table.protocols[0].grid]
    rates, decays = (1e-1, 1e-2, 1e-3, 1e-4), (0, 1e-6, 1e-5, 1e-4, 1e-3)
    assert grid == [
        (pytest.approx(rate), pytest.approx(decay))
        for rate in rates
        for decay in decays
    ]


def test_validation_chooses_the_settings_of_fine_tuning(folder):
    """The best weights of the best training are tested, once all are done."""
    planned = plan(search_table(folder, 'strict'), encoders=['a'])
    *trained, test = planned.steps.values()
    assert [step.kind for step in trained] == ['train'] * 6
    assert test.needs == tuple(step.key for step in trained)
    monitor = 'classification/macro_AUROC'
    for number, step in enumerate(trained):
        command = experiments.command_of(test, planned.engine, planned.steps)
        assert '<best of 6 trainings>' in command
        finish(step, [0.5, 0.9 if number == 4 else 0.6, 0.1 * number], monitor)
    command = experiments.command_of(test, planned.engine, planned.steps)
    [weights] = [text for text in command if 'best_' in text]
    assert Path(weights).parent.resolve() == trained[4].folder.resolve()


def test_compat_fits_anew_with_the_chosen_settings(folder):
    """The last score counts, without early stopping; then train + val."""
    planned = plan(search_table(folder, 'compat'), encoders=['a'])
    *tried, again, test = planned.steps.values()
    assert len(tried) == 6 and test.needs == (again.key,)
    monitor = 'classification/accuracy'
    for number, step in enumerate(tried):
        assert not step.best
        finish(step, [0.9, 0.8 if number in (3, 5) else 0.7], monitor)
    command = experiments.command_of(again, planned.engine, planned.steps)
    chosen = tried[3].options  # of equal ones the first
    assert f'{RATE}={chosen[RATE]!r}' in command
    assert f'{DECAY}={chosen[DECAY]!r}' in command
    assert "train_dataloader.dataset.subset=['train', 'val']" in command
    assert 'val_cfg=None' in command
    (tried[0].folder / 'now' / 'vis_data' / 'scalars.json').write_text('{}')
    with pytest.raises(UserError, match='has no classification/accuracy of a valid'):
        experiments.command_of(again, planned.engine, planned.steps)


@pytest.mark.slow
def test_a_search_by_the_tool(folder):
    search_table(folder, 'compat')
    done = tools.run('transfer.py', 'table.yaml', '--encoders', 'a', folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '8 steps, 0 finished before' in done.stdout
    planned = plan(folder / 'table.yaml', encoders=['a'])
    [cell] = experiments.finished_cells(planned)
    tried = cell['facts']['search']['tried']
    best = max(tried, key=lambda one: one['score'])
    assert len(tried) == 6 and cell['facts']['search']['chosen'] == best['options']
    assert any('chosen among 6 by validation' in note for note in cell['notes'])
    [again] = [s for s in planned.steps.values() if s.kind == 'train' and s.choices]
    log = (again.folder / 'run.log').read_text()
    assert f'{RATE}={best["options"][RATE]!r}' in log
    assert str(again.folder) in (planned.cells[0].path / 'run.log').read_text()


@pytest.mark.slow
def test_fine_tuning_by_the_tool(folder):
    """The weights that were best are tested; what is finished is not made again."""
    write_set(folder / 'stoic')  # judged by the mean accuracy of classes
    write_table(
        folder,
        mode='compat',
        datasets=[dict(name='x', data_root='stoic', split='made')],
        protocols=[dict(kind='finetune', name='tuned', options=QUICK)],
        baseline=None,
    )
    command = ('transfer.py', 'table.yaml', '--encoders', 'a')
    done = tools.run(*command, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '2 steps, 0 finished before' in done.stdout
    planned = plan(folder / 'table.yaml', encoders=['a'])
    [cell] = experiments.finished_cells(planned)
    assert (cell['mode'], cell['protocol']) == ('compat', 'tuned')
    assert 'chosen by mean per-class accuracy' in cell['rules']
    assert cell['dataset']['metric'] == 'mean per-class accuracy'
    [train] = [step for step in planned.steps.values() if step.kind == 'train']
    [best] = train.folder.glob('best_classification_macro_recall*.pth')
    state = torch.load(best, weights_only=False)['state_dict']
    encoder = load_encoder('random:small.py')
    prefix = 'backbone.encoder.backbone.'
    encoder.backbone.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    store = open_store('stoic', 'classification')
    rows = [store.index_of(name) for name in cell['predictions']['image_ids']]
    images = torch.stack([encoder.preprocessing(store.read(row)) for row in rows])
    logits = encoder(images) @ state['head.fc.weight'].T + state['head.fc.bias']
    np.testing.assert_allclose(
        cell['predictions']['probabilities'], logits.softmax(1).numpy(), atol=2e-3
    )
    decided = np.array(cell['predictions']['probabilities']).argmax(1)
    truth = np.array(cell['predictions']['targets']).argmax(1)
    expected = balanced_accuracy_score(truth, decided)
    assert cell['drawn']['mean per-class accuracy'][0] == pytest.approx(
        expected, abs=1e-5
    )
    text = (folder / 'work_dirs/transfer/table/transfer.md').read_text()
    assert '## tuned: mean per-class accuracy' in text
    # The test alone is made again; then nothing.
    time_of_best = best.stat().st_mtime_ns
    shutil.rmtree(planned.cells[0].path)
    again = tools.run(*command, folder=folder)
    assert '2 steps, 1 finished before' in again.stdout, again.stdout + again.stderr
    assert best.stat().st_mtime_ns == time_of_best
    [other] = experiments.finished_cells(planned)
    assert other['predictions'] == cell['predictions']
    third = tools.run(*command, folder=folder)
    assert '2 steps, 2 finished before' in third.stdout


def start(folder):
    return subprocess.Popen(
        [sys.executable, ROOT / 'tools' / 'transfer.py', 'table.yaml'],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        # A suite in the background ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def children_of(process):
    """Steps run in sessions of their own, so that they survive their parent."""
    listed = subprocess.run(
        ['ps', '-o', 'pid=', '--ppid', str(process.pid)], capture_output=True, text=True
    )
    return [int(pid) for pid in listed.stdout.split()]


@pytest.mark.slow
@pytest.mark.parametrize('end', ['asked', 'killed'])
def test_a_table_is_killed_and_resumed(folder, end):
    """Whole files stay, nothing is computed twice, one result for 1 and 2 jobs.

    Asked to end by Ctrl-C; or gone at once with all that it has started, as when
    the machine stops.
    """
    write_table(folder)
    process = start(folder)
    deadline = time.monotonic() + 300
    while not list(folder.glob('runs/*/few_shot-*.json')):
        assert process.poll() is None and time.monotonic() < deadline, (
            process.stdout.read()
        )
        time.sleep(0.05)
    if end == 'asked':
        process.send_signal(signal.SIGINT)
    else:
        steps = children_of(process)
        process.kill()
        for pid in steps:
            os.killpg(pid, signal.SIGKILL)
    process.wait(60)
    kept = {
        path: path.stat().st_mtime_ns
        for path in folder.glob('runs/*/*-*.json')
        if not path.name.startswith('task')
    }
    assert kept and len(kept) < 12
    for path in kept:
        json.loads(path.read_text())
    command = ('transfer.py', 'table.yaml')
    done = tools.run(*command, '--jobs', 2, '--export-features', 'npy', folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    out = folder / 'work_dirs' / 'transfer' / 'table'
    lines = [
        json.loads(line)
        for line in (out / 'transfer.jsonl').read_text().split('\n')[:-1]
    ]
    assert len(lines) == 12
    frame = pd.read_csv(out / 'transfer.csv')
    assert set(frame['score']) == {'accuracy', 'mean per-class accuracy', 'macro AUROC'}
    assert frame.loc[frame.encoder == 'a', 'difference'].notna().all()
    assert frame.loc[frame.encoder == 'r', 'difference'].isna().all()
    seen = frame.groupby(['encoder', 'dataset'])['seen'].first()
    assert seen['a', 'one'] and seen.sum() == 1
    assert '†' in (out / 'transfer.md').read_text()
    assert (out / 'transfer.png').stat().st_size > 1000
    page = (out / 'report.html').read_text()
    assert 'nothing learnt' in page and 'src="data:image/png' in page
    features = np.load(folder / 'npy' / 'a-one.npy')
    ids = pd.read_csv(folder / 'npy' / 'a-one.csv')
    assert features.shape == (48, 64) and list(ids['subset'].unique()) != ['']
    # A second run computes nothing.
    again = tools.run(*command, folder=folder)
    assert '4 steps, 4 finished before' in again.stdout
    dry = tools.run(*command, '--dry-run', folder=folder).stdout
    assert dry.count('[done]') == 4 and '4 steps, 4 finished; 12 results' in dry
    # All numbers are those of one job that was let run.
    write_table(folder, runs_dir='whole')
    assert tools.run(*command, '--out', 'alone', folder=folder).returncode == 0
    times = ('seconds',)
    for line, other in zip(
        lines, (folder / 'alone' / 'transfer.jsonl').read_text().splitlines()
    ):
        other = json.loads(other)
        assert {k: v for k, v in line.items() if k not in times} == {
            k: v for k, v in other.items() if k not in times
        }
    assert (folder / 'alone' / 'transfer.csv').read_text() == (
        out / 'transfer.csv'
    ).read_text()
