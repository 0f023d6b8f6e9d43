"""Splits that repeat a published comparison: against pandas, step by step."""

import json

import numpy as np
import pandas
import pytest

from medssl_mm.errors import UserError
from medssl_mm.store.compat_splits import compat_lists, official_lists
from medssl_mm.store.splits import Split, check_no_leak, load_split, save_split
from tests.datasets.images import write_image_set


def published(names, count, seed=0):
    """Train, validation and test as the original draws them, with its own calls."""
    frame = pandas.DataFrame({'name': names})
    frame = frame.sample(frac=1, random_state=42).reset_index(drop=True)
    train = frame.iloc[:count, 0].tolist()
    indices = list(range(len(train)))
    np.random.seed(seed)
    np.random.shuffle(indices)
    split = int(np.floor(0.2 * len(train)))
    val = [train[n] for n in indices[:split]]
    return [train[n] for n in indices[split:]], val, frame.iloc[count:, 0].tolist()


@pytest.mark.parametrize('images, train', [(138, 110), (662, 529), (400, 320), (7, 5)])
def test_shuffle_of_pandas(images, train):
    """Montgomery has 110 / 28, Shenzhen 529 / 133 images."""
    names = [f'i{n:04d}' for n in range(images)]
    lists = compat_lists('set', names, 0.8)
    split = lists['set-compat']
    expected = published(names, train)
    assert (split['train'], split['val'], split['test']) == expected
    assert sorted(split['train'] + split['val']) == sorted(split['pretrain'])
    assert lists['set-compat-pool']['test'] == split['pretrain'] + split['test']


def test_a_number_and_the_pool():
    """CheXpert: 134049 of 223414 rows; episodes draw from the first 10001."""
    names = [f'i{n:06d}' for n in range(223414)]
    lists = compat_lists('set', names, 134049)
    split = lists['set-compat']
    assert len(split['pretrain']) == 134049 and len(split['test']) == 89365
    order = pandas.Series(names).sample(frac=1, random_state=42).tolist()
    assert split['pretrain'] == order[:134049]
    assert lists['set-compat-pool']['test'] == order[:10001]


def test_too_few_images():
    assert compat_lists('set', ['a', 'b', 'c', 'd', 'e'], 0.8) == {}
    assert len(compat_lists('set', [*'abcdefg'], 0.8)) == 2


def test_a_test_table_of_its_own():
    names, test = [f'i{n}' for n in range(40)], [f't{n}' for n in range(30)]
    split = compat_lists('set', names, 1.0, test)['set-compat']
    assert sorted(split['pretrain']) == sorted(names)
    assert split['test'] == pandas.Series(test).sample(frac=1, random_state=42).tolist()


def test_images_are_chosen_after_the_shuffle():
    names = [f'i{n:03d}' for n in range(100)]
    kept = set(names[::3])
    split = compat_lists('set', names, 0.8, kept=kept)['set-compat']
    order = pandas.Series(names).sample(frac=1, random_state=42).tolist()
    assert split['pretrain'] == [name for name in order[:80] if name in kept]
    assert split['test'] == [name for name in order[80:] if name in kept]


def test_a_split_by_image(tmp_path):
    """It may part a patient, must not part an image, and says so in its hash."""
    store = write_image_set(tmp_path / 'set')
    subsets = dict(train=['p2-0'], test=['p2-1'])
    loose = Split('made-compat', 'made', subsets, by='image')
    assert loose.hash != Split('made-compat', 'made', subsets).hash
    path = save_split(store.root, loose)
    assert load_split(store.root, 'made-compat') == loose
    assert json.loads(path.read_text())['by'] == 'image'
    with pytest.raises(UserError, match="patient 'p2' is in 'train'"):
        check_no_leak(Split('x', 'made', subsets), store.patient_of)
    both = Split('x', 'made', dict(train=['p2-0'], test=['p2-0']), by='image')
    with pytest.raises(UserError, match="image 'p2-0' is in 'train'"):
        check_no_leak(both, store.patient_of)
    with pytest.raises(UserError, match="'patient' or 'image', got 'eye'"):
        Split('x', 'made', subsets, by='eye')


def test_published_test_images_stay():
    """Nothing is shuffled; the first fifth of numpy's shuffle of seed 0 validates."""
    train = [f'train-{n:05d}' for n in range(50)]
    test = ['test-00001', 'test-00000']
    lists = official_lists('set', train[::-1], test)
    split = lists['set-compat']
    order = np.arange(50)
    np.random.seed(0)
    np.random.shuffle(order)
    assert split['val'] == [train[n] for n in order[:10]]
    assert sorted(split['train'] + split['val']) == train == split['pretrain']
    assert split['test'] == test and list(lists) == ['set-compat']
    assert official_lists('set', train[:4], test) == {}
    assert official_lists('set', train, []) == {}
