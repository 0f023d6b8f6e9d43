import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.idc import IDCImporter
from medssl_mm.importers.splits import write_splits
from tests.datasets.images import make_picture, write_picture


def patch_name(patient, number, label):
    return f'{patient}_idx5_x{50 * number + 1}_y51_class{label}.png'


def patch(patient, number, label):
    return f'{patient}/{label}/{patch_name(patient, number, label)}'


def all_patches(patients=6):
    return [
        patch(10253 + p, 2 * n + label, label)
        for p in range(patients)
        for label in (0, 1)
        for n in range(2)
    ]


@pytest.fixture
def idc(tmp_path):
    """Patches in the folders of the Kaggle set."""
    folder = tmp_path / 'source'
    for seed, path in enumerate(all_patches()):
        write_picture(folder / path, make_picture(seed, 50))
    return folder


def write_lists(folder, **parts):
    parts = parts or dict(
        train=all_patches()[:12], val=all_patches()[12:16], test=all_patches()[16:]
    )
    folder.mkdir(exist_ok=True)
    for name, paths in parts.items():
        rows = [f'{p},{p.split("/")[1]}' for p in paths]
        (folder / f'{name}_split.csv').write_text(
            '\n'.join(['img_path,labels', *rows]) + '\n'
        )


def prepare(kind, folder, tmp_path, **options):
    importer = kind(**options)
    result = import_dataset(importer, folder, tmp_path / 'out')
    write_splits(importer, result)
    return result, {s.protocol: s for s in result.splits}


def problems(result):
    return {r.case_id: r.problems[0].code for r in result.results if r.problems}


def test_patches(idc, tmp_path):
    result, splits = prepare(IDCImporter, idc, tmp_path)
    store = result.store
    assert len(store) == 24 and store.size == (50, 50)
    assert store.classes == ('negative', 'positive')
    for index, image_id in enumerate(store.image_ids):
        assert store.labels[index] == int(image_id[-1])
        assert store.patient_ids[index] == image_id.split('_')[0]
    np.testing.assert_array_equal(
        store.read(store.index_of('10253_idx5_x1_y51_class0')), make_picture(0, 50)
    )
    assert list(splits) == ['idc-patients']
    parts = [
        {c.split('_')[0] for c in splits['idc-patients'][n]}
        for n in ('train', 'val', 'test')
    ]
    assert [len(p) for p in parts] == [4, 1, 1]
    assert len(set.union(*parts)) == 6


def test_the_archive_holds_everything_twice(idc, tmp_path):
    nested = idc / 'IDC_regular_ps50_idx5'
    for path in all_patches():
        (nested / path).parent.mkdir(parents=True, exist_ok=True)
        (nested / path).write_bytes((idc / path).read_bytes())
    result, _ = prepare(IDCImporter, idc, tmp_path)
    assert len(result.store) == 24 and not problems(result)


def test_published_lists(idc, tmp_path):
    write_lists(tmp_path / 'lists')
    _, splits = prepare(IDCImporter, idc, tmp_path, lists=str(tmp_path / 'lists'))
    split = splits['idc-lists']
    assert [len(split[n]) for n in ('train', 'val', 'test', 'pretrain')] == [
        12,
        4,
        8,
        12,
    ]


def test_lists_of_before_the_correction_are_refused(idc, tmp_path):
    """Validation and test were one file."""
    write_lists(
        idc, train=all_patches()[:12], val=all_patches()[12:], test=all_patches()[12:]
    )
    with pytest.raises(
        UserError,
        match=r'val_split.csv and .*test_split.csv '
        r'share 12 image\(s\).*April 2022',
    ):
        prepare(IDCImporter, idc, tmp_path)


def test_lists_that_part_a_patient_are_refused(idc, tmp_path):
    write_lists(
        idc, train=all_patches()[:14], val=all_patches()[14:16], test=all_patches()[16:]
    )
    with pytest.raises(
        UserError, match="leaks: patient '10256' is in 'train'.* and in 'val'"
    ):
        prepare(IDCImporter, idc, tmp_path)


@pytest.mark.parametrize(
    'line, message',
    [
        ('10253/0/x.png,0', r'train_split.csv, line 2: expected "<patient>'),
        (f'{patch(10253, 0, 0)},1', 'line 2: expected'),
    ],
)
def test_wrong_lists(idc, tmp_path, line, message):
    write_lists(idc)
    (idc / 'train_split.csv').write_text(f'img_path,labels\n{line}\n')
    with pytest.raises(UserError, match=message):
        prepare(IDCImporter, idc, tmp_path)
    (idc / 'train_split.csv').unlink()
    with pytest.raises(UserError, match='train_split.csv is missing'):
        prepare(IDCImporter, idc, tmp_path)


def test_names_and_folders_must_agree(idc, tmp_path):
    moves = {
        patch(10253, 0, 0): f'10253/1/{patch_name(10253, 0, 0)}',
        patch(10254, 0, 0): f'10255/0/{patch_name(10254, 0, 0)}',
        patch(10256, 0, 0): '10256/0/patch.png',
        patch(10257, 0, 0): f'10257/{patch_name(10257, 0, 0)}',
    }
    for old, new in moves.items():
        (idc / old).rename(idc / new)
    (idc / patch(10258, 0, 0)).write_bytes(b'')
    result, _ = prepare(IDCImporter, idc, tmp_path)
    assert sorted(problems(result).values()) == [
        'class-mismatch',
        'file-name',
        'file-name',
        'patient-mismatch',
        'unreadable',
    ]
    assert len(result.store) == 19
    text = ' '.join(p.message for r in result.results for p in r.problems)
    assert 'in the folder of class 1, but its name says class 0' in text
    assert 'in the folder of patient 10255, but its name says 10254' in text


def test_patches_at_the_rim_and_of_empty_glass(idc, tmp_path):
    write_picture(idc / patch(10253, 0, 0), make_picture(0, 50)[:, :30])
    write_picture(idc / patch(10254, 0, 0), np.full((50, 50, 3), 255, np.uint8))
    write_picture(idc / patch(10255, 0, 0), make_picture(0, 50)[:, :4])
    result, _ = prepare(IDCImporter, idc, tmp_path)
    assert problems(result) == {
        '10253_idx5_x1_y51_class0': 'not-square',
        '10254_idx5_x1_y51_class0': 'blank',
        '10255_idx5_x1_y51_class0': 'tiny',
    }
    assert result.count('rejected') == 1


def test_a_folder_without_positive_patches(idc, tmp_path):
    for path in idc.glob('*/1/*.png'):
        path.unlink()
    result, _ = prepare(IDCImporter, idc, tmp_path)
    assert any('no image of the class(es) positive' in n for n in result.notes)


def test_another_layout(tmp_path):
    with pytest.raises(UserError, match=r"for 'idc'[\s\S]*class0.png"):
        IDCImporter().discover(tmp_path)
    write_picture(tmp_path / 'a.png', make_picture(0))
    with pytest.raises(UserError, match=r'1 image\(s\) have another name'):
        IDCImporter().discover(tmp_path)
