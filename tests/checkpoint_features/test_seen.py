"""Encoders are compared with the images that they are scored on."""

import pytest
import torch

from medssl_mm.checkpoint_features import (
    EncoderFeatures,
    ImageSubsets,
    Weights,
    compare_seen,
    config_of_images,
)
from medssl_mm.engine.seen import cases_of
from medssl_mm.errors import UserError
from medssl_mm.provenance import Seen, Shown, attach, sentences
from medssl_mm.store.splits import Split, load_split, save_split
from tests.datasets.images import write_image_set


@pytest.fixture
def source(tmp_path):
    """Six patients of two images; the split 'plain' has nothing to pretrain on."""
    write_image_set(tmp_path / 'set')
    made = load_split(tmp_path / 'set', 'made')
    parts = {name: made[name] for name in ('train', 'val', 'test')}
    save_split(tmp_path / 'set', Split('plain', 'made', parts))

    def open_split(name, note=lambda text: None):
        images = dict(
            type='medssl_mm.ClassificationImages',
            data_root=str(tmp_path / 'set'),
            split=name,
        )
        config = config_of_images(images, 'made')
        return EncoderFeatures(ImageSubsets(config), tmp_path / 'cache', note=note)

    return open_split


def write_weights(path, stage, subset, source):
    """A checkpoint that has seen a subset, in a run of another split."""
    (cases,), _ = cases_of(source.images.subset(subset).dataset)
    seen = Shown.of(stage, cases)
    seen = Seen((Shown(**{**vars(seen), 'protocol': 'old', 'split_hash': 'old'}),))
    torch.save(attach(dict(state_dict=dict(w=torch.ones(1))), seen), path)
    return Weights('moco', path)


def compare(source, weights, allow=False):
    return compare_seen(
        source,
        [weights],
        [source.images.subset('test')],
        [source.images.subset('val')],
        allow,
    )


def test_images_of_the_training_are_refused(tmp_path, source):
    opened = source('plain')
    weights = write_weights(tmp_path / 'a.pth', 'train', 'test', opened)
    with pytest.raises(UserError, match=r'2 of 2 test images \(p0-0, p0-1\) were seen'):
        compare(opened, weights)
    (facts,) = compare(opened, weights, allow=True).values()
    assert sentences(facts) == ['seen in training: 2 of 2 test images (p0-0, p0-1)']


def test_strengths_are_not_chosen_on_images_of_the_training(tmp_path, source):
    opened = source('plain')
    weights = write_weights(tmp_path / 'a.pth', 'train', 'val', opened)
    with pytest.raises(UserError, match=r'2 of 2 validation images \(p1-0, p1-1\)'):
        compare(opened, weights)


def test_pretraining_is_told_or_refused_as_the_split_says(tmp_path, source):
    notes = []
    opened = source('plain', notes.append)
    weights = write_weights(tmp_path / 'a.pth', 'pretrain', 'test', opened)
    compare(opened, weights)
    assert notes == ['moco: seen in pretraining: 2 of 2 test images (p0-0, p0-1)']
    with pytest.raises(UserError, match='were seen in pretraining'):
        compare(source('made'), weights)
    # What else the split has may be pretrained with.
    other = write_weights(tmp_path / 'b.pth', 'pretrain', 'train', opened)
    for name in ('plain', 'made'):
        assert [sentences(f) for f in compare(source(name), other).values()] == [[]]


def test_what_is_not_known_is_noted_once(tmp_path, source):
    notes = []
    torch.save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / 'old.pth')
    compare(source('plain', notes.append), Weights('old', tmp_path / 'old.pth'))
    assert len(notes) == 1 and 'is not known' in notes[0]
    notes.clear()
    compare(source('plain', notes.append), Weights('random'))
    assert notes == []
