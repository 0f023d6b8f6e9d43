import csv

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.nih1000 import NIH1000Importer
from medssl_mm.importers.sets.nih_cxr14 import FINDINGS
from medssl_mm.importers.splits import write_splits
from medssl_mm.store.splits import Split, check_no_leak
from tests.datasets.images import make_picture, write_picture


def write_nih1000(folder, patients=10):
    rows = []
    for number in range(2 * patients):
        name = f'{1 + number // 2:08d}_{number % 2:03d}.png'
        label = [int(n == number % 3) for n in range(14)] if (number % 2) else [0] * 14
        # Both images of a patient in one folder, but for the first one.
        split = ('train', 'valid', 'test')[
            number % 3 if number < 2 else number // 2 % 3
        ]
        place = '1_abnormal' if number % 2 else '0_normal'
        rows.append([split, place, name, name[:8], *label])
        grey = make_picture(number, 64, 1)
        layers = 4 if number == 1 else 3
        write_picture(
            folder / 'NIH1000' / split / place / name, np.dstack([grey] * layers)
        )
    with open(folder / NIH1000Importer.label_file, 'w', newline='') as file:
        csv.writer(file).writerows(
            [['split', 'folder', 'Image Index', 'Patient ID', *FINDINGS], *rows]
        )
    return rows


def test_nih1000(tmp_path):
    rows = write_nih1000(tmp_path / 'source')
    importer = NIH1000Importer()
    result = import_dataset(importer, tmp_path / 'source', tmp_path / 'out')
    write_splits(importer, result)
    store = result.store
    assert len(store) == 20 and not result.count('rejected')
    np.testing.assert_array_equal(
        store.read(1), make_picture(1, 64, 1)
    )  # RGBA in the source
    np.testing.assert_array_equal(store.labels, [r[4:] for r in rows])
    (split,) = result.splits
    assert split.protocol == 'nih1000-patients'
    assert set(split['pretrain']) == {*split['train'], *split['val']}
    assert any('1 of 10 patients are in more than one' in n for n in result.notes)


def test_nih1000_labels_must_agree_with_the_folders(tmp_path):
    write_nih1000(tmp_path / 'source')
    path = tmp_path / 'source' / NIH1000Importer.label_file
    text = path.read_text()
    path.write_text(text.replace('_001.png,00000003,0,0,1', '_001.png,00000003,0,0,0'))
    result = import_dataset(NIH1000Importer(), tmp_path / 'source', tmp_path / 'out')
    problems = {p.code: p for r in result.results for p in r.problems}
    assert set(problems) == {'class-mismatch', 'transparent'}  # the one with alpha
    problem = problems['class-mismatch']
    assert "'1_abnormal', but its labels are No Finding" in problem.message
    path.write_text(text.replace('Hernia', 'Hernias'))
    with pytest.raises(UserError, match='no column Hernia'):
        NIH1000Importer().discover(tmp_path / 'source')


def test_real_images(realdata, tmp_path):
    folder = realdata / 'nih1000_chest_xray'
    importer = NIH1000Importer()
    result = import_dataset(importer, folder, tmp_path / 'out')
    write_splits(importer, result)
    store = result.store
    assert len(store) == 1000 and len(set(store.patient_ids.tolist())) == 264
    assert store.labels.sum(0)[FINDINGS.index('Effusion')] == 170
    assert (store.labels.sum(1) == 0).sum() == 500
    (split,) = result.splits
    check_no_leak(split, store.patient_of)
    # The folders of the source: 30 patients are on two sides.
    subsets = dict(train=[], val=[], test=[])
    for info in store.infos():
        subset = info.source_file.split('/NIH1000/')[1].split('/')[0]
        subsets['val' if subset == 'valid' else subset].append(info.image_id)
    with pytest.raises(UserError, match='leaks: patient .* shared. Split by patient'):
        check_no_leak(Split('folders', 'nih1000', subsets), store.patient_of)
    owners = {}
    for name, ids in subsets.items():
        for image_id in ids:
            owners.setdefault(store.patient_of(image_id), set()).add(name)
    assert sum(len(names) > 1 for names in owners.values()) == 30
