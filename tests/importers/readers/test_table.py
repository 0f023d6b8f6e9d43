"""Lists as text: tables and lines."""

import gzip
import os
import zipfile

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.readers import table
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


ROWS = [{'image': 'a;1', 'level': '0'}, {'image': 'b "x"', 'level': '4'}]
QUOTED = '"a;1"{0}0{1}"b ""x"""{0}4{1}'


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le'])
def test_tables_as_programs_write_them(tmp_path, delimiter, end, encoding):
    path = tmp_path / 'a.csv'
    text = f'image{delimiter} level{end}' + QUOTED.format(delimiter, end)
    path.write_bytes(text.encode(encoding))
    for columns in ((), ('image', 'level')):
        assert [row for _, row in read_rows(path, columns)] == ROWS
    blank = delimiter + end
    path.write_bytes(f'{blank}{text}{blank}{end}'.encode(encoding))
    assert [row for _, row in read_rows(path)] == ROWS


@pytest.mark.parametrize('line', ['sep=;', '"sep=;"', 'SEP=;'])
def test_the_line_of_excel_that_names_the_delimiter(tmp_path, line):
    path = tmp_path / 'a.csv'
    path.write_text(f'{line}\r\nimage,x;level\r\np1;2\r\n')
    assert read_rows(path) == [(3, {'image,x': 'p1', 'level': '2'})]


def test_blank_columns_and_rows_at_the_end(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('image,level,,\na,0,,\nb,1\n,,,\n\nc,2,,\n')
    rows = read_rows(path, ('image', 'level'))
    assert [(line, *row.values()) for line, row in rows] == [
        (2, 'a', '0'),
        (3, 'b', '1'),
        (6, 'c', '2'),
    ]
    path.write_text('image,level\na,0,,7\n')
    with pytest.raises(UserError, match='line 2: expected 2 columns'):
        read_rows(path)
    path.write_text('image,level,remark\na,0\nb,1,x\n')  # Excel ends rows early
    assert read_rows(path, ('image', 'level'))[0][1]['remark'] == ''
    with pytest.raises(UserError, match='line 2: expected 3 columns'):
        read_rows(path, ('remark',))


def test_columns_by_the_wanted_names(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('image;a,b,c,d\nx;1,2\n')
    assert read_rows(path, ('image',))[0][1]['image'] == 'x'
    path.write_text(',image,image\n0,a,b\n')  # the index of pandas
    assert read_rows(path)[0][1] == {'': '0', 'image': 'a', 'image.1': 'b'}
    with pytest.raises(UserError, match='names the column image twice'):
        read_rows(path, ('image',))


def test_compressed_tables_by_their_content(tmp_path):
    text = b'image,level\na,0\n'
    path = tmp_path / 'a.csv'
    path.write_bytes(gzip.compress(text))
    assert read_rows(path) == [(2, dict(image='a', level='0'))]
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.csv', text)
        archive.writestr('__MACOSX/._a.csv', b'Mac OS X')
    assert read_rows(path) == [(2, dict(image='a', level='0'))]
    with zipfile.ZipFile(path, 'a') as archive:
        archive.writestr('b.csv', text)
    with pytest.raises(UserError, match='holds 2 files'):
        read_rows(path)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('xl/workbook.xml', '<x/>')
    with pytest.raises(UserError, match='is a workbook; save its sheet'):
        read_rows(path)
    path.write_bytes(gzip.compress(text)[:-6])
    with pytest.raises(UserError, match='is no CSV file'):
        read_rows(path)


def test_windows_1252_is_read_where_it_is_sure(tmp_path, capsys):
    path = tmp_path / 'a.csv'
    path.write_bytes('image,level\nMüller,0\nCafé,1\n'.encode('cp1252'))
    for _ in range(2):
        rows = read_rows(path)
    assert [row['image'] for _, row in rows] == ['Müller', 'Café']
    (line,) = capsys.readouterr().err.splitlines()
    assert "a.csv is not UTF-8; it was read as Windows-1252, e.g. 'Müller'" in line


@pytest.mark.parametrize(
    'word, encoding',
    [
        ('Señor', 'cp1252'),  # Seńor in central Europe
        ('Müller', 'mac-roman'),
        ('Müller', 'cp437'),
        ('снимок', 'cp1251'),
        ('患者', 'gbk'),
        ('患者一', 'shift-jis'),
        ('Dvořák', 'cp1250'),
    ],
)
def test_other_encodings_are_refused(tmp_path, word, encoding):
    path = tmp_path / 'a.csv'
    path.write_bytes(f'image,level\n{word},0\n'.encode(encoding))
    with pytest.raises(UserError, match='neither UTF-8 nor UTF-16.*"CSV UTF-8"'):
        read_rows(path)


def test_what_is_no_text_is_told(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_bytes(b'image,level\na\0b,0\n')
    with pytest.raises(UserError, match='zero bytes'):
        read_rows(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match='no regular file'):
        read_rows(path)


def test_a_table_that_fills_the_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(table, 'LARGEST_TEXT', 1 << 20)
    path = tmp_path / 'a.csv.gz'
    path.write_bytes(gzip.compress(b'a' * (3 << 20)))
    with pytest.raises(UserError, match='more than 1 MiB when unpacked'):
        read_rows(path)


def test_lines_and_what_is_wrong_with_them(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('\ufeffone\n\n two \n')
    assert read_lines(path) == [(1, 'one'), (3, 'two')]
    path.write_text(' \n')
    with pytest.raises(UserError, match='a.txt is empty; expected lines of names'):
        read_lines(path, 'of names')
    path.write_text('"one"\r\n"two 1"\r\n')
    assert read_lines(path) == [(1, 'one'), (2, 'two 1')]
    path.write_bytes('eins\nzwei\n'.encode('utf-16'))
    assert [line for _, line in read_lines(path)] == ['eins', 'zwei']
    with pytest.raises(UserError, match='b.txt: No such file'):
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
        ('3,0', 3),
        ('0,000', 0),
        ('3,5', None),
        ('3,000', None),
        ('1.000000000000000000e+00', 1),
        ('1e400', None),
        ('²', None),
        ('-1', None),
    ],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number


def test_zeros_and_ones():
    assert zeros_and_ones('here', ['0', '1.0', ' 1']) == (0, 1, 1)
    with pytest.raises(UserError, match='here: labels must be 0 or 1, found 2, x'):
        zeros_and_ones('here', ['0', '2', 'x'])
