import json

import numpy as np
import pytest
from PIL import Image

from medssl_mm.results.deep_image_prior import (
    Reconstructions,
    draw_losses,
    write_reconstructions,
)

NAMES = ['ill/x', 'y']


def made(encoder, seed):
    rng = np.random.default_rng(seed)

    def pictures(*shape):
        return rng.integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8)

    previews = pictures(3, 2)
    return Reconstructions(
        encoder,
        encoder,
        list(pictures(2)),
        previews[-1],
        np.linspace(4, 1, 12).reshape(6, 2),
        previews,
        np.array([2, 4, 6]),
    )


def test_pictures_are_written_as_they_are(tmp_path):
    results = [made('a', 0), made('b', 1)]
    paths = write_reconstructions(
        results, NAMES, ['ill_x', 'y'], tmp_path, 'strict', dict(seed=1)
    )
    # Others read the list only when all pictures are there.
    assert paths[-1].name == 'deep_image_prior.json'
    content = json.loads(paths[-1].read_text())
    assert content['mode'] == 'strict' and len(content['pairs']) == 4
    for pair in content['pairs']:
        own = results['ab'.index(pair['encoder'])]
        place = NAMES.index(pair['picture'])
        for key, expected in (
            ('original', own.originals[place]),
            ('reconstruction', own.pictures[place]),
        ):
            found = np.array(Image.open(tmp_path / pair[key]))
            np.testing.assert_array_equal(found, expected)
        assert pair['first_error'] == own.losses[0, place]
        assert pair['error'] == own.losses[-1, place]


def test_losses_are_shares_of_the_first():
    figure = draw_losses([made('a', 0), made('b', 1)], NAMES)
    assert len(figure.axes) == 2
    values = figure.axes[1].lines[1].get_ydata()
    losses = made('b', 1).losses[:, 1]
    assert values == pytest.approx(losses / losses[0])
