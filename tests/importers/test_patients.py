"""Whose scan it is: by names of usual layouts, a table, headers; else a warning."""

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.patients import Person, doubtful_patients, name_patients
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.image_folder import ImageFolderImporter
from medssl_mm.importers.sets.image_table import ImageTableImporter
from medssl_mm.importers.sets.nifti import NIfTIImporter
from medssl_mm.importers.splits import write_splits
from medssl_mm.store.splits import check_no_leak, load_split
from tests.conftest import make_ct, write_nifti
from tests.datasets.images import make_picture, write_picture


def people(*names, suffix='.nii.gz', said=None):
    said = said or {}
    return [
        Person(name.replace('/', '_'), f'/data/sub-x/{name}{suffix}', said.get(name))
        for name in names
    ]


def guessed(*names):
    notes = []
    return name_patients(people(*names), notes, guess=True), notes


@pytest.mark.parametrize(
    'title, names, patients',
    [
        ('BIDS', ['sub-01_ses-1', 'sub-01_ses-2', 'sub-2_T1w'], 'sub-01 sub-01 sub-2'),
        (
            'BIDS',
            ['sub-a/ses-1/anat/sub-a_ses-1_T1w', 'sub-a/ses-2/x', 'sub-b/ses-1/x'],
            'sub-a sub-a sub-b',
        ),
        (
            'ACDC',
            ['patient001_frame01', 'patient001_frame12', 'patient002_frame01'],
            'patient001 patient001 patient002',
        ),
        (
            'TCIA',
            ['TCGA-02-0006_1996', 'TCGA-02-0006_1997', 'LIDC-IDRI-0001'],
            'TCGA-02-0006 TCGA-02-0006 LIDC-IDRI-0001',
        ),
        (
            'TCIA',
            ['A1/01-02-2000-NA-1/s1/x', 'A1/03-02-2001-NA-2/s/x', 'B/01-02-2000-3/s/x'],
            'A1 A1 B',
        ),
        (
            'nnU-Net',
            ['case_001_0000', 'case_001_0001', 'case_002_0000', 'case_002_0001'],
            'case_001 case_001 case_002 case_002',
        ),
    ],
)
def test_names_of_usual_layouts(title, names, patients):
    found, notes = guessed(*names)
    assert list(found.values()) == patients.split()
    (note,) = notes
    assert title in note and f'{len(names)} of {len(names)} cases' in note
    assert f'are of {len(set(patients.split()))} patients' in note
    assert patients.split()[0] in note and '--patient-pattern' in note


@pytest.mark.parametrize(
    'names',
    [
        ['liver_0', 'liver_1', 'liver_12'],  # Decathlon
        ['BRATS_001', 'BRATS_002', 'BRATS_003'],
        ['case_0001', 'case_0002', 'case_0003'],  # four digits are no channel
        ['scan0', 'scan1', 'scan2'],
        ['img0001', 'img0002'],
        ['liver_2001', 'liver_2002', 'liver_1999'],
        ['Case_00001', 'Case_00002'],
        ['anna', 'bob'],
    ],
)
def test_a_name_for_everybody_says_nothing(names):
    assert guessed(*names) == ({}, [])


@pytest.mark.parametrize(
    'names, several, persons, example',
    [
        (['P1_left', 'P1_right', 'P2_left'], 2, 1, 'P1_left, P1_right'),
        (['anna_ses1', 'anna_ses2', 'bob_ses1', 'bob_ses2'], 4, 2, 'anna_ses1'),
        (['x7-20190102', 'x7-20200304', 'x8-20200304'], 2, 1, 'x7-20190102'),
        (['p1_visit_1', 'p1_visit_2', 'p1_visit_3'], 3, 1, 'p1_visit_1, p1_visit_2'),
        (['a1/pre', 'a1/post', 'a2/pre', 'a2/post'], 4, 2, 'a1_pre, a1_post'),
        (['arterial_k3', 'venous_k3', 'arterial_k4'], 2, 1, 'arterial_k3, venous_k3'),
        (['P001_1', 'P001_2', 'P002_1', 'P002_2'], 4, 2, 'P001_1, P001_2'),
        (['c1_ED', 'c1_ES', 'c2_ED'], 2, 1, 'c1_ED, c1_ES'),
    ],
)
def test_names_that_look_like_one_person(names, several, persons, example):
    found, (note,) = guessed(*names)
    assert found == {}
    assert f'{several} of {len(names)} cases look like' in note
    assert f'several scans of {persons} person(s)' in note and example in note
    assert '--patients FILE.csv' in note
    assert name_patients(people(*names), notes := [], pattern='(.*)') == {}
    assert notes == []


def test_patients_of_headers_that_are_none():
    cases = ['a', 'b', 'c', 'd']
    assert doubtful_patients(dict(a='1x', b='1x', c='2x', d='3x'), cases) == []
    (note,) = doubtful_patients(dict(a='1x', b='2x'), cases, where='the headers')
    assert "2 of 4 cases have no patient in the headers, e.g. 'c', 'd'" in note
    (note,) = doubtful_patients(dict.fromkeys(cases, 'X'), cases)
    assert "all 4 cases are of one patient in the source ('X')" in note
    said = dict(a='Anonymous', b='Anonymous', c='1x', d='2x')
    (note,) = doubtful_patients(said, cases)
    assert "2 cases are of the patient 'Anonymous'" in note and 'no name' in note
    said = {f'p{n}': None if n > 1 else f'x{n}' for n in range(4)}
    notes = []
    found = name_patients(people(*said, said=said), notes, guess=True)
    assert found == dict(p0='x0', p1='x1') and '2 of 4 cases' in notes[0]


