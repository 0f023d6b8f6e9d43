import csv
import gzip

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.nih_cxr14 import (
    FINDINGS,
    NIHChestXray14Importer,
    parse_findings,
    patient_of,
    read_data_entry,
    read_label_list,
)
from medssl_mm.importers.splits import write_splits
from tests.datasets.images import make_picture, write_picture

PATIENTS = 10


def names():
    return [f'{p:08d}_{n:03d}.png' for p in range(1, PATIENTS + 1) for n in range(2)]


def findings(name):
    patient = int(name[:8])
    return [FINDINGS[patient % 3]] if patient % 2 else []


def row(name):
    label = [int(f in findings(name)) for f in FINDINGS]
    return ' '.join([name, *map(str, label)])


@pytest.fixture
def nih(tmp_path):
    """Images in two folders, as distributed; returns the source folder."""
    folder = tmp_path / 'source'
    for number, name in enumerate(names()):
        part = f'images_{1 + number % 2:03d}/images'
        write_picture(folder / part / name, make_picture(number, 32, 1))
    return folder


def write_entry(folder, **changed):
    with open(folder / 'Data_Entry_2017.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                'Image Index',
                'Finding Labels',
                'Follow-up #',
                'Patient ID',
                'Patient Age',
            ]
        )
        for name in names():
            text = '|'.join(findings(name)) or 'No Finding'
            writer.writerow([name, changed.get(name, text), 0, int(name[:8]), 50])
    return folder / 'Data_Entry_2017.csv'


def write_fourteen(folder, ends='\r\n'):
    """Patients 1-6 train, 7-8 val, 9-10 test; as the published lists."""
    folder.mkdir(exist_ok=True)
    for subset, low, high in (('train', 1, 6), ('val', 7, 8), ('test', 9, 10)):
        lines = [row(n) for n in names() if low <= int(n[:8]) <= high]
        path = folder / f'chest_xray_14_{subset}_list.txt'
        path.write_bytes(ends.join(lines).encode())


def prepare(folder, tmp_path, **options):
    importer = NIHChestXray14Importer(**dict(dict(size=16), **options))
    result = import_dataset(importer, folder, tmp_path / 'out')
    write_splits(importer, result)
    return result, {s.protocol: s for s in result.splits}


def test_as_distributed(nih, tmp_path):
    write_entry(nih)
    (nih / 'train_val_list.txt').write_text('\n'.join(names()[:16]))
    (nih / 'test_list.txt').write_text('\n'.join(names()[16:]) + '\n')
    result, splits = prepare(nih, tmp_path)
    store = result.store
    assert store.task == 'multi-label' and store.classes == FINDINGS
    assert store.channels == 1 and store.size == (16, 16) and len(store) == 20
    for index, image_id in enumerate(store.image_ids):
        assert [FINDINGS[i] for i in np.flatnonzero(store.labels[index])] == (
            findings(f'{image_id}.png')
        )
        assert store.patient_ids[index] == image_id[:8]
    assert set(splits) == {'nih-cxr14-patients', 'nih-cxr14-official'}
    official = splits['nih-cxr14-official']
    assert {c[:8] for c in official['test']} == {'00000009', '00000010'}
    assert len(official['pretrain']) == 16
    assert set(official['train']) | set(official['val']) == set(official['pretrain'])
    assert len({c[:8] for c in official['val']}) == 1


def test_compressed_labels_and_the_split_by_image(nih, tmp_path):
    """As published: all rows are shuffled and cut, then ChestX-7 is chosen."""
    import pandas

    chosen = {
        name: ['Mass', 'Edema', 'Mass|Nodule', 'No Finding'][n % 4]
        for n, name in enumerate(names())
    }
    chosen.update({name: 'Effusion' for name in names()[9:19]})
    path = write_entry(nih, **chosen)
    path.with_name('Data_Entry_2017_v2020.csv.gz').write_bytes(
        gzip.compress(path.read_bytes())
    )
    path.unlink()
    _, splits = prepare(nih, tmp_path)
    compat = splits['nih-cxr14-compat']
    order = pandas.Series(names()).sample(frac=1, random_state=42).tolist()
    single = [n for n in order if chosen[n] in ('Mass', 'Effusion')]
    train = [n[:-4] for n in single if n in order[:16]]
    assert compat.by == 'image' and compat['pretrain'] == tuple(sorted(train))
    assert compat['test'] == tuple(sorted({n[:-4] for n in single} - {*train}))
    pool = splits['nih-cxr14-compat-pool']['test']
    assert pool == tuple(sorted(n[:-4] for n in single))


def test_fourteen_columns(nih, tmp_path):
    write_fourteen(nih)
    result, splits = prepare(nih, tmp_path)
    store = result.store
    assert store.labels[store.index_of('00000001_000')][1] == 1
    split = splits['nih-cxr14-lists']
    assert {name: len(ids) for name, ids in split.subsets.items()} == dict(
        train=12, val=4, test=4, pretrain=12
    )
    assert set(split['pretrain']) == set(split['train'])


