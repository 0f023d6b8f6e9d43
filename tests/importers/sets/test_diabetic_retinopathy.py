import cv2
import numpy as np
import pandas
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.diabetic_retinopathy import (
    DiabeticRetinopathyImporter,
    circle_crop,
    find_field,
    read_reduced,
)
from medssl_mm.importers.splits import write_splits
from tests.datasets.images import write_picture


def retina(
    seed=0, height=120, width=180, centre=(92, 58), radius=50, level=150, background=2
):
    """A red disc with vessels, noise and a bright spot on a dark ground."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, background + 1, (height, width, 3)).astype(np.float64)
    y, x = np.mgrid[:height, :width]
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2
    colour = np.array([1.0, 0.6, 0.3]) * level
    shade = 1 - 0.4 * (x - centre[0]) / width + 0.1 * rng.random(x.shape)
    picture[inside] = (shade[..., None] * colour)[inside]
    spot = (x - centre[0] - 20) ** 2 + (y - centre[1]) ** 2 < 30
    picture[spot] *= 1.5
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(level=240),
        dict(level=30),
        dict(level=18, background=1),
        dict(level=200, background=20),
        dict(centre=(70, 62), radius=40),
        dict(height=1200, width=1800, centre=(910, 600), radius=520),
    ],
)
def test_the_field_is_found(settings):
    wanted = dict(dict(centre=(92, 58), radius=50), **settings)
    x, y, radius = find_field(retina(**settings))
    limit = 0.05 * wanted['radius']
    assert abs(x - wanted['centre'][0] - 0.5) < limit
    assert abs(y - wanted['centre'][1] - 0.5) < limit
    assert abs(radius - wanted['radius']) < limit


def test_a_field_cut_by_the_frame_is_completed():
    """Above and below, as most cameras do."""
    picture = retina(height=80, centre=(92, 40))
    x, y, radius = find_field(picture)
    assert abs(x - 92) < 3 and abs(y - 40) < 3 and abs(radius - 50) < 3
    crop, problems = circle_crop(picture, 40)
    assert not problems
    assert not crop[:2].any() and not crop[-2:].any()  # outside the picture
    assert crop[20, 1:-1].max(-1).min() > 30


def test_specks_and_dust_do_not_count():
    picture = retina()
    picture[5:8, 5:8] = 255
    picture[110:113, 170:173] = 255
    np.testing.assert_allclose(find_field(picture), find_field(retina()), atol=1)


@pytest.mark.parametrize('value', [0, 3, 128, 255])
def test_blank_pictures_have_no_field(value):
    picture = np.full((120, 180, 3), value, np.uint8)
    assert find_field(picture) is None
    with pytest.raises(CaseError, match='a.jpeg: no round bright field'):
        circle_crop(picture, 40, 'a.jpeg')


def test_noise_in_the_dark_is_no_field():
    rng = np.random.default_rng(0)
    for high in (4, 20):
        picture = rng.integers(0, high, (120, 180, 3)).astype(np.uint8)
        assert find_field(picture) is None


def test_a_small_bright_thing_is_no_field():
    assert find_field(retina(radius=12)) is None


def test_the_crop_is_the_square_around_the_field():
    picture = retina()
    crop, problems = circle_crop(picture, 50)
    assert crop.shape == (50, 50, 3) and not problems
    x, y, radius = find_field(crop)
    assert abs(x - 25) < 2 and abs(y - 25) < 2 and abs(radius - 25) < 2
    # The bright spot stays where it was within the disc.
    at = np.unravel_index(crop[..., 1].argmax(), crop.shape[:2])
    assert abs(at[1] - (25 + 20 / 2)) <= 3 and abs(at[0] - 25) <= 3


def test_the_crop_does_not_depend_on_the_place_of_the_field():
    one = circle_crop(retina(centre=(60, 58)), 50)[0].astype(int)
    other = circle_crop(retina(centre=(120, 60)), 50)[0].astype(int)
    assert np.abs(one - other).mean() < 8


def test_enlarging_is_told():
    crop, problems = circle_crop(retina(), 200)
    assert crop.shape == (200, 200, 3)
    assert [p.code for p in problems] == ['enlarged']


def test_large_jpeg_files_are_reduced_while_reading(tmp_path):
    picture = cv2.resize(retina(), (1440, 960))
    path = str(write_picture(tmp_path / 'a.jpeg', picture))
    for least, shape in (
        (100, (120, 180)),
        (200, (240, 360)),
        (300, (480, 720)),
        (700, (960, 1440)),
    ):
        found, _ = read_reduced(path, least)
        assert found.shape == (*shape, 3)
        whole = cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(found.astype(int) - whole).mean() < 3
    with pytest.raises(CaseError, match='b.jpeg: the file is'):
        (tmp_path / 'b.jpeg').write_bytes(b'no picture')
        read_reduced(str(tmp_path / 'b.jpeg'), 100)


def write_eyes(folder, patients, first=1):
    for patient in range(first, first + patients):
        for side, shift in (('left', 0), ('right', 3)):
            write_picture(
                folder / f'{patient}_{side}.jpeg',
                retina(seed=patient, centre=(90 + shift, 57 + patient % 4)),
            )


def grade(name):
    return int(name.split('_')[0]) % 5


def write_grades(path, names, extra=''):
    head = 'image,level' + (',Usage' if extra else '')
    rows = [f'{n},{grade(n)}{extra}' for n in names]
    path.write_text('\n'.join([head, *rows]) + '\n')


def eyes(patients, first=1):
    return [
        f'{p}_{side}'
        for p in range(first, first + patients)
        for side in ('left', 'right')
    ]


@pytest.fixture
def eyepacs(tmp_path):
    """Ten patients with grades, as Kaggle's training files."""
    folder = tmp_path / 'source'
    write_eyes(folder / 'train', 10)
    write_grades(folder / 'trainLabels.csv', eyes(10))
    return folder


