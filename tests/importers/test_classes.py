"""Class names and mask values, from files and from options."""

import json

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.classes import class_names, read_classes, read_palette


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


@pytest.mark.parametrize(
    'palette, text',
    [
        ([1, 2], r'found \[1, 2\]|two classes'),
        (dict(background=[0, 0, 0], liver=[300, 0, 0]), 'found'),
        (dict(background=0, liver=0), 'share one value'),
        ('nowhere.json', 'nowhere.json: No such file'),
    ],
)
def test_bad_palettes_are_refused(palette, text):
    with pytest.raises(UserError, match=text):
        read_palette(palette)


def test_palette_from_a_file(tmp_path):
    path = tmp_path / 'p.json'
    path.write_text(json.dumps(dict(background=0, liver=255)))
    assert read_palette(path) == (('background', 'liver'), [0, 255])
