"""Data sets of transfer tables: what mode 'compat' makes of each, by protocol."""

from pathlib import Path

import numpy as np
import pytest

from medssl_mm import experiments
from medssl_mm.analysis import few_shot
from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.encoders import load_encoder
from medssl_mm.experiments import frozen
from medssl_mm.store import open_store
from medssl_mm.store.image_writer import ImageStoreWriter
from medssl_mm.store.splits import Split, load_split, save_split
from tests.datasets.images import make_picture
from tests.experiments.made import PROTOCOLS, plan, run_here, write_set, write_table

GRADES = IMAGE_SETS['diabetic-retinopathy'].classes


def write_labelled(root, classes, label, count, split='', task='single-label'):
    """Images of a patient each, with a split that tests the last fifth."""
    uncertain = task == 'multi-label'
    writer = ImageStoreWriter.create(
        root, root.name, task, classes, 3, (20, 16), uncertain=uncertain
    )
    for number in range(count):
        writer.add_case(
            f'p{number:02d}',
            make_picture(number, 20)[:, :16],
            label(number),
            patient_id=f'p{number:02d}',
            source_file=f'{number}.png',
            source_stat=[(f'{number}.png', 1, 2)],
        )
    store = writer.finish()
    names, tested = list(map(str, store.image_ids)), count // 5
    parts = dict(
        train=names[: -2 * tested],
        val=names[-2 * tested : -tested],
        test=names[-tested:],
    )
    save_split(root, Split(split or f'{root.name}-patients', root.name, parts))


def plan_one(folder, name, mode='compat', protocols=PROTOCOLS, **entry):
    path = write_table(
        folder,
        mode=mode,
        datasets=[dict(name=name, **entry)],
        encoders=[dict(name='a', encoder='small.py', checkpoint='small.pth')],
        protocols=protocols,
        baseline=None,
    )
    return plan(path)


def opened(planned, protocol):
    """The features and labels of the step of a protocol; its part of the task."""
    for task in planned.tasks.values():
        for one in task['protocols']:
            if one['name'] == protocol:
                return frozen.FrozenSet(task, lambda line: None), one
    raise AssertionError(protocol)


def test_uncertain_findings_of_chexpert(folder):
    """Positive in episodes, negative in linear models, as the study had it."""
    classes = IMAGE_SETS['chexpert'].classes
    column = classes.index('Pleural Effusion')

    def label(number):  # absent, present, uncertain in turn
        return [number % 3 if n == column else 0 for n in range(len(classes))]

    root = folder / 'data' / 'chexpert'
    write_labelled(root, classes, label, 30, task='multi-label')
    planned = plan_one(folder, 'chexpert')
    assert len(planned.steps) == 2
    shares = {}
    for protocol, uncertain in (('few_shot', 'ones'), ('linear', 'zeros')):
        made, one = opened(planned, protocol)
        shares[protocol] = made.targets[:, 1].mean()
        assert made.images.subset('all').settings['uncertain'] == uncertain
        assert f"uncertain='{uncertain}'" in one['rules']
    assert shares == {'few_shot': pytest.approx(2 / 3), 'linear': pytest.approx(1 / 3)}
    run_here(planned)
    found = {c['protocol']: c for c in experiments.finished_cells(planned)}
    assert "uncertain='ones'" in found['few_shot']['rules']
    assert "uncertain='zeros'" in found['linear']['rules']
    assert found['linear']['mode'] == 'compat'
    # Both in a folder of their own, also with the features.
    paths = experiments.export_features(planned, 'npy', lambda line: None)
    assert {path.name for path in paths} == {
        f'a-chexpert{protocol}.{end}'
        for protocol in ('', '-knn+linear')
        for end in ('npy', 'csv')
    }
    # What the table says comes first; strict has one rule for all.
    told = plan_one(folder, 'chexpert', options=dict(uncertain='smooth'))
    assert len(told.steps) == 1
    strict = plan_one(folder, 'chexpert', 'strict')
    assert len(strict.steps) == 1
    assert all(
        not one['rules'] for t in strict.tasks.values() for one in t['protocols']
    )


def test_grades_of_eyepacs(folder):
    """Five in the study, chosen by the mean accuracy of classes; two in strict."""
    root = folder / 'data' / 'diabetic-retinopathy'
    write_labelled(root, GRADES, lambda number: number % 5, 40)
    protocols = [
        dict(kind='few_shot', shots=3, queries=2, episodes=20),
        dict(kind='linear', costs=[1.0, 0.01]),
        dict(kind='finetune', options={'train_cfg.max_iters': 2}),
    ]
    planned = plan_one(folder, 'diabetic-retinopathy', protocols=protocols)
    run = [step for step in planned.steps.values() if step.kind == 'frozen']
    for step in run:
        planned.write_tasks()
        frozen.run_task(Path(step.command[-1]), lambda line: None)
    found = {c['protocol']: c for c in experiments.finished_cells(planned)}
    assert found['few_shot']['classes'] == list(GRADES)
    assert found['few_shot']['facts']['ways'] == 5
    assert found['linear']['facts']['chosen_by'] == 'mean per-class accuracy'
    assert 'chosen by mean per-class accuracy' in found['linear']['rules']
    # The quality by which the cost was chosen is that score.
    made, _ = opened(planned, 'linear')
    quality = found['linear']['facts']['fits'][0]['validation']
    count = len(made.rows['val'])
    assert all(0 <= value <= 1 for value in quality.values()) and count == 6
    [train] = [step for step in planned.steps.values() if step.kind == 'train']
    for hook, key in (('early_stopping', 'monitor'), ('checkpoint', 'save_best')):
        name = train.options[f'default_hooks.{hook}.{key}']
        assert name == 'classification/macro_recall'
    assert 'images.binary' not in train.options
    strict = plan_one(folder, 'diabetic-retinopathy', 'strict', protocols)
    made, _ = opened(strict, 'linear')
    assert made.labels.classes == ('not referable', 'referable')


