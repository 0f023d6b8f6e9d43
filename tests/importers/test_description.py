"""dataset.json of nnU-Net and the Decathlon, in either dialect."""

import json

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.classes import read_classes
from medssl_mm.importers.description import modality_of, read_description


def describe(folder, **content):
    (folder / 'dataset.json').write_text(json.dumps(content))
    return read_description(folder)


@pytest.mark.parametrize(
    'labels',
    [
        {'0': 'background', '1': 'liver', '2': 'tumour'},
        {'background': 0, 'liver': 1, 'tumour': 2},
        {'background': '0', 'tumour': '2', 'liver': '1'},
        {'background': 0.0, 'tumour': 2.0, 'liver': 1.0},
        {'1': 'liver', '2': 'tumour'},
        ['background', 'liver', 'tumour'],
    ],
)
def test_labels_in_every_dialect(tmp_path, labels):
    found = describe(tmp_path, labels=labels)
    assert found.classes == ('background', 'liver', 'tumour')
    assert found.notes == ()


def test_class_names_may_be_figures(tmp_path):
    found = describe(tmp_path, labels={'0': '7', '1': '8'})
    assert found.classes == ('7', '8')


def test_regions_name_the_values(tmp_path):
    labels = {'background': 0, 'whole': [1, 2, 3], 'core': [2, 3], 'active': [3]}
    names = ('background', 'whole', 'core', 'active')
    for more in ({}, {'regions_class_order': [1, 2, 3]}):
        found = describe(tmp_path, labels=labels, **more)
        assert found.classes == names
        (note,) = found.notes
        assert 'regions' in note and '1 whole, 2 core, 3 active' in note
    other = describe(tmp_path, labels=labels, regions_class_order=[1, 3, 2])
    assert other.classes == ('background', 'whole', 'active', 'core')
    with pytest.raises(UserError, match="region 'core'.*'x'"):
        describe(tmp_path, labels=dict(labels, core=['x']))


def test_a_label_to_ignore_is_told(tmp_path):
    found = describe(tmp_path, labels={'background': 0, 'x': 1, 'ignore': 2})
    assert found.classes == ('background', 'x', 'ignore')
    assert "'ignore' (2)" in found.notes[0]


@pytest.mark.parametrize(
    'key, named, channels, modality',
    [
        ('modality', {'0': 'CT'}, ('CT',), 'CT'),
        ('modality', {'0': 'MRI'}, ('MRI',), 'MR'),
        ('modality', 'MRI', ('MRI',), 'MR'),
        ('modality', ['T2', 'ADC'], ('T2', 'ADC'), 'MR'),
        ('channel_names', {'10': 'c', '2': 'b', '0': 'a'}, ('a', 'b', 'c'), 'other'),
        ('channel_names', {'0': 'LGE-MRI'}, ('LGE-MRI',), 'MR'),
        ('channel_names', {'0': 'CTA'}, ('CTA',), 'CT'),
        ('channel_names', {'0': 'CT', '1': 'PET'}, ('CT', 'PET'), 'other'),
        ('channel_names', {'0': 'zscore'}, ('zscore',), 'other'),
        ('channel_names', {'0': 'x', '1': 'x'}, ('x 0', 'x 1'), 'other'),
    ],
)
def test_channels_and_modality(tmp_path, key, named, channels, modality):
    found = describe(tmp_path, **{key: named})
    assert found.channels == channels
    assert modality_of(found.channels) == modality


def test_what_is_not_as_promised_is_told(tmp_path):
    (tmp_path / 'imagesTr').mkdir()
    (tmp_path / 'imagesTr' / 'a.nii.gz').touch()
    found = describe(
        tmp_path,
        numTraining=3,
        file_ending='.nii.gz',
        training=[
            {'image': './imagesTr/a.nii.gz', 'label': './labelsTr/a.nii.gz'},
            {'image': './imagesTr/b.nii.gz', 'label': './labelsTr/b.nii.gz'},
        ],
    )
    notes = found.compare(tmp_path, 1, [tmp_path / 'x.NII.GZ', tmp_path / 'y.nrrd'])
    assert 'says 3 training cases (numTraining), 1 were found' in notes[0]
    assert '1 of 2 training images' in notes[1] and 'b.nii.gz' in notes[1]
    assert '1 file(s) have not the file_ending' in notes[2] and 'y.nrrd' in notes[2]


def test_cases_in_any_place(tmp_path):
    cases = {'a': {'images': ['x/1.nii.gz', '/y/2.nii.gz'], 'label': 'z.nii.gz'}}
    found = describe(tmp_path, dataset={**cases, 'b': {'images': ['3.nii.gz']}})
    assert found.cases == {
        'a': (('x/1.nii.gz', '/y/2.nii.gz'), 'z.nii.gz'),
        'b': (('3.nii.gz',), None),
    }
    assert describe(tmp_path, dataset='a name').cases == {}
    for entry in ('x.nii.gz', {'images': []}, {'images': [1]}, {'label': 'x'}):
        with pytest.raises(UserError, match='dataset.json.*"images".*for \'a\''):
            describe(tmp_path, dataset={'a': entry})


def test_nothing_said(tmp_path):
    assert read_description(tmp_path).classes == ()
    assert describe(tmp_path, name='mine').channels == ()
    (tmp_path / 'dataset.json').write_text('["a", "b"]')
    assert read_description(tmp_path).classes == ()
    (tmp_path / 'dataset.json').write_text('{"labels": 3')
    with pytest.raises(UserError, match='dataset.json is not JSON'):
        read_description(tmp_path)


def test_two_names_of_one_value_are_refused(tmp_path):
    path = tmp_path / 'classes.json'
    path.write_text('{"left": 1, "right": 1}')
    with pytest.raises(UserError, match='two names have one value'):
        read_classes(path)
