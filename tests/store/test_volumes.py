"""The slice store: messages, bounded caches, safe in workers."""

import multiprocessing
import os
import pickle

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import SliceStore, open_store, to_source_grid
from tests.conftest import writer_at
from tests.waiting import PATIENCE


def test_back_to_the_source_grid(tiny_store):
    info = tiny_store.case('p0-0')
    volume = tiny_store.read_label_volume('p0-0')
    source = to_source_grid(volume, info)
    assert source.shape == info.source_shape == (48, 40, 6)
    np.testing.assert_array_equal(source[::-1, ::-1].T, volume)
    with pytest.raises(ValueError, match=r'has shape \(6, 40, 48\)'):
        to_source_grid(volume[:3], info)


def test_messages_for_what_is_not_there(tiny_store, tmp_path):
    with pytest.raises(UserError, match="no case 'p9'.*p0-0"):
        tiny_store.read_slice('p9', 0)
    with pytest.raises(IndexError, match='has 6 slices'):
        tiny_store.read_slice('p0-0', 6)
    with pytest.raises(UserError, match='does not exist; make it with'):
        SliceStore(tmp_path / 'none')
    with pytest.raises(UserError, match='no slice store'):
        SliceStore(tmp_path)
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', np.eye(16, dtype=np.uint8)[None])
    with pytest.raises(UserError, match='was interrupted'):
        SliceStore(tmp_path / 's')
    with pytest.raises(UserError, match="case 'a'.* has no label"):
        writer.finish().read_label_slice('a', 0)


def test_caches_are_bounded(make_store, tmp_path):
    root = make_store(tmp_path / 's', patients=6).root
    store = SliceStore(root, max_open=2)
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(2):
        for case_id in store.case_ids:
            store.read_slice(case_id, 0)
    assert len(store._readers) == 2
    assert len(os.listdir('/proc/self/fd')) <= before + 2


def _sum(store, results):
    results.put(int(store.read_slice('p2-0', 3).astype(int).sum()))


def test_reads_in_forked_processes(tiny_store):
    expected = int(tiny_store.read_slice('p2-0', 3).astype(int).sum())
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    workers = [
        context.Process(target=_sum, args=(tiny_store, results)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=PATIENCE) for _ in workers] == [expected] * 2
    for worker in workers:
        worker.join()


def test_pickle_holds_no_open_file(tiny_store):
    tiny_store.read_slice('p0-0', 0)
    copy = pickle.loads(pickle.dumps(tiny_store))
    np.testing.assert_array_equal(
        copy.read_slice('p0-0', 1), tiny_store.read_slice('p0-0', 1)
    )
    assert copy.classes == tiny_store.classes
    assert open_store(copy.root) is open_store(str(copy.root))


def test_unfinished_cases_do_not_exist(tmp_path, make_store):
    store = make_store(tmp_path / 's', patients=2)
    (store.root / 'cases' / 'p1-0' / 'case.json').unlink()
    assert SliceStore(store.root).case_ids == ('p0-0',)