def prepare(folder, tmp_path):
    importer = DiabeticRetinopathyImporter(size=40)
    result = import_dataset(importer, folder, tmp_path / 'out')
    write_splits(importer, result)
    return result, {s.protocol: s for s in result.splits}


def test_eyepacs(eyepacs, tmp_path):
    result, splits = prepare(eyepacs, tmp_path)
    store = result.store
    assert len(store) == 20 and store.size == (40, 40)
    assert not any(r.problems for r in result.results)
    for index, image_id in enumerate(store.image_ids):
        assert store.patient_ids[index] == image_id.split('_')[0]
        assert store.labels[index] == grade(image_id)
    split = splits['diabetic-retinopathy-patients']
    for name in ('train', 'val', 'test'):
        both = [c.split('_')[0] for c in split[name]]
        assert all(both.count(p) == 2 for p in both)  # both eyes


def test_lists_as_pandas_writes_them(eyepacs, tmp_path):
    """Grades of a column with gaps, and names with their suffix."""
    path = eyepacs / 'trainLabels.csv'
    rows = [f'{name}.jpeg,{grade(name)}.0' for name in eyes(10)]
    path.write_text('\ufeffimage,level\n' + '\n'.join(rows) + '\n')
    store = prepare(eyepacs, tmp_path)[0].store
    assert store.labels.tolist() == [grade(name) for name in store.image_ids]


def test_pictures_without_grade_serve_pretraining(eyepacs, tmp_path):
    write_eyes(eyepacs / 'test', 2, first=50)
    result, splits = prepare(eyepacs, tmp_path)
    assert result.store.labelled.sum() == 20 and len(result.store) == 24
    (split,) = splits.values()
    assert {'50_left', '51_right'} <= set(split['pretrain'])
    assert '50_left' not in split['train'] + split['val'] + split['test']


