import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, HOOKS

from medssl_mm.functional.nearest_neighbours import nearest_neighbour_probabilities
from medssl_mm.results import read_scalars
from tests.distributed import run_processes
from tests.engine.hooks.classified import knn, run, steady_encoder

TRAIN = dict(type='ToyClassified', patients='a', labels=(0, 1, 1), noise=False)
VAL = dict(type='ToyClassified', patients='b', size=7, noise=False)


def test_accuracy_is_that_of_the_nearest_neighbours(tmp_path):
    """Of the whole images' features, computed here by the network itself."""
    runner, _ = run(
        tmp_path, [knn(train_dataset=TRAIN, val_dataset=VAL)], **steady_encoder()
    )
    backbone = runner.model.backbone
    backbone.eval()
    sets = [DATASETS.build(settings) for settings in (TRAIN, VAL)]

    def features(data):
        images = torch.stack([data[i]['inputs'] for i in range(len(data))])
        return backbone(images)[-1].mean((2, 3))

    with torch.no_grad():
        bank, queries = map(features, sets)
    train, val = (
        torch.tensor([data.get_data_info(i)['gt_label'] for i in range(len(data))])
        for data in sets
    )
    targets = torch.nn.functional.one_hot(train, 2)
    found = nearest_neighbour_probabilities(queries, bank, targets, 3)
    accuracy = (found.argmax(1) == val).double().mean().item()
    logged = read_scalars(tmp_path)['probe/knn_accuracy']
    assert logged[:, 0].tolist() == [0, 4, 8]
    np.testing.assert_allclose(logged[:, 1], accuracy)


def _measure(work_dir, batch_size):
    probe = knn(train_dataset=TRAIN, val_dataset=VAL, eval_batch_size=2)
    run(work_dir, [probe], train_dataloader__batch_size=batch_size, **steady_encoder())


def test_two_processes_equal_one(tmp_path):
    run_processes(_measure, 1, str(tmp_path / 'one'), 8)
    run_processes(_measure, 2, str(tmp_path / 'two'), 4)
    one, two = (read_scalars(tmp_path / name) for name in ('one', 'two'))
    names = [name for name in one if name.startswith('probe/')]
    assert len(names) == 5
    for name in names:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6)


@pytest.mark.exact
def test_resumed_run_keeps_its_zero_line(tmp_path):
    runner, _ = run(tmp_path, [knn()], train_cfg__max_epochs=1)
    run(tmp_path, [knn()], resume='auto')
    saved = torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['knn_probe']
    start = read_scalars(tmp_path)['probe/knn_macro_AUROC'][0]
    assert start.tolist() == [0, saved['start_scores']['macro_AUROC']]
    last = sorted(tmp_path.glob('*/*.log'))[-1].read_text()
    assert f'(start {start[1]:.3f})' in last


@pytest.mark.exact
def test_more_neighbours_than_images(tmp_path):
    with pytest.raises(ValueError, match='k=20 neighbours of 12 images'):
        run(tmp_path, [knn(k=20)])


@pytest.mark.exact
@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(k=0), 'k must be 1 or more, got 0'),
        (dict(temperature=0.0), 'temperature must be above 0, got 0.0'),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        HOOKS.build(knn(**wrong))
