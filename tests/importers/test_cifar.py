"""CIFAR: pickled and binary batches, folders, downloads, and damage."""

import pickle

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import cifar
from medssl_mm.importers.pictures import innereye_order
from medssl_mm.importers.sets.cifar10 import CIFAR10Importer
from medssl_mm.importers.sets.cifar100 import CIFAR100Importer
from tests.datasets.images import write_picture
from tests.importers.sets.test_idc import prepare, problems
from tests.test_unpickle import Evil

EACH = 20  # images of a batch


def batch(seed):
    return np.random.default_rng(seed).integers(0, 256, (EACH, 3072), dtype=np.uint8)


def as_picture(row):
    """Slow reference: three planes of rows."""
    picture = np.empty((32, 32, 3), np.uint8)
    for channel in range(3):
        for line in range(32):
            start = 1024 * channel + 32 * line
            picture[line, :, channel] = row[start : start + 32]
    return picture


def write_cifar10(folder, binary=False, batches=None):
    kind = 'cifar-10-batches-bin' if binary else 'cifar-10-batches-py'
    (folder / kind).mkdir(parents=True)
    labels = [n % 10 for n in range(EACH)]
    names = [*(f'data_batch_{n}' for n in range(1, 6)), 'test_batch']
    for seed, name in enumerate(names):
        data = (batches or {}).get(seed, batch(seed))
        if binary:
            rows = np.c_[np.array(labels, np.uint8), data]
            rows.tofile(folder / kind / f'{name}.bin')
        else:
            content = dict(data=data, labels=labels, filenames=['x'] * EACH)
            (folder / kind / name).write_bytes(pickle.dumps(content, 2))
    return folder


@pytest.mark.parametrize('binary', [False, True])
def test_cifar10(tmp_path, binary):
    folder = write_cifar10(tmp_path / 'source', binary)
    result, splits = prepare(CIFAR10Importer, folder, tmp_path)
    store = result.store
    assert len(store) == 6 * EACH and store.size == (32, 32) and not problems(result)
    assert store.classes[:3] == ('airplane', 'automobile', 'bird')
    for image_id, seed, row in (
        ('train-00000', 0, 0),
        ('train-00047', 2, 7),
        ('test-00019', 5, 19),
    ):
        index = store.index_of(image_id)
        np.testing.assert_array_equal(store.read(index), as_picture(batch(seed)[row]))
        assert store.labels[index] == row % 10
    split = splits['cifar10-official']
    assert [len(split[p]) for p in ('train', 'val', 'test')] == [90, 10, 20]
    assert sorted(store.classes_of(c) for c in split['val']) == [
        (n,) for n in range(10)
    ]
    assert all(name.startswith('test-') for name in split['test'])
    assert set(splits) == {'cifar10-official'}


def test_binary_and_pickled_batches_give_one_store(tmp_path):
    stores = []
    for name in ('one', 'two'):
        folder = write_cifar10(tmp_path / name / 'source', name == 'two')
        stores.append(prepare(CIFAR10Importer, folder, tmp_path / name)[0].store)
    one, two = (
        [(i.image_id, i.label, i.content_sha256) for i in s.infos()] for s in stores
    )
    assert one == two


def test_second_import_reads_nothing(tmp_path):
    folder = write_cifar10(tmp_path / 'source')
    prepare(CIFAR10Importer, folder, tmp_path)
    result, _ = prepare(CIFAR10Importer, folder, tmp_path, split='innereye')
    assert result.count('unchanged') == 6 * EACH


def test_innereye_split(tmp_path):
    folder = write_cifar10(tmp_path / 'source')
    _, splits = prepare(CIFAR10Importer, folder, tmp_path, split='innereye')
    split = splits['cifar10-innereye-seed42']
    train, val = innereye_order(5 * EACH, 42)
    assert set(split['val']) == {f'train-{n:05d}' for n in val}
    assert set(split['train']) == {f'train-{n:05d}' for n in train}
    assert set(split['test']) == {f'test-{n:05d}' for n in range(EACH)}


def test_equal_pixels_are_never_on_two_sides(tmp_path):
    """Training images with the pixels of a test image leave the split."""
    twice = batch(0)
    twice[3] = batch(5)[8]  # of another class
    folder = write_cifar10(tmp_path / 'source', batches={0: twice})
    result, splits = prepare(CIFAR10Importer, folder, tmp_path)
    assert problems(result) == {'train-00003': 'duplicate'}
    assert 'train-00003' in result.store.case_ids
    split = splits['cifar10-official']
    assert 'test-00008' in split['test']
    assert 'train-00003' not in (*split['train'], *split['val'], *split['pretrain'])
    assert any('1 image(s) show a patient, or have the' in n for n in result.notes)


