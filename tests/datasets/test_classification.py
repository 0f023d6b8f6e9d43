import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from medssl_mm.datasets import classification
from medssl_mm.datasets.classification import (
    BreastHistopathologyIDC,
    ClassificationImages,
    DiabeticRetinopathy,
    NIHChestXray14,
)
from medssl_mm.datasets.sampler import EpochIndex
from medssl_mm.errors import UserError
from medssl_mm.importers.sets.diabetic_retinopathy import DiabeticRetinopathyImporter
from medssl_mm.importers.sets.idc import IDCImporter
from medssl_mm.importers.sets.nih_cxr14 import FINDINGS
from medssl_mm.store.known import KNOWN
from tests.datasets.images import make_picture, write_image_set
from tests.shipped import experiments


@pytest.fixture(scope='module')
def single(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets') / 'single'
    write_image_set(root, patients=12, channels=3)
    return str(root)


@pytest.fixture(scope='module')
def several(tmp_path_factory):
    root = tmp_path_factory.mktemp('sets') / 'several'
    write_image_set(
        root,
        patients=8,
        task='multi-label',
        classes=('a', 'b', 'c'),
        label=lambda p, n: (p % 2, n, int(p == 3 and n == 0)),
    )
    return str(root)


def test_sample_of_one_label(single):
    data = ClassificationImages(single, 'made', 'train')
    assert len(data) == 20 and data.metainfo['classes'] == ('no', 'yes')
    sample = data[0]  # ids are sorted as text
    assert sample['image_id'] == 'p10-0' and sample['patient_id'] == 'p10'
    np.testing.assert_array_equal(sample['img'], make_picture(1000))
    assert sample['gt_label'] == 0 and 'gt_score' not in sample
    assert sample['ori_shape'] == sample['img_shape'] == (16, 16)
    assert sample['img_path'].endswith('single/images.b2nd#4')
    assert sample['protocol'] == 'made' and len(sample['split_hash']) == 12


def test_patients_of_another_set_are_left_out(single, tmp_path):
    root = tmp_path / 'other'
    write_image_set(root, patients=12, channels=1)  # the same names of patients
    tested = dict(data_root=str(root), split='made', subset='test')
    everything = ClassificationImages(single, 'made', ['train', 'val', 'test'])
    of_test = ClassificationImages(str(root), 'made', 'test').patient_names()
    data = ClassificationImages(
        single, 'made', ['train', 'val', 'test'], without=[tested]
    )
    left = data.patient_names()
    assert left == everything.patient_names() - of_test and of_test
    of_val = ClassificationImages(str(root), 'made', 'val').patient_names()
    both = dict(tested, subset=['val', 'test'])
    fewer = ClassificationImages(
        single, 'made', ['train', 'val', 'test'], without=[both]
    )
    assert fewer.patient_names() == left - of_val and of_val


@pytest.mark.parametrize(
    'settings, error, words',
    [
        (dict(split=None, without=[dict()]), ValueError, 'name a split as well'),
        (dict(split='made', without=[dict(split='made')]), UserError, 'data_root'),
    ],
)
def test_wrong_without(single, settings, error, words):
    with pytest.raises(error, match=words):
        len(ClassificationImages(single, **settings))


def test_sample_of_several_labels(several):
    data = ClassificationImages(several, 'made', 'train')
    infos = {i['image_id']: i for i in data.load_data_list()}
    assert infos['p3-0']['gt_label'] == [0, 2]
    assert infos['p3-0']['gt_score'].tolist() == [1, 0, 1]
    assert infos['p2-0']['gt_label'] == []
    assert infos['p2-0']['gt_score'].dtype == np.float32
    assert infos['p3-0']['rng'].random() != infos['p3-1']['rng'].random()


def test_subsets_part_the_patients(single):
    ids = {
        name: {
            i['patient_id']
            for i in ClassificationImages(single, 'made', name).load_data_list()
        }
        for name in ('train', 'val', 'test', 'pretrain')
    }
    assert ids['val'] == {'p1'} and ids['test'] == {'p0'}
    assert ids['pretrain'] == ids['train'] | ids['val']
    both = ClassificationImages(single, 'made', ('train', 'val'))
    assert len(both) == 22
    assert len(ClassificationImages(single)) == 24


@pytest.mark.parametrize('stratified', [False, True])
def test_fractions_are_nested_and_by_patient(single, stratified):
    def patients(fraction, seed=0):
        data = ClassificationImages(
            single,
            'made',
            'train',
            fraction=fraction,
            fraction_seed=seed,
            stratified=stratified,
        )
        found = [i['patient_id'] for i in data.load_data_list()]
        assert all(found.count(p) == 2 for p in found)  # whole patients
        return set(found)

    assert patients(0.1) < patients(0.4) < patients(0.8) < patients(1.0)
    assert patients(0.4) == patients(0.4)
    assert len({frozenset(patients(0.3, seed)) for seed in range(8)}) > 1
    if stratified:
        assert len({int(p[1:]) % 2 for p in patients(0.2)}) == 2


def test_random_numbers_depend_on_seed_epoch_and_sample(single):
    data = ClassificationImages(single, 'made')
    other = ClassificationImages(single, 'made', seed=1)

    def draw(data, index):
        return data.get_data_info(index)['rng'].random()

    assert draw(data, 3) == draw(data, 3) != draw(data, 4)
    assert draw(data, 3) != draw(other, 3)
    assert draw(data, EpochIndex(3, 0, 5)) == draw(other, EpochIndex(3, 0, 5))
    assert draw(data, EpochIndex(3, 0, 5)) != draw(data, EpochIndex(3, 1, 5))


def test_any_number_of_workers_gives_the_same(single):
    pipeline = [
        dict(
            type='medssl_mm.ImageViews',
            transforms=[
                dict(
                    type='medssl_mm.TorchvisionSteps',
                    steps=[
                        dict(type='RandomResizedCrop', size=8),
                        dict(type='ColorJitter', brightness=0.5, hue=0.2),
                    ],
                )
            ],
        ),
        dict(type='medssl_mm.PackViews'),
    ]
    data = ClassificationImages(single, 'made', pipeline=pipeline)
    alone, two = (
        list(DataLoader(data, batch_size=None, num_workers=n)) for n in (0, 2)
    )
    assert len(alone) == 20
    for one, other in zip(alone, two):
        for view, same in zip(one['inputs'], other['inputs']):
            assert view.shape == (3, 8, 8) and (view == same).all()
        assert (one['inputs'][0] != one['inputs'][1]).any()


def test_unlabelled_images(tmp_path):
    write_image_set(tmp_path / 'set', label=lambda p, n: -1 if p == 3 else p % 2)
    everything = ClassificationImages(tmp_path / 'set', 'made')
    labelled = ClassificationImages(tmp_path / 'set', 'made', labelled=True)
    assert len(everything) == 8 and len(labelled) == 6
    labels = [i['gt_label'] for i in everything.load_data_list()]
    assert labels.count(None) == 2
    assert everything.get_gt_labels().tolist() == [0, 0, -1, -1, 0, 0, 1, 1]
    assert everything.get_cat_ids(2) == [] and everything.get_cat_ids(0) == [0]
    write_image_set(tmp_path / 'bare', label=lambda p, n: -1)
    with pytest.raises(UserError, match='none of them has a label'):
        ClassificationImages(tmp_path / 'bare', 'made', labelled=True)


def test_one_class_is_nothing_to_learn(tmp_path):
    write_image_set(tmp_path / 'set', label=lambda p, n: int(p == 1))
    with pytest.raises(
        UserError, match='all 8 images.*one class.*yes.*stratified=True'
    ):
        ClassificationImages(tmp_path / 'set', 'made', labelled=True)
    with pytest.raises(UserError, match='another fraction_seed, or another'):
        ClassificationImages(tmp_path / 'set', 'made', labelled=True, stratified=True)
    # At test it is the metric's word, at pretraining nobody's.
    ClassificationImages(
        tmp_path / 'set', 'made', 'test', labelled=True, test_mode=True
    )
    ClassificationImages(tmp_path / 'set', 'made', 'pretrain')


def test_empty_classes_are_told(several, tmp_path, capsys):
    ClassificationImages(several, 'made', 'val', labelled=True)
    assert 'no image of c and no image without a among 2' in (capsys.readouterr().out)
    write_image_set(
        tmp_path / 'set', classes=('a', 'b', 'c', 'd'), label=lambda p, n: p % 3
    )
    ClassificationImages(tmp_path / 'set', 'made', labelled=True)
    assert 'no image of d among 8' in capsys.readouterr().out


def test_class_counts(several, single):
    assert ClassificationImages(single, 'made').class_counts() == [10, 10]
    assert ClassificationImages(several, 'made').class_counts() == [6, 6, 1]


def test_patients_can_be_kept_apart_in_batches(single):
    from medssl_mm.datasets.sampler import ResumableSampler

    data = ClassificationImages(single, 'made')
    patients, places = data.sample_locations()
    assert len(set(patients.tolist())) == 10 and not places.any()
    names = [data.get_data_info(n)['patient_id'] for n in range(len(data))]
    assert data.patient_names() == set(names) and len(set(names)) == 10
    assert data.get_subset([0]).patient_names() == {names[0]}
    sampler = ResumableSampler(data, seed=0, neighbour_distance=1, batch_size=5)
    order = [int(i) for i in sampler]
    for start in range(0, 20, 5):
        assert len(set(patients[order[start : start + 5]])) == 5


def test_parts_and_copies(single):
    data = ClassificationImages(single, 'made', indices=5)
    assert len(data) == 5
    part = data.get_subset([4, 0])
    assert [part[n]['image_id'] for n in range(2)] == ['p2-0', 'p10-0']
    assert len(data) == 5
    again = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(again[2]['img'], data[2]['img'])
    assert len(ClassificationImages(single, 'made', lazy_init=True)) == 20


@pytest.mark.parametrize(
    'settings, error, message',
    [
        (dict(fraction=0.0), ValueError, 'fraction must be above 0'),
        (dict(fraction=0.5), ValueError, 'name a split as well'),
        (dict(split='none'), UserError, 'none.json does not exist'),
        (dict(split='made', subset='dev'), UserError, "no subset 'dev'"),
    ],
)
def test_wrong_settings(single, settings, error, message):
    with pytest.raises(error, match=message):
        ClassificationImages(single, **settings)


def test_slice_stores_are_refused(tiny_store):
    with pytest.raises(UserError, match='use medssl_mm.SliceDataset'):
        ClassificationImages(tiny_store.root)


def test_other_classes_are_refused(single):
    with pytest.raises(UserError, match="expects the classes.*'Atelectasis'"):
        NIHChestXray14(single, 'made')


def test_classes_are_those_of_the_importers():
    assert NIHChestXray14.METAINFO['classes'] == FINDINGS
    for data, importer in (
        (BreastHistopathologyIDC, IDCImporter),
        (DiabeticRetinopathy, DiabeticRetinopathyImporter),
    ):
        assert data.METAINFO['classes'] == importer.classes


@pytest.fixture
def graded(tmp_path):
    """Patients p2 to p6 have the grades 0 to 4, p7 none."""
    write_image_set(
        tmp_path / 'set',
        patients=8,
        each=1,
        classes=DiabeticRetinopathy.METAINFO['classes'],
        label=lambda p, n: p - 2 if 1 < p < 7 else -1,
    )
    return str(tmp_path / 'set')


def test_five_grades(graded):
    data = DiabeticRetinopathy(graded, 'made')
    assert data.get_gt_labels().tolist() == [0, 1, 2, 3, 4, -1]
    assert len(data.metainfo['classes']) == 5


def test_referable_retinopathy(graded):
    data = DiabeticRetinopathy(graded, 'made', binary='referable')
    assert data.get_gt_labels().tolist() == [0, 0, 1, 1, 1, -1]
    assert data.metainfo['classes'] == ('not referable', 'referable')
    assert data[0]['gt_label'] == 0 and data[5]['gt_label'] is None
    assert data.class_counts() == [2, 3]
    with pytest.raises(ValueError, match="must be 'referable' or None"):
        DiabeticRetinopathy(graded, 'made', binary='yes')


def image_experiments():
    """One experiment for all that show the same images in the same way."""
    chosen = {}
    for folder in ('selfsup/intermediate', 'classification'):
        for experiment in experiments(folder):
            config = experiment.load()
            loaders = {
                key: value for key, value in config.items() if key.endswith('loader')
            }
            # A public set that any other image set may take the place of.
            if 'pneumoniamnist' not in repr(loaders):
                chosen.setdefault(repr(loaders), experiment)
    return list(chosen.values())


IMAGE_EXPERIMENTS = image_experiments()
CHANNELS = {'nih': 1, 'idc': 3, 'dia': 3, 'bre': 3, 'cif': 3, 'rsn': 1}
SIDES = {
    'nih-': 512,
    'nih1': 64,
    'idc-': 50,
    'diab': 299,
    'brea': 224,
    'cifa': 32,
    'rsna': 256,
}
SHOWN = {50: 255, 256: 224}  # side of a stored image to that of a batch


def test_every_image_set_is_shown():
    names = {experiment.stem.split('_')[-1] for experiment in IMAGE_EXPERIMENTS}
    assert {name[:4] for name in names} == set(SIDES)
    # With and without the settings of the published code, before and after.
    assert len(IMAGE_EXPERIMENTS) == 17


@pytest.mark.slow
@pytest.mark.parametrize('experiment', IMAGE_EXPERIMENTS, ids=lambda e: e.name)
def test_config_bases_serve_their_hosts(experiment, tmp_path):
    """Every loader of every base makes a batch of its set's images."""
    from mmengine.registry import DefaultScope
    from mmengine.runner import Runner

    config = experiment.load()
    data = experiment.stem.split('_')[-1]
    name = config.train_dataloader.dataset.type.removeprefix('medssl_mm.')
    kind = getattr(classification, name)
    # Sets without a class of their own take the classes of the store.
    generic = kind is classification.ClassificationImages
    classes = KNOWN[data.split('-')[0]].classes if generic else kind.METAINFO['classes']
    side, channels = SIDES[data[:4]], CHANNELS[data[:3]]
    assert config.model.backbone.in_channels == channels
    write_image_set(
        tmp_path / 'set',
        classes=classes,
        each=1,
        side=side,
        channels=channels,
        task='single-label' if generic or channels == 3 else 'multi-label',
    )
    pretraining = experiment.name.startswith('selfsup')
    shape = (channels, *[SHOWN.get(side, side)] * 2)
    loaders = ['train'] if pretraining else ['train', 'val', 'test']
    with DefaultScope.overwrite_default_scope(
        'mmselfsup' if pretraining else 'mmpretrain'
    ):
        for subset in loaders:
            loader = config[f'{subset}_dataloader']
            loader.update(num_workers=0, persistent_workers=False, batch_size=2)
            loader.dataset.update(data_root=str(tmp_path / 'set'), split='made')
            built = Runner.build_dataloader(loader, seed=0)
            batch = next(iter(built))
            assert not (subset != 'train' and built.drop_last)
            if pretraining:
                assert [v.shape for v in batch['inputs']] == [(2, *shape)] * 2
                assert (batch['inputs'][0] != batch['inputs'][1]).any()
            else:
                sample = batch['data_samples'][0]
                assert batch['inputs'].shape[1:] == shape
                assert 'gt_label' in sample and 'patient_id' in sample
            # Whole 0-1 range, the same in pretraining and afterwards.
            values = batch['inputs'][0]
            assert 0 <= values.min() < 0.3 and 0.5 < values.max() <= 1
