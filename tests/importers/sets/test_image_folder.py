"""Folders of pictures: classes, subsets, patients, formats."""

import os

import numpy as np
import pytest
from PIL import Image

from medssl_mm.errors import UserError
from medssl_mm.importers.report import write_report
from medssl_mm.importers.sets.image_folder import ImageFolderImporter
from tests.datasets.images import make_picture, write_picture
from tests.importers.dicom_files import make_slice
from tests.importers.sets.test_idc import prepare, problems


def fill(folder, names, channels=3, side=32):
    for seed, name in enumerate(names):
        write_picture(folder / name, make_picture(seed, side, channels))
    return folder


def in_classes(prefix='', patients=10):
    return [
        f'{prefix}{kind}/{patient}_{eye}.png'
        for patient in range(patients)
        for kind, eye in (('ill', 'left'), ('well', 'right'))
    ]


def test_a_folder_is_a_class(tmp_path):
    folder = fill(tmp_path / 'source', in_classes())
    result, splits = prepare(
        ImageFolderImporter, folder, tmp_path, patient_pattern=r'/(\d+)_'
    )
    store = result.store
    assert store.classes == ('ill', 'well') and store.size == (32, 32)
    assert store.channels == 3 and not problems(result)
    index = store.index_of('well/3_right.png')
    np.testing.assert_array_equal(store.read(index), make_picture(7, 32))
    assert store.labels[index] == 1 and store.patient_of('well/3_right.png') == '3'
    (split,) = splits.values()
    assert split.protocol == 'image-folder-patients'
    assert {store.patient_of(c) for c in split['test']}.isdisjoint(
        store.patient_of(c) for c in (*split['train'], *split['val'])
    )


@pytest.mark.parametrize('names', [('train', 'test'), ('Training', 'valid', 'test')])
def test_subsets_above_the_classes(tmp_path, names):
    folder = tmp_path / 'source'
    for number, name in enumerate(names):
        for seed, path in enumerate(in_classes(f'{name}/')):
            write_picture(folder / path, make_picture(100 * number + seed, 16))
    result, splits = prepare(ImageFolderImporter, folder, tmp_path)
    assert result.store.classes == ('ill', 'well')
    split = splits['image-folder-subsets']
    sizes = [len(split[part]) for part in ('train', 'val', 'test')]
    assert sizes == ([18, 2, 20] if len(names) == 2 else [20, 20, 20])
    assert all(name.startswith('test/') for name in split['test'])
    assert any('every image counts as one' in note for note in result.notes)


@pytest.mark.parametrize('other', ['unlabelled', 'normal'])
def test_subsets_beside_other_folders_are_refused(tmp_path, other):
    names = [*in_classes('train/', 2), *in_classes('test/', 2), f'{other}/x.png']
    folder = fill(tmp_path / 'source', names)
    message = rf'subsets \(test, train\) beside others \({other}\).*move the others'
    with pytest.raises(UserError, match=message):
        ImageFolderImporter().discover(folder)


def test_a_patient_in_two_subsets_stays_in_the_later(tmp_path):
    folder = tmp_path / 'source'
    fill(folder, [*in_classes('train/'), 'test/ill/3_right.png', 'test/well/99_a.png'])
    result, splits = prepare(
        ImageFolderImporter, folder, tmp_path, patient_pattern=r'/(\d+)_'
    )
    split = splits['image-folder-subsets']
    assert len(split['test']) == 2
    assert not any('/3_' in name for name in (*split['train'], *split['val']))
    assert any('2 image(s) show a patient' in note for note in result.notes)


def test_pictures_without_a_class_serve_pretraining(tmp_path):
    folder = fill(tmp_path / 'source', [*in_classes(), 'a.png', 'b.png'])
    result, splits = prepare(ImageFolderImporter, folder, tmp_path)
    store = result.store
    assert not store.labelled[store.index_of('a.png')]
    split = splits['image-folder-patients']
    assert {'a.png', 'b.png'} <= set(split['pretrain'])
    assert not {'a.png', 'b.png'} & {*split['train'], *split['val'], *split['test']}


def test_all_formats(tmp_path):
    folder = tmp_path / 'source'
    grey = make_picture(0, 16, 1)
    names = ('png/a.png', 'tif/a.tif', 'tif/b.TIFF', 'jpg/a.JPG', 'dcm/a.dcm')
    for name in names[:4]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey).save(folder / name)
    (folder / 'dcm').mkdir()
    make_slice(grey, (0, 0, 0)).save_as(folder / names[4], enforce_file_format=True)
    # White is zero: the other way round in the file, the same picture.
    with Image.open(folder / 'tif/a.tif') as picture:
        info = {262: 0}
        Image.fromarray(255 - np.asarray(picture)).save(
            folder / 'tif/c.tif', tiffinfo=info
        )
    result, _ = prepare(ImageFolderImporter, folder, tmp_path)
    store = result.store
    assert store.channels == 1 and store.classes == ('dcm', 'jpg', 'png', 'tif')
    # The same pixels in several classes are a conflict: png, tif, tif.
    assert set(problems(result).values()) == {'label-conflict'}


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_more_than_eight_bit(tmp_path, suffix):
    folder = tmp_path / 'source'
    deep = np.random.default_rng(0).integers(0, 4000, (4, 16, 16)).astype(np.uint16)
    for number, pixels in enumerate(deep):
        write_picture(folder / f'{"ab"[number % 2]}/{number}{suffix}', pixels)
    with pytest.raises(UserError, match='--window range'):
        prepare(ImageFolderImporter, folder, tmp_path)
    result, _ = prepare(ImageFolderImporter, folder, tmp_path, window='range')
    store = result.store
    found = store.read(store.index_of(f'a/0{suffix}')).astype(float)
    values = deep[0].astype(float)
    wanted = 255 * (values - values.min()) / (values.max() - values.min())
    np.testing.assert_allclose(found, wanted, atol=0.51)


