"""What importers share: ids, patients, class files, messages."""

import pickle
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import IMPORTERS, make_importer
from medssl_mm.importers.base import (
    CaseError,
    Importer,
    Problem,
    SourceCase,
    check_unique,
)
from medssl_mm.importers.images import ImageImporter
from medssl_mm.importers.volumes import VolumeImporter
from tests.conftest import write_nifti

# Sets whose source names the classes.
UNTOLD = ('dicom', 'image-folder', 'image-table')


@pytest.mark.parametrize('name', IMPORTERS)
def test_every_importer_describes_itself(name):
    importer = make_importer(name)
    assert importer.name == name
    # None before the source is read, where that or an option decides.
    classes = importer.classes
    assert classes or 'classes' in importer.options() or name in UNTOLD
    if isinstance(importer, VolumeImporter):
        assert not classes or classes[0] == 'background'
    else:
        assert isinstance(importer, ImageImporter)
        assert not classes or len(classes) > 1 and 'background' not in classes
        assert importer.channels in ((0,) if name in UNTOLD else (1, 3))
    assert importer.layout.strip() and importer.__doc__
    assert pickle.loads(pickle.dumps(importer)) == importer


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
    twice = [c for c in check_unique(cases) if c.case_id != 'b']
    assert len({c.case_id for c in twice}) == 2
    for case in twice:
        code, message = case.extra['problem']
        assert code == 'same-name' and 'x/a.nii and y/a.nii' in message
    assert [c.case_id for c in check_unique(cases[1:])] == ['a', 'b']


def test_ids_that_are_one_name_on_some_disks_get_a_digest():
    names = ('A', 'a', 'b c', 'b_c', 'd')
    ids = ('A', 'a', 'b_c', 'b_c', 'd')
    cases = [
        SourceCase(i, i, f'{n}.nii', name=n) for i, n in zip(ids, names, strict=True)
    ]
    found = {c.name: c for c in check_unique(cases)}
    folders = [c.case_id.casefold() for c in found.values()]
    assert len(set(folders)) == 5
    assert found['d'].case_id == found['d'].patient_id == 'd'
    for name in names[:4]:
        assert re.fullmatch('(A|a|b_c)-[0-9a-f]{8}', found[name].case_id)
        assert found[name].patient_id == found[name].case_id
        assert 'problem' not in found[name].extra
    # Whatever the order, and whatever else there is.
    again = {c.name: c for c in check_unique([*cases[::-1], SourceCase('e', 'e', 'e')])}
    assert {n: again[n].case_id for n in names} == {n: found[n].case_id for n in names}
    assert len(check_unique(cases[:2], folders=False)) == 2
    assert check_unique(cases[:2], folders=False)[0].case_id == 'A'


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


def test_the_documented_data_set_is_one(tiny_nifti, tmp_path):
    """The file that data/README.md shows imports a data set, with a split."""
    text = (Path(__file__).parents[2] / 'data' / 'README.md').read_text()
    (code,) = re.findall(r'```python\n(# medssl_mm/importers/sets/.*?)```', text, re.S)
    known: dict = {}
    exec(code, known)
    importer = known['MineImporter']()
    folder = tiny_nifti(6, 'a/scan00{}.nii.gz', 'b/liver00{}.nii.gz')
    for path in folder.glob('b/*'):
        write_nifti(path, (nibabel.load(path).get_fdata() > 0).astype(np.uint8))
    found = importer.discover(folder)
    assert found.name == 'mine' and len(found.cases) == 6
    assert all(case.label for case in found.cases)
    assert found.classes == ('background', 'liver') and found.units == 'HU'
    splits, notes = importer.splits(found, found.cases)
    assert [s.protocol for s in splits][0] == 'mine-6' and not notes
    assert importer.load(found.cases[0]).problems == []