def test_lists_in_a_folder_of_their_own(nih, tmp_path):
    write_entry(nih, **{names()[0]: 'Hernia'})
    write_fourteen(tmp_path / 'lists')
    result, splits = prepare(nih, tmp_path, lists=str(tmp_path / 'lists'))
    assert 'nih-cxr14-lists' in splits
    # The labels of the CSV file count; the difference is told.
    assert result.store.labels[0][FINDINGS.index('Hernia')] == 1
    assert any('1 image(s) have other labels' in n for n in result.notes)
    with pytest.raises(UserError, match='--lists .*nowhere: no such folder'):
        prepare(nih, tmp_path, lists=str(tmp_path / 'nowhere'))


def test_missing_strange_and_unlisted_images(nih, tmp_path):
    write_entry(nih)
    next(nih.rglob(names()[3])).unlink()
    write_picture(nih / 'copy of.png', make_picture(50, 32, 1))
    write_picture(nih / '00000099_000.png', make_picture(51, 32, 1))
    result, _ = prepare(nih, tmp_path)
    found = {r.case_id: r.problems[0].code for r in result.results if r.problems}
    assert found == {names()[3][:-4]: 'missing', 'copy of.png': 'file-name'}
    assert any(
        '1 image(s) are in no label list' in n and '00000099_000.png' in n
        for n in result.notes
    )


def test_a_part_of_the_download_can_be_used(nih, tmp_path):
    write_fourteen(nih)
    for path in (nih / 'images_002').rglob('*.png'):
        path.unlink()
    result, splits = prepare(nih, tmp_path)
    assert len(result.store) == 10 and result.count('rejected') == 10
    assert len(splits['nih-cxr14-lists']['train']) == 6


def test_unknown_finding(nih, tmp_path):
    path = write_entry(nih, **{names()[4]: 'Mass|Fracture'})
    with pytest.raises(
        UserError,
        match=r"line 6: unknown finding 'Fracture'; "
        "known are 'No Finding' and Atelectasis",
    ):
        read_data_entry(path)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'text, message',
    [
        (row(names()[0])[:-2], r'line 1: .*14 columns .*found 13 columns'),
        (row(names()[0]) + ' 0', 'found 15 columns'),
        (row(names()[0])[:-1] + '2', 'labels must be 0 or 1, found 2'),
        (row('0001_000.png'), "'0001_000.png' is no file name of ChestX-ray14"),
        ('\n'.join([row(names()[0])] * 2), 'line 2: 00000001_000.png is listed'),
        ('\n\n', 'is empty'),
    ],
)
def test_wrong_fourteen_column_lists(tmp_path, text, message):
    path = tmp_path / 'train_list.txt'
    path.write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_label_list(path)
    assert str(path) in str(error.value)


def test_wrong_data_entry(nih):
    path = write_entry(nih)
    text = path.read_text()
    path.write_text(text.replace('Finding Labels', 'Labels'))
    with pytest.raises(UserError, match='no column Finding Labels'):
        read_data_entry(path)
    path.write_text(text.replace(',0,3,', ',0,4,', 1))
    with pytest.raises(UserError, match="of patient 3 by its name, of '4'"):
        read_data_entry(path)


def test_lists_that_overlap_or_lack_one(nih, tmp_path):
    write_fourteen(nih)
    train = nih / 'chest_xray_14_train_list.txt'
    text = train.read_text()
    train.write_text(text + '\n' + row(names()[-1]))
    with pytest.raises(
        UserError,
        match=r'test_list.txt: 1 image\(s\) are in '
        'another list',
    ):
        prepare(nih, tmp_path)
    # The same patient on both sides, by other images.
    train.write_text(text + '\n' + row('00000010_007.png'))
    write_picture(nih / '00000010_007.png', make_picture(70, 32, 1))
    with pytest.raises(UserError, match="leaks: patient '00000010'"):
        prepare(nih, tmp_path)
    train.unlink()
    with pytest.raises(UserError, match='but none for train'):
        prepare(nih, tmp_path)


def test_messages_of_the_layout(tmp_path, nih):
    importer = NIHChestXray14Importer()
    with pytest.raises(
        UserError,
        match=r'neither Data_Entry_2017[\s\S]*14-co'
        r'lumn lists in <src>',
    ):
        importer.discover(nih)
    write_entry(tmp_path)
    for path in nih.rglob('*.png'):
        path.unlink()
    write_entry(nih)
    with pytest.raises(UserError, match='None of the 20 listed images'):
        importer.discover(nih)
    (nih / 'train_val_list.txt').write_text(names()[0])
    with pytest.raises(UserError, match='test_list.txt is not'):
        importer.discover(nih)


def test_findings_and_names():
    assert parse_findings('No Finding', 'x') == (0,) * 14
    assert parse_findings('Hernia|Mass', 'x') == tuple(
        int(f in ('Hernia', 'Mass')) for f in FINDINGS
    )
    assert patient_of('00012345_006.png', 'x') == '00012345'
