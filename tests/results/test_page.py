import csv
import json
import math
import re

import pytest

from medssl_mm import results
from medssl_mm.results import Run
from tests.results.made import write_result


def test_report_is_complete_and_self_contained(tmp_path, store, scores):
    from medssl_mm.evaluation.label_nifti import write_label_nifti

    runs = []
    for name, values in zip(('random', 'Mo<Co'), scores):
        folder = write_result(
            tmp_path / name.strip('<'), values[:3], data_root=store.root
        )
        (folder / 'predictions').mkdir()
        for case_id in store.case_ids:
            write_label_nifti(
                store.read_label_volume(case_id),
                store.case(case_id),
                folder / 'predictions' / f'{case_id}.nii.gz',
            )
        runs.append(Run('linear', name, (folder,)))
    log = tmp_path / 'train' / '1' / 'vis_data'
    log.mkdir(parents=True)
    (log / 'scalars.json').write_text(
        '\n'.join(
            json.dumps(
                dict(
                    step=i,
                    loss=9 - i / 9,
                    loss_contrastive=9 - i / 9,
                    chance_level=math.log(65),
                )
            )
            for i in range(1, 30)
        )
    )
    page = tmp_path / 'out' / 'report.html'
    rows = results.build_report(
        page,
        runs,
        title='A <b>title',
        baseline='random',
        curves={'pretraining': tmp_path / 'train'},
        commands=['run & go'],
    )
    text = page.read_text(encoding='utf-8')
    assert len(rows) == 2
    assert text.count('data:image/png;base64,') == 4
    assert not re.search(r'(?:src|href)="(?!data:)', text)
    assert 'http' not in re.sub('base64,[^"]+', '', text)
    for expected in (
        'A &lt;b&gt;title',
        'Mo&lt;Co',
        'run &amp; go',
        'both empty: not counted',
        'abc',
        'monai 1.0',
    ):
        assert expected in text
    assert not list(page.parent.glob('.*'))  # no temporary file is left


def test_report_without_images_has_no_overlays(tmp_path, scores):
    run = Run('linear', 'random', (write_result(tmp_path / 'a', scores[0]),))
    results.build_report(tmp_path / 'r.html', [run], title='t')
    assert 'Predictions' not in (tmp_path / 'r.html').read_text()


def test_table_and_report_of_classifiers(tmp_path, classifiers):
    runs, _ = classifiers
    rows = results.build_report(
        tmp_path / 'report.html', runs, title='X-rays', baseline='random'
    )
    page = (tmp_path / 'report.html').read_text()
    assert 'AUROC per class in points' in page and '60 / 20' in page
    assert 'Dice' not in page
    cells = results.table_cells(rows)
    assert 'AUROC [95 % interval]' in cells
    assert not any('HD95' in name for name in cells)
    assert cells.iloc[1, 2] == '10 %'
    text = results.caption_of(rows)
    assert 'Area under the ROC curve' in text
    assert 'one value of the class: Hernia.' in text
    results.write_table(rows, tmp_path, 'X-rays')
    path = tmp_path / 'table.csv'
    with path.open(newline='') as file:
        entry = next(csv.DictReader(file))
    assert float(entry['auroc']) == pytest.approx(rows[0].score.estimate, rel=1e-5)
    assert entry['hd95_mm'] == '' and 'dice' not in entry
