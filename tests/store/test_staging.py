"""What both writers promise: all of it, or what was there."""

import errno
import os
import signal

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import ImageStoreWriter, StoreWriter, open_store
from tests.conftest import write_tiny_store, writer_at
from tests.datasets.images import make_picture, write_image_set


def tree(root):
    """Content of every published file, by path."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob('*'))
        if path.is_file() and '.import' not in path.parts
    }


def stage_volumes(root, overwrite):
    if not (root / 'dataset.json').exists():
        write_tiny_store(root, patients=3)
    store = open_store(root)
    writer = StoreWriter.create(
        root,
        store.name,
        store.modality,
        store.units,
        store.classes,
        store.palette,
        overwrite=overwrite,
    )
    for case_id in ('new', 'p0-0'):
        writer.add_case(case_id, np.eye(16, dtype=np.int16)[None])
    return writer


def stage_images(root, overwrite):
    if not (root / 'dataset.json').exists():
        write_image_set(root, patients=3, each=1)
    writer = ImageStoreWriter.create(
        root, 'made', 'single-label', ('no', 'yes'), 1, (16, 16), overwrite=overwrite
    )
    for case_id in ('new', 'p0-0'):
        writer.add_case(case_id, make_picture(50, 16, 1), 0)
    return writer


@pytest.mark.parametrize('stage', [stage_volumes, stage_images])
@pytest.mark.parametrize('overwrite', [False, True])
@pytest.mark.parametrize('linked', [True, False])
def test_all_or_nothing(tmp_path, monkeypatch, stage, overwrite, linked):
    """Whichever rename fails, the store is what it was, and can be finished."""
    root = tmp_path / 'set'
    writer = stage(root, overwrite)
    before = tree(root)
    rename, calls = os.replace, []

    def fail_once(source, target):
        calls.append(source)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, 'No space left on device')
        rename(source, target)

    if not linked:  # a drive without hard links

        def no_link(*args, **kwargs):
            raise OSError(errno.EPERM, 'Operation not permitted')

        monkeypatch.setattr(os, 'link', no_link)
    monkeypatch.setattr(os, 'replace', fail_once)
    at = failures = 0
    while True:
        at += 1
        calls.clear()
        try:
            store = writer.finish(remove=['p1-0'])
            break
        except UserError as error:
            assert 'No space left' in str(error)
            failures += 1
        assert tree(root) == before
        assert writer.staged == ['new', 'p0-0']
    assert failures >= 4
    assert store.case_ids == (('new', 'p0-0') if overwrite else ('new', 'p0-0', 'p2-0'))
    assert (root / 'splits').is_dir()
    assert any((root / 'splits').iterdir()) != overwrite
    assert not writer.staging.exists()


def test_a_publication_that_was_killed_is_put_right(tmp_path):
    """Killed between taking the old case away and putting in the new one."""
    store = write_tiny_store(tmp_path / 's', patients=2)
    before = tree(store.root)
    kept = store.root / '.import' / 'replaced' / 'cases'
    kept.mkdir(parents=True)
    (store.root / 'cases' / 'p0-0').rename(kept / 'p0-0')
    writer = StoreWriter.create(
        store.root, 'tiny', 'CT', 'HU', store.classes, store.palette
    )
    assert writer.published == ['p0-0', 'p1-0']
    writer.discard()
    assert tree(store.root) == before


def test_a_first_publication_that_was_killed_goes_on(tmp_path):
    image = np.eye(16, dtype=np.uint8)[None]
    writer = writer_at(tmp_path / 's')
    writer.add_case('a', image)
    writer.add_case('b', image)
    (tmp_path / 's' / 'cases').mkdir()
    (writer.staging / 'cases' / 'a').rename(tmp_path / 's' / 'cases' / 'a')
    again = writer_at(tmp_path / 's')
    assert (again.published, again.staged) == (['a'], ['b'])
    assert again.finish().case_ids == ('a', 'b')


@pytest.mark.parametrize('stage', [stage_volumes, stage_images])
@pytest.mark.parametrize('overwrite', [False, True])
def test_killed_at_any_rename(tmp_path, stage, overwrite):
    """Old or new, or refused with the remedy; the next import puts it right."""
    root = tmp_path / 'set'
    at = refused = finished = 0
    while not finished:
        at += 1
        writer = stage(root, overwrite)
        before, cases = tree(root), open_store(root).case_ids
        pid = os.fork()
        if not pid:
            finish_until(writer, at)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, -signal.SIGKILL)
        try:
            found = open_store(root).case_ids
            finished = found != cases
            assert (tree(root) == before) != finished
        except UserError as error:
            refused += 1
            assert 'half one import and half another' in str(error)
            assert 'Run the same' in str(error) and 'again' in str(error)
        if finished:
            break
        writer = stage_again(stage, root)
        assert tree(root) == before
        if not overwrite:
            assert writer.staged == ['new', 'p0-0']
        assert open_store(root).case_ids == cases
        writer.discard()
        assert sorted(p.name for p in root.glob('.*')) == []
    assert refused >= 3
    assert found == (('new', 'p0-0') if overwrite else ('new', 'p0-0', 'p2-0'))
    stage_again(stage, root).discard()
    assert open_store(root).case_ids == found
    assert sorted(p.name for p in root.glob('.*')) == []


def stage_again(stage, root):
    """Go on with an import that was killed, without new cases."""
    store = open_header(root)
    kind = StoreWriter if stage is stage_volumes else ImageStoreWriter
    return kind.stage(root, store, False)


def open_header(root):
    import json

    return json.loads((root / 'dataset.json').read_text())


def finish_until(writer, at):
    """In a process of its own: finish, and die at a rename."""
    rename, calls = os.replace, []

    def die(source, target):
        calls.append(source)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = die
    writer.finish(remove=['p1-0'])
    os._exit(0)


def test_what_an_import_left_behind_is_cleared(tmp_path):
    store = write_tiny_store(tmp_path / 's', patients=2)
    old = store.root / '.import-done-abc' / 'replaced' / 'cases' / 'gone'
    old.mkdir(parents=True)
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    halves = [store.root / f'.{pid}.dataset.json', store.root / f'splits/.{pid}.a.json']
    whole = store.root / 'splits' / f'.{os.getpid()}.b.json'  # being written
    for path in (*halves, whole):
        path.write_text('{')
    writer = StoreWriter.create(
        store.root, 'tiny', 'CT', 'HU', store.classes, store.palette
    )
    assert not (store.root / '.import-done-abc').exists()
    assert [path.exists() for path in (*halves, whole)] == [False, False, True]
    assert writer.published == ['p0-0', 'p1-0']


def test_a_copy_of_a_part_is_refused(tmp_path):
    store = write_tiny_store(tmp_path / 's', patients=2)
    (store.root / 'generation.txt').write_text('other')
    with pytest.raises(UserError, match='half one import.*copied anew'):
        open_store(store.root)
