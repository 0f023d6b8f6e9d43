"""Opening: once per process, anew after an import, never more than a few."""

import gc
import multiprocessing
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import (
    ImageStoreWriter,
    SliceStore,
    check_no_leak,
    load_split,
    open_store,
    to_source_grid,
)
from tests.conftest import write_tiny_store, writer_at
from tests.waiting import PATIENCE

FORMAT1 = Path(__file__).parents[1] / 'data' / 'format1'


def test_dead_stores_are_let_go(tmp_path):
    stores = []
    for number in range(40):
        writer = writer_at(tmp_path / str(number))
        writer.add_case('a', np.eye(16, dtype=np.uint8)[None])
        writer.finish()
        store = open_store(tmp_path / str(number))
        store.read_slice('a', 0)
        stores.append(weakref.ref(store))
        shutil.rmtree(tmp_path / str(number))
    del store
    gc.collect()
    assert sum(store() is not None for store in stores) <= 16


def test_a_store_imported_anew_is_opened_anew(tmp_path):
    write_tiny_store(tmp_path / 's', patients=1)
    first = open_store(tmp_path / 's')
    assert open_store(str(tmp_path / 's'), 'slices') is first
    write_tiny_store(tmp_path / 's', patients=2)
    assert open_store(tmp_path / 's').case_ids == ('p0-0', 'p1-0')


def volume(number):
    z, y, x = np.mgrid[:4, :24, :20]
    image = ((37 * z + 3 * y * y + 11 * x + 101 * number) % 400 - 100).astype(np.int16)
    image[2] = -1024
    return image, ((y // 8 + x // 10 + number) % 3).astype(np.uint8)


def picture(number, colour):
    y, x = np.mgrid[:16, :12]
    image = ((5 * y + 7 * x * x + 31 * number) % 256).astype(np.uint8)
    if number == 1:
        image[:] = 9
    return np.stack([image, 255 - image, image // 2], -1) if colour else image


def test_slices_of_format_1(tmp_path):
    store = open_store(FORMAT1 / 'slices')
    assert store.case_ids == ('c0', 'c1', 'c2', 'c3')
    assert (store.name, store.modality, store.units) == ('old', 'CT', 'HU')
    assert store.classes == ('background', 'liver', 'kidney')
    assert store.channels == ('CT',)
    assert store.import_options == {'patient_pattern': 'p(.)'}
    for number, case_id in enumerate(store.case_ids):
        image, label = volume(number)
        info = store.case(case_id)
        assert info.patient_id == f'p{number}' and info.shape == (4, 24, 20)
        if number:
            np.testing.assert_array_equal(store.read_volume(case_id), image)
        else:  # its source grid is another
            source = to_source_grid(store.read_volume(case_id), info)
            np.testing.assert_array_equal(source.T, image)
            assert info.spacing == (2.5, 0.75, 0.75)
            image, label = store.read_volume(case_id), to_source_grid(label, info)
            label = label.T
        assert info.labelled == (number != 3)
        if info.labelled:
            np.testing.assert_array_equal(store.read_label_slice(case_id, 3), label[3])
        for index in (3, 2, 0):
            np.testing.assert_array_equal(
                store.read_slice(case_id, index), image[index]
            )
    assert store.case('c1').labelled_slices == (0, 3)
    assert store.case('c0').intensity['std'] == pytest.approx(494.52180711100425)
    assert store.case('c2').slice_foreground == [1.0, 1.0, 0.0, 1.0]
    split = load_split(store.root, 'old-holdout')
    assert split.hash == '0ef04aa365e4'
    assert dict(split.subsets) == dict(
        train=('c1',), val=('c2',), test=('c0',), pretrain=('c1', 'c2', 'c3')
    )
    check_no_leak(split, store.patient_of)


@pytest.mark.parametrize(
    'task, split_hash, labels',
    [
        ('single-label', '4cb05cd0e572', [0, 1, -1, 1]),
        (
            'multi-label',
            'd8c586588dca',
            [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]],
        ),
    ],
)
def test_images_of_format_1(tmp_path, task, split_hash, labels):
    colour = task == 'single-label'
    store = open_store(FORMAT1 / task)
    assert store.task == task and store.channels == (3 if colour else 1)
    assert store.labels.tolist() == labels
    assert load_split(store.root, 'old-holdout').hash == split_hash
    for number in (3, 1, 0, 2):
        np.testing.assert_array_equal(store.read(number), picture(number, colour))
    # An import goes on with what is there.
    shutil.copytree(store.root, tmp_path / 'set')
    writer = ImageStoreWriter.create(
        tmp_path / 'set', store.name, task, store.classes, store.channels, store.size
    )
    writer.add_case('a', picture(7, colour), labels[0])
    grown = writer.finish()
    assert grown.case_ids == ('a', 'i0', 'i1', 'i2', 'i3')
    for number in range(4):
        np.testing.assert_array_equal(grown.read(number + 1), picture(number, colour))


def test_other_formats_are_refused(tmp_path):
    shutil.copytree(FORMAT1 / 'slices', tmp_path / 's')
    header = tmp_path / 's' / 'dataset.json'
    header.write_text(header.read_text().replace('"version": 1', '"version": 3'))
    with pytest.raises(UserError, match='version 3.*1 and 2.*import'):
        open_store(tmp_path / 's')


def _read(root, index, results):
    store = open_store(root)
    results.put((store.channels, store.read_slice('a', index)))


@pytest.mark.parametrize('method', ['fork', 'forkserver'])
def test_channels_are_read_in_workers(tmp_path, method):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(3, 2, 16, 20)).astype(np.float32)
    writer = writer_at(tmp_path / 's', channels=('T1', 'T2'))
    writer.add_case('a', image)
    writer.finish().read_slice('a', 1)
    np.testing.assert_array_equal(
        open_store(tmp_path / 's').read_slice('a', 1), image[1]
    )
    context = multiprocessing.get_context(method)
    results = context.Queue()
    workers = [
        context.Process(target=_read, args=(tmp_path / 's', index, results))
        for index in range(3)
    ]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=PATIENCE) for _ in workers]
    for worker in workers:
        worker.join()
    assert {names for names, _ in found} == {('T1', 'T2')}
    order = np.argsort([float(pixels[0, 0, 0]) for _, pixels in found])
    expected = np.argsort(image[:, 0, 0, 0])
    for one, other in zip(order, expected):
        np.testing.assert_array_equal(found[one][1], image[other])


def test_many_workers_share_one_reader(tiny_store):
    """Readers that were open before the fork read right in every child."""
    whole = {c: tiny_store.read_volume(c) for c in tiny_store.case_ids}
    reader = tiny_store._readers.get(('p0-0', 'image'), None)
    pids = []
    for seed in range(4):
        pid = os.fork()
        if not pid:
            rng, good = np.random.default_rng(seed), True
            for _ in range(500):
                index = int(rng.integers(6))
                good &= bool((reader.read(index) == whole['p0-0'][index]).all())
            os._exit(0 if good else 1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert isinstance(tiny_store, SliceStore)
