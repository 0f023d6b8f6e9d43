"""Lists as text: tables and lines."""

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.table import (
    by_name,
    join_lists,
    read_lines,
    read_rows,
    whole_number,
    zeros_and_ones,
)


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


def test_lines_and_what_is_wrong_with_them(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('\ufeffone\n\n two \n')
    assert read_lines(path) == [(1, 'one'), (3, 'two')]
    path.write_text(' \n')
    with pytest.raises(UserError, match='a.txt is empty; expected lines of names'):
        read_lines(path, 'of names')
    with pytest.raises(UserError, match='b.txt cannot be read'):
        read_lines(tmp_path / 'b.txt')


def test_names_are_listed_once(tmp_path):
    path = tmp_path / 'a.csv'

    def parse(where, line):
        assert where == f'{path}, line {2 if line == "x" else 5}'
        return line, len(line)

    assert by_name(path, [(2, 'x'), (5, 'yy')], parse) == {'x': 1, 'yy': 2}
    with pytest.raises(UserError, match='line 5: x is listed twice, already in line 2'):
        by_name(path, [(2, 'x'), (5, 'x')], lambda where, line: (line, 0))
    one, two = tmp_path / 'one', tmp_path / 'two'
    assert join_lists({one: {'a': 1}, two: {'b': 2}}) == {'a': 1, 'b': 2}
    with pytest.raises(UserError, match=r'two: 1 image.* in another list .*e.g. a'):
        join_lists({one: {'a': 1}, two: {'a': 2}})


@pytest.mark.parametrize(
    'text, number',
    [
        ('3', 3),
        (' 3 ', 3),
        ('3.0', 3),
        ('3.', 3),
        ('3.5', None),
        ('', None),
        ('x', None),
    ],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number


def test_zeros_and_ones():
    assert zeros_and_ones('here', ['0', '1.0', ' 1']) == (0, 1, 1)
    with pytest.raises(UserError, match='here: labels must be 0 or 1, found 2, x'):
        zeros_and_ones('here', ['0', '2', 'x'])
