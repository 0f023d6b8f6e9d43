"""Tables of pictures: columns, classes, subsets, and rows that are wrong."""

import gzip
import json
import re
import zipfile

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.sets.image_table import ImageTableImporter
from medssl_mm.store.images import MULTI_LABEL
from tests.datasets.images import make_picture, write_picture
from tests.importers.sets.test_idc import prepare, problems

ROWS = [f'p{n}.png,{"well" if n % 2 else "ill"},{n // 2}' for n in range(20)]


@pytest.fixture
def folder(tmp_path):
    for number in range(20):
        write_picture(
            tmp_path / f'source/{number % 3}/p{number}.png', make_picture(number, 16)
        )
    return tmp_path / 'source'


def table(folder, rows=ROWS, header='path,label,person', name='labels.csv'):
    (folder / name).write_text('\n'.join([header, *rows]) + '\n', encoding='utf-8')
    return folder


def test_columns(folder, tmp_path):
    table(folder, header='\ufefffile,kind,person')
    result, splits = prepare(
        ImageTableImporter,
        folder,
        tmp_path,
        path_column='file',
        label_column='kind',
        patient_column='person',
    )
    store = result.store
    assert store.classes == ('ill', 'well') and not problems(result)
    index = store.index_of('p5.png')
    np.testing.assert_array_equal(store.read(index), make_picture(5, 16))
    assert store.labels[index] == 1 and store.patient_of('p5.png') == '2'
    split = splits['image-table-patients']
    assert {store.patient_of(c) for c in split['test']}.isdisjoint(
        store.patient_of(c) for c in split['train']
    )


@pytest.mark.parametrize('name', ['list.csv.gz', 'list.csv.zip'])
def test_compressed_tables(folder, tmp_path, name):
    text = '\n'.join(['path,label,person', *ROWS])
    if name.endswith('.gz'):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    else:
        with zipfile.ZipFile(folder / name, 'w') as archive:
            archive.writestr('list.csv', text)
    result, _ = prepare(ImageTableImporter, folder, tmp_path)
    assert len(result.store) == 20


@pytest.mark.parametrize(
    'path', ['1/p4.png', 'p4.png', 'p4', 'set-v1/train/1/p4.png', '/data/1/p4.png']
)
def test_how_a_picture_may_be_named(folder, path):
    table(folder, [f'{path},ill,1', 'p5,well,2'])
    case = min(ImageTableImporter().discover(folder).cases, key=lambda c: c.image)
    assert case.image == str(folder / '1/p4.png') and 'problem' not in case.extra


@pytest.mark.parametrize('above', ['', 'deep/er/'])
@pytest.mark.parametrize('prefix', ['', 'set-v1/', '/data/'])
def test_a_picture_of_another_folder_is_not_taken(tmp_path, above, prefix):
    """pE/scan.png is not there, and pD/scan.png is another patient."""
    folder = tmp_path / 'source'
    there = ('pA/t1.png', 'pB/t2.png', 'pD/scan.png')
    for seed, name in enumerate(there):
        write_picture(folder / above / name, make_picture(seed, 16))
    names = [*there[:2], 'pE/scan.png']
    table(folder, [f'{prefix}{name},ill,{n}' for n, name in enumerate(names)])
    cases = {c.case_id: c for c in ImageTableImporter().discover(folder).cases}
    problems = {name: c.extra.get('problem') for name, c in cases.items()}
    lost = problems.pop(f'{prefix}pE/scan.png')
    assert lost[0] == 'missing' and 'line 4: no picture' in lost[1]
    assert set(problems.values()) == {None}


def test_folders_of_the_table_that_are_nowhere_do_not_matter(folder):
    names = ['x/p4.png', 'y/p5', 'z/1/p7.png', 'z/1/p10.png', 'z/p6.png']
    table(folder, [f'{name},ill,1' for name in names])
    write_picture(folder / 'p6.png', make_picture(6, 16))
    (folder / '0/p6.png').unlink()
    found = ImageTableImporter().discover(folder)
    assert [c.extra.get('problem') for c in found.cases] == [None] * 5


