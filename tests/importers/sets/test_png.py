import json
import os

import cv2
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.curvas import CurvasImporter
from medssl_mm.importers.sets.ircad import IRCADImporter
from medssl_mm.importers.sets.kits import KiTSImporter
from medssl_mm.importers.sets.png import PNGImporter

COLOURS = np.array(CurvasImporter.palette, np.uint8)


def pixels(rows=10, columns=12, seed=0, high=256, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return rng.integers(0, high, (rows, columns)).astype(dtype)


def save(path, image):
    """Write a PNG; colours are RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if image.ndim == 3:
        image = image[..., ::-1]
    path.write_bytes(cv2.imencode('.png', np.ascontiguousarray(image))[1])


def save_pair(folder, name, seed=0, classes=4, colours=COLOURS):
    image, index = pixels(seed=seed), pixels(seed=seed + 100, high=classes)
    save(folder / 'images' / name, image)
    save(folder / 'masks' / name, colours[index])
    return image, index


def test_slices_are_sorted_by_number_and_coloured_masks_translated(tmp_path):
    pairs = {n: save_pair(tmp_path, f'7_{n}.png', n) for n in (9, 10, 100)}
    importer = CurvasImporter()
    found = importer.discover(tmp_path)
    (case,) = found.cases
    assert case.patient_id == '7'
    assert case.extra['slice_numbers'] == [9, 10, 100]
    loaded = importer.load(case)
    for index, number in enumerate((9, 10, 100)):
        np.testing.assert_array_equal(loaded.image[index], pairs[number][0])
        np.testing.assert_array_equal(loaded.label[index], pairs[number][1])
    assert loaded.image.dtype == np.uint8 and loaded.spacing is None
    assert loaded.labelled_slices is None
    assert '1 of 1 cases have gaps' in found.notes[0]


def test_raters_of_one_patient_make_one_case(tmp_path):
    for rater, number in ((1, 5), (2, 3), (3, 4)):
        save_pair(
            tmp_path / f'CURVAS-Annotation-{rater}' / 'mini_test',
            f'10001_{number}.png',
            number,
        )
    importer = CurvasImporter()
    found = importer.discover(tmp_path)
    (case,) = found.cases
    assert case.extra['slice_numbers'] == [3, 4, 5]
    assert not found.notes
    images, labels = importer.source_files(case)
    assert ['-2/' in images[0], '-3/' in images[1], '-1/' in labels[2]] == [True] * 3


def test_a_slice_in_two_folders_is_refused(tmp_path):
    for rater in (1, 2):
        save_pair(tmp_path / f'r{rater}', '10001_5.png')
    save_pair(tmp_path / 'r1', '10002_5.png')
    result = import_dataset(CurvasImporter(), tmp_path, tmp_path / 'store')
    assert {r.case_id: r.status for r in result.results} == {
        '10001': 'rejected',
        '10002': 'imported',
    }
    (problem,) = result.results[0].problems
    assert problem.code == 'same-slice'
    assert "both slice 5 of patient '10001'" in problem.message


def test_unknown_colour_is_named_with_file_and_count(tmp_path):
    _, index = save_pair(tmp_path, '7_1.png')
    mask = COLOURS[index]
    mask[0, :3] = (1, 2, 3)
    save(tmp_path / 'masks' / '7_1.png', mask)
    importer = CurvasImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(
        CaseError,
        match=r'masks/7_1.png.*\(1, 2, 3\) 3 pixel.*'
        r'liver \(255, 0, 255\)',
    ) as caught:
        importer.load(case)
    assert caught.value.code == 'unknown-colour'


def test_turned_set_is_turned_back(tmp_path):
    colours = np.array(IRCADImporter.palette, np.uint8)
    image, index = save_pair(tmp_path, '10001_4.png', 3, 2, colours)
    save(tmp_path / 'images' / '10001_4.png', np.stack([image] * 3, -1))
    importer = IRCADImporter()
    found = importer.discover(tmp_path)
    (case,) = found.cases
    loaded = importer.load(case)
    np.testing.assert_array_equal(loaded.image[0], image[::-1, ::-1])
    np.testing.assert_array_equal(loaded.label[0], index[::-1, ::-1])
    assert 'turned by 180 degrees' in found.notes[-1]


def test_palette_and_patterns_by_option(tmp_path):
    palette = dict(background=[0, 0, 0], tumor=[9, 9, 200])
    colours = np.array(list(palette.values()), np.uint8)
    for slice_number in (1, 2):
        folder = tmp_path / 'ward' / f's{slice_number}-pat77'
        image, index = pixels(seed=slice_number), pixels(seed=9, high=2)
        save(folder / 'img.png', image)
        save(folder / 'seg.png', colours[index])
    importer = PNGImporter(
        images='ward/*/img.png',
        labels='ward/*/seg.png',
        palette=palette,
        patient_pattern=r'pat(\d+)',
        slice_pattern=r's(\d+)-',
        turn=90,
        modality='XR',
    )
    found = importer.discover(tmp_path)
    (case,) = found.cases
    assert (case.case_id, found.modality) == ('77', 'XR')
    assert found.classes == ('background', 'tumor')
    assert found.palette == [[0, 0, 0], [9, 9, 200]]
    loaded = importer.load(case)
    np.testing.assert_array_equal(loaded.image[1], np.rot90(image))
    np.testing.assert_array_equal(loaded.label[1], np.rot90(index))


@pytest.mark.parametrize(
    'options, factor',
    [
        (dict(classes='organ,lesion'), 1),
        (dict(palette=dict(background=0, organ=100, lesion=200)), 100),
    ],
)
def test_grey_masks(tmp_path, options, factor):
    index = pixels(seed=4, high=3)
    save(tmp_path / 'images' / 'a_1.png', pixels())
    save(tmp_path / 'masks' / 'a_1.png', (index * factor).astype(np.uint8))
    importer = PNGImporter(**options)
    found = importer.discover(tmp_path)
    (case,) = found.cases
    np.testing.assert_array_equal(importer.load(case).label[0], index)
    assert found.classes == ('background', 'organ', 'lesion')
    save(tmp_path / 'masks' / 'a_1.png', (index * 0 + 7).astype(np.uint8))
    with pytest.raises(CaseError, match=r'value\(s\): 7 120 pixel'):
        importer.load(case)


def test_sixteen_bit_images_keep_their_depth(tmp_path):
    image = pixels(high=60000, dtype=np.uint16)
    save(tmp_path / 'images' / 'a_1.png', image)
    importer = PNGImporter()
    (case,) = importer.discover(tmp_path).cases
    loaded = importer.load(case)
    assert loaded.image.dtype == np.uint16 and loaded.label is None
    np.testing.assert_array_equal(loaded.image[0], image)


def test_slices_without_mask_are_marked(tmp_path):
    for number in (1, 2, 3):
        save_pair(tmp_path, f'7_{number}.png', number)
    (tmp_path / 'masks' / '7_2.png').unlink()
    importer = CurvasImporter()
    (case,) = importer.discover(tmp_path).cases
    loaded = importer.load(case)
    assert loaded.labelled_slices == (0, 2)
    assert not loaded.label[1].any()


def test_a_mask_that_moves_to_another_slice_is_imported_anew(tmp_path):
    source = tmp_path / 'source'
    for number in (1, 2, 3):
        save_pair(source, f'7_{number}.png', number)
        save_pair(source, f'8_{number}.png', number + 10)
    for number in (1, 3):
        (source / f'masks/7_{number}.png').unlink()

    def run():
        result = import_dataset(CurvasImporter(), source, tmp_path / 'store')
        info = result.store.case('7')
        label = result.store.read_label_volume('7')
        assert info.labelled_slices == tuple(np.flatnonzero(label.any((1, 2))))
        return {r.case_id: r.status for r in result.results}, info.labelled_slices

    assert run()[1] == (1,)
    (source / 'masks/7_2.png').rename(source / 'masks/7_3.png')
    assert run() == ({'7': 'imported', '8': 'unchanged'}, (2,))
    assert run() == ({'7': 'unchanged', '8': 'unchanged'}, (2,))


def _palette_store(tmp_path, colours, kept=None):
    """A store of one case whose palette is in a file; ``kept`` as one of before."""
    values = np.array([[0] * 3, [255, 0, 0], [0, 255, 0]], np.uint8)
    grey = np.array([0, 100, 200], np.uint8)
    save_pair(tmp_path / 'source', '7_1.png', 1, 3, values if colours else grey)
    palette = tmp_path / 'palette.json'
    used = (values if colours else grey).tolist()
    palette.write_text(json.dumps(dict(zip(('background', 'liver', 'kidney'), used))))

    def run():
        importer = PNGImporter(palette=str(palette))
        return import_dataset(importer, tmp_path / 'source', tmp_path / 'store')

    run()
    header = tmp_path / 'store/dataset.json'
    if kept:
        content = json.loads(header.read_text())
        content['import_options']['palette'] = str(palette)
        header.write_text(json.dumps(content))
    os.utime(palette, (1, 1))
    swapped = dict(zip(('background', 'liver', 'kidney'), [used[i] for i in (0, 2, 1)]))
    return run, palette, json.dumps(swapped)


@pytest.mark.parametrize('before', [False, True])
@pytest.mark.parametrize('colours', [False, True])
def test_a_corrected_palette_needs_a_new_store(tmp_path, colours, before):
    """Stores of before kept the name of the palette's file alone."""
    run, palette, swapped = _palette_store(tmp_path, colours, before)
    (result,) = run().results
    assert result.status == 'unchanged'
    palette.write_text(swapped)
    with pytest.raises(UserError, match="import_options=.*'palette'.*--overwrite"):
        run()


def test_a_palette_may_be_moved(tmp_path):
    run, palette, _ = _palette_store(tmp_path, True)
    run()
    moved = palette.rename(tmp_path / 'other.json')
    importer = PNGImporter(palette=str(moved))
    (result,) = import_dataset(
        importer, tmp_path / 'source', tmp_path / 'store'
    ).results
    assert result.status == 'unchanged'


def test_slices_of_two_sizes_are_refused(tmp_path):
    for number in (1, 2):
        save_pair(tmp_path, f'7_{number}.png')
    save(tmp_path / 'images' / '7_3.png', pixels(6, 6))
    importer = CurvasImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(
        CaseError, match='10x12 uint8: 2 slice.*6x6 uint8: 1 slice.*7_3.png'
    ) as caught:
        importer.load(case)
    assert caught.value.code == 'mixed-slices'


def test_mask_of_another_size_is_refused(tmp_path):
    save_pair(tmp_path, '7_1.png')
    save(tmp_path / 'masks' / '7_1.png', COLOURS[pixels(5, 5, high=4)])
    importer = CurvasImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(CaseError, match=r'mask of \(5, 5\).*\(10, 12\)'):
        importer.load(case)


def test_masks_need_classes(tmp_path):
    save_pair(tmp_path, '7_1.png')
    with pytest.raises(UserError, match='give --palette'):
        PNGImporter().discover(tmp_path)


def test_nothing_found_shows_the_layout(tmp_path):
    with pytest.raises(UserError, match='(?s)Expected layout.*CURVAS-Anno'):
        CurvasImporter().discover(tmp_path)
    with pytest.raises(UserError, match=r"No file matches 'a/\*.png'"):
        PNGImporter(images='a/*.png').discover(tmp_path)


@pytest.mark.parametrize(
    'importer, folder, patients, counts',
    [
        (
            CurvasImporter,
            'curvas_abdominal_ct_slices',
            14,
            [27117086, 49769, 192298, 952399],
        ),
        (IRCADImporter, 'ircad_liver_ct_slices', 16, [8751510, 685674]),
        (KiTSImporter, 'kits19_kidney_ct_slices', 5, [6028598, 115564, 147294]),
    ],
)
def test_published_sets(realdata, importer, folder, patients, counts):
    importer = importer()
    cases = importer.discover(realdata / folder).cases
    assert len(cases) == patients
    total = np.zeros(len(counts), int)
    for case in cases:
        total += np.bincount(importer.load(case).label.ravel(), minlength=len(counts))
    assert total.tolist() == counts


def test_ircad_is_turned_to_the_usual_view(realdata):
    importer = IRCADImporter()
    for case in importer.discover(realdata / 'ircad_liver_ct_slices').cases[:4]:
        label = importer.load(case).label
        assert np.nonzero(label)[2].mean() < 256  # liver on the left


def test_globs_with_all_wildcards_pair(tmp_path):
    for number in (1, 2):
        save_pair(tmp_path, f'7_{number}.PNG', number)
    importer = PNGImporter(
        images='images/[0-9]_?.png', labels='masks/[0-9]_?.png', classes='a,b,c'
    )
    with pytest.raises(CaseError, match='coloured'):
        importer.load(importer.discover(tmp_path).cases[0])
    (case,) = CurvasImporter().discover(tmp_path).cases
    assert case.extra['slice_numbers'] == [1, 2] and case.label