@pytest.mark.parametrize(
    'name, extra', [('testLabels.csv', ''), ('retinopathy_solution.csv', ',Public')]
)
def test_split_of_the_competition(eyepacs, tmp_path, name, extra):
    write_eyes(eyepacs / 'test', 3, first=50)
    write_grades(eyepacs / name, eyes(3, 50), extra)
    _, splits = prepare(eyepacs, tmp_path)
    split = splits['diabetic-retinopathy-kaggle']
    assert set(split['test']) == set(eyes(3, 50))
    assert len(split['val']) == 4 and len(split['train']) == 16
    assert set(split['pretrain']) == set(eyes(10))
    # As published: the same test pictures; validation by picture, not by patient.
    compat = splits['diabetic-retinopathy-compat']
    order = pandas.Series(eyes(10)).sample(frac=1, random_state=42).tolist()
    np.random.seed(0)
    indices = list(range(20))
    np.random.shuffle(indices)
    assert compat['val'] == tuple(sorted(order[n] for n in indices[:4]))
    assert compat['test'] == split['test'] and compat['pretrain'] == split['pretrain']


def test_bad_pictures_are_left_out(eyepacs, tmp_path):
    train = eyepacs / 'train'
    write_picture(train / '1_left.jpeg', np.zeros((120, 180, 3), np.uint8))
    (train / '2_left.jpeg').write_bytes((train / '2_left.jpeg').read_bytes()[:-50])
    (train / '3_left.jpeg').unlink()
    (train / '4_left.jpeg').rename(train / '4_links.jpeg')
    result, _ = prepare(eyepacs, tmp_path)
    found = {r.case_id: r.problems[0].code for r in result.results if r.problems}
    assert found == {
        '1_left': 'no-retina',
        '2_left': 'unreadable',
        '3_left': 'missing',
        '4_left': 'missing',
        'train/4_links.jpeg': 'file-name',
    }


@pytest.mark.parametrize(
    'old, new, message',
    [
        ('3_left,3', '3_left,5', "line 6: the grade must be 0 to 4, found '5'"),
        ('3_left,3', '3_links,3', 'line 6: expected <patient>_left or'),
        ('3_left,3', '1_left,1', 'line 6: 1_left is listed twice'),
        ('level', 'grade', 'has no column level'),
    ],
)
def test_wrong_label_files(eyepacs, tmp_path, old, new, message):
    path = eyepacs / 'trainLabels.csv'
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        prepare(eyepacs, tmp_path)
    assert str(path) in str(error.value)


def test_two_pictures_of_one_name_and_other_layouts(eyepacs, tmp_path):
    write_eyes(eyepacs / 'again', 1)
    result, _ = prepare(eyepacs, tmp_path)
    problems = [p for r in result.results for p in r.problems]
    twice = [p for p in problems if p.code == 'same-name']
    assert twice and all('have one name; keep one' in p.message for p in twice)
    (eyepacs / 'trainLabels.csv').unlink()
    with pytest.raises(UserError, match=r'no trainLabels.csv[\s\S]*10_left'):
        prepare(eyepacs, tmp_path)


def test_real_pictures(realdata):
    folder = realdata / 'ssl_medicalimaging_samples' / 'diabetic_retinopathy'
    paths = sorted(folder.rglob('*.jpeg'))
    assert len(paths) == 6
    for path in paths:
        crop, problems = circle_crop(read_reduced(str(path), 598)[0], 299, str(path))
        assert crop.shape == (299, 299, 3) and not problems
        x, y, radius = find_field(crop)
        assert abs(radius - 150) < 6 and abs(x - 150) < 6 and abs(y - 150) < 6
        # A tenth of the light: the same field, within a fifth.
        dark = (read_reduced(str(path), 598)[0] * 0.1).astype(np.uint8)
        field = find_field(read_reduced(str(path), 598)[0])
        assert abs(find_field(dark)[2] / field[2] - 1) < 0.2
