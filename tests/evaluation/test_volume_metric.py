import csv
import json
import logging

import nibabel as nib
import numpy as np
import pytest
import torch
from mmengine.registry import METRICS

from medssl_mm.errors import UserError
from medssl_mm.evaluation import VolumeMetric
from medssl_mm.evaluation.volume_scores import score_case
from medssl_mm.store import StoreWriter
from medssl_mm.store.orientation import canonicalize
from tests.distributed import run_processes

CLASSES = ('background', 'liver', 'spleen', 'left adrenal')
AFFINE = np.array([[-0.8, 0, 0, 9], [0, 0.7, 0, 3], [0, 0, 2.5, 0], [0, 0, 0, 1]])


def volume(seed, shape=(12, 10, 6)):
    """A label on its source grid (x, y, z); class 3 is in no case."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    x = rng.integers(1, 4)
    label[x : x + 5, 2:6, 1:5] = 1
    label[8:11, 5:9, 2:4] = 2
    return label


@pytest.fixture
def store(tmp_path):
    """Three patients, four cases, one of them labelled on three slices."""
    writer = StoreWriter.create(tmp_path / 'store', 'made', 'CT', 'HU', CLASSES)
    for index, (case, patient) in enumerate(
        [('a1', 'a'), ('a2', 'a'), ('b1', 'b'), ('c1', 'c')]
    ):
        label, affine, info = canonicalize(volume(index), AFFINE)
        image = (label * 40).astype(np.int16)
        image[0, 0, 0] = index
        writer.add_case(
            case,
            image,
            label,
            patient_id=patient,
            affine=affine,
            labelled_slices=(1, 2, 3) if case == 'c1' else None,
            **info,
        )
    return writer.finish()


def predictions(store, change=None):
    """Samples as mmseg hands them to a metric, slightly wrong."""
    samples = []
    for case_id in store.case_ids:
        info = store.case(case_id)
        label = np.roll(store.read_label_volume(case_id), 1, axis=2)
        if change is not None:
            label = change(case_id, label)
        for index in info.labelled_slices or range(info.shape[0]):
            samples.append(
                dict(
                    case_id=case_id,
                    patient_id=info.patient_id,
                    slice_index=index,
                    spacing=info.spacing,
                    store_root=str(store.root),
                    protocol='made-up',
                    split_hash='abc123',
                    pred_sem_seg=dict(
                        data=torch.from_numpy(label[index][None].copy()).to(torch.int64)
                    ),
                )
            )
    return samples


def evaluate(samples, classes=CLASSES, batch=4, **kwargs):
    kwargs.setdefault('bootstrap_samples', 200)
    metric = METRICS.build(dict(type='medssl_mm.VolumeMetric', **kwargs))
    metric.dataset_meta = dict(classes=classes)
    for start in range(0, len(samples), batch):
        metric.process(None, samples[start : start + batch])
    return metric.evaluate(len(samples))


def test_equals_scores_of_the_source_volumes(store, tmp_path):
    """Against scores on the source grid, in its own axis order."""
    metrics = evaluate(predictions(store), out_dir=str(tmp_path / 'out'))
    with open(tmp_path / 'out' / 'cases.csv') as file:
        rows = {(row['case_id'], row['class']): row for row in csv.DictReader(file)}
    for index, case in enumerate(['a1', 'a2', 'b1']):
        reference = volume(index)
        # x of the store runs against or along x of the source.
        step = 1 if store.case(case).affine[0][0] == AFFINE[0, 0] else -1
        expected = score_case(
            np.roll(reference, step, axis=0), reference, 4, (0.8, 0.7, 2.5)
        )
        for name, score in zip(CLASSES[1:], expected):
            row = rows[case, name]
            for column in ('dice', 'hd95', 'nsd', 'volume_error'):
                value = score[column]
                found = float(row[column]) if row[column] else np.nan
                np.testing.assert_allclose(found, value, rtol=1e-6)
    dice = [
        [float(rows[case, name]['dice']) for case in store.case_ids]
        for name in ('liver', 'spleen')
    ]
    assert metrics['volume/Dice_liver'] == pytest.approx(np.mean(dice[0]))
    assert metrics['volume/mDice'] == pytest.approx(np.mean(dice))
    assert 'volume/Dice_left_adrenal' not in metrics  # absent everywhere
    assert rows['b1', 'left adrenal']['status'] == 'absent'


@pytest.mark.exact
def test_summary_says_what_was_done(store, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        evaluate(predictions(store), out_dir=str(tmp_path))
    summary = json.loads((tmp_path / 'metrics.json').read_text())
    assert summary['protocol'] == 'made-up'
    assert summary['split_hash'] == 'abc123'
    assert (summary['cases'], summary['patients']) == (4, 3)
    assert 'monai' in summary['versions']
    assert 'Missed or invented class: Dice 0' in summary['policy']
    liver = summary['per_class']['liver']
    assert liver['dice']['low'] <= liver['dice']['mean'] <= liver['dice']['high']
    assert summary['per_class']['left adrenal']['counts']['absent'] == 4
    assert any('labelled on some slices' in n for n in summary['notes'])
    assert any('only 3 patients' in n for n in summary['notes'])


@pytest.mark.exact
def test_order_and_padding_of_the_sampler_do_not_matter(store):
    samples = predictions(store)
    expected = evaluate(samples)
    shuffled = [samples[i] for i in torch.randperm(len(samples))]
    assert evaluate(shuffled + samples[:3], batch=5) == expected


def test_missed_and_invented_organs(store, tmp_path):

    def change(case_id, label):
        label = label.copy()
        if case_id == 'a1':
            label[label == 2] = 0
        if case_id == 'b1':
            label[0, 0, 0] = 3
        return label

    metrics = evaluate(predictions(store, change), out_dir=str(tmp_path))
    with open(tmp_path / 'cases.csv') as file:
        rows = {(row['case_id'], row['class']): row for row in csv.DictReader(file)}
    diagonal = np.linalg.norm(np.multiply((6, 10, 12), (2.5, 0.7, 0.8)))
    for key, status in (
        (('a1', 'spleen'), 'missed'),
        (('b1', 'left adrenal'), 'invented'),
    ):
        assert rows[key]['status'] == status
        assert float(rows[key]['dice']) == float(rows[key]['nsd']) == 0
        assert float(rows[key]['hd95']) == pytest.approx(diagonal)
    assert metrics['volume/Dice_left_adrenal'] == 0


def test_selected_classes_are_mapped_by_name(store):
    """Without the liver, the spleen becomes class 1."""

    def change(case_id, label):
        return np.where(label == 2, 1, 0).astype(np.uint8)

    full = evaluate(predictions(store))
    part = evaluate(predictions(store, change), classes=('background', 'spleen'))
    assert part['volume/Dice_spleen'] == full['volume/Dice_spleen']
    assert part['volume/mHD95'] <= full['volume/mHD95'] + 100


def test_quick_mode_has_the_same_dice_and_no_distances(store):
    full = evaluate(predictions(store))
    quick = evaluate(predictions(store), surface_metrics=False, bootstrap_samples=0)
    assert quick == {name: value for name, value in full.items() if 'Dice' in name}
    assert {'volume/mHD95', 'volume/mNSD'} <= set(full)


@pytest.mark.exact
def test_several_jobs_equal_one(store):
    assert evaluate(predictions(store), num_jobs=2) == evaluate(predictions(store))


def test_ground_truth_from_the_samples(store):
    samples = predictions(store)
    for sample in samples:
        label = store.read_label_slice(sample['case_id'], sample['slice_index'])
        sample['gt_sem_seg'] = dict(data=torch.from_numpy(label)[None])
        del sample['store_root']
    samples = [s for s in samples if s['case_id'] != 'c1']
    stored = [s for s in predictions(store) if s['case_id'] != 'c1']
    assert evaluate(samples) == pytest.approx(evaluate(stored))
    for sample in samples:
        sample['spacing'] = None
    assert 'volume/mHD95' not in evaluate(samples)


def test_predictions_on_the_source_grid(store, tmp_path):
    samples = [s for s in predictions(store) if s['case_id'] != 'c1']
    for sample in samples:
        label = store.read_label_slice(sample['case_id'], sample['slice_index'])
        sample['pred_sem_seg']['data'] = torch.from_numpy(label)[None]
    evaluate(samples, out_dir=str(tmp_path / 'o'), save_predictions=True)
    image = nib.load(tmp_path / 'o' / 'predictions' / 'b1.nii.gz')
    np.testing.assert_array_equal(np.asarray(image.dataobj), volume(2))
    np.testing.assert_allclose(image.affine, AFFINE)
    assert image.get_data_dtype() == np.uint8


@pytest.mark.exact
def test_incomplete_cases_stop_the_evaluation(store):
    samples = predictions(store)
    with pytest.raises(UserError, match=r'case a1: 1 of 6 slices were not predicted'):
        evaluate(samples[1:])
    twice = dict(samples[0])
    twice['pred_sem_seg'] = dict(
        data=1 - samples[0]['pred_sem_seg']['data'].clamp(max=1)
    )
    with pytest.raises(UserError, match='slice 0 was predicted twice with different'):
        evaluate([*samples, twice])
    other = dict(samples[-1], slice_index=5)
    with pytest.raises(UserError, match='slice 5 was predicted but has no'):
        evaluate([*samples, other])


@pytest.mark.exact
def test_other_faults_are_named(store):
    samples = predictions(store)
    small = [
        dict(s, pred_sem_seg=dict(data=s['pred_sem_seg']['data'][:, :4]))
        for s in samples
    ]
    with pytest.raises(UserError, match=r'\(4, 12\) and the stored slices'):
        evaluate(small)
    with pytest.raises(UserError, match='case a1: the prediction holds'):
        evaluate(
            [
                dict(s, pred_sem_seg=dict(data=s['pred_sem_seg']['data'] + 3))
                for s in samples
            ]
        )
    with pytest.raises(UserError, match='nothing was predicted'):
        evaluate([])
    with pytest.raises(ValueError, match="needs 'slice_index'"):
        evaluate([dict(case_id='a')])
    with pytest.raises(ValueError, match='tolerance_mm=-1'):
        VolumeMetric(tolerance_mm=-1)


def _share(root):
    from medssl_mm.functional.distributed import rank
    from medssl_mm.store import open_store

    samples = predictions(open_store(root))
    # As a sampler does: interleaved, the second rank padded.
    mine = samples[rank() :: 2] + samples[: rank()]
    return evaluate(mine)


def _faulty_share(root):
    from medssl_mm.functional.distributed import rank
    from medssl_mm.store import open_store

    return evaluate(predictions(open_store(root))[1:][rank() :: 2])


@pytest.mark.exact
@pytest.mark.slow
def test_two_processes_equal_one(store):
    first, second = run_processes(_share, 2, str(store.root))
    assert first == second == evaluate(predictions(store))
    with pytest.raises(UserError, match='were not predicted'):
        run_processes(_faulty_share, 2, str(store.root))