@pytest.mark.parametrize('binary', [False, True])
def test_cifar100_takes_the_fine_classes(tmp_path, binary):
    folder = tmp_path / 'source'
    (folder / ('cifar-100-binary' if binary else 'cifar-100-python')).mkdir(
        parents=True
    )
    fine = [99 - n for n in range(EACH)]
    for seed, name in enumerate(('train', 'test')):
        if binary:
            labels = np.array([[n % 20, label] for n, label in enumerate(fine)])
            rows = np.c_[labels.astype(np.uint8), batch(seed)]
            rows.tofile(folder / f'cifar-100-binary/{name}.bin')
        else:
            content = dict(data=batch(seed), fine_labels=fine, coarse_labels=[0] * EACH)
            path = folder / f'cifar-100-python/{name}'
            path.write_bytes(pickle.dumps({k.encode(): v for k, v in content.items()}))
    store = prepare(CIFAR100Importer, folder, tmp_path)[0].store
    assert len(store.classes) == 100 and store.classes[99] == 'worm'
    assert store.labels[store.index_of('train-00002')] == 97


def test_class_folders(tmp_path):
    folder = tmp_path / 'source'
    for subset in ('train', 'test'):
        for kind in ('dog', 'cat'):
            for n in range(10):
                seed = 100 * (subset == 'test') + 10 * (kind == 'dog') + n
                write_picture(
                    folder / f'{subset}/{kind}/{n}.png', as_picture(batch(seed)[0])
                )
    result, splits = prepare(CIFAR10Importer, folder, tmp_path)
    assert set(result.store.labels.tolist()) == {3, 5}
    assert len(splits['cifar10-official']['test']) == 20
    write_picture(folder / 'train/unicorn/1.png', as_picture(batch(1)[0]))
    with pytest.raises(UserError, match='unicorn are no class of cifar10'):
        CIFAR10Importer().discover(folder)


def test_a_foreign_class_is_refused(tmp_path):
    folder = write_cifar10(tmp_path / 'source')
    path = folder / 'cifar-10-batches-py/data_batch_3'
    path.write_bytes(pickle.dumps(dict(data=Evil(tmp_path / 'made'), labels=[])))
    with pytest.raises(UserError, match='data_batch_3 holds the class .*mkdir'):
        CIFAR10Importer().discover(folder)
    assert not (tmp_path / 'made').exists()


@pytest.mark.parametrize(
    'content, message',
    [
        (dict(data=batch(0), labels=[0] * 3), "expected a dictionary with 'data'"),
        (dict(data=batch(0), labels=[10] * EACH), 'labels from 10 to 10'),
        (dict(data=batch(0).astype(float), labels=[0] * EACH), r'uint8 \(N, 3072\)'),
        ([1, 2], 'expected a dictionary'),
    ],
)
def test_pickles_of_another_form(tmp_path, content, message):
    folder = write_cifar10(tmp_path / 'source')
    path = folder / 'cifar-10-batches-py/data_batch_2'
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        CIFAR10Importer().discover(folder)
    assert 'data_batch_2' in str(caught.value)


def test_binary_files_cut_short(tmp_path):
    folder = write_cifar10(tmp_path / 'source', binary=True)
    path = folder / 'cifar-10-batches-bin/test_batch.bin'
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r'test_batch\.bin: 61459 bytes.*of 3073'):
        CIFAR10Importer().discover(folder)


def test_missing_batches(tmp_path):
    folder = write_cifar10(tmp_path / 'source')
    (folder / 'cifar-10-batches-py/data_batch_4').unlink()
    with pytest.raises(UserError, match='data_batch_4 is missing; unpack'):
        CIFAR10Importer().discover(folder)


def test_without_a_network(tmp_path, monkeypatch):
    """A download that fails says what to fetch, and where to put it."""
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.setenv(name, 'http://localhost:9')
    with pytest.raises(UserError, match='cifar-10-python.tar.gz cannot be') as caught:
        cifar.fetch('CIFAR10', tmp_path / 'source')
    message = str(caught.value)
    assert 'c58f30108f718f92721af3b95e74349a' in message
    assert f'unpack it in {tmp_path / "source"}' in message


@pytest.mark.slow
@pytest.mark.parametrize(
    'kind, name, classes',
    [(CIFAR10Importer, 'cifar10', 10), (CIFAR100Importer, 'cifar100', 100)],
)
def test_real_images(realdata, tmp_path, kind, name, classes):
    result, splits = prepare(kind, realdata / f'{name}_png', tmp_path)
    store = result.store
    assert len(store) == 4000 and len(store.classes) == classes
    assert np.bincount(store.labels).tolist() == [4000 // classes] * classes
    split = splits[f'{name}-official']
    assert [len(split[p]) for p in ('train', 'val', 'test')] == [2700, 300, 1000]
