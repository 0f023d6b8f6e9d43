"""The table of image sets: rows, findings of several names, pairs of views."""

import re
from pathlib import Path

import pytest

from medssl_mm.datasets.image_sets import (
    CHESTX7,
    FOLDER,
    IMAGE_SETS,
    IMPORTER,
    REST,
    UNSURE,
    Views,
    column_of,
    common_pictures,
    finding_name,
    known_set,
    markdown_row,
    pairs,
    shared_findings,
)
from medssl_mm.errors import UserError
from medssl_mm.importers import IMPORTERS

ROOT = Path(__file__).parents[2]
DATA_README, CONFIGS = ROOT / 'data/README.md', ROOT / 'configs/data'


@pytest.mark.parametrize('name', [n for n in IMAGE_SETS if n in IMPORTERS])
def test_the_readme_has_the_row(name):
    """Written by markdown_row: change the table of image sets, not the README."""
    assert markdown_row(name) in DATA_README.read_text(encoding='utf-8').split('\n')


@pytest.mark.parametrize('name', IMAGE_SETS)
def test_rows_hold_together(name):
    row = IMAGE_SETS[name]
    assert len(set(row.classes)) == len(row.classes) > 1 and row.domain and row.title
    meant = {0: {'0', '1', UNSURE}, 1: set(row.classes)}[row.task == 'single-label']
    for label_map in row.label_maps.values():
        assert set(label_map.values()) <= meant
        assert all(key == key.lower() for key in label_map if key != REST)
    if row.views:
        assert set(re.compile(row.views.pattern).groupindex) == {'pair', 'view'}
    if row.files and row.label_maps:
        assert 'label' in re.compile(row.files).groupindex
    # How the labels are found, of a row without an importer of its own.
    assert row.layout in (FOLDER, IMPORTER) or row.table


@pytest.mark.parametrize('name', IMAGE_SETS)
def test_every_set_has_a_config(name):
    """It names the folder and a split of the set, and a data set that takes it."""
    from mmengine.config import Config

    from medssl_mm.registry import DATASETS

    path = CONFIGS / f'{name.replace("-", "_")}.py'
    images = dict(Config.fromfile(path).images)
    kind = DATASETS.get(images.pop('type'))
    assert images.pop('data_root') == f'data/{name}'
    own = 'holdout-50-val-15-seed0-stratified' if name == 'rsna-of-nih1000' else name
    assert re.match(rf'{own}(-(patients|official|subsets))?$', images.pop('split'))
    classes = kind.METAINFO.get('classes', IMAGE_SETS[name].classes)
    assert classes == IMAGE_SETS[name].classes
    assert len(kind.classes_by_settings(classes, images)) > 1
    assert set(images) <= {'binary', 'finding', 'uncertain'}


@pytest.mark.parametrize('name', ['chestx7', 'nih1000_chestx7'])
def test_configs_of_seven_findings(name):
    from mmengine.config import Config

    from medssl_mm.registry import DATASETS

    images = Config.fromfile(CONFIGS / f'{name}.py').images
    kind = DATASETS.get(images.type)
    assert kind.classes_by_settings(kind.METAINFO['classes'], images) == CHESTX7
    assert kind.task_by_settings('multi-label', images) == 'single-label'


def test_seven_findings():
    assert CHESTX7 == (
        'Atelectasis',
        'Cardiomegaly',
        'Effusion',
        'Infiltration',
        'Mass',
        'Nodule',
        'Pneumothorax',
    )


@pytest.mark.parametrize(
    'first, second, common',
    [
        ('chexpert', 'chexpert', 'chexpert'),
        ('rsna-of-nih1000', 'nih1000', 'nih1000'),
        ('nih1000', 'rsna-of-nih1000', 'nih1000'),
        ('nih-cxr14', 'rsna-of-nih1000', 'nih-cxr14'),
        ('rsna', 'nih1000', 'nih-cxr14'),
        ('mine', 'mine', 'mine'),
        ('mine', 'chexpert', ''),
        ('odir', 'diabetic-retinopathy', ''),
    ],
)
def test_sets_with_pictures_of_one(first, second, common):
    assert common_pictures([first], ['imagenet', second]) == common
    assert common_pictures(['made', first], [second]) == common


def test_a_set_is_known_by_any_of_its_names():
    assert known_set(['mine', 'busi']) is IMAGE_SETS['busi']
    assert known_set(['mine', 'made']) is None


@pytest.mark.parametrize('name', IMAGE_SETS)
def test_rules_of_the_published_comparison(name):
    """Scores are those of tables, settings those of the data set of the config."""
    import inspect

    from mmengine.config import Config

    from medssl_mm.datasets.classification import ClassificationImages
    from medssl_mm.registry import DATASETS

    row = IMAGE_SETS[name]
    assert row.metric in ('accuracy', 'mean per-class accuracy')
    assert not row.official or f'`{row.official}`' in row.splits
    images = Config.fromfile(CONFIGS / f'{name.replace("-", "_")}.py').images
    known = {
        setting
        for kind in (DATASETS.get(images.type), ClassificationImages)
        for setting in inspect.signature(kind.__init__).parameters
    }
    for protocol in ('few_shot', 'linear', 'finetune', 'knn'):
        assert set(row.labelled_for(protocol)) <= known


