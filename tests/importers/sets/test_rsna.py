"""RSNA: label files, DICOM files, and what may be wrong with either."""

import shutil

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.picture_tables import Columns, read_listed
from medssl_mm.importers.sets.rsna import RSNAImporter
from tests.importers.dicom_files import make_slice
from tests.importers.sets.test_idc import prepare, problems

PATIENTS = [f'0000-{n:02d}' for n in range(12)]
KAGGLE = 'patientId,x,y,width,height,Target'


@pytest.fixture
def rsna(tmp_path):
    folder = tmp_path / 'source'
    (folder / 'images').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(PATIENTS):
        pixels = rng.integers(0, 256, (20, 20)).astype(np.uint16)
        if number == 11:
            pixels[:] = 1
        make_slice(
            pixels,
            (0, 0, 0),
            Modality='CR',
            PhotometricInterpretation='MONOCHROME1' if number == 1 else 'MONOCHROME2',
        ).save_as(folder / f'images/{name}.dcm', enforce_file_format=True)
    return folder


def write(folder, rows, header='subject,label', name='dataset.csv'):
    (folder / name).write_text('\ufeff' + '\n'.join([header, *rows]) + '\n', 'utf-8')


@pytest.mark.parametrize('no, yes', [('0', '1'), ('FALSE', 'TRUE'), ('0.0', '1.0')])
def test_dataset_csv(rsna, tmp_path, no, yes):
    write(rsna, [f'{p},{yes if n % 3 == 0 else no}' for n, p in enumerate(PATIENTS)])
    result, splits = prepare(RSNAImporter, rsna, tmp_path)
    store = result.store
    assert store.classes == ('no opacity', 'opacity') and store.size == (256, 256)
    assert store.channels == 1 and np.bincount(store.labels).tolist() == [8, 4]
    # An image of one value is kept, and listed.
    assert len(store) == 12
    blank = next(r for r in result.results if r.case_id == PATIENTS[11])
    assert [p.code for p in blank.problems] == ['enlarged', 'blank']
    assert set(splits) == {'rsna-patients'}


def test_images_of_one_value_stay(tmp_path):
    """Files as the original's tests make them: 300 times the same blank image."""
    folder = tmp_path / 'source'
    folder.mkdir()
    blank = make_slice(np.ones((16, 16), np.uint16), (0, 0, 0), Modality='CR')
    labels = np.random.default_rng(0).permutation([1] * 63 + [0] * 237)
    for number in range(300):
        blank.save_as(folder / f'{number}.dcm', enforce_file_format=True)
    write(folder, [f'{number},{label}' for number, label in enumerate(labels)])
    result, splits = prepare(RSNAImporter, folder, tmp_path, size=16, split='innereye')
    assert np.bincount(result.store.labels).tolist() == [237, 63]
    assert set(problems(result).values()) == {'blank'}
    split = splits['rsna-innereye-seed42']
    assert (len(split['train']), len(split['val'])) == (270, 30)


def test_kaggle_has_a_row_per_box(rsna, tmp_path):
    rows = [f'{PATIENTS[0]},1,2,3,4,1', f'{PATIENTS[0]},5,6,7,8,1']
    rows += [f'{p},,,,,0' for p in PATIENTS[1:]]
    write(rsna, rows, KAGGLE, 'stage_2_train_labels.csv')
    result, _ = prepare(RSNAImporter, rsna, tmp_path, size=16)
    assert result.store.labels.tolist() == [1, *[0] * 11]


def test_files_named_by_a_column(rsna):
    rows = [f's{n},images/{p}.dcm,0' for n, p in enumerate(PATIENTS)]
    write(rsna, rows, 'subject,filepath,label')
    found = RSNAImporter().discover(rsna)
    assert {c.patient_id for c in found.cases} == {f's{n}' for n in range(12)}
    assert not any('problem' in c.extra for c in found.cases)


