"""What an uncertain finding counts as, and which findings samples have."""

import numpy as np
import pytest

from medssl_mm.datasets.classification import (
    CheXpert,
    ClassificationImages,
    NIHChestXray14,
)
from medssl_mm.datasets.image_sets import CHESTX7, IMAGE_SETS
from medssl_mm.datasets.label_rules import LabelRules
from medssl_mm.errors import UserError
from medssl_mm.store.image_writer import ImageStoreWriter
from medssl_mm.store.splits import Split, save_split
from tests.datasets.images import make_picture, write_image_set

NAMES = ('Edema', 'Pleural Effusion', 'Fracture')
# One image a row: present, absent, uncertain; the last one was never read.
RAW = np.array([[0, 1, 0], [2, 2, 0], [0, 2, 1], [1, 0, 0], [0, 0, 0], [-1, -1, -1]])


@pytest.mark.parametrize('uncertain, as_', [('zeros', 0), ('ones', 1), ('smooth', 1)])
def test_uncertain(uncertain, as_):
    labels, kept = LabelRules(uncertain).apply(RAW, NAMES)
    np.testing.assert_array_equal(labels, np.where(RAW == 2, as_, RAW))
    assert kept.all()


def test_targets_of_the_uncertain():
    rules = LabelRules('smooth')
    rng = [np.random.default_rng(n) for n in range(500)]
    soft = np.array([rules.target(RAW[1], NAMES, one) for one in rng])
    assert soft.dtype == np.float32 and (soft[:, 2] == 0).all()
    drawn = soft[:, :2]
    assert 0.55 <= drawn.min() < 0.56 and 0.84 < drawn.max() <= 0.85
    assert abs(drawn.mean() - 0.7) < 0.01 and (drawn[:, 0] != drawn[:, 1]).all()
    again = rules.target(RAW[1], NAMES, np.random.default_rng(3))
    np.testing.assert_array_equal(again, soft[3])
    # The target of a finding does not depend on which others are asked for.
    one = LabelRules('smooth', finding='Effusion')
    np.testing.assert_allclose(
        one.target(RAW[1], NAMES, np.random.default_rng(3)),
        [1 - soft[3, 1], soft[3, 1]],
        rtol=1e-6,
    )
    assert LabelRules('ones').target(RAW[1], NAMES, rng[0]) is None


def test_findings():
    rules = LabelRules('ones', findings=['Effusion', 'Edema'])
    labels, kept = rules.apply(RAW, NAMES)
    assert labels.tolist() == [[1, 0], [1, 1], [1, 0], [0, 1], [0, 0], [-1, -1]]
    assert kept.all() and rules.classes(NAMES) == ('Effusion', 'Edema')
    assert rules.task('single-label') == 'multi-label'
    # Of a set with one label per image.
    single = np.array([0, 1, -1])
    labels, _ = LabelRules(findings=['opacity']).apply(single, ('normal', 'opacity'))
    assert labels.tolist() == [[0], [1], [-1]]


def test_finding():
    rules = LabelRules(finding='Effusion')
    labels, _ = rules.apply(RAW, NAMES)
    assert labels.tolist() == [1, 0, 0, 0, 0, -1]
    assert rules.classes(NAMES) == ('no Effusion', 'Effusion')
    assert rules.task('multi-label') == 'single-label'


