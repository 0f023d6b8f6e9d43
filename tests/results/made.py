"""Evaluation folders that tests of results are made with."""

import csv
import json

import numpy as np

CLASSES = ('liver', 'spleen')


def write_result(
    folder, dice, split_hash='abc', data_root=None, protocol='holdout', first_case=0
):
    """An evaluation folder; ``dice`` is (cases, classes), NaN: not counted."""
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.asarray(dice, float)
    with (folder / 'cases.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['case_id', 'patient_id', 'class', 'dice', 'hd95'])
        for case, values in enumerate(dice, first_case):
            for name, value in zip(CLASSES, values):
                text = '' if np.isnan(value) else repr(float(value))
                writer.writerow([f'case{case}', f'p{case // 2}', name, text, ''])
    means = np.nanmean(dice, axis=0)
    (folder / 'metrics.json').write_text(
        json.dumps(
            dict(
                protocol=protocol,
                split_hash=split_hash,
                cases=len(dice),
                patients=(len(dice) + 1) // 2,
                data_root=data_root and str(data_root),
                mean=dict(dice=dict(mean=float(means.mean()))),
                per_class={
                    name: dict(dice=dict(mean=float(value)))
                    for name, value in zip(CLASSES, means)
                },
                interval=dict(kind='95 % percentile bootstrap', resampled='patients'),
                policy='both empty: not counted',
                notes=[],
                versions={'monai': '1.0', 'torch': '2.0'},
            )
        )
    )
    return folder


def write_predictions(folder, seed, strength, labels_seed=0, patient='p{:02}', each=3):
    """Evaluation folder of a classifier; nobody has the third class."""
    from medssl_mm.results.images import (
        ClassificationEvaluation,
    )
    from medssl_mm.statistics import Predictions

    targets = np.random.default_rng(labels_seed).random((60, 3)) < 0.4
    targets[:, 2] = False
    noise = np.random.default_rng(100 + seed).random((60, 3))
    values = ((noise + strength * targets) / (1 + strength)).astype('f4')
    predictions = Predictions(
        ('Mass', 'Nodule', 'Hernia'),
        True,
        tuple(f'i{n:02}' for n in range(60)),
        tuple(patient.format(n // each) for n in range(60)),
        targets,
        values.astype(float),
    )
    ClassificationEvaluation(predictions, 'toy', 'abc', 'data/toy', 0.5, 20, 0).write(
        folder
    )
    return predictions


def write_folds(root, dice):
    """Two folds of a set of eight cases, with 2 and 6 of them."""
    parts = ((0, dice[:2]), (2, dice[2:]))
    return [
        write_result(
            root / f'fold{number}',
            values,
            f'hash{number}',
            protocol=f'set-2fold-fold{number}',
            first_case=first,
        )
        for number, (first, values) in enumerate(parts)
    ]
