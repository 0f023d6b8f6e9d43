import json

import numpy as np
import pytest
import torch

from medssl_mm.checkpoint_features.cache import (
    cache_key,
    find_features,
    write_features,
)
from medssl_mm.errors import UserError

DESCRIPTION = dict(weights='abc', data=dict(split='x', pipeline=['y']))
IDS = ['a', 'b', 'c', 'd', 'e']


def batches(sizes=(2, 3), channels=4):
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        yield dict(
            stage1=torch.rand(size, channels, generator=generator),
            stage2=torch.rand(size, 2 * channels, generator=generator),
        )


def test_round_trip(tmp_path):
    assert find_features(tmp_path / 'cache', DESCRIPTION) is None
    written = write_features(tmp_path / 'cache', DESCRIPTION, IDS, batches())
    found = find_features(tmp_path / 'cache', DESCRIPTION)
    assert found == written
    assert found.image_ids == tuple(IDS)
    assert found.places == ('stage1', 'stage2')
    for place in found.places:
        expected = torch.cat([batch[place] for batch in batches()]).numpy()
        assert np.array_equal(found.read(place), expected)
        assert found.read(place).dtype == np.float32
    assert find_features(tmp_path / 'cache', dict(weights='b')) is None
    content = json.loads((found.folder / 'features.json').read_text())
    assert content['description'] == DESCRIPTION


def test_altered_numbers_are_not_read(tmp_path):
    written = write_features(tmp_path, DESCRIPTION, IDS, batches())
    path = written.folder / 'stage2.npy'
    values = np.load(path)
    values[3, 1] += 1  # as many rows as before
    np.save(path, values)
    said = []
    assert find_features(tmp_path, DESCRIPTION, said.append) is None
    assert 'stage2 is not what was written' in said[0]
    again = write_features(tmp_path, DESCRIPTION, IDS, batches())
    assert find_features(tmp_path, DESCRIPTION) == again


def test_features_of_before_have_no_digest_and_are_read(tmp_path):
    written = write_features(tmp_path, DESCRIPTION, IDS, batches())
    index = written.folder / 'features.json'
    content = json.loads(index.read_text())
    del content['digests']
    index.write_text(json.dumps(content))
    said = []
    assert find_features(tmp_path, DESCRIPTION, said.append) == written
    assert 'no digest' in said[0]


def test_key_depends_on_content_not_on_order():
    swapped = dict(reversed(DESCRIPTION.items()))
    assert cache_key(DESCRIPTION) == cache_key(swapped)
    assert cache_key(DESCRIPTION) != cache_key({**DESCRIPTION, 'weights': 1})


def test_interrupted_writing_leaves_nothing(tmp_path):
    def broken():
        yield from batches((2,))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path, DESCRIPTION, IDS, broken())
    assert not list(tmp_path.iterdir())


def test_errors_of_the_images_are_not_those_of_the_cache(tmp_path):
    def broken():
        raise FileNotFoundError('an image')
        yield

    with pytest.raises(FileNotFoundError, match='an image'):
        write_features(tmp_path, DESCRIPTION, IDS, broken())


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write the features.*--cache'):
        write_features(tmp_path / 'file', DESCRIPTION, IDS, batches())


@pytest.mark.parametrize('channels', [4, 100_000])
def test_full_disk(tmp_path, channels):
    """When what was kept back is written at the end, and while a batch is."""

    def full():
        [temporary] = tmp_path.iterdir()
        (temporary / 'stage2.npy').symlink_to('/dev/full')
        yield from batches(channels=channels)

    with pytest.raises(UserError) as caught:
        write_features(tmp_path, DESCRIPTION, IDS, full())
    text = str(caught.value)
    for fact in (str(tmp_path), 'No space left', 'make room', '--cache', 'key cache'):
        assert fact in text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('damage', ['shorter', 'absent', 'json', 'rows'])
def test_damage_is_noticed_and_replaced(tmp_path, damage):
    folder = write_features(tmp_path, DESCRIPTION, IDS, batches()).folder
    path = folder / 'stage2.npy'
    if damage == 'shorter':
        path.write_bytes(path.read_bytes()[:-4])
    elif damage == 'absent':
        path.unlink()
    elif damage == 'json':
        (folder / 'features.json').write_text('{')
    else:
        np.save(path, np.zeros((4, 8), np.float32))
    notes = []
    assert find_features(tmp_path, DESCRIPTION, notes.append) is None
    assert len(notes) == 1 and 'computing them again' in notes[0]
    write_features(tmp_path, DESCRIPTION, IDS, batches())
    assert find_features(tmp_path, DESCRIPTION).read('stage2').shape == (5, 8)


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path):
    mine = write_features(tmp_path / 'other', DESCRIPTION, IDS, batches())
    (tmp_path / 'cache').mkdir()
    final = tmp_path / 'cache' / mine.folder.name

    def other_is_faster():
        yield from batches()
        mine.folder.rename(final)

    found = write_features(tmp_path / 'cache', DESCRIPTION, IDS, other_is_faster())
    assert found.read('stage1').shape == (5, 4)
    assert [path.name for path in (tmp_path / 'cache').iterdir()] == [final.name]


def test_features_that_are_not_finite(tmp_path):
    bad = list(batches())
    bad[1]['stage2'][1, 0] = float('inf')
    with pytest.raises(UserError, match='stage2 are not finite for image d'):
        write_features(tmp_path, DESCRIPTION, IDS, bad)
