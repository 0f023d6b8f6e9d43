import pytest

from medssl_mm.errors import UserError
from medssl_mm.files import whole_file, write_json, write_whole


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
