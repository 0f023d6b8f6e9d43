"""What both kinds of probes on classified images do alike."""

import json
import re

import numpy as np
import pytest
import torch

from medssl_mm.results import read_scalars
from tests.distributed import run_processes
from tests.engine.hooks import test_collapse_monitor_hook as toy
from tests.engine.hooks.classified import LOADED, knn, log_of, make, online, run

# A run is compared with itself; the rest are messages and what is written.
pytestmark = pytest.mark.exact

TOY_CLASSES = dict(type='ToyClassified', labels=(0, 1, 2), classes=('x', 'y', 'z'))


def assert_same(without, probed):
    assert len(without) == len(probed) > 0
    for step, (first, second) in enumerate(zip(without, probed)):
        for name in first:
            assert toy.same(first[name], second[name]), (step, name)


@pytest.mark.parametrize(
    'by_epoch, changes',
    [
        (True, dict()),
        (False, dict()),
        (True, dict(encoder='target')),
        pytest.param(True, dict(num_workers=1), marks=pytest.mark.slow),
    ],
)
def test_training_is_the_same_bit_for_bit(tmp_path, by_epoch, changes):
    _, without = run(tmp_path / 'without', by_epoch=by_epoch)
    settings = dict(by_epoch=by_epoch, interval=1 if by_epoch else 2, **changes)
    probes = [online(**settings), knn(**settings)]
    _, probed = run(tmp_path / 'with', probes, by_epoch=by_epoch)
    assert_same(without, probed)
    steps = [0, 4, 8] if by_epoch else [0, 2, 4, 5]
    curves = read_scalars(tmp_path / 'with')
    for name in ('online_macro_AUROC', 'knn_accuracy', 'online_loss'):
        assert curves[f'probe/{name}'][:, 0].tolist() == steps


def _two(work_dir, probes):
    return run(work_dir, probes)[1]


@pytest.mark.slow
def test_two_processes_train_the_same_bit_for_bit(tmp_path):
    without = run_processes(_two, 2, str(tmp_path / 'without'), [])
    probed = run_processes(_two, 2, str(tmp_path / 'with'), [online(), knn()])
    for first, second in zip(without, probed):
        assert_same(first, second)
    # The two differ in what they see, and in their running statistics.
    assert not toy.same(without[0][-1]['batch'], without[1][-1]['batch'])


def test_autocast_of_the_run_is_that_of_the_features(tmp_path):
    wrapper = dict(
        type='medssl_mm.AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.05)
    )
    _, without = run(tmp_path / 'without', optim_wrapper=wrapper)
    _, probed = run(tmp_path / 'with', [online(), knn()], optim_wrapper=wrapper)
    assert_same(without, probed)