def test_one_finding_and_nothing_else():
    rules = LabelRules(single_label=['Effusion', 'Edema'])
    labels, kept = rules.apply(RAW, NAMES)
    # The image with a fracture has a finding too many, the fifth none.
    assert kept.tolist() == [True, False, False, True, False, True]
    assert labels[kept].tolist() == [0, 1, -1]
    rules = LabelRules('ones', single_label=['Edema', 'Pleural Effusion'])
    labels, kept = rules.apply(RAW, NAMES)
    assert kept.tolist() == [True, False, False, True, False, True]
    with pytest.raises(UserError, match='one per image'):
        LabelRules(single_label=['b']).apply(np.array([0, 1]), ('a', 'b'))


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(uncertain='half'), "'zeros', 'ones' or 'smooth', got 'half'"),
        (dict(finding='a', findings=['a']), 'one of findings, finding'),
        (dict(findings='Edema'), 'a list of names'),
        (dict(findings=[]), 'a list of names'),
        (dict(finding=''), 'a name'),
    ],
)
def test_wrong_rules(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelRules(**settings)


@pytest.fixture
def chexpert(tmp_path):
    """Four studies of CheXpert: finding, none, uncertain, both views."""
    classes = IMAGE_SETS['chexpert'].classes
    writer = ImageStoreWriter.create(
        tmp_path / 'set', 'chexpert', 'multi-label', classes, 1, (16, 16), None, 0, True
    )
    effusion = classes.index('Pleural Effusion')
    for number, (patient, view, value) in enumerate(
        [
            (1, 'view1_frontal', 1),
            (1, 'view2_lateral', 1),
            (2, 'view1_frontal', 0),
            (3, 'view1_frontal', 2),
            (3, 'view2_lateral', 2),
        ]
    ):
        label = [value if n == effusion else 0 for n in range(len(classes))]
        name = f'patient0000{patient}'
        writer.add_case(
            f'{name}/study1/{view}.jpg', make_picture(number, 16, 1), label, name
        )
    store = writer.finish()
    save_split(store.root, Split('made', 'chexpert', dict(train=store.case_ids)))
    return str(store.root)


def test_chexpert(chexpert):
    column = CheXpert.METAINFO['classes'].index('Pleural Effusion')
    data = CheXpert(chexpert, 'made')
    assert data.get_gt_labels()[:, column].tolist() == [1, 1, 0, 0, 0]
    data = CheXpert(chexpert, 'made', uncertain='ones')
    assert data.get_gt_labels()[:, column].tolist() == [1, 1, 0, 1, 1]
    assert data[3]['gt_score'][column] == 1
    data = CheXpert(chexpert, 'made', uncertain='smooth')
    score = data[3]['gt_score'][column]
    assert 0.55 <= score <= 0.85 and data[0]['gt_score'][column] == 1
    assert data[3]['gt_label'] == [column]
    # The same in every epoch and subset; another image, another target.
    part = CheXpert(chexpert, 'made', uncertain='smooth', view='lateral')
    assert part[1]['gt_score'][column] == data[4]['gt_score'][column] != score


def test_one_finding_of_chexpert(chexpert):
    data = CheXpert(
        chexpert, 'made', finding='Effusion', view='frontal', uncertain='ones'
    )
    assert data.get_gt_labels().tolist() == [1, 0, 1] and data.task == 'single-label'
    assert data.metainfo['classes'] == ('no Effusion', 'Effusion')
    assert data.metainfo['task'] == 'single-label'
    assert all('frontal' in data[n]['image_id'] for n in range(3))
    smooth = CheXpert(chexpert, 'made', finding='Effusion', uncertain='smooth')
    score = smooth[3]['gt_score']
    assert score.shape == (2,) and score.sum() == pytest.approx(1) and score[1] > 0.5


def test_targets_reach_the_loss(chexpert):
    """mmpretrain's heads take them, of one finding and of all."""
    import torch
    from mmengine.registry import DefaultScope
    from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

    from medssl_mm.registry import MODELS

    features = torch.linspace(-1, 1, 20).reshape(5, 4)
    for name, finding, number, reference in (
        ('LinearClsHead', 'Effusion', 2, cross_entropy),
        (
            'MultiLabelLinearClsHead',
            None,
            14,
            lambda *ab: 14 * binary_cross_entropy_with_logits(*ab),
        ),
    ):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            pipeline = [dict(type='medssl_mm.PackImage')]
            data = CheXpert(
                chexpert, uncertain='smooth', finding=finding, pipeline=pipeline
            )
            head = dict(type=name, num_classes=number, in_channels=4)
            head = MODELS.build(head)
        samples = [data[n]['data_samples'] for n in range(len(data))]
        targets = torch.stack([sample.gt_score for sample in samples])
        assert ((targets > 0.5) & (targets < 0.9)).any()
        loss = head.loss((features,), samples)['loss']
        torch.testing.assert_close(loss, reference(head.fc(features), targets))


def test_pairs_of_samples(chexpert):
    data = CheXpert(chexpert, 'made', finding='Effusion')
    assert data.pairs() == data.pairs(same_label=True) == [(0, 1), (3, 4)]
    assert CheXpert(chexpert, 'made', view='frontal').pairs() == []


def test_views_that_are_not_there(chexpert, tmp_path):
    with pytest.raises(UserError, match="frontal, lateral, got 'left'"):
        CheXpert(chexpert, view='left')
    write_image_set(tmp_path / 'other')
    with pytest.raises(UserError, match="'made' no two views"):
        ClassificationImages(str(tmp_path / 'other'), view='left')


def test_chestx7(tmp_path):
    classes = NIHChestXray14.METAINFO['classes']
    # Effusion alone, with Edema, Edema alone, Pneumonia alone, nothing, Mass alone.
    present = [['Effusion'], ['Effusion', 'Edema'], ['Edema'], ['Pneumonia'], []]
    present.append(['Mass'])
    write_image_set(
        tmp_path / 'set',
        each=1,
        classes=classes,
        task='multi-label',
        label=lambda p, n: [int(name in present[p]) for name in classes],
    )
    data = NIHChestXray14(str(tmp_path / 'set'), single_label=True)
    assert data.metainfo['classes'] == CHESTX7 and data.task == 'single-label'
    assert data.get_gt_labels().tolist() == [2, 4]
    assert [data[n]['image_id'] for n in range(2)] == ['p0-0', 'p5-0']
    some = NIHChestXray14(str(tmp_path / 'set'), single_label=['Edema', 'Mass'])
    assert some.get_gt_labels().tolist() == [0, 1]
    assert len(NIHChestXray14(str(tmp_path / 'set'), single_label=False)) == 6
    with pytest.raises(UserError, match='none has one of these findings alone'):
        NIHChestXray14(str(tmp_path / 'set'), single_label=['Hernia']).full_init()
    settings = dict(single_label=True)
    assert NIHChestXray14.classes_by_settings(classes, settings) == CHESTX7
    assert NIHChestXray14.task_by_settings('multi-label', settings) == 'single-label'


def test_train_on_one_and_test_on_another(chexpert, tmp_path):
    """Both give the columns of the shared findings in one order."""
    from medssl_mm.datasets.image_sets import shared_findings

    classes = NIHChestXray14.METAINFO['classes']
    write_image_set(tmp_path / 'nih', classes=classes, task='multi-label', patients=14)
    shared = shared_findings(classes, CheXpert.METAINFO['classes'])
    first = NIHChestXray14(str(tmp_path / 'nih'), findings=shared.names)
    second = CheXpert(chexpert, findings=shared.names)
    assert first.metainfo['classes'] == second.metainfo['classes'] == shared.names
    effusion = shared.names.index('Effusion')
    assert second.get_gt_labels()[:, effusion].tolist() == [1, 1, 0, 0, 0]
    original = NIHChestXray14(str(tmp_path / 'nih')).get_gt_labels()
    np.testing.assert_array_equal(first.get_gt_labels(), original[:, shared.first])


def test_labels_of_all_of_chestx7(realdata):
    """Counts of the published subset, over the whole label file."""
    from medssl_mm.importers.sets.nih_cxr14 import read_data_entry

    path = realdata / 'label_files/Data_Entry_2017_v2020.csv.gz'
    raw = np.array([*read_data_entry(path).values()])
    assert len(raw) == 112120
    classes = NIHChestXray14.METAINFO['classes']
    labels, kept = LabelRules(single_label=CHESTX7).apply(raw, classes)
    count = dict(zip(CHESTX7, np.bincount(labels[kept]).tolist()))
    assert kept.sum() == 25848 and count == dict(
        Infiltration=9547,
        Atelectasis=4215,
        Effusion=3955,
        Nodule=2705,
        Pneumothorax=2194,
        Mass=2139,
        Cardiomegaly=1093,
    )