def test_one_name_in_two_folders(folder):
    write_picture(folder / '2/p4.png', make_picture(99, 16))
    table(folder, ['p4.png,ill,1', 'p5.png,ill,1'])
    found = ImageTableImporter().discover(folder)
    problems = {c.case_id: c.extra.get('problem') for c in found.cases}
    assert problems['p5.png'] is None and problems['p4.png'][0] == 'ambiguous'
    assert re.search(r'line 2.*1/p4\.png or .*2/p4\.png', problems['p4.png'][1])
    table(folder, ['p4.png,ill,1'])
    with pytest.raises(UserError, match=r'line 2.*1/p4\.png or .*2/p4\.png'):
        ImageTableImporter().discover(folder)


def test_empty_cells_of_pandas_are_no_class(folder, tmp_path):
    rows = [f'p{n},{("ill", "well", "nan", "NaN", "")[n % 5]},{n}' for n in range(20)]
    table(folder, rows)
    result, _ = prepare(ImageTableImporter, folder, tmp_path)
    assert result.store.classes == ('ill', 'well')
    assert sum(info.labelled for info in result.store.infos()) == 8


def test_numbers_are_classes_in_order(folder, tmp_path):
    table(folder, [f'p{n},{n % 11}.0,{n}' for n in range(20)])
    result, _ = prepare(ImageTableImporter, folder, tmp_path)
    assert result.store.classes == tuple(map(str, range(11)))


def test_label_map(folder, tmp_path):
    rows = [f'p{n},{n % 4},{n}' for n in range(20)]
    table(folder, rows)
    label_map = tmp_path / 'map.json'
    label_map.write_text(json.dumps({'0': 'no', '1': 'yes', '2': 'yes', '3': 'no'}))
    for given in ('0=no,1=yes,2=yes,3=no', str(label_map)):
        found = ImageTableImporter(label_map=given).discover(folder)
        assert found.classes == ('no', 'yes')
        labels = {c.case_id: c.extra['label'] for c in found.cases}
        assert [labels[f'p{n}'] for n in range(4)] == [0, 1, 1, 0]
    with pytest.raises(UserError, match="line 4: '2' .* is not in --label-map"):
        ImageTableImporter(label_map='0=no,1=yes').discover(folder)
    with pytest.raises(UserError, match='text=class'):
        ImageTableImporter(label_map='0').discover(folder)


def test_several_labels(folder, tmp_path):
    rows = [f'p{n},{n % 2},{(n // 2) % 2}.0,{n}' for n in range(20)]
    table(folder, rows, 'path,edema,mass,person')
    result, _ = prepare(
        ImageTableImporter,
        folder,
        tmp_path,
        labels='edema, mass',
        patient_column='person',
    )
    store = result.store
    assert store.task == MULTI_LABEL and store.classes == ('edema', 'mass')
    assert store.labels[store.index_of('p3')].tolist() == [1, 1]
    assert store.labels[store.index_of('p1')].tolist() == [1, 0]


def test_uncertain_and_empty_labels(folder):
    table(folder, ['p1,1,-1', 'p2,,1', 'p3,,'], 'path,edema,mass')
    importer = ImageTableImporter(labels='edema,mass', label_map='=0,-1=0,1=1')
    labels = {c.case_id: c.extra['label'] for c in importer.discover(folder).cases}
    assert labels == {'p1': (1, 0), 'p2': (0, 1), 'p3': (0, 0)}
    with pytest.raises(UserError, match='line 2: labels must be 0 or 1, found -1'):
        ImageTableImporter(labels='edema,mass').discover(folder)
    table(folder, ['p2,,1', 'p3,,'], 'path,edema,mass')
    with pytest.raises(UserError, match='line 2: some of the labels are empty'):
        ImageTableImporter(labels='edema,mass').discover(folder)