def test_scores_are_written_everywhere(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    run(
        tmp_path,
        [online(lr=0.05), knn()],
        visualizer=dict(type='Visualizer', vis_backends=backends),
        default_hooks__logger=dict(type='LoggerHook', interval=1),
    )
    curves = read_scalars(tmp_path)
    scores = ('macro_AUROC', 'macro_AP', 'macro_AUPR', 'macro_F1', 'accuracy')
    names = {f'probe/{probe}_{s}' for probe in ('online', 'knn') for s in scores}
    assert {n for n in curves if n.startswith('probe/')} == {
        *names,
        'probe/online_loss',
    }
    assert curves['online_probe_loss'][:, 0].tolist() == list(range(1, 9))
    events = EventAccumulator(str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    for name in names:
        logged = [(e.step, e.value) for e in events.Scalars(name)]
        np.testing.assert_allclose(logged, curves[name], rtol=1e-6)
    log = log_of(tmp_path)
    start, end = curves['probe/online_macro_AUROC'][[0, -1], 1]
    assert f'online probe after iteration 0: macro_AUROC {start:.3f}, macro_AP' in log
    last = log.split('online probe after iteration 8: ')[1].splitlines()[0]
    assert last.startswith(f'macro_AUROC {end:.3f} (start {start:.3f}), macro_AP ')
    lines = [line for line in log.splitlines() if 'epoch 2/2 [4/4]' in line]
    middle = curves['probe/online_macro_AUROC'][1, 1]
    assert f'online macro_AUROC {middle:.3f} (start {start:.3f})' in lines[0]
    assert re.search(r'knn macro_AUROC \d\.\d{3} \(start \d\.\d{3}\)', lines[0])


def test_the_last_measurement_is_at_the_end(tmp_path):
    run(tmp_path, [online(interval=2), knn(interval=2)], train_cfg__max_epochs=3)
    curves = read_scalars(tmp_path)
    assert curves['probe/online_accuracy'][:, 0].tolist() == [0, 8, 12]
    assert curves['probe/knn_accuracy'][:, 0].tolist() == [0, 8, 12]


@pytest.mark.parametrize('probe', [online, knn])
def test_a_class_missing_in_validation_is_said_once(tmp_path, probe):
    train = dict(TOY_CLASSES, patients='a')
    val = dict(TOY_CLASSES, patients='b', labels=(0, 1), size=6)
    run(tmp_path, [probe(train_dataset=train, val_dataset=val)])
    log = log_of(tmp_path)
    assert log.count('z: present in no image of val_dataset, or in all') == 1
    text = next(tmp_path.glob('*/vis_data/scalars.json')).read_text()
    assert 'NaN' not in text and 'nan' not in log
    name = 'probe/knn' if probe is knn else 'probe/online'
    assert 0 <= read_scalars(tmp_path)[f'{name}_macro_AUROC'][-1, 1] <= 1


def test_validation_of_one_class_has_an_accuracy_only(tmp_path):
    val = dict(type='ToyClassified', patients='b', labels=(1,), size=6)
    run(tmp_path, [online(val_dataset=val)])
    names = {n for n in read_scalars(tmp_path) if n.startswith('probe/')}
    assert names == {f'probe/online_{s}' for s in ('macro_F1', 'accuracy', 'loss')}
    assert 'across, along: present in no image of val_dataset' in log_of(tmp_path)


def test_several_labels(tmp_path):
    data = dict(type='ToyClassified', labels=([0], [1], [0, 1], []))
    datasets = dict(
        train_dataset=dict(data, patients='a'),
        val_dataset=dict(data, patients='b', size=8),
    )
    run(tmp_path, [online(**datasets, class_weights='balanced'), knn(**datasets)])
    curves = read_scalars(tmp_path)
    assert 0 <= curves['probe/online_macro_AUROC'][-1, 1] <= 1
    assert 0 <= curves['probe/knn_macro_AP'][-1, 1] <= 1


def _loaded(work_dir, probes):
    LOADED.clear()
    run(work_dir, probes, train_cfg__max_epochs=1)
    return LOADED


@pytest.mark.parametrize('probe', [online, knn])
@pytest.mark.parametrize('processes', [1, 2])
def test_each_validation_image_is_scored_once(tmp_path, probe, processes):
    """At a measurement; here there are two. One more look at the first image."""
    val = dict(type='ToyClassified', patients='b', size=7)
    probes = [probe(val_dataset=val, eval_batch_size=2)]
    loaded = run_processes(_loaded, processes, str(tmp_path), probes)
    rows = [row for part in loaded for row in part['b'][1:]]
    assert sorted(rows) == sorted(2 * list(range(7)))


@pytest.mark.parametrize(
    'wrong, message',
    [
        (
            dict(val_dataset=dict(type='ToyClassified', patients='a')),
            'patients in both train_dataset and val_dataset: a0, a1, a2, a3 and 2 more',
        ),
        (
            dict(train_dataset=dict(type='ToyClassified', labels=(0, 1, None))),
            '4 of the 12 images of train_dataset have no label, the first is a.png#2',
        ),
        (
            dict(val_dataset=dict(type='ToyClassified', patients='b', labels=(-1,))),
            '12 of the 12 images of val_dataset have no label',
        ),
        (
            dict(train_dataset=dict(type='ToyClassified', labels=(1,))),
            r'all 12 images of train_dataset have the same labels \(along\)',
        ),
        (
            dict(val_dataset=dict(type='ToyClassified', patients='b', classes='xy')),
            r"train_dataset has the classes \['across', 'along'\], val_dataset \['x'",
        ),
        (
            dict(train_dataset=dict(type='ToyClassified', channels=3)),
            r'train_dataset have 3 channel.*\(a.png#0\), .*pretraining 1; take data',
        ),
        (
            dict(train_dataset=dict(type='ToyClassified', ragged=True)),
            r'images must all have one size, found \[\(32, 32\), \(40, 40\)\]',
        ),
        (dict(train_dataset=dict(type='ToyViews')), 'ToyViews, which tells no labels'),
        (dict(encoder='teacher'), "has no encoder 'teacher', but 'online'"),
        (dict(by_epoch=True), None),
    ],
)
@pytest.mark.parametrize('probe', [online, knn])
def test_unfit_data(tmp_path, probe, wrong, message):
    by_epoch = message is not None
    message = message or 'interval=1 counts epochs, but the run counts iterations'
    with pytest.raises(ValueError, match=message):
        run(tmp_path, [probe(**wrong)], by_epoch=by_epoch)


def test_two_probes_of_one_name(tmp_path):
    with pytest.raises(ValueError, match="two probes are called 'online'; give each"):
        run(tmp_path, [online(), online()])
    run(tmp_path, [online(), online(name='other')])
    curves = read_scalars(tmp_path)
    np.testing.assert_array_equal(
        curves['probe/other_macro_AUROC'], curves['probe/online_macro_AUROC']
    )


@pytest.mark.parametrize(
    'pretrained, scored, digits, warning',
    [
        # Both name their first training picture train-00000.
        ('cifar10', 'cifar100', 1, ''),
        # RSNA's pictures are NIH's; by NIH's names they can be compared.
        ('nih-cxr14', 'rsna', 1, '6 of the 6 patients of val_dataset are patients'),
        ('nih-cxr14', 'rsna', 8, 'Import rsna with the names of nih-cxr14 (tools'),
        ('rsna', 'nih-cxr14', 8, 'Import rsna with the names of nih-cxr14 (tools'),
        ('rsna', 'rsna', 8, ''),
        ('nih1000', 'image-table', 1, '6 of the 6 patients of val_dataset'),
    ],
)
def test_patients_of_two_data_sets(tmp_path, pretrained, scored, digits, warning):
    def images(patients, data_set, **changes):
        return dict(
            type='ToyClassified', patients=patients, data_set=data_set, **changes
        )

    probe = knn(val_dataset=images('b', scored), train_dataset=images('a', scored))
    pretraining = images('b', pretrained, digits=digits, views=2, size=16)
    runner, _ = make(tmp_path, [probe], train_dataloader__dataset=pretraining)
    runner.call_hook('before_train')
    log = log_of(tmp_path)
    assert warning in log
    assert log.count('--patients FILE') == ('Import' in warning)
    assert log.count('are patients of the pretraining') == ('6 of' in warning)


def test_patients_and_size_of_the_pretraining(tmp_path):
    """Warnings with the number of patients, and with both sizes."""
    pretraining = dict(type='ToyClassified', patients='b', size=16, views=2)
    val = dict(type='ToyClassified', patients='b', size=12, pixels=40)
    run(tmp_path, [knn(val_dataset=val)], train_dataloader__dataset=pretraining)
    log = log_of(tmp_path)
    assert '6 of the 6 patients of val_dataset are patients of the pretraining' in log
    assert (
        'images of val_dataset are 40 x 40 px (b.png#0), views of the pretraining '
        '32 x 32: '
    ) in log
    assert 'Bring them to 32 x 32 in the pipeline of the probe' in log
    assert 'images of train_dataset are' not in log


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(interval=0), 'interval must be 1 or more, got 0'),
        (dict(eval_batch_size=0), 'eval_batch_size must be 1 or more'),
        (dict(num_workers=-1), 'num_workers and seed must be 0 or more, got -1'),
        (dict(name='my probe'), "name is made of letters, .*; got 'my probe'"),
    ],
)
@pytest.mark.parametrize('probe', [online, knn])
def test_wrong_settings(probe, wrong, message):
    from mmengine.registry import HOOKS

    with pytest.raises(ValueError, match=message):
        HOOKS.build(probe(**wrong))


def test_nothing_of_a_probe_is_among_the_weights(tmp_path):
    runner, _ = run(tmp_path, [online(), knn()])
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)
    assert set(checkpoint['state_dict']) == set(runner.model.state_dict())
    assert not any('probe' in name for name in checkpoint['state_dict'])
    parameters = sum(p.numel() for p in runner.model.parameters())
    optimized = runner.optim_wrapper.optimizer.param_groups
    assert sum(p.numel() for g in optimized for p in g['params']) == parameters
    assert json.dumps(checkpoint['knn_probe'])  # plain numbers