def write_table(path, *rows, header='case,patient'):
    path.write_text('\n'.join([header, *rows]) + '\n')
    return str(path)


def test_a_table_names_them(tmp_path):
    cases = people('sub-01_ses-1', 'sub-01_ses-2', 'x/y')
    path = tmp_path / 'p.csv'
    rows = ['sub-01_ses-1,A', 'sub-01_ses-2.nii.gz,B', 'x/y,A']
    notes = []
    found = name_patients(cases, notes, write_table(path, *rows), guess=True)
    assert found == {'sub-01_ses-1': 'A', 'sub-01_ses-2': 'B', 'x_y': 'A'}
    assert notes == [f'3 case(s) are of 2 patients, as {path} says']
    notes.clear()
    name_patients(cases, notes, write_table(path, *rows, 'z9,C'))
    assert "names 1 case(s) that are not in the source, e.g. 'z9'" in notes[0]


@pytest.mark.parametrize(
    'rows, header, message',
    [
        (['a,1', 'bb,2'], 'case,patient', "lacks 1 of 2 cases, e.g. 'b'; .*none: .*bb"),
        (['a,1', 'b,'], 'case,patient', "line 3: expected a case and .*'b' and ''"),
        (
            ['a,1', 'b,2', 'a,3'],
            'case,patient',
            "line 4: 'a' is of patient '3'.*line 2",
        ),
        (
            ['a,1'],
            'name,patient',
            "no column 'case'; its columns are 'name', 'patient'",
        ),
        (['a,1'], 'case,who', "no column 'patient'"),
    ],
)
def test_tables_that_do_not_name_everybody(tmp_path, rows, header, message):
    path = write_table(tmp_path / 'p.csv', *rows, header=header)
    with pytest.raises(UserError, match=message):
        name_patients(people('a', 'b'), [], path)


@pytest.fixture
def sessions(tmp_path):
    for number in range(10):
        name = f'sub-{number // 2:02d}_ses-{number % 2}.nii.gz'
        image, label = make_ct(number)
        write_nifti(tmp_path / 'in' / 'images' / name, image.T)
        write_nifti(tmp_path / 'in' / 'labels' / name, label.T)
    return tmp_path / 'in'


def test_sessions_of_one_person_are_never_parted(sessions, tmp_path):
    importer = NIfTIImporter(classes='liver,kidney')
    result = import_dataset(importer, sessions, tmp_path / 'out')
    assert any('10 of 10 cases are of 5 patients' in note for note in result.notes)
    write_splits(importer, result, holdout=0.4)
    (split,) = result.splits
    check_no_leak(split, lambda case: case.partition('_')[0])
    assert len(split['test']) == 4


def test_a_pattern_or_table_wins(sessions, tmp_path):
    def patients(out, **options):
        importer = NIfTIImporter(classes='liver,kidney', **options)
        result = import_dataset(importer, sessions, tmp_path / out)
        return [i.patient_id for i in result.store.infos()], result.notes

    found, notes = patients('one', patient_pattern=r'(.*)\.nii')
    assert len(set(found)) == 10 and notes == []
    rows = [f'sub-{n // 2:02d}_ses-{n % 2},p{n % 3}' for n in range(10)]
    table = write_table(tmp_path / 'p.csv', *rows)
    found, notes = patients('two', patients=table)
    assert found == [f'p{n % 3}' for n in range(10)]
    # A store made by a table is not continued without one; the table may be corrected.
    with pytest.raises(UserError, match="import_options.*'patients': True"):
        patients('two')
    rows[0] = 'sub-00_ses-0,p9'
    assert (
        patients('two', patients=write_table(tmp_path / 'q.csv', *rows))[0][0] == 'p9'
    )


def test_patients_of_pictures(tmp_path):
    folder = tmp_path / 'in'
    for seed in range(12):
        name = f'{seed // 2 + 100}_{"left" if seed % 2 else "right"}.png'
        write_picture(folder / 'ab'[seed % 2] / name, make_picture(seed, 16))
    result = import_dataset(ImageFolderImporter(), folder, tmp_path / 'one')
    assert any(
        '12 of 12 images look like several scans of 6 person' in n for n in result.notes
    )
    table = write_table(
        tmp_path / 'p.csv',
        *(
            f'{s // 2 + 100}_{"left" if s % 2 else "right"}.png,p{s // 2}'
            for s in range(12)
        ),
        header='image,patient',
    )
    importer = ImageFolderImporter(patients=table)
    result = import_dataset(importer, folder, tmp_path / 'two')
    assert len({i.patient_id for i in result.store.infos()}) == 6
    write_splits(importer, result)
    split = load_split(tmp_path / 'two', 'image-folder-patients')
    check_no_leak(split, lambda name: name.partition('/')[2][:3])


def test_a_column_that_is_empty_or_the_same(tmp_path):
    folder = tmp_path / 'in'
    for seed in range(6):
        write_picture(folder / f'{seed}.png', make_picture(seed, 16))

    def notes(out, *patients):
        rows = [f'{n}.png,{n % 2},{p}' for n, p in enumerate(patients)]
        write_table(folder / 'labels.csv', *rows, header='path,label,who')
        importer = ImageTableImporter(patient_column='who')
        return '\n'.join(import_dataset(importer, folder, tmp_path / out).notes)

    assert "1 of 6 images have no patient in the source, e.g. '5.png'" in notes(
        'one', 'a', 'a', 'b', 'b', 'c', ''
    )
    assert "all 6 images are of one patient in the source ('x')" in notes(
        'two', *'xxxxxx'
    )
    assert 'patient' not in notes('three', *'aabbcc')
