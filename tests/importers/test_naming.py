"""What pairs, what is the id of a case, who is the patient."""

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.naming import by_wildcard, match_patient, safe_case_id


def test_case_ids_are_folder_names():
    assert safe_case_id('sub/dir/scan 1 (a)') == 'sub_dir_scan_1_a'
    with pytest.raises(UserError, match="'///'"):
        safe_case_id('///')


def test_patient_pattern():
    assert match_patient(None, 'a/b.png', 'b') == 'b'
    assert match_patient(r'(\d+)_\d+\.png', 'x/10001_12.png', 'b') == '10001'
    assert match_patient(r'(a|b)/(?P<patient>\d+)', 'b/77.png', 'x') == '77'
    with pytest.raises(UserError, match='has no group'):
        match_patient(r'\d+', 'a', 'a')
    with pytest.raises(UserError, match="does not match 'a'"):
        match_patient(r'(\d+)', 'a', 'a')
    with pytest.raises(UserError, match='no regular|not a regular'):
        match_patient('(', 'a', 'a')


@pytest.mark.parametrize(
    'pattern, keys',
    [
        ('img/*.png', {('a1',), ('a22',), ('b1',)}),
        ('img/a?.png', {('1',)}),
        ('img/[ab]1.png', {('a',), ('b',)}),
        ('img/[!a]?.png', {('b1',)}),
        ('*/a*.png', {('img', '1'), ('img', '22'), ('seg', '1')}),
        ('**/a1.png', {('img',), ('seg',), ('deep/er',)}),
        ('img/[a-b][0-9]*.png', {('a1',), ('a22',), ('b1',)}),
    ],
)
def test_keys_are_what_the_wildcards_match(tmp_path, pattern, keys):
    names = ('img/a1.png', 'img/a22.PNG', 'img/b1.png', 'seg/a1.png', 'deep/er/a1.Png')
    for name in (*names, 'img/c1.jpg', 'img/._a3.png', '__MACOSX/img/a4.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert set(by_wildcard(tmp_path, pattern)) == keys


def test_globs_that_cannot_be_used(tmp_path):
    (tmp_path / 'a.png').touch()
    (tmp_path / 'a.PNG').touch()
    with pytest.raises(UserError, match=r'a.PNG and .*a.png cannot be told apart'):
        by_wildcard(tmp_path, '*.png')
    with pytest.raises(UserError, match='must be relative'):
        by_wildcard(tmp_path, f'{tmp_path}/*.png')