def test_size_and_colours_are_those_of_the_pictures(tmp_path):
    folder = fill(tmp_path / 'grey', in_classes(), channels=1, side=40)
    result, _ = prepare(ImageFolderImporter, folder, tmp_path / 'one')
    assert result.store.channels == 1 and result.store.size == (40, 40)
    assert any('stored at 40 x 40 pixels, grey' in note for note in result.notes)
    result, _ = prepare(
        ImageFolderImporter, folder, tmp_path / 'two', colours='rgb', size=16
    )
    assert result.store.channels == 3 and result.store.size == (16, 16)
    large = fill(tmp_path / 'large', in_classes(patients=3), side=300)
    result, _ = prepare(ImageFolderImporter, large, tmp_path / 'three')
    assert result.store.size == (224, 224)


def test_crop_or_pad(tmp_path):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, :8], wide[:, 24:] = 255, 255
    for name in ('a/0.png', 'b/0.png'):
        write_picture(tmp_path / 'source' / name, wide)
    wide[0, 0] = 7
    write_picture(tmp_path / 'source/b/0.png', wide)
    padded, _ = prepare(
        ImageFolderImporter, tmp_path / 'source', tmp_path, size=32, fit='pad'
    )
    image = padded.store.read(0)
    assert image[:16, :8].all() and not image[16:].any()


def test_hidden_folders_are_passed_over(tmp_path):
    folder = fill(tmp_path / 'source', [*in_classes(), '.checkpoints/ill/1_left.png'])
    result, _ = prepare(ImageFolderImporter, folder, tmp_path)
    assert len(result.store) == 20


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match=r'(?s)no picture.*<src>/CLASS') as caught:
        ImageFolderImporter().discover(tmp_path)
    assert str(tmp_path) in str(caught.value)
    fill(tmp_path, ['a/1.png', 'A/2.png'])
    with pytest.raises(UserError, match="'A' and 'a' would be two classes"):
        ImageFolderImporter().discover(tmp_path)


def test_a_pattern_that_does_not_match(tmp_path):
    folder = fill(tmp_path / 'source', ['a/x.png', 'b/1.png'])
    found = ImageFolderImporter(patient_pattern=r'(\d+)').discover(folder)
    problems = {c.case_id: c.extra.get('problem') for c in found.cases}
    assert problems['b/1.png'] is None
    code, message = problems['a/x.png']
    assert code == 'patient-pattern' and "does not match 'a/x.png'" in message


def test_one_class_is_told(tmp_path):
    result, _ = prepare(
        ImageFolderImporter, fill(tmp_path / 'source', ['a/1.png', 'a/2.png']), tmp_path
    )
    assert any('one class only (a)' in note for note in result.notes)


@pytest.mark.slow
def test_real_fundus(realdata, tmp_path):
    """801 patients; two pictures are in two classes each."""
    folder = realdata / 'odir_fundus'
    result, splits = prepare(
        ImageFolderImporter, folder, tmp_path, patient_pattern=r'/(\d+)_', size=64
    )
    store = result.store
    assert store.classes == ('cataract', 'glaucoma', 'normal')
    conflicts = {n for n, c in problems(result).items() if c == 'label-conflict'}
    assert conflicts == {
        f'{kind}/{name}'
        for kind in ('cataract', 'glaucoma')
        for name in ('625_left.jpg', '1415_right.jpg')
    }
    assert len(store) == 1308
    assert len({c.patient_id for c in result.found.cases}) == 801
    split = splits['image-folder-patients']
    for part in ('train', 'val', 'test'):
        assert {store.classes_of(c) for c in split[part]} == {(0,), (1,), (2,)}


def test_names_that_are_no_text(tmp_path):
    """As archives of other systems leave them; a store can hold, split and read it."""
    folder = fill(tmp_path / 'source', [f'{c}/{n}.png' for c in 'ab' for n in range(6)])
    for letter in 'ab':
        place = folder / letter / '0.png'
        os.rename(place, os.fsencode(folder / letter) + b'/M\xfcll_0.png')
    result, splits = prepare(ImageFolderImporter, folder, tmp_path)
    assert [r.status for r in result.results] == ['imported'] * 12
    named = [i for i in result.store.case_ids if 'M' in i]
    assert named == ['a/M\\udcfcll_0.png', 'b/M\\udcfcll_0.png']
    assert set(named) <= set(splits['image-folder-patients']['pretrain'])
    again, _ = prepare(ImageFolderImporter, folder, tmp_path)
    assert [r.status for r in again.results] == ['unchanged'] * 12
    write_report(again)
