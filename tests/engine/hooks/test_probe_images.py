import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import DATASETS

from medssl_mm.engine.hooks.probe_images import (
    incomparable_sets,
    load_batches,
    open_images,
    patients_in,
    shared_patients,
)
from medssl_mm.errors import UserError
from tests.datasets.images import write_image_set
from tests.engine.hooks.classified import ToyClassified

# Images are copied.
pytestmark = pytest.mark.exact


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    import medssl_mm.registry  # noqa: F401

    folder = tmp_path_factory.mktemp('store')
    write_image_set(folder / 'single', classes=('a', 'b'))
    write_image_set(folder / 'several', task='multi-label')
    return folder


def images(root, **changes):
    settings = dict(
        type='medssl_mm.ClassificationImages',
        data_root=str(root),
        split='made',
        pipeline=[dict(type='medssl_mm.PackViews')],
    )
    return {**settings, **changes}


def test_image_set(store):
    found = open_images(images(store / 'single', labelled=True), 'train_dataset')
    data = found.dataset
    assert len(found) == len(data)
    np.testing.assert_array_equal(found.labels.targets.argmax(1), data.get_gt_labels())
    assert found.patients == patients_in(data) == {'made': data.patient_names()}
    assert found.name_of(1) == data.get_data_info(1)['img_path']
    several = open_images(images(store / 'several', labelled=True), 'train_dataset')
    assert several.labels.multi_label
    np.testing.assert_array_equal(
        several.labels.targets, several.dataset.get_gt_labels() == 1
    )


def test_batches_hold_the_images_that_were_asked_for(store):
    found = open_images(images(store / 'single', labelled=True), 'train_dataset')
    state = torch.get_rng_state()
    batches = list(load_batches(found, [[3, 0], [1]], 0, 'probe', 'Hook', 60))
    assert torch.equal(torch.get_rng_state(), state)
    assert [rows for rows, _ in batches] == [[3, 0], [1]]
    for rows, pictures in batches:
        for row, picture in zip(rows, pictures):
            assert torch.equal(picture, found.dataset[row]['inputs'][0])


def test_patients_of_wrapped_data(store):
    assert patients_in(ToyClassified('a', size=4)) == {'': {'a0', 'a1'}}
    parts = [
        DATASETS.build(images(store / 'single', subset=subset))
        for subset in ('train', 'val')
    ]
    names = [part.patient_names() for part in parts]
    assert patients_in(ConcatDataset(parts)) == {'made': names[0] | names[1]}
    assert names[0] | names[1] != names[0]
    assert patients_in(RepeatDataset(parts[0], 2)) == {'made': names[0]}
    assert patients_in(torch.utils.data.TensorDataset(torch.zeros(3))) == {}
    toys = [ToyClassified('a', size=2, data_set=name) for name in ('rsna', 'cifar10')]
    mixed = [*toys, ToyClassified('b', size=2, data_set='rsna')]
    joined = torch.utils.data.ConcatDataset(mixed)
    assert patients_in(joined) == {'rsna': {'a0', 'b0'}, 'cifar10': {'a0'}}


def test_names_are_compared_where_they_mean_the_same():
    one = {'nih-cxr14': {'1', '2'}, 'cifar10': {'3'}}
    for name in ('nih-cxr14', 'nih1000', 'rsna'):  # pictures of one source
        assert shared_patients({name: {'2', '3'}}, one) == {'2'}
    assert shared_patients({'cifar100': {'1', '3'}}, one) == set()
    # Labels of another set on pictures that are a selection of a third.
    for name in ('nih1000', 'nih-cxr14'):
        assert shared_patients({'rsna-of-nih1000': {'1', '3'}}, {name: {'3'}}) == {'3'}
    for name in ('image-table', ''):  # may be of anybody
        assert shared_patients({name: {'1', '3', '4'}}, one) == {'1', '3'}
    pretrained = {'nih-cxr14': {'00000001'}, 'cifar10': {'3'}}
    for name, patient, expected in (
        ('rsna', '356ee7e1-8e13', [('rsna', 'nih-cxr14')]),
        ('rsna', '00000002', []),  # imported by NIH's names
        ('nih1000', '00000002', []),
        ('cifar100', '10', []),
        ('image-table', 'p1', []),
    ):
        assert incomparable_sets({name: {patient}}, pretrained) == expected


def test_no_images(store):
    with pytest.raises(UserError, match='train_dataset has no images'):
        open_images(dict(type='ToyClassified', size=0), 'train_dataset')