def test_patients_of_a_table(rsna, tmp_path):
    """NIH's, of whom several pictures are: a split keeps them together."""
    write(rsna, [f'{p},{n % 2}' for n, p in enumerate(PATIENTS)])
    rows = [f'{p},{n // 3:08d}' for n, p in enumerate(PATIENTS)]
    write(tmp_path, rows, 'case,patient', 'nih.csv')
    table = str(tmp_path / 'nih.csv')
    result, splits = prepare(
        RSNAImporter, rsna, tmp_path, size=16, patients=table, split='innereye'
    )
    store = result.store
    assert set(store.patient_ids) == {f'{n:08d}' for n in range(4)}
    split = splits['rsna-innereye-seed42']
    sides = [
        {store.patient_of(name) for name in split[subset]}
        for subset in ('train', 'val')
    ]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


def test_innereye_split(rsna, tmp_path):
    write(rsna, [f'{p},{n % 2}' for n, p in enumerate(PATIENTS)])
    _, splits = prepare(RSNAImporter, rsna, tmp_path, size=16, split='innereye-1')
    split = splits['rsna-innereye-seed1']
    assert len(split['val']) == 1 and len(split['train']) == 11
    assert 'test' not in split.subsets


@pytest.mark.parametrize(
    'rows, message',
    [
        ([f'{PATIENTS[0]},2'], 'line 2: labels must be 0 or 1, found 2'),
        ([f'{PATIENTS[0]},maybe'], 'line 2: labels must be 0 or 1, found maybe'),
        (
            [f'{PATIENTS[0]},1', f'{PATIENTS[0]},0'],
            "line 3: 0000-00 has the label '0', but '1' in line 2",
        ),
        (
            ['nobody,1'],
            "None of the 1 pictures of .*dataset.csv .* no picture 'nobody'",
        ),
    ],
)
def test_label_files_that_are_wrong(rsna, rows, message):
    write(rsna, rows)
    with pytest.raises(UserError, match=message) as caught:
        RSNAImporter().discover(rsna)
    assert 'dataset.csv' in str(caught.value)


def test_no_label_file(rsna):
    with pytest.raises(UserError, match='none of dataset.csv, stage_2_train_labels'):
        RSNAImporter().discover(rsna)


def test_unknown_subject_and_damaged_file(rsna, tmp_path):
    write(rsna, [*(f'{p},{n % 2}' for n, p in enumerate(PATIENTS)), 'nobody,1'])
    path = rsna / f'images/{PATIENTS[4]}.dcm'
    path.write_bytes(path.read_bytes()[:-100])
    shutil.copy(rsna / f'images/{PATIENTS[5]}.dcm', rsna / 'images/unlisted.dcm')
    result, _ = prepare(RSNAImporter, rsna, tmp_path, size=16)
    found = {r.case_id: r.problems[0] for r in result.results if r.status == 'rejected'}
    assert {name: p.code for name, p in found.items()} == {
        'nobody': 'missing',
        PATIENTS[4]: 'damaged-pixels',
    }
    assert "no picture 'nobody'" in found['nobody'].message
    assert 'Copy the file again' in found[PATIENTS[4]].message
    assert any('1 picture(s) are not in dataset.csv' in n for n in result.notes)


def test_the_real_label_file(realdata):
    """30227 rows, 26684 patients, 6012 positive."""
    listed = read_listed(
        realdata / 'label_files/kaggle_stage_2_train_labels.csv.zip',
        Columns('patientId', 'Target', patient='patientId'),
    )
    assert len(listed) == 26684
    assert sum(item.label == '1' for item in listed) == 6012


def test_the_real_pair(realdata, tmp_path):
    (plain,) = (realdata / 'rsna_sample').glob('1.2.276*.dcm')
    names = [plain.stem, 'Fake_MONOHR1']
    (tmp_path / 'lists').mkdir()
    write(tmp_path / 'lists', [f'{names[0]},1', f'{names[1]},0'])
    result, _ = prepare(
        RSNAImporter,
        realdata / 'rsna_sample',
        tmp_path,
        lists=str(tmp_path / 'lists'),
        size=1024,
    )
    store = result.store
    one, other = (store.read(store.index_of(name)) for name in names)
    np.testing.assert_array_equal(one, 255 - other)
    assert not problems(result)
