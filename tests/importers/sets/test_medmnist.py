"""Archives of MedMNIST: images, labels, subsets, and what may be wrong."""

import numpy as np
import pytest

from medssl_mm.datasets.classification import ClassificationImages
from medssl_mm.errors import UserError
from medssl_mm.files import whole_file
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.medmnist import MedMNISTImporter
from medssl_mm.importers.splits import write_splits

COUNTS = dict(train=12, val=5, test=6)


def make_arrays(shape=(28, 28), label_width=1, counts=COUNTS, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, count in counts.items():
        arrays[f'{name}_images'] = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        arrays[f'{name}_labels'] = (
            (np.arange(count * label_width) % 2)
            .reshape(count, label_width)
            .astype(np.uint8)
        )
    return arrays


def write(folder, arrays, name='pneumoniamnist.npz'):
    folder.mkdir(exist_ok=True)
    with whole_file(folder / name) as path:
        np.savez_compressed(path, **arrays)
    return folder


def prepare(folder, out, jobs=1, **options):
    importer = MedMNISTImporter(**options)
    result = import_dataset(importer, folder, out, jobs=jobs)
    write_splits(importer, result)
    return result, result.splits[0]


@pytest.mark.parametrize('jobs', [1, 2])
def test_images_labels_and_subsets_are_those_of_the_archive(tmp_path, jobs):
    arrays = make_arrays()
    result, split = prepare(write(tmp_path / 'source', arrays), tmp_path / 'out', jobs)
    assert result.store.name == 'pneumoniamnist'
    assert result.store.classes == ('normal', 'pneumonia')
    assert split.protocol == 'pneumoniamnist-subsets'
    for subset, count in COUNTS.items():
        data = ClassificationImages(
            str(tmp_path / 'out'), 'pneumoniamnist-subsets', subset, labelled=True
        )
        assert len(data) == count
        np.testing.assert_array_equal(
            data.get_gt_labels(), arrays[f'{subset}_labels'][:, 0]
        )
        for index, image in enumerate(arrays[f'{subset}_images']):
            np.testing.assert_array_equal(data.prepare_data(index)['img'], image)
    assert set(split['pretrain']) == {*split['train'], *split['val']}
    assert 'intervals are over images' in result.notes[0]
    assert '12 / 5 / 6 images' in result.notes[1]
    assert 'the published set 4708 / 524 / 624' in result.notes[1]


def test_second_import_reads_nothing(tmp_path):
    folder = write(tmp_path / 'source', make_arrays())
    prepare(folder, tmp_path / 'out')
    assert prepare(folder, tmp_path / 'out')[0].count('unchanged') == 23
    # Another label of one image: that one alone is new, though all images
    # come from the changed file.
    arrays = make_arrays()
    arrays['val_labels'][3] = 0
    write(folder, arrays)
    result, _ = prepare(folder, tmp_path / 'out')
    place = result.store.index_of('val-000003')
    assert result.store.labels[place] == 0


def test_several_labels_and_colours_and_sizes(tmp_path):
    arrays = make_arrays((64, 64, 3), 14)
    folder = write(tmp_path / 'source', arrays, 'chestmnist_64.npz')
    result, split = prepare(folder, tmp_path / 'out')
    assert split.protocol == 'chestmnist-subsets'
    assert result.store.size == (64, 64) and result.store.channels == 3
    assert result.store.task == 'multi-label'
    assert result.store.classes[-1] == 'Hernia'
    data = ClassificationImages(str(tmp_path / 'out'), 'chestmnist-subsets', 'val')
    np.testing.assert_array_equal(data.get_gt_labels(), arrays['val_labels'])


def test_names_of_classes(tmp_path):
    folder = write(tmp_path / 'source', make_arrays(), 'mymnist.npz')
    result, _ = prepare(folder, tmp_path / 'out')
    assert result.store.classes == ('class 0', 'class 1')
    assert len(result.notes) == 1  # nothing published to compare with
    result, _ = prepare(folder, tmp_path / 'named', classes='well, ill')
    assert result.store.classes == ('well', 'ill')
    with pytest.raises(UserError, match='2 classes, but 1 name.*--classes'):
        prepare(folder, tmp_path / 'few', classes='well')


def test_what_test_holds_is_not_trained_on(tmp_path):
    arrays = make_arrays()
    arrays['train_images'][4] = arrays['test_images'][1]
    arrays['train_images'][5] = arrays['val_images'][2]
    arrays['val_images'][0] = arrays['test_images'][3]
    arrays['test_images'][5] = arrays['test_images'][0]
    result, split = prepare(write(tmp_path / 'source', arrays), tmp_path / 'out')
    assert len(result.store) == 23 and not result.count('rejected')
    assert len(split['test']) == 6  # as published, the repeated one too
    assert len(split['val']) == 4 and 'val-000000' not in split['val']
    assert len(split['train']) == 10
    assert not {'train-000004', 'train-000005'} & set(split['train'])
    assert 'val-000000' not in split['pretrain']
    assert any('3 image(s) of train or val' in note for note in result.notes)
    patient_of = result.store.patient_of
    assert patient_of('train-000005') == patient_of('val-000002')
    assert patient_of('test-000005') == patient_of('test-000000')


def test_one_of_several_archives_is_chosen(tmp_path):
    folder = write(tmp_path / 'source', make_arrays(), 'amnist.npz')
    write(folder, make_arrays(seed=1), 'bmnist.npz')
    with pytest.raises(UserError, match=r'2 archives: amnist.npz, bmnist'):
        prepare(folder, tmp_path / 'out')
    result, _ = prepare(folder, tmp_path / 'out', images='bmnist.npz')
    assert result.store.name == 'bmnist'
    with pytest.raises(UserError, match=r'(?s)0 archives.*pneumoniamnist.npz'):
        prepare(folder, tmp_path / 'other', images='cmnist.npz')


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda a: without(a, 'val_labels'), 'no array val_labels; its arrays'),
        (
            lambda a: {**a, 'val_images': a['val_images'][:, :20]},
            r'val_images is uint8 \(5, 20, 28\); expected uint8, square',
        ),
        (
            lambda a: {**a, 'test_images': a['test_images'] / 255},
            'test_images is float64',
        ),
        (
            lambda a: {**a, 'test_images': a['test_images'][:0]},
            r'test_images is uint8 \(0, 28, 28\)',
        ),
        (lambda a: make_arrays((28, 28, 28)), '3D sets cannot be imported'),
        (
            lambda a: {**a, 'train_labels': a['train_labels'][:7]},
            r'train_labels is uint8 \(7, 1\); expected integers \(12, 1\)',
        ),
        (
            lambda a: {**a, 'train_labels': a['train_labels'][:, 0]},
            r'train_labels is uint8 \(12,\)',
        ),
        (lambda a: {**a, 'val_labels': a['val_labels'] * 1.0}, 'val_labels is float64'),
        (
            lambda a: {**a, 'val_labels': a['val_labels'].astype(int) - 1},
            'val_labels has values from -1 to 0',
        ),
        (
            lambda a: {
                k: np.repeat(v, 3, 1) * 2 if 'labels' in k else v for k, v in a.items()
            },
            'train_labels has values from 0 to 2',
        ),
    ],
)
def test_archive_of_another_form_is_refused(tmp_path, change, message):
    folder = write(tmp_path / 'source', change(make_arrays()))
    with pytest.raises(UserError, match=message) as caught:
        prepare(folder, tmp_path / 'out')
    assert str(folder / 'pneumoniamnist.npz') in str(caught.value)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: b'',
        lambda content: b'text',
        lambda content: content[: len(content) // 2],
        lambda content: content[:3000] + bytes(900) + content[3900:],
    ],
)
def test_damaged_archive_is_refused(tmp_path, damage):
    folder = write(tmp_path / 'source', make_arrays())
    path = folder / 'pneumoniamnist.npz'
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        UserError,
        match=r'pneumoniamnist.npz is damaged or '
        r'no NumPy archive \(.+\); fetch it again',
    ):
        prepare(folder, tmp_path / 'out')


def test_real_archive(realdata, tmp_path):
    result, split = prepare(realdata / 'pneumoniamnist', tmp_path / 'out')
    assert len(result.store) == 5030
    assert {name: len(split[name]) for name in COUNTS} == dict(
        train=3872, val=524, test=624
    )
    counts = np.bincount(result.store.labels, minlength=2)
    assert counts.tolist() == [757, 4273]