def test_an_empty_cell_is_an_unknown_label(folder, tmp_path):
    table(folder, [*ROWS[:18], 'p18.png,,9', 'p19.png,,9'])
    result, splits = prepare(
        ImageTableImporter, folder, tmp_path, patient_column='person'
    )
    assert result.store.labelled.sum() == 18
    assert {'p18.png', 'p19.png'} <= set(splits['image-table-patients']['pretrain'])


def test_subsets_by_a_column(folder, tmp_path):
    rows = [f'p{n},{n % 2},{"test" if n > 15 else "Train"}' for n in range(20)]
    table(folder, rows, 'path,label,part')
    result, splits = prepare(ImageTableImporter, folder, tmp_path, split_column='part')
    split = splits['image-table-subsets']
    assert set(split['test']) == {'p16', 'p17', 'p18', 'p19'}
    assert len(split['val']) == 2 and len(split['train']) == 14
    table(folder, ['p1,0,holdout'], 'path,label,part')
    with pytest.raises(UserError, match="line 2: subset 'holdout'; expected one of"):
        ImageTableImporter(split_column='part').discover(folder)


def test_rows_of_one_picture_must_agree(folder):
    table(folder, ['p1,ill,1', 'p2,ill,2', 'p1,ill,1'])
    assert len(ImageTableImporter().discover(folder).cases) == 2
    table(folder, ['p1,ill,1', 'p2,ill,2', 'p1,well,1'])
    with pytest.raises(
        UserError, match=r"labels\.csv, line 4: p1 has the label 'well'.*line 2"
    ):
        ImageTableImporter().discover(folder)


def test_listed_but_missing_and_there_but_unlisted(folder, tmp_path):
    table(folder, [*ROWS[:10], 'gone.png,ill,77'])
    result, _ = prepare(ImageTableImporter, folder, tmp_path)
    assert problems(result) == {'gone.png': 'missing'}
    (message,) = [r.problems[0].message for r in result.results if r.problems]
    assert 'labels.csv, line 12' in message and 'remove the row' in message
    assert any('10 picture(s) are not in labels.csv' in note for note in result.notes)


def test_wrong_tables(folder, tmp_path):
    with pytest.raises(UserError, match='Found 0 tables'):
        ImageTableImporter().discover(folder)
    table(folder)
    with pytest.raises(UserError, match="no column file; its columns are 'path'"):
        ImageTableImporter(path_column='file').discover(folder)
    with pytest.raises(UserError, match='absent.csv: no such file'):
        ImageTableImporter(table='absent.csv').discover(folder)
    table(folder, name='more.csv')
    with pytest.raises(UserError, match='2 tables: labels.csv, more.csv'):
        ImageTableImporter().discover(folder)
    table(folder, ['x,ill,1'], name='none.csv')
    with pytest.raises(UserError, match="None of the 1 pictures .* no picture 'x'"):
        ImageTableImporter(table='none.csv').discover(folder)


def test_options_that_exclude_one_another():
    with pytest.raises(UserError, match='--labels and --label-column'):
        ImageTableImporter(labels='a,b', label_column='c')


def test_rsna_labels_of_nih_images(realdata, tmp_path):
    """Real pair: 247 images of 92 patients."""
    result, splits = prepare(
        ImageTableImporter,
        realdata / 'nih1000_chest_xray',
        tmp_path,
        table=str(realdata / 'rsna_sample/rsna_of_nih1000.csv'),
        path_column='nih_image',
        label_column='Target',
        label_map='0=no opacity,1=opacity',
        patient_pattern=r'(\d{8})_\d{3}\.png',
    )
    store = result.store
    assert store.channels == 1 and store.size == (64, 64)
    assert np.bincount(store.labels).tolist() == [182, 65]
    assert len(set(store.patient_ids.tolist())) == 92
    assert len(store) == 247 and not problems(result)
    assert set(splits) == {'image-table-patients'}