def test_which_sets_the_published_comparison_prepared():
    # Section 3.1 of its code: four sets from files, six from memory.
    assert {name for name, row in IMAGE_SETS.items() if row.prepared} == {
        'chexpert',
        'nih-cxr14',
        'diabetic-retinopathy',
        'stoic',
    }
    per_class = {n for n, row in IMAGE_SETS.items() if row.metric != 'accuracy'}
    assert per_class == {'diabetic-retinopathy', 'stoic'}
    chexpert = IMAGE_SETS['chexpert']
    assert chexpert.labelled_for('few_shot') == {'uncertain': 'ones'}
    assert chexpert.labelled_for('linear') == {'uncertain': 'zeros'}
    assert chexpert.labelled_for('finetune') == {'uncertain': 'zeros'}


def test_names_of_findings():
    assert finding_name('Pleural Effusion') == finding_name('effusion') == 'Effusion'
    assert finding_name('Pleural_Thickening') == 'Pleural Thickening'
    assert finding_name('opacity') == 'Lung Opacity'
    for nothing in ('No Finding', 'normal', 'Normal', 'no opacity', 'no AMD'):
        assert finding_name(nothing) is None
    # Other findings, whatever the words have in common.
    assert finding_name('Pleural Other') == 'Pleural Other'
    assert finding_name('nodule') == 'nodule'


def test_shared_findings():
    nih, chexpert = (IMAGE_SETS[n].classes for n in ('nih-cxr14', 'chexpert'))
    shared = shared_findings(nih, chexpert)
    assert shared.names == (
        'Atelectasis',
        'Cardiomegaly',
        'Effusion',
        'Pneumonia',
        'Pneumothorax',
        'Consolidation',
        'Edema',
    )
    for name, one, other in zip(*vars(shared).values()):
        assert finding_name(nih[one]) == finding_name(chexpert[other]) == name
    back = shared_findings(chexpert, nih)
    assert set(back.names) == set(shared.names) and back.names[0] == 'Cardiomegaly'
    rsna = shared_findings(IMAGE_SETS['rsna'].classes, chexpert)
    assert rsna.names == ('Lung Opacity',) and (rsna.first, rsna.second) == ((1,), (3,))
    tuberculosis = shared_findings(
        IMAGE_SETS['shenzhen'].classes, IMAGE_SETS['montgomery'].classes
    )
    assert tuberculosis.names == ('tuberculosis',)
    with pytest.raises(UserError, match='no finding is in both sets.*AMD'):
        shared_findings(nih, IMAGE_SETS['ichallenge-amd'].classes)


def test_a_finding_by_any_name():
    classes = IMAGE_SETS['chexpert'].classes
    assert classes[column_of('effusion', classes)] == 'Pleural Effusion'
    assert classes[column_of('no_finding', classes)] == 'No Finding'
    with pytest.raises(UserError, match="no finding 'Hernia' among .*Fracture"):
        column_of('Hernia', classes)


def test_pairs_of_eyes():
    ids = ['cataract/7_right.jpg', 'normal/7_left.jpg', 'normal/17_left.jpg', 'x.jpg']
    assert pairs(ids, 'odir') == [(1, 0)]
    assert pairs(ids, 'odir', ['ill', 'well', 'well', 'well']) == []
    assert pairs(ids, 'odir', [0, 0, 1, 1]) == [(1, 0)]
    assert pairs(['10_right', '10_left'], 'diabetic-retinopathy') == [(1, 0)]


def test_pairs_of_directions():
    study = 'CheXpert-v1.0-small/train/patient00001/study{}/view{}_{}.jpg'
    ids = [
        study.format(1, 3, 'lateral'),
        study.format(1, 2, 'frontal'),
        study.format(1, 1, 'frontal'),
        study.format(1, 4, 'lateral'),
        study.format(2, 1, 'lateral'),  # without a frontal one
        study.format(3, 1, 'frontal'),
        study.format(3, 2, 'lateral'),
        study.format(11, 1, 'frontal'),
    ]
    # Every lateral one with the first frontal one of its study.
    assert pairs(ids, 'chexpert') == [(2, 0), (2, 3), (5, 6)]


def test_views_of_ones_own():
    views = Views(r'(?P<pair>\w+)-(?P<view>CC|MLO)', ('CC', 'MLO'))
    assert pairs(['a-MLO', 'a-CC', 'b-CC'], views) == [(1, 0)]
    with pytest.raises(UserError, match="'busi' no two views.*chexpert.*Views"):
        pairs(['benign (1)'], 'busi')
