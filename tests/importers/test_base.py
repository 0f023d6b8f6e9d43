"""What importers share: ids, patients, class files, messages."""

import json
import pickle

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import IMPORTERS, make_importer
from medssl_mm.importers.base import (
    CaseError,
    Importer,
    Problem,
    SourceCase,
    check_unique,
    class_names,
    match_patient,
    read_classes,
    safe_case_id,
)


@pytest.mark.parametrize('name', IMPORTERS)
def test_every_importer_describes_itself(name):
    importer = make_importer(name)
    assert importer.name == name
    if importer.kind == 'slices':
        assert importer.classes[0] == 'background'
    else:
        # None before the source is read, where that decides.
        assert len(importer.classes) > 1 or 'classes' in importer.options
        assert 'background' not in importer.classes
        assert importer.channels in (1, 3)
    assert importer.layout.strip()
    pickle.loads(pickle.dumps(importer))


@pytest.mark.parametrize(
    'name', [name for name in IMPORTERS if make_importer(name).source_needed]
)
def test_empty_folder_ends_in_the_expected_layout(name, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)) as error:
        make_importer(name).discover(tmp_path)
    assert make_importer(name).layout.strip().splitlines()[0] in str(error.value)


def test_unknown_name_lists_the_known():
    with pytest.raises(UserError, match="'cifar'.*abdomen1k"):
        make_importer('cifar')


def test_two_files_for_one_case_are_named():
    cases = [
        SourceCase('a', 'a', 'x/a.nii'),
        SourceCase('b', 'b', 'x/b.nii'),
        SourceCase('a', 'a', 'y/a.nii'),
    ]
    with pytest.raises(UserError, match='x/a.nii and y/a.nii'):
        check_unique(cases)
    assert [c.case_id for c in check_unique(cases[1:])] == ['a', 'b']


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
    'content',
    [
        ['background', 'liver', 'spleen'],
        {'1': 'liver', '2': 'spleen'},
        {'0': 'background', '1': 'liver', '2': 'spleen'},
        {'labels': {'background': 0, 'liver': 1, 'spleen': 2}},
    ],
)
def test_class_files(tmp_path, content):
    path = tmp_path / 'classes.json'
    path.write_text(json.dumps(content))
    assert read_classes(path) == ('background', 'liver', 'spleen')


@pytest.mark.parametrize(
    'content, message',
    [
        ('{"1": "liver", "3": "spleen"}', r'missing: \[2\]'),
        ('{"liver": "x"}', "keys are.*'liver'"),
        ('5', 'found int'),
        ('{', 'is not JSON'),
        ('[1, 2]', 'must be a string'),
    ],
)
def test_bad_class_files(tmp_path, content, message):
    path = tmp_path / 'classes.json'
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_classes(path)
    assert str(path) in str(error.value)


def test_class_names_by_hand():
    assert class_names('liver, spleen') == ('background', 'liver', 'spleen')
    assert class_names('liver') == ('background', 'liver')
    many = ','.join(f'class{i}' for i in range(200))  # no file name
    assert len(class_names(many)) == 201
    with pytest.raises(UserError, match='gone.json: No such file'):
        class_names('gone.json')


def test_case_error_crosses_processes():
    error = pickle.loads(pickle.dumps(CaseError('tiny', 'too small')))
    assert (error.code, str(error)) == ('tiny', 'too small')


def test_problem_knows_two_severities():
    with pytest.raises(ValueError, match="'fatal'"):
        Problem('fatal', 'x', 'y')


def test_source_files_of_folders_and_lists(tmp_path):
    for name in ('b.dcm', 'a.dcm'):
        (tmp_path / name).write_text(name)
    importer = Importer()
    image, label = importer.source_files(SourceCase('a', 'a', str(tmp_path)))
    assert image == [str(tmp_path / 'a.dcm'), str(tmp_path / 'b.dcm')]
    assert label == []
    image, label = importer.source_files(
        SourceCase(
            'a', 'a', 'x', 'y', {'image_files': ['1', '2'], 'label_files': ['3']}
        )
    )
    assert (image, label) == (['1', '2'], ['3'])
