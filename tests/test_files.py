import errno
import os

import pytest

from medssl_mm.errors import UserError
from medssl_mm.files import (
    claim,
    inherited_lock,
    locked,
    whole_file,
    write_json,
    write_whole,
)


def test_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'table.csv.gz'
    with whole_file(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith('.csv.gz')
        temporary.write_text('half')
        assert not path.exists()
        temporary.write_text('whole')
    assert path.read_text() == 'whole'
    assert list(tmp_path.iterdir()) == [path]


def test_keeps_the_former_file_after_an_error(tmp_path):
    path = tmp_path / 'scores.json'
    write_json(path, dict(dice=1.0))
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text('half')
        raise ZeroDivisionError
    assert path.read_text() == '{\n "dice": 1.0\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_says_what_cannot_be_written(tmp_path):
    with (
        pytest.raises(UserError, match='cannot write .*absent/a.npz: No such'),
        whole_file(tmp_path / 'absent/a.npz') as temporary,
    ):
        temporary.write_bytes(b'')
    (tmp_path / 'a.txt').mkdir()
    with pytest.raises(UserError, match='cannot write .*a.txt: Is a directory'):
        write_whole(tmp_path / 'a.txt', 'text')


def test_makes_the_folder_and_writes_utf8(tmp_path):
    write_whole(tmp_path / 'new/folder/note.txt', 'Größe')
    assert (tmp_path / 'new/folder/note.txt').read_bytes() == ('Größe'.encode())


def test_second_owner_of_a_folder_is_refused_and_told_of_the_first(tmp_path):
    folder = tmp_path / 'run'
    with claim(folder):
        with pytest.raises(
            UserError, match=f'works in .*run.*process {os.getpid()} on'
        ):
            claim(folder)
        with locked(folder) as lock:
            assert lock is None
    claim(folder).close()  # free again


def test_folder_that_the_starting_process_has_locked_is_free(tmp_path, monkeypatch):
    with locked(tmp_path) as lock:
        assert lock is not None
        with pytest.raises(UserError, match='another run'):
            claim(tmp_path)
        for name, value in inherited_lock(tmp_path).items():
            monkeypatch.setenv(name, value)
        claim(tmp_path).close()
        with locked(tmp_path / 'other'), pytest.raises(UserError, match='another run'):
            claim(tmp_path / 'other')


def test_full_disk_while_torch_writes(tmp_path):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'a.pth'
    path.write_text('before')
    with pytest.raises(UserError, match=r'cannot write .*a\.pth: .*is the disk full\?'):
        with whole_file(path) as temporary:
            temporary.symlink_to('/dev/full')
            torch.save(torch.ones(10_000), temporary)
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_disk_that_safetensors_cannot_write_to(tmp_path):
    torch = pytest.importorskip('torch')
    writer = pytest.importorskip('safetensors.torch')
    with pytest.raises(UserError, match=r'cannot write .*a\.safetensors: .*I/O error'):
        with whole_file(tmp_path / 'gone/a.safetensors') as temporary:
            writer.save_file({'a': torch.ones(2)}, temporary)


def test_what_cannot_be_cleared_hides_nothing(tmp_path):
    """As on a disk that has become read-only."""
    with pytest.raises(UserError, match=r'cannot write .*a\.txt: Read-only'):
        with whole_file(tmp_path / 'a.txt') as temporary:
            temporary.mkdir()  # so that it cannot be unlinked
            raise OSError(errno.EROFS, 'Read-only file system')
