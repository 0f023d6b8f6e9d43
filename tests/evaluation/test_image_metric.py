import csv
import json

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS

from medssl_mm.errors import UserError
from medssl_mm.evaluation import ClassificationMetric
from medssl_mm.results import Run, summarize
from medssl_mm.results.images import (
    read_predictions,
    resample_predictions,
)
from medssl_mm.statistics.classification import score
from tests.distributed import run_processes

CLASSES = ('Mass', 'Pleural effusion', 'Hernia')


def samples(multi_label=True, images=40, seed=0):
    """Samples as mmpretrain hands them to a metric."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for index in range(images):
        logits = torch.randn(3, generator=generator)
        if multi_label:
            chance = torch.rand(3, generator=generator)
            labels = torch.where(logits.sigmoid() > chance)[0]
            labels = labels[labels < 2]  # nobody has the last class
            values = logits.sigmoid()
        else:
            labels = logits.argmax()[None]
            values = (logits / 3).softmax(0)
            values = values.roll(1) if index % 3 else values
        made.append(
            dict(
                image_id=f'image{index:03}',
                patient_id=f'p{index // 2}',
                gt_label=labels,
                pred_score=values,
                protocol='made-up',
                split_hash='abc123',
            )
        )
    return made


def evaluate(made, task='multi-label', classes=CLASSES, size=None, **kwargs):
    kwargs.setdefault('bootstrap_samples', 100)
    metric = METRICS.build(dict(type='medssl_mm.ClassificationMetric', **kwargs))
    metric.dataset_meta = dict(classes=classes, task=task)
    for start in range(0, len(made), 7):
        metric.process(None, made[start : start + 7])
    ids = {sample['image_id'] for sample in made}
    return metric.evaluate(len(ids) if size is None else size)


@pytest.mark.parametrize('task', ['multi-label', 'single-label'])
def test_files_hold_what_was_scored(task, tmp_path):
    made = samples(task == 'multi-label')
    found = evaluate(made, task, out_dir=str(tmp_path / 'out'))
    predictions = read_predictions(tmp_path / 'out')
    assert predictions.classes == CLASSES
    assert predictions.multi_label == (task == 'multi-label')
    assert predictions.image_ids == tuple(s['image_id'] for s in made)
    assert predictions.patients == tuple(s['patient_id'] for s in made)
    # Bit for bit, so that a score from the table is that of the run.
    np.testing.assert_array_equal(
        predictions.probabilities.astype(np.float32),
        torch.stack([s['pred_score'] for s in made]).numpy(),
    )
    for row, sample in zip(predictions.targets, made):
        assert np.flatnonzero(row).tolist() == sample['gt_label'].tolist()
    again = score(predictions)
    summary = json.loads((tmp_path / 'out/metrics.json').read_text())
    assert summary['mean']['auroc']['mean'] == again.macro_auroc
    assert found['classification/macro_AUROC'] == again.macro_auroc
    assert found['classification/AUROC_Pleural_effusion'] == again.auroc[1]
    assert found['classification/macro_F1'] == again.macro_f1
    assert found['classification/accuracy'] == again.accuracy
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
        'metrics.json',
        'predictions.csv',
    ]


def test_summary_says_what_was_done(tmp_path):
    made = [
        dict(sample, img_path=f'images.b2nd#{index}', store_root='data/toy')
        for index, sample in enumerate(samples())
    ]
    values = evaluate(made, out_dir=str(tmp_path))
    summary = json.loads((tmp_path / 'metrics.json').read_text())
    assert summary['protocol'] == 'made-up'
    assert summary['split_hash'] == 'abc123'
    assert summary['data_root'] == 'data/toy'
    assert (summary['images'], summary['patients']) == (40, 20)
    assert {'numpy', 'medssl_mm'} <= set(summary['versions'])
    assert summary['interval']['resampled'].startswith('patients')
    mass = summary['per_class']['Mass']
    assert mass['auroc']['low'] < mass['auroc']['mean'] < mass['auroc']['high']
    counts = mass['counts']
    assert counts['positive'] + counts['negative'] == 40
    assert counts['positive'] / 2 <= counts['positive_patients'] <= 20
    # The class that nobody has is said, listed and not averaged.
    hernia = summary['per_class']['Hernia']
    assert hernia['auroc']['mean'] is None
    assert summary['undefined']['auroc'] == {'Hernia': 'no positive image among 40'}
    assert summary['mean']['auroc']['classes'] == 2
    assert values['classification/AUROC_classes'] == 2
    assert 'classification/AUROC_Hernia' not in values
    assert values['classification/macro_AUROC'] == pytest.approx(
        np.mean([summary['per_class'][name]['auroc']['mean'] for name in CLASSES[:2]])
    )
    assert any(
        'Hernia (no positive image among 40); the mean is over 2 of 3 classes' in note
        for note in summary['notes']
    )


def test_undefined_class_is_said_while_training(capsys):
    evaluate(samples(), bootstrap_samples=0)
    said = capsys.readouterr().out
    assert 'AUROC undefined for Hernia (no positive image among 40)' in said


def test_resamples_without_a_rare_class_are_said(tmp_path):
    made = samples()
    made[0]['gt_label'] = torch.tensor([2])
    evaluate(made, out_dir=str(tmp_path))
    summary = json.loads((tmp_path / 'metrics.json').read_text())
    (note,) = [n for n in summary['notes'] if 'one value only' in n]
    share = float(note.split('Hernia ')[1].split(' %')[0])
    # One patient of 20 is left out of (1 - 1 / 20)^20 = 36 % of resamples.
    assert 22 < share < 50
    assert any(
        'fewer than 5 patients' in note and 'narrow: Hernia 1' in note
        for note in summary['notes']
    )


def test_classes_of_few_patients_are_shown_but_not_averaged(tmp_path):
    made = samples()
    made[0]['gt_label'] = torch.tensor([2])
    everything = evaluate(made, out_dir=str(tmp_path / 'all'))
    values = evaluate(made, out_dir=str(tmp_path / 'two'), min_positive_patients=2)
    single = [
        values[f'classification/AUROC_{name.replace(" ", "_")}'] for name in CLASSES
    ]
    mean = values['classification/macro_AUROC']
    assert mean == pytest.approx(np.mean(single[:2]))
    assert everything['classification/macro_AUROC'] == pytest.approx(np.mean(single))
    assert values['classification/AUROC_classes'] == 2
    summary = json.loads((tmp_path / 'two/metrics.json').read_text())
    assert summary['per_class']['Hernia']['auroc']['mean'] == single[2]
    assert summary['mean']['auroc']['classes'] == 2
    assert any(
        'fewer than 2 patients and not in the means: Hernia 1' in note
        for note in summary['notes']
    )
    # A result table takes the classes that counted in the evaluation.
    for folder, expected in (
        ('two', mean),
        ('all', everything['classification/macro_AUROC']),
    ):
        file = tmp_path / folder / 'predictions.csv'
        [row] = summarize([Run('g', 'r', (tmp_path / folder,))], samples=10)
        for found in (
            resample_predictions(file, samples=10).values[0],
            resample_predictions(file.parent, samples=10).values[0],
            row.score.estimate,
        ):
            # Probabilities are kept as 32-bit numbers.
            assert found == pytest.approx(expected, abs=1e-6)


def test_no_class_of_enough_patients_is_an_error():
    with pytest.raises(
        UserError,
        match=r'no class is found in 30 patients '
        r'and absent in as many.*patients with: .*Hernia 0',
    ):
        evaluate(samples(), min_positive_patients=30)
    with pytest.raises(ValueError, match='min_positive_patients=-1'):
        ClassificationMetric(min_positive_patients=-1)


def test_nothing_defined_is_an_error():
    made = samples()
    for sample in made:
        sample['gt_label'] = torch.tensor([1])
    with pytest.raises(
        UserError,
        match=(
            r'AUROC is undefined for every class in the 40 images of made-up '
            r'\(Mass: no positive image among 40\).*make them larger or '
            'stratified'
        ),
    ):
        evaluate(made)
    with pytest.raises(UserError, match='no negative image among 40'):
        evaluate([dict(s, gt_label=torch.tensor([0, 1, 2])) for s in made])


def test_order_and_padding_of_the_sampler_do_not_matter():
    made = samples()
    shuffled = [made[i] for i in torch.randperm(len(made))]
    # The same image in another batch differs in the last bits.
    copy = dict(made[3], pred_score=made[3]['pred_score'] + 1e-7)
    assert evaluate(shuffled + [copy, made[5]]) == evaluate(made)


def test_interval_equals_a_loop_over_resamples(tmp_path):
    from medssl_mm.statistics import patient_weights
    from tests.statistics.test_classification import repeat

    evaluate(samples(False), 'single-label', out_dir=str(tmp_path), bootstrap_seed=4)
    predictions = read_predictions(tmp_path)
    drawn = [
        score(repeat(predictions, times)).macro_auroc
        for times in patient_weights(predictions.patients, 100, seed=4)
    ]
    summary = json.loads((tmp_path / 'metrics.json').read_text())
    found = summary['mean']['auroc']
    np.testing.assert_allclose(
        [found['low'], found['high']], np.percentile(drawn, [2.5, 97.5]), rtol=1e-6
    )


def test_faults_are_named():
    made = samples()
    with pytest.raises(UserError, match='nothing was predicted'):
        evaluate([])
    with pytest.raises(ValueError, match="needs 'gt_label' in every"):
        evaluate([dict(image_id='a', pred_score=torch.ones(3))])
    with pytest.raises(UserError, match='39 .*images of 40 .*drop_last=False'):
        evaluate(made[1:], size=40)
    other = dict(made[4], pred_score=1 - made[4]['pred_score'])
    with pytest.raises(UserError, match='image004 was predicted twice'):
        evaluate([*made, other])
    with pytest.raises(UserError, match=r'shape \(3,\).*num_classes=2'):
        evaluate(made, classes=CLASSES[:2])
    bad = dict(made[0], pred_score=torch.full((3,), torch.nan))
    with pytest.raises(UserError, match='image000: the probabilities .*nan'):
        evaluate([bad, *made[1:]])
    bad = dict(made[0], gt_label=torch.tensor([-1]))
    with pytest.raises(UserError, match='image000 has the label -1'):
        evaluate([bad, *made[1:]])
    bad = dict(made[0], gt_label=torch.tensor([0, 1]))
    with pytest.raises(UserError, match='2 labels.*task="multi-label"'):
        evaluate([bad, *made[1:]], 'single-label')
    with pytest.raises(UserError, match='needs to know the task'):
        evaluate(made, task=None)
    with pytest.raises(UserError, match='needs the class names'):
        evaluate(made, classes=())


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(task='several'), "task='several' must be one of"),
        (dict(threshold=1), 'threshold=1 must be between 0 and 1'),
        (dict(bootstrap_samples=-1), 'bootstrap_samples=-1'),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        ClassificationMetric(**wrong)


def test_settings_go_before_those_of_the_data_set(tmp_path):
    made = samples(False)
    metric = ClassificationMetric(
        task='single-label', classes=CLASSES, out_dir=str(tmp_path)
    )
    metric.process(None, made)
    metric.evaluate(40)
    with open(tmp_path / 'predictions.csv') as file:
        row = next(csv.DictReader(file))
    assert row['target'] == CLASSES[int(made[0]['gt_label'])]


def _share():
    from medssl_mm.functional.distributed import rank

    found = []
    for task in ('multi-label', 'single-label'):
        made = samples(task == 'multi-label', images=41)
        # As a sampler does: interleaved, the second rank padded.
        mine = made[rank() :: 2] + made[: rank()]
        found.append(evaluate(mine, task, size=41))
    try:
        evaluate(samples()[1:][rank() :: 2], size=40)
    except UserError as error:
        found.append(str(error))
    return found


@pytest.mark.exact
@pytest.mark.slow
def test_two_processes_equal_one():
    first, second = run_processes(_share, 2)
    assert first == second
    assert first[:2] == [
        evaluate(samples(multi_label, images=41), task)
        for multi_label, task in ((True, 'multi-label'), (False, 'single-label'))
    ]
    assert first[2].startswith('39 different images of 40 were predicted')
