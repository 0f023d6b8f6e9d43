import numpy as np
import pytest
from mmengine.dataset import Compose

from medssl_mm.datasets.transforms import (
    BlurJitter,
    CropViews,
    ImageViews,
    IntensityJitter,
    NoiseJitter,
)
from medssl_mm.datasets.transforms.views import overlap_share
from medssl_mm.errors import UserError
from medssl_mm.store import StoreWriter

CROP = dict(type='medssl_mm.RandomCropView', size=24, rotation=10)


def image():
    return np.random.default_rng(0).random((60, 80)).astype(np.float32)


def run(transform, seed=0, source=None):
    source = image() if source is None else source
    return transform(dict(img=source, rng=np.random.default_rng(seed)))


def test_views_are_cut_by_their_own_geometry():
    transform = CropViews(CROP, num_views=3)
    results = run(transform)
    assert len(results['img']) == len(results['view_geometry']) == 3
    for view, geometry in zip(results['img'], results['view_geometry']):
        np.testing.assert_array_equal(view, transform.crop.apply(image(), geometry))
    boxes = {geometry['box'] for geometry in results['view_geometry']}
    assert len(boxes) == 3


def test_source_is_left_alone():
    source = image()
    steps = [IntensityJitter(prob=1), BlurJitter(prob=1)]
    run(CropViews(CROP, steps), source=source)
    np.testing.assert_array_equal(source, image())


def test_shared_crop_differs_in_grey_values_alone():
    plain = run(CropViews(CROP, shared_crop=True))
    np.testing.assert_array_equal(*plain['img'])
    jittered = run(CropViews(CROP, [IntensityJitter(prob=1)], shared_crop=True))
    one, two = jittered['view_geometry']
    assert one == two or one is two
    assert not np.array_equal(*jittered['img'])


@pytest.mark.parametrize('share', [0.3, 0.8, 1.0])
def test_views_overlap_as_much_as_asked(share):
    crop = dict(CROP, scale=(0.05, 0.3))
    transform = CropViews(crop, min_overlap=share)
    for seed in range(30):
        one, two = run(transform, seed)['view_geometry']
        assert overlap_share(one['box'], two['box']) >= share - 1e-9


def test_overlap_share_by_hand():
    assert overlap_share((0, 0, 2, 2), (1, 1, 5, 5)) == 1 / 4
    assert overlap_share((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert overlap_share((0, 0, 9, 9), (1, 1, 2, 2)) == 1


def test_steps_per_view():
    results = run(CropViews(CROP, [[], [IntensityJitter(prob=1)]], shared_crop=True))
    assert not np.array_equal(*results['img'])
    np.testing.assert_array_equal(results['img'][0], run(CropViews(CROP))['img'][0])


@pytest.mark.parametrize('value', [0, 1])
def test_blank_slices_pass(value):
    steps = [IntensityJitter(prob=1), BlurJitter(prob=1)]
    results = run(CropViews(CROP, steps), source=np.full((30, 30), value, np.uint8))
    assert all(np.isfinite(view).all() for view in results['img'])


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            dict(crop=dict(type='medssl_mm.ResizeAndPad', size=4)),
            'crop must be a medssl_mm.RandomCropView',
        ),
        (dict(crop=CROP, num_views=0), 'num_views must be an int'),
        (dict(crop=CROP, min_overlap=2), 'min_overlap must lie between'),
        (dict(crop=CROP, transforms=[[], [], []]), r'list per view \(2\), got 3'),
        (dict(crop=CROP, transforms=[[], BlurJitter()]), 'one list of steps'),
    ],
)
def test_wrong_settings_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        CropViews(**arguments)


def test_repr_shows_the_settings():
    text = repr(CropViews(CROP, [BlurJitter()], min_overlap=0.2))
    assert 'min_overlap=0.2' in text and 'BlurJitter(sigma=' in text


def test_views_of_colour_images():
    source = np.random.default_rng(0).random((60, 80, 3)).astype(np.float32)
    transform = CropViews(dict(CROP, pad_value=0.5), [BlurJitter()])
    results = run(transform, source=source)
    for view, geometry in zip(results['img'], results['view_geometry']):
        assert view.shape == (24, 24, 3)
        assert geometry['source_shape'] == (60, 80)
    # Each channel is cut as a grey image would be.
    transform = CropViews(dict(CROP, pad_value=0.5))
    for channel in range(3):
        for view, grey in zip(
            run(transform, source=source)['img'],
            run(transform, source=source[..., channel].copy())['img'],
        ):
            np.testing.assert_allclose(view[..., channel], grey, atol=1e-6)


def test_image_views_are_augmented_each_anew():
    source = image()
    results = run(ImageViews([NoiseJitter(prob=1, std=(0.1, 0.1))], 3), source=source)
    assert len(results['img']) == 3 and results['img_shape'] == (60, 80)
    one, two, three = results['img']
    assert (one != two).any() and (two != three).any()
    assert 'view_geometry' not in results
    np.testing.assert_array_equal(source, image())