@pytest.mark.parametrize('name', ['stoic', 'own'])
def test_pictures_of_episodes(folder, name):
    """Prepared sets keep their proportions, others are squeezed: by hand."""
    root = folder / name
    write_labelled(root, ('no', 'yes'), lambda number: number % 2, 40)
    planned = plan_one(
        folder, name, protocols=PROTOCOLS[:1], data_root=name, split=f'{name}-patients'
    )
    run_here(planned)
    [found] = experiments.finished_cells(planned)
    shown = dict(resize_mode='exact', interpolation='bilinear', resize_to=18)
    if name == 'stoic':
        shown = dict(resize_mode='short', interpolation='bicubic', resize_to=16)
    encoder = load_encoder('small.py:small.pth')
    step = encoder.preprocessing.model_copy(update=shown)
    store = open_store(root, 'classification')
    features = [encoder(step(store.read(n))[None])[0].numpy() for n in range(40)]
    episodes = few_shot.draw_episodes(store.labels.tolist(), None, 2, 3, 2, 20, 0)
    expected = few_shot.episode_accuracies(np.stack(features), episodes)
    assert found['digest'] == episodes.digest
    np.testing.assert_allclose(found['drawn']['accuracy'], expected, atol=1e-6)
    words = 'shorter side' if name == 'stoic' else '1.15 times'
    assert sum(words in rule for rule in found['rules']) == 1


def test_published_test_images_of_cifar(folder):
    """The official split and all images, instead of a split drawn anew."""
    classes = IMAGE_SETS['cifar10'].classes
    root = folder / 'data' / 'cifar10'
    write_labelled(root, classes, lambda number: number % 2, 40, 'cifar10-official')
    official = load_split(root, 'cifar10-official')
    planned = plan_one(folder, 'cifar10')
    made, one = opened(planned, 'linear')
    parts = {name: set(made.images.subset(name).image_ids) for name in ('val', 'test')}
    assert parts['test'] == set(official['test'])
    train = sorted({*official['train'], *official['val']})
    order = np.arange(len(train))
    np.random.RandomState(0).shuffle(order)
    assert parts['val'] == {train[n] for n in order[: len(train) // 5]}
    assert any('cifar10-official' in rule for rule in one['rules'])
    made, one = opened(planned, 'few_shot')
    assert made.task['dataset']['pool'] is None
    assert any('from all images' in rule for rule in one['rules'])


def test_a_published_split_brings_its_pool(folder):
    """Also where the table names it; other splits by image draw from all."""
    root = folder / 'stoic'
    write_labelled(root, ('no', 'yes'), lambda number: number % 2, 40)
    names = list(map(str, open_store(root, 'classification').image_ids))
    parts = dict(train=names[:20], val=names[20:30], test=names[30:])
    save_split(root, Split('stoic-compat', 'stoic', parts, by='image'))
    save_split(root, Split('mine', 'stoic', parts, by='image'))
    pool = dict(test=names[:35])
    save_split(root, Split('stoic-compat-pool', 'stoic', pool, by='image'))
    for split in ('stoic-compat', 'stoic-patients'):
        planned = plan_one(folder, 'x', data_root='stoic', split=split)
        made, one = opened(planned, 'few_shot')
        assert made.task['dataset']['pool'] == tuple(names[:35])
        assert 'split stoic-compat' in one['rules']
    planned = plan_one(folder, 'x', data_root='stoic', split='mine')
    made, one = opened(planned, 'few_shot')
    assert made.task['dataset']['pool'] is None
    assert 'split mine, as the table has it' in one['rules']


def test_encoders_of_compat(folder):
    path = write_table(
        folder,
        mode='compat',
        encoders=[
            dict(name='lite', encoder='random:efficientnet-lite0'),
            'random:pirl',
        ],
        baseline=None,
    )
    planned = plan(path, datasets=['one'])
    facts = {c.encoder.entry.name: c.encoder.facts for c in planned.cells}
    assert facts['lite']['source'] == 'random:efficientnet-lite0_torch-padding'
    assert facts['lite']['rule'] == (
        'efficientnet-lite0_torch-padding for efficientnet-lite0'
    )
    assert facts['random:pirl']['rule'] == ''
    strict = plan(write_table(folder, encoders=['random:byol'], baseline=None))
    assert strict.cells[0].encoder.facts['source'] == 'random:byol'


def test_stores_smaller_than_encoders_ask_for(folder):
    planned = plan(
        write_table(
            folder,
            encoders=[
                dict(name='small', encoder='random:small.py'),
                dict(name='lite', encoder='random:efficientnet-lite0'),
            ],
            baseline=None,
        )
    )
    [note] = [note for note in planned.notes if note.startswith('one ')]
    assert 'stored at 16 px' in note
    assert 'lite (256)' in note and 'small' not in note


def test_one_plan_for_protocols_that_see_the_same(folder):
    write_set(folder / 'busi')
    planned = plan_one(folder, 'x', data_root='busi', split='made')
    assert len(planned.steps) == 1
    assert {one['name'] for t in planned.tasks.values() for one in t['protocols']} == {
        'few_shot',
        'knn',
        'linear',
    }
