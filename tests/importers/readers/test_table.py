"""Lists as text: tables and lines."""

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.table import read_rows


def test_csv_files(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('\ufeffimage,level\n1_left,0\n')
    assert read_rows(path) == [(2, dict(image='1_left', level='0'))]
    with pytest.raises(
        UserError, match="no column grade; its columns are 'image', 'level'"
    ):
        read_rows(path, ('image', 'grade'))
    for text, message in (
        ('image,level\n1_left\n', 'line 2: expected 2 col'),
        ('image,level\n1,2,3\n', 'line 2: expected 2 col'),
        ('image,level\n', 'no rows'),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            read_rows(path)
    with pytest.raises(UserError, match='b.csv: No such file'):
        read_rows(tmp_path / 'b.csv')
