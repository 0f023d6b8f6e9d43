"""Splits of pictures: InnerEye's draw, and parts that share no patient."""

from pathlib import Path

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.pictures import (
    Picture,
    apart,
    innereye_order,
    innereye_seed,
    innereye_subsets,
    subset_lists,
)
from medssl_mm.importers.sets.image_folder import ImageFolderImporter


def made(count=100, subset='train', start=0, **settings):
    return [
        Picture(f'{n:03d}', Path(f'{n:03d}.png'), n % 4, subset, **settings)
        for n in range(start, start + count)
    ]


def test_golden_indices_of_innereye():
    """Published: CIFAR-10 with the generator's seed 42."""
    train, val = innereye_order(50_000, 42)
    assert len(train) == 45_000 and len(val) == 5_000
    assert train[:5].tolist() == [37542, 44491, 216, 43688, 41558]
    assert val[:3].tolist() == [17408, 40845, 3378]


@pytest.mark.parametrize(
    'count, train, val', [(26_684, 24_016, 2_668), (112_120, 100_908, 11_212)]
)
def test_sizes_of_innereye(count, train, val):
    parts = innereye_order(count, 1)
    assert tuple(map(len, parts)) == (train, val)
    assert sorted(np.concatenate(parts)) == list(range(count))


@pytest.mark.parametrize(
    'text, seed',
    [('innereye', 42), ('innereye-7', 7), ('inner', None), ('innereye-x', None)],
)
def test_seed_in_the_name(text, seed):
    assert innereye_seed(text) == seed


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="'innereye-SEED'.*got 'random'"):
        ImageFolderImporter(split='random')


def test_innereye_keeps_the_test_subset():
    pictures = [*made(20, 'test'), *made(80, 'train', start=20)]
    train, val = innereye_order(80, 42)
    subsets = innereye_subsets(pictures, 42, [])
    assert subsets['test'] == [f'{n:03d}' for n in range(20)]
    assert subsets['val'] == [f'{n + 20:03d}' for n in val]
    assert subsets['train'] == [f'{n + 20:03d}' for n in train]
    assert subsets['pretrain'] == subsets['train']


def test_innereye_gives_up_what_shows_a_patient_twice():
    pictures = made(40, None, patient='one') + made(60, None, start=40)
    notes = []
    subsets = innereye_subsets(pictures, 42, notes)
    of_one = {f'{n:03d}' for n in range(40)}
    assert of_one & set(subsets['val']) and not of_one & set(subsets['train'])
    assert 'show a patient' in notes[0]


def test_apart_keeps_the_first_parts_whole():
    parts = dict(
        test=made(2, start=0, patient='a'),
        val=[*made(1, start=2, patient='a'), *made(2, start=3, patient='b')],
        train=[*made(1, start=5, patient='b'), *made(1, start=6, patient='c')],
    )
    notes = []
    assert apart('made', parts, notes) == dict(
        test=['000', '001'], val=['003', '004'], train=['006']
    )
    assert 'split made: 2 image(s)' in notes[0]


def test_a_tenth_is_drawn_for_validation():
    pictures = [*made(80), *made(20, 'test', start=80)]
    unlabelled = Picture('free', Path('free.png'))
    subsets = subset_lists('made', 'made-subsets', [*pictures, unlabelled], [])[
        'made-subsets'
    ]
    assert [len(subsets[name]) for name in ('train', 'val', 'test')] == [72, 8, 20]
    # Two of each of the four classes.
    assert sorted(int(name) % 4 for name in subsets['val']) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert set(subsets['pretrain']) == {*subsets['train'], *subsets['val'], 'free'}


def test_what_belongs_to_test_patients_is_not_pretrained_on():
    pictures = [
        *made(20),
        *made(5, 'test', start=20, patient='tested'),
        Picture('a', Path('a.png'), patient='tested'),
        Picture('b', Path('b.png'), subset='test'),
        Picture('c', Path('c.png'), problem=('missing', 'gone')),
    ]
    (subsets,) = subset_lists('made', 'made-subsets', pictures, []).values()
    assert not {'a', 'b', 'c'} & set(subsets['pretrain'])


@pytest.mark.parametrize('subset', ['train', 'test', None])
def test_one_subset_is_no_split(subset):
    assert subset_lists('made', 'made-subsets', made(subset=subset), []) == {}