def test_image_views_with_steps_of_their_own():
    results = run(ImageViews([[], [BlurJitter(prob=1)]]))
    np.testing.assert_array_equal(results['img'][0], image())
    assert results['img'][1].std() < image().std()
    with pytest.raises(ValueError, match='ImageViews: transforms must be one'):
        ImageViews([[], [], []])
    with pytest.raises(ValueError, match='ImageViews: num_views must be'):
        ImageViews([], 0)
    assert 'num_views=2' in repr(ImageViews([BlurJitter()]))


@pytest.fixture
def store(tmp_path):
    """Ten slices of 2 mm, slice k of the value 10 k everywhere."""
    image = np.repeat(np.arange(10, dtype=np.int16) * 10, 40 * 30).reshape(10, 40, 30)
    writer = StoreWriter.create(tmp_path / 's', 's', 'CT', 'HU', 'abc')
    writer.add_case('one', image, spacing=(2.0, 1.0, 1.0))
    writer.add_case('two', image)
    writer.finish()
    return str(tmp_path / 's')


NEIGHBOURS = [
    dict(type='medssl_mm.LoadSlice'),
    dict(type='medssl_mm.CTWindow', level=50, width=100),
]


def seen(store, index, max_mm, seed=0, case='one', spacing=(2.0, 1.0, 1.0), **settings):
    """Numbers of the slices that two views show."""
    pipeline = Compose(
        [
            *NEIGHBOURS,
            CropViews(
                dict(type='medssl_mm.RandomCropView', size=16),
                neighbours=dict(max_mm=max_mm, steps=NEIGHBOURS),
                **settings,
            ),
        ]
    )
    results = pipeline(
        dict(
            store_root=store,
            case_id=case,
            slice_index=index,
            spacing=spacing,
            rng=np.random.default_rng(seed),
        )
    )
    shown = []
    for view in results['img']:
        assert view.dtype == np.float32 and np.ptp(view) < 1e-6  # one slice
        shown.append(round(float(view.mean()) * 10))
    return shown


@pytest.mark.parametrize(
    ('index', 'max_mm', 'expected'),
    [
        (5, 4.0, {3, 4, 5, 6, 7}),
        (5, 3.9, {4, 5, 6}),
        (5, 1.0, {5}),
        (0, 4.0, {0, 1, 2}),  # ends where the volume ends
        (9, 100.0, set(range(10))),
    ],
)
def test_other_views_are_of_slices_within_some_mm(store, index, max_mm, expected):
    pairs = [seen(store, index, max_mm, seed) for seed in range(60)]
    assert {first for first, _ in pairs} == {index}
    assert {second for _, second in pairs} == expected
    assert pairs[:5] == [seen(store, index, max_mm, seed) for seed in range(5)]


def test_neighbours_of_a_shared_crop_and_of_a_rounded_spacing(store):
    pairs = [
        seen(store, 5, 6.0, seed, spacing=(3.0000001, 1.0, 1.0), shared_crop=True)
        for seed in range(60)
    ]
    assert {second for _, second in pairs} == {3, 4, 5, 6, 7}


def test_neighbours_by_number_need_no_spacing(store):
    neighbours = dict(max_slices=2, steps=NEIGHBOURS)
    views = CropViews(CROP, neighbours=neighbours)
    found = set()
    for seed in range(60):
        sample = dict(
            img=np.full((30, 30), 0.5, np.float32),
            store_root=store,
            case_id='two',
            slice_index=1,
            spacing=None,
            rng=np.random.default_rng(seed),
        )
        found.add(round(float(views(sample)['img'][1].mean()) * 10))
    assert found == {0, 1, 2, 3}
    for wrong in (dict(), dict(max_mm=4.0, max_slices=1)):
        with pytest.raises(UserError, match='neighbours needs max_mm or, where'):
            CropViews(CROP, neighbours=dict(wrong, steps=NEIGHBOURS))
    with pytest.raises(UserError, match='max_slices must be an int of at least 1'):
        CropViews(CROP, neighbours=dict(max_slices=0, steps=NEIGHBOURS))


def test_neighbours_need_a_distance(store):
    with pytest.raises(UserError, match='case two: the distance .* import it with its'):
        seen(store, 5, 4.0, case='two', spacing=None)
    with pytest.raises(UserError, match='neighbours.steps must load and normalise'):
        CropViews(CROP, neighbours=dict(max_mm=4.0, steps=[]))
    with pytest.raises(ValueError, match='neighbours.max_mm must lie between 0.0'):
        CropViews(CROP, neighbours=dict(max_mm=-1, steps=NEIGHBOURS))
