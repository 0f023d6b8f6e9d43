"""What pairs, what is the id of a case, who is the patient."""

import os
import unicodedata

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.naming import (
    by_wildcard,
    digest_of,
    find_files,
    find_patient,
    first_group,
    match_patient,
    safe_case_id,
    walk,
)


def test_case_ids_are_folder_names():
    assert safe_case_id('sub/dir/scan 1 (a)') == 'sub_dir_scan_1_a'
    assert safe_case_id('patients/Müller 1') == 'patients_Müller_1'
    assert safe_case_id('患者一') == '患者一'
    assert safe_case_id('मरीज़') == unicodedata.normalize('NFC', 'मरीज़')
    # Two ways to write an umlaut are one letter, and one name on some disks.
    assert safe_case_id('Mu\u0308ller') == safe_case_id('M\u00fcller')


@pytest.mark.parametrize(
    'texts',
    [('///', '???', ''), ('患' * 200 + 'a', '患' * 200 + 'b'), ('x' * 400, 'x' * 401)],
)
def test_names_of_any_kind_get_ids_that_a_disk_takes(texts, tmp_path):
    ids = {safe_case_id(text) for text in texts}
    assert len(ids) == len(texts)
    for case_id in ids:
        (tmp_path / f'{case_id}_predicted_labels.nii.gz').touch()
    assert ids == {safe_case_id(text) for text in texts}


def test_bytes_that_are_no_text_make_an_id():
    name = os.fsdecode(b'M\xfcller')
    assert safe_case_id(name) == 'M_ller' and len(digest_of(name)) == 8


def test_what_is_no_file_is_told_and_links_are_followed(tmp_path):
    src = tmp_path / 'src'
    (src / 'a').mkdir(parents=True)
    (tmp_path / 'far').mkdir()
    (tmp_path / 'far' / 'x.png').touch()
    (src / 'linked').symlink_to(tmp_path / 'far')
    (src / 'a' / 'back').symlink_to(src)
    (src / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    os.mkfifo(src / 'pipe.png')
    for name in ('._x.png', '.DS_Store', 'Thumbs.db', 'y.png'):
        (src / name).touch()
    found = {p.relative_to(src).as_posix(): is_file for p, is_file in walk(src)}
    assert found == {
        'linked/x.png': True,
        'gone.png': False,
        'pipe.png': False,
        'y.png': True,
    }
    assert {path.name for path in find_files(src)} == {'x.png', 'y.png'}


def test_globs_take_what_a_walk_takes(tmp_path):
    src, far = tmp_path / 'src', tmp_path / 'far'
    for path in (
        src / 'a/images/1.png',
        src / 'a/images/.ipynb_checkpoints/1-checkpoint.png',
        src / 'a/images/.2.png',
        src / '.cache/images/3.png',
        src / 'c.png/deep/4.png',
        far / 'images/5.png',
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (src / 'b').symlink_to(far)
    (src / 'a' / 'back').symlink_to(src)

    def names(pattern):
        return [p.relative_to(src).as_posix() for p in find_files(src, pattern)]

    both = ['a/images/1.png', 'b/images/5.png']
    assert names('*/images/*.png') == names('**/images/*.png') == both
    assert names('**/*.png') == [*both, 'c.png/deep/4.png'] == names('**/*')
    assert names('b/**/*.png') == both[1:]
    assert names('*.png') == []
    # What a glob names is taken, whatever it is called.
    assert names('.cache/*/*.png') == ['.cache/images/3.png']
    assert names('../far/images/*') == ['../far/images/5.png']
    assert set(by_wildcard(src, '**/images/*.png')) == {('a', '1'), ('b', '5')}


@pytest.mark.parametrize('pattern', [r'(\d*)', r'(?:x(\d))?P', r'P(?P<patient> *)1'])
def test_a_group_that_matches_nothing_is_no_patient(pattern):
    with pytest.raises(
        UserError, match=r"matches 'P1a', but its group matches nothing"
    ):
        match_patient(pattern, 'P1a', 'own')
    patient, problem = find_patient(pattern, 'P1a', 'own')
    assert patient == 'own' and problem[0] == 'patient-pattern'


def test_a_pattern_says_what_it_is_for():
    with pytest.raises(UserError, match='slice pattern .* must be the slice number'):
        first_group(r'_(\d+)', 'x.png', 'slice')


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
