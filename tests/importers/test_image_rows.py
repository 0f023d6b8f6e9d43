"""Sets that are a row of the table, on made folders with the real names."""

import gzip
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest

from medssl_mm.datasets.image_sets import (
    IMAGE_SETS,
    TABLE,
    ImageSet,
    LabelTable,
    Views,
    markdown_row,
    pairs,
)
from medssl_mm.datasets.label_rules import LabelRules
from medssl_mm.errors import InstallError, UserError
from medssl_mm.importers import importer_class, make_importer
from medssl_mm.importers.image_rows import row_importer
from medssl_mm.store.compat_splits import compat_lists
from medssl_mm.store.splits import load_split
from tests.datasets.images import make_picture, write_picture
from tests.importers.sets.test_idc import prepare, problems


def fill(folder, names, channels=3, side=24):
    for seed, name in enumerate(names):
        write_picture(folder / name, make_picture(seed, side, channels))
    return folder


def write_table(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return path


def labels_of(result):
    names = result.store.classes
    return {
        info.image_id: None if info.label == -1 else names[info.label]
        for info in result.store.infos()
    }


BACH = {'Normal': 'n', 'Benign': 'b', 'InSitu': 'is', 'Invasive': 'iv'}


@pytest.fixture
def bach(tmp_path):
    photos = 'ICIAR2018_BACH_Challenge/Photos'
    names = [
        f'{photos}/{folder}/{letters}{n:03d}.tif'
        for folder, letters in BACH.items()
        for n in range(1, 7)
    ]
    fill(tmp_path / 'bach', [*names, f'{photos}/Test/test0.tif'])
    rows = [f'{name.split("/")[3]},{name.split("/")[2]}' for name in names]
    write_table(tmp_path / f'bach/{photos}/microscopy_ground_truth.csv', *rows)
    return tmp_path / 'bach'


def test_bach(bach, tmp_path):
    result, splits = prepare(importer_class('bach'), bach, tmp_path, size=16)
    labels = labels_of(result)
    assert len(labels) == 24 and result.store.classes == (*BACH,)
    assert labels['iv003'] == 'Invasive' and labels['is006'] == 'InSitu'
    assert any('have another name' in note for note in result.notes)
    compat = splits['bach-compat']
    names = [f'{letters}{n:03d}' for letters in BACH.values() for n in range(1, 7)]
    expected = compat_lists('bach', names, 0.8)['bach-compat']
    assert {k: sorted(v) for k, v in expected.items()} == {
        k: list(v) for k, v in compat.subsets.items()
    }
    assert len(compat['test']) == 5 and compat.by == 'image'
    assert set(splits) == {'bach-patients', 'bach-compat', 'bach-compat-pool'}
    assert load_split(result.store.root, 'bach-compat-pool')['test'] == tuple(
        sorted(names)
    )


def test_folder_name_and_table_must_agree(bach, tmp_path):
    photos = bach / 'ICIAR2018_BACH_Challenge/Photos'
    (photos / 'Benign/b002.tif').rename(photos / 'Normal/b002.tif')
    table = photos / 'microscopy_ground_truth.csv'
    table.write_text(
        table.read_text().replace('iv004.tif,Invasive', 'iv004.tif,InSitu')
    )
    result, _ = prepare(importer_class('bach'), bach, tmp_path, size=16)
    assert problems(result) == {'b002': 'class-mismatch', 'iv004': 'class-mismatch'}
    messages = [r.problems[0].message for r in result.results if r.problems]
    assert "its folder 'Normal' says Normal, its name says Benign" in messages[0]
    assert 'says Invasive' in messages[1] and 'line 22 says InSitu' in messages[1]


def test_tables_without_a_header_are_checked(bach):
    table = next(bach.rglob('microscopy_ground_truth.csv'))
    content = table.read_text()
    table.write_text(content.replace('b001.tif,Benign', 'b001.tif,Benign,1'))
    with pytest.raises(UserError, match='line 7: expected 2 columns as in the first'):
        make_importer('bach').discover(bach)
    table.write_text(content.replace('b001.tif,Benign', 'b001.tif'))
    with pytest.raises(UserError, match='line 7: expected 2 columns as in the first'):
        make_importer('bach').discover(bach)
    table.write_text(content.replace('b001.tif,Benign', 'b001.tif,Bening'))
    with pytest.raises(UserError, match="line 7: unknown label 'Bening' .*column 2"):
        make_importer('bach').discover(bach)


def test_bach_without_a_table(bach, tmp_path):
    (bach / 'ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv').unlink()
    result, _ = prepare(importer_class('bach'), bach, tmp_path, size=16)
    assert labels_of(result)['b001'] == 'Benign'
    fill(bach, ['copy/Benign/b001.tif'])
    problems = problems_of(make_importer('bach').discover(bach))
    assert [code for code, _ in problems] == ['same-name'] * 2
    assert re.search(r'Benign/b001\.tif and .*copy/Benign/b001\.tif', problems[0][1])


def problems_of(found):
    return [c.extra['problem'] for c in found.cases if 'problem' in c.extra]


CXR = {
    'shenzhen': ('CHNCXR', 'ChinaSet_AllFiles/CXR_png', 'shenzhen_metadata.csv'),
    'montgomery': ('MCUCXR', 'MontgomerySet/CXR_png', 'montgomery_metadata.csv'),
}


@pytest.mark.parametrize('name', CXR)
def test_tuberculosis(name, tmp_path):
    letters, inside, table = CXR[name]
    stems = [f'{letters}_{n:04d}_{int(n > 5)}' for n in range(1, 11)]
    source = fill(tmp_path / 'source', [f'{inside}/{s}.png' for s in stems], 1)
    # Montgomery has masks of the same names in folders beside.
    fill(source, [f'MontgomerySet/ManualMask/leftMask/{s}.png' for s in stems], 1)
    importer = make_importer(name)
    labels = [case.extra['label'] for case in importer.discover(source).cases]
    assert labels == [0] * 5 + [1] * 5
    findings = ['normal'] * 5 + ['bilateral PTB', 'PTB, "old"', 'TB', 'STB', 'other']
    rows = [
        f'{stem}.png,male,{30 + n},"{finding.replace(chr(34), chr(34) * 2)}"'
        for n, (stem, finding) in enumerate(zip(stems, findings))
    ]
    write_table(source / table, 'study_id,sex,age,findings', *rows[::-1])
    result, splits = prepare(importer_class(name), source, tmp_path, size=16)
    labels = labels_of(result)
    assert [labels[stem] for stem in stems] == ['normal'] * 5 + ['tuberculosis'] * 5
    assert result.store.channels == 1
    assert result.store.patient_of(stems[3]) == '0004'
    # In the order of the table.
    expected = compat_lists(name, stems[::-1], 0.8)[f'{name}-compat']
    assert sorted(expected['val']) == list(splits[f'{name}-compat']['val'])


def test_columns_that_are_not_there(tmp_path):
    source = fill(tmp_path / 's', ['CHNCXR_0001_0.png'], 1)
    table = write_table(source / 'shenzhen_metadata.csv', 'id,sex', 'CHNCXR_0001_0,m')
    with pytest.raises(UserError, match=f'{table} has no column number 4.*label.*sex'):
        make_importer('shenzhen').discover(source)


def test_macular_degeneration(tmp_path):
    names = [f'Training400/AMD/A{n:04d}.jpg' for n in range(1, 4)]
    names += [f'Training400/Non-AMD/N{n:04d}.jpg' for n in range(1, 6)]
    source = fill(tmp_path / 'source', names)
    result, _ = prepare(importer_class('ichallenge-amd'), source, tmp_path, size=16)
    found = labels_of(result)
    assert found['A0003'] == 'AMD' and found['N0005'] == 'no AMD' and len(found) == 8
    write_table(source / 'amd_labels.csv', 'imgName,label', 'A0001,1', 'N0001,0')
    found = make_importer('ichallenge-amd').discover(source)
    assert [c.extra['label'] for c in found.cases] == [1, 0]
    assert any('6 picture(s) are not in' in note for note in found.notes)
    write_table(source / 'amd_labels.csv', 'imgName,label', 'A0001,1', 'N0001,3')
    with pytest.raises(UserError, match=r"line 3: unknown label '3' .* '1', '0'"):
        make_importer('ichallenge-amd').discover(source)
    write_table(source / 'amd_labels.csv', 'a,b', 'A0001,1', 'N1,0', 'A0001,0')
    with pytest.raises(
        UserError, match='line 4: A0001 has another label than in line 2'
    ):
        make_importer('ichallenge-amd').discover(source)


MYOPIA = {'pathologic': [0, 0, 1], 'high-or-pathologic': [0, 1, 1]}


@pytest.mark.parametrize('label_map, expected', MYOPIA.items())
@pytest.mark.parametrize('table', [True, False])
def test_myopia(label_map, expected, table, tmp_path):
    """Both maps of the published comparison, by file name and by its table."""
    inside = 'PALM-Training400/PALM-Training400'
    stems = ['N0001', 'H0001', 'P0001']
    source = fill(tmp_path / 'source', [f'{inside}/{s}.jpg' for s in stems])
    if table:
        rows = [f'{n},{s}.jpg,1.0,2.0,{n}' for n, s in enumerate(stems)]
        write_table(
            source / 'PALM-Training400/fovea_location_csv.csv',
            'ID,imgName,Fovea_X,Fovea_Y,Label',
            *rows,
        )
    importer = make_importer('ichallenge-pm', label_map=label_map)
    labels = {c.case_id: c.extra['label'] for c in importer.discover(source).cases}
    assert [labels[stem] for stem in stems] == expected
    assert pickle.loads(pickle.dumps(importer)) == importer


def test_the_default_map_of_myopia(tmp_path):
    source = fill(tmp_path / 's', ['H0001.jpg'])
    (case,) = make_importer('ichallenge-pm').discover(source).cases
    assert case.extra['label'] == 0
    with pytest.raises(UserError, match='pathologic, high-or-pathologic, got'):
        make_importer('ichallenge-pm', label_map='myopic')
    with pytest.raises(UserError, match='does not take --label-map'):
        make_importer('bach', label_map='pathologic')


HEADER = ','.join(
    ['Path', 'Sex', 'Age', 'Frontal/Lateral', 'AP/PA', *IMAGE_SETS['chexpert'].classes]
)


def chexpert_row(patient, study, view, effusion=''):
    path = f'CheXpert-v1.0-small/train/patient{patient:05d}/study{study}/{view}.jpg'
    values = [
        effusion if name == 'Pleural Effusion' else ''
        for name in IMAGE_SETS['chexpert'].classes
    ]
    return ','.join([path, 'Male', '50', '', 'AP', *values]), path


def make_chexpert(folder, patients=8):
    rows = []
    for patient in range(1, patients + 1):
        value = ['1.0', '0.0', '-1.0', ''][patient % 4]
        rows.append(chexpert_row(patient, 1, 'view1_frontal', value))
        rows.append(chexpert_row(patient, 1, 'view2_lateral', value))
        rows.append(chexpert_row(patient, 2, 'view1_frontal', '1.0'))
    fill(folder, [path for _, path in rows], 1)
    text = '\n'.join([HEADER, *[row for row, _ in rows]])
    (folder / 'train.csv.gz').write_bytes(gzip.compress(text.encode()))
    return folder, [path for _, path in rows]


def test_chexpert(tmp_path):
    source, paths = make_chexpert(tmp_path / 'source')
    result, splits = prepare(importer_class('chexpert'), source, tmp_path, size=16)
    store = result.store
    assert store.uncertain and len(store) == 24 and not problems(result)
    column = store.classes.index('Pleural Effusion')
    found = {i.image_id: i.label[column] for i in store.infos()}
    # Patients 1 to 4: absent, uncertain, not mentioned, present.
    assert [found[path] for path in paths[:12:3]] == [0, 2, 0, 1]
    assert store.patient_of(paths[5]) == 'patient00002'
    split = splits['chexpert-patients']
    sides = {name: {store.patient_of(i) for i in split[name]} for name in split.subsets}
    assert sides['train'].isdisjoint(sides['test'])
    assert len(pairs(store.image_ids.tolist(), 'chexpert')) == 8


def test_the_published_test_pictures_of_chexpert(tmp_path, monkeypatch):
    row = replace(IMAGE_SETS['chexpert'], compat=0.8)
    monkeypatch.setitem(IMAGE_SETS, 'chexpert', row)
    source, paths = make_chexpert(tmp_path / 'source', 12)
    rows = [chexpert_row(n, 1, 'view1_frontal', f'{n % 2}.0') for n in range(90, 95)]
    tests = [path.replace('/train/', '/valid/') for _, path in rows]
    fill(source, tests, 1)
    for seed, path in enumerate(tests, 500):
        write_picture(source / path, make_picture(seed, 24, 1))
    rows = [row.replace('/train/', '/valid/') for row, _ in rows]
    write_table(source / 'valid.csv', HEADER, *rows)
    kind = row_importer.__wrapped__('chexpert')
    result, splits = prepare(kind, source, tmp_path, size=16)
    assert not problems(result) and len(result.store) == 41
    assert splits['chexpert-subsets']['test'] == tuple(tests)
    assert splits['chexpert-subsets']['val']
    # The published comparison left them out.
    compat = splits['chexpert-compat-pool']['test']
    assert set(compat) == set(paths)


def test_missing_pictures_are_counted_and_named(tmp_path):
    """Also where one of the same file name is there, of another patient."""
    source, paths = make_chexpert(tmp_path / 'source')
    for path in paths[1:]:
        (source / path).unlink()
    result, _ = prepare(importer_class('chexpert'), source, tmp_path, size=16)
    assert [*result.store.case_ids] == [paths[0]]
    assert list(problems(result).values()) == ['missing'] * 23
    first = next(r for r in result.results if r.problems).problems[0].message
    assert 'train.csv.gz, line' in first and 'or remove the row' in first


def test_the_table_of_chexpert(tmp_path):
    source, _ = make_chexpert(tmp_path / 'source', 2)
    (source / 'train.csv.gz').unlink()
    with pytest.raises(UserError, match=r'There is no train\.csv or train\.csv\.gz'):
        make_importer('chexpert').discover(source)
    row = chexpert_row(1, 1, 'view1_frontal', 'maybe')[0]
    write_table(source / 'train.csv', HEADER, row)
    with pytest.raises(
        UserError, match=r"line 2: unknown label 'maybe' in column 'Ple"
    ):
        make_importer('chexpert').discover(source)
    write_table(source / 'train.csv', HEADER.replace('Fracture', 'Broken'), row)
    with pytest.raises(UserError, match=r"train\.csv has no column Fracture.*'Path'"):
        make_importer('chexpert').discover(source)
    (source / 'other').mkdir()
    write_table(source / 'other/train.csv', HEADER, row)
    with pytest.raises(UserError, match='are both there.*--lists'):
        make_importer('chexpert').discover(source)


def test_all_of_chexpert(realdata):
    """Counts of the whole label file: 223414 rows of 64540 patients."""
    path = realdata / 'label_files/chexpert_train.csv.gz'
    rows = make_importer('chexpert').read_table(path)
    names = [row.name for row in rows]
    raw = np.array([row.label for row in rows])
    classes = IMAGE_SETS['chexpert'].classes
    assert len(rows) == 223414
    assert len({name.split('/')[2] for name in names}) == 64540
    effusion = raw[:, classes.index('Pleural Effusion')]
    assert np.bincount(effusion).tolist() == [35396 + 90203, 86187, 11628]
    for uncertain, positive in (('zeros', 86187), ('ones', 86187 + 11628)):
        rules = LabelRules(uncertain, finding='Pleural Effusion')
        assert rules.apply(raw, classes)[0].sum() == positive
    paired = pairs(names, 'chexpert')
    # A slow count: lateral pictures of studies with a frontal one.
    studies = {name.rpartition('/')[0] for name in names if 'frontal' in name}
    lateral = [n for n in names if 'lateral' in n and n.rpartition('/')[0] in studies]
    assert len(paired) == len(lateral) and len(names) - 191027 >= len(lateral) > 0
    split = compat_lists('chexpert', names, IMAGE_SETS['chexpert'].compat)
    assert len(split['chexpert-compat']['test']) == 223414 - 134049


def test_stoic(tmp_path):
    """The middle slice in its window, against SimpleITK's own array."""
    sitk = pytest.importorskip('SimpleITK')
    (tmp_path / 'source/data/mha').mkdir(parents=True)
    volumes = {}
    for number in range(6):
        rng = np.random.default_rng(number)
        volumes[number] = rng.integers(-2000, 1200, (9 + number % 2, 24, 24), np.int16)
        image = sitk.GetImageFromArray(volumes[number])
        sitk.WriteImage(image, str(tmp_path / f'source/data/mha/{number}.mha'))
    write_table(
        tmp_path / 'source/metadata/reference.csv',
        'PatientID,probCOVID,probSevere',
        *[f'{number},{number % 2},0' for number in range(6)],
    )
    kind = importer_class('stoic')
    result, _ = prepare(kind, tmp_path / 'source', tmp_path, size=24)
    store = result.store
    assert [i.label for i in store.infos()] == [0, 1] * 3
    assert [i.patient_id for i in store.infos()] == [*'012345']
    for number, volume in volumes.items():
        slice_ = volume[len(volume) // 2]
        grey = (np.clip(slice_, -1000, 250) + 1000) / 1250 * 255
        np.testing.assert_array_equal(store.read(number), grey.astype(np.uint8))
    # As the published comparison shows it.
    importer = kind(size=24, transposed=True)
    case = importer.discover(tmp_path / 'source').cases[2]
    np.testing.assert_array_equal(importer.load(case).image, store.read(2).T)


def test_stoic_without_simpleitk(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'SimpleITK', None)
    write_table(tmp_path / 'metadata/reference.csv', 'PatientID,probCOVID', '1,0')
    with pytest.raises(InstallError, match=r'SimpleITK.*medssl_mm\[readers\]'):
        make_importer('stoic').discover(tmp_path)


def test_ultrasound_without_masks(tmp_path):
    names = [
        f'{c}/{c} ({n}){m}.png'
        for c in ('benign', 'malignant', 'normal')
        for n in range(1, 4)
        for m in ('', '_mask')
    ]
    source = fill(tmp_path / 'source', names)
    result, _ = prepare(importer_class('busi'), source, tmp_path, size=16)
    assert len(result.store) == 9 and labels_of(result)['normal (2)'] == 'normal'
    assert any('9 picture(s) have another name' in note for note in result.notes)


def test_both_eyes_stay_together(tmp_path):
    kinds = ('normal', 'cataract', 'glaucoma')
    names = [
        f'{kinds[n % 3]}/{n}_{side}.jpg'
        for n in range(30)
        for side in ('left', 'right')
    ]
    source = fill(tmp_path / 'source', names)
    result, splits = prepare(importer_class('odir'), source, tmp_path, size=16)
    store, split = result.store, splits['odir-patients']
    for subset in ('train', 'val', 'test'):
        ids = set(split[subset])
        assert {i.replace('left', 'right') for i in ids if 'left' in i} == {
            i for i in ids if 'right' in i
        }
    paired = pairs(store.image_ids.tolist(), 'odir')
    assert len(paired) == 30 and all(
        store.image_ids[a].replace('left', 'right') == store.image_ids[b]
        for a, b in paired
    )
    assert 'odir-compat' not in splits
    fill(source, ['myopia/99_left.jpg'])
    (problem,) = problems_of(make_importer('odir').discover(source))
    assert problem[0] == 'no-class'
    assert re.search('myopia/99_left.jpg.*normal, cataract, glau', problem[1])


def test_a_further_set_is_one_row(tmp_path, monkeypatch):
    row = ImageSet(
        title='Skin lesions',
        classes=('naevus', 'melanoma'),
        source='`images/*.jpg` and `labels.csv` (columns `image,kind`)',
        layout=TABLE,
        label_maps={'': {'nv': 'naevus', 'mel': 'melanoma'}},
        table=LabelTable(('labels.csv',), 'image', 'kind', needed=True),
        patient=r'/(p\d+)_',
        views=Views(r'(?P<pair>p\d+)_(?P<view>near|far)', ('near', 'far')),
    )
    monkeypatch.setitem(IMAGE_SETS, 'skin', row)
    stems = [f'p{n}_{view}' for n in range(10) for view in ('near', 'far')]
    source = fill(tmp_path / 'source', [f'images/{stem}.jpg' for stem in stems])
    rows = [f'{stem},{"MEL" if int(stem[1]) % 2 else "nv"}' for stem in stems]
    write_table(source / 'labels.csv', 'image,kind', *rows)
    result, splits = prepare(row_importer('skin'), source, tmp_path, size=16)
    assert labels_of(result)['p3_far'] == 'melanoma'
    assert len(pairs(result.store.image_ids.tolist(), 'skin')) == 10
    assert len(splits['skin-patients']['test']) == 4
    assert markdown_row('skin').startswith('| `skin` | `images/*.jpg`')


def test_one_class_in_the_test_set(tmp_path):
    names = [f'AMD/A{n:04d}.jpg' for n in range(10)]
    source = fill(tmp_path / 'source', names)
    result, _ = prepare(importer_class('ichallenge-amd'), source, tmp_path, size=16)
    said = [
        note for note in result.notes if 'all test images are of the class AMD' in note
    ]
    assert any(
        'ichallenge-amd-patients' in note and '--holdout' in note for note in said
    )


@pytest.mark.parametrize(
    'name, folder', [('busi', 'busi_sample'), ('odir', 'odir_fundus')]
)
def test_real_pictures(name, folder, realdata, tmp_path):
    importer = make_importer(name)
    found = importer.discover(realdata / folder)
    images, patients = {'busi': (300, 300), 'odir': (1312, 801)}[name]
    assert len(found.cases) == images
    assert len({case.patient_id for case in found.cases}) == patients
    loaded = importer.load(found.cases[0])
    assert loaded.image.shape == (224, 224, 3) and loaded.image.std() > 10
