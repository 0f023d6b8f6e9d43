import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import medssl_mm.registry  # noqa: F401
from medssl_mm.datasets import slices
from medssl_mm.datasets.pairs import collate_pairs
from medssl_mm.datasets.sampler import EpochIndex, ResumableSampler
from medssl_mm.datasets.slices import BTCVSlices, SliceDataset
from medssl_mm.engine.seen import cases_of
from medssl_mm.errors import UserError
from medssl_mm.importers.sets.abdomen1k import Abdomen1KImporter
from medssl_mm.importers.sets.btcv import BTCVImporter
from medssl_mm.store import StoreWriter
from medssl_mm.store.splits import Split, load_split, save_split

CASES = ['a1', 'a2', 'b1', 'c1', 'd1', 'e1']
TWO_VIEWS = [
    dict(type='medssl_mm.LoadSlice'),
    dict(type='medssl_mm.CTWindow', level=40, width=400),
    dict(
        type='medssl_mm.CropViews',
        crop=dict(type='medssl_mm.RandomCropView', size=12, rotation=10),
        transforms=[
            dict(type='medssl_mm.IntensityJitter'),
            dict(type='medssl_mm.BlurJitter'),
            dict(type='medssl_mm.NoiseJitter', prob=0.9),
        ],
    ),
    dict(type='medssl_mm.PackViews'),
]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Six cases of five patients, 5 slices each; e1 has no label."""
    folder = tmp_path_factory.mktemp('data') / 'tiny'
    rng = np.random.default_rng(0)
    writer = StoreWriter.create(
        folder, 'tiny', 'CT', 'HU', ['background', 'liver', 'spleen']
    )
    for number, case_id in enumerate(CASES):
        image = rng.integers(-200, 300, (5, 20, 24)).astype(np.int16)
        image[:, -1] = -1000  # 5 % air
        image[0] = -1000  # air only
        image[1, :15] = -1000  # a quarter is body
        label = np.zeros(image.shape, np.uint8)
        label[2, 4:9, 4:9] = 1
        label[3, 4:9, 4:9] = 2
        writer.add_case(
            case_id,
            image,
            None if case_id == 'e1' else label,
            patient_id=case_id[0],
            labelled_slices=(1, 2, 3) if case_id == 'd1' else None,
            spacing=(5.0, 1.0, 0.5 + number),
        )
    writer.finish()
    save_split(
        folder,
        Split('tiny-1', 'tiny', dict(train=['a1', 'a2', 'b1', 'c1'], test=['d1'])),
    )
    return str(folder)


def locations(dataset):
    return [
        (dataset.get_data_info(n)['case_id'], dataset.get_data_info(n)['slice_index'])
        for n in range(len(dataset))
    ]


def test_every_slice_of_every_case(root):
    dataset = SliceDataset(root)
    assert locations(dataset) == [(c, n) for c in CASES for n in range(5)]
    assert dataset.metainfo['classes'] == ['background', 'liver', 'spleen']
    assert len(dataset.metainfo['palette']) == 3


def test_a_sample_tells_where_it_comes_from(root):
    info = SliceDataset(root, split='tiny-1', subset='test').get_data_info(-1)
    rng = info.pop('rng')
    assert isinstance(rng, np.random.Generator)
    assert set(info.pop('intensity')) == {'min', 'max', 'mean', 'std', 'p00_5', 'p99_5'}
    assert info == dict(
        sample_idx=4,
        case_id='d1',
        patient_id='d',
        slice_index=4,
        spacing=(5.0, 1.0, 4.5),
        store_root=root,
        img_path=f'{root}/cases/d1/image.b2nd#4',
        protocol='tiny-1',
        split_hash=load_split(root, 'tiny-1').hash,
        label_map=None,
        reduce_zero_label=False,
        seg_fields=[],
    )


def test_subsets_can_be_joined_and_thinned(root):
    dataset = SliceDataset(root, split='tiny-1', subset=['train', 'test'], slice_step=2)
    assert {c for c, _ in locations(dataset)} == set(CASES[:5])
    assert {n for _, n in locations(dataset)} == {0, 2, 4}


def test_fractions_are_nested_and_keep_patients_whole(root):
    chosen = []
    for fraction in (0.3, 0.6, 1.0):
        dataset = SliceDataset(root, split='tiny-1', fraction=fraction, fraction_seed=1)
        chosen.append({c for c, _ in locations(dataset)})
        assert ('a1' in chosen[-1]) == ('a2' in chosen[-1])
    assert chosen[0] < chosen[1] < chosen[2]


def test_filters(root):
    assert {n for _, n in locations(SliceDataset(root, min_foreground=0.1))} == {
        1,
        2,
        3,
        4,
    }
    assert {n for _, n in locations(SliceDataset(root, min_foreground=0.5))} == {
        2,
        3,
        4,
    }
    labelled = SliceDataset(root, labelled=True)
    assert 'e1' not in {c for c, _ in locations(labelled)}
    assert [n for c, n in locations(labelled) if c == 'd1'] == [1, 2, 3]
    foreground = SliceDataset(root, labelled=True, only_with_foreground_label=True)
    assert {n for _, n in locations(foreground)} == {2, 3}
    liver = SliceDataset(
        root,
        labelled=True,
        only_with_foreground_label=True,
        metainfo=dict(classes=['background', 'spleen']),
    )
    assert {n for _, n in locations(liver)} == {3}


def test_selected_classes_are_renumbered(root):
    dataset = SliceDataset(
        root,
        labelled=True,
        metainfo=dict(classes=['background', 'spleen']),
        pipeline=[
            dict(type='medssl_mm.LoadSlice'),
            dict(type='medssl_mm.LoadSliceLabel'),
        ],
    )
    assert dataset.label_map == {0: 0, 1: 0, 2: 1}
    assert len(dataset.metainfo['palette']) == 2
    assert dataset[2]['gt_seg_map'].max() == 0
    assert dataset[3]['gt_seg_map'].sum() == 25


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(split='other'), 'tiny-1'),
        (dict(split='tiny-1', subset='val'), "'val'.*train"),
        (dict(min_foreground=1.0), 'no slice is left.*min_foreground=1.0'),
        (dict(metainfo=dict(classes=['background', 'heart'])), 'spleen'),
        (dict(fraction=0.0), 'fraction must be above 0'),
        (dict(fraction=0.5), 'name a split'),
        (dict(slice_step=0), 'slice_step'),
        (dict(min_foreground=3), 'min_foreground is a share'),
        (dict(only_with_foreground_label=True), 'set labelled=True'),
    ],
)
def test_wrong_settings_say_what_there_is(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        SliceDataset(root, **arguments)


def test_missing_store_and_labels(root, tmp_path):
    with pytest.raises(UserError, match='prepare_data'):
        SliceDataset(tmp_path / 'nothing')
    save_split(root, Split('tiny-2', 'tiny', dict(train=['e1'])))
    with pytest.raises(UserError, match='none of them has a label'):
        SliceDataset(root, split='tiny-2', labelled=True)


def test_a_store_of_other_classes_is_refused(root):
    with pytest.raises(UserError, match='BTCVSlices expects.*pancreas.*tiny'):
        BTCVSlices(root)


def test_class_names_agree_with_the_importers():
    for dataset, importer in (
        (slices.BTCVSlices, BTCVImporter),
        (slices.Abdomen1KSlices, Abdomen1KImporter),
    ):
        assert tuple(dataset.METAINFO['classes']) == tuple(importer.classes)


def test_subset_as_mmengine_has_it(root):
    dataset = SliceDataset(root)
    assert locations(dataset.get_subset([7, 3])) == [('a2', 2), ('a1', 3)]
    assert len(dataset.get_subset(-4)) == 4 and len(dataset) == 30
    assert len(SliceDataset(root, indices=3)) == 3


def test_augmentation_is_a_function_of_seed_epoch_and_sample(root):
    dataset = SliceDataset(root, pipeline=TWO_VIEWS)

    def views(*index):
        return torch.stack(dataset[EpochIndex(*index)]['inputs'])

    assert torch.equal(views(7, 1, 2), views(7, 1, 2))
    assert not torch.equal(views(7, 1, 2), views(7, 2, 2))
    assert not torch.equal(views(7, 1, 2), views(7, 1, 3))


def epochs_of(root, num_workers, **options):
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        loader = Runner.build_dataloader(
            dict(
                batch_size=6,
                num_workers=num_workers,
                drop_last=True,
                sampler=dict(type='medssl_mm.ResumableSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
                dataset=dict(
                    type='medssl_mm.SliceDataset', data_root=root, pipeline=TWO_VIEWS
                ),
                **options,
            ),
            seed=3,
        )
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        yield from loader


def test_workers_change_nothing(root):
    alone = list(epochs_of(root, 0))
    shared = list(epochs_of(root, 2, persistent_workers=True))
    assert len(alone) == len(shared) == 10
    for one, two in zip(alone, shared):
        for view in range(2):
            assert torch.equal(one['inputs'][view], two['inputs'][view])
        for a, b in zip(one['data_samples'], two['data_samples']):
            assert a.img_path == b.img_path
            assert a.view_geometry[0]['box'] == b.view_geometry[0]['box']
    assert not torch.equal(alone[0]['inputs'][0], alone[5]['inputs'][0])


def test_views_arrive_as_the_selfsup_host_wants_them(root):
    batch = next(epochs_of(root, 0))
    assert [v.shape for v in batch['inputs']] == [(6, 1, 12, 12)] * 2
    geometry = batch['data_samples'][0].metainfo['view_geometry']
    assert len(geometry) == 2 and geometry[1]['matrix'].shape == (2, 3)


def test_sampler_gets_patients_and_slices(root):
    dataset = SliceDataset(root, min_foreground=0.1)
    patients, positions = dataset.sample_locations()
    assert len(set(patients.tolist())) == 5
    assert positions.tolist() == [1, 2, 3, 4] * 6
    names = [dataset.get_data_info(n)['patient_id'] for n in range(len(dataset))]
    assert dataset.patient_names() == set(names) and len(set(names)) == 5
    sampler = ResumableSampler(dataset, seed=0, neighbour_distance=2, batch_size=6)
    order = np.array(list(sampler)).reshape(4, 6)
    for batch in order:
        for patient in np.unique(patients[batch]):
            mine = np.sort(positions[batch][patients[batch] == patient])
            assert (np.diff(mine) >= 2).all()


def test_the_index_is_small(root):
    dataset = SliceDataset(root)
    few = len(pickle.dumps(dataset))
    dataset._sample_cases = np.tile(dataset._sample_cases, 1000)
    dataset._sample_slices = np.tile(dataset._sample_slices, 1000)
    assert len(pickle.dumps(dataset)) - few < 9 * len(dataset)
    again = pickle.loads(pickle.dumps(dataset))
    assert again.get_data_info(29999)['case_id'] == 'e1'


def test_no_image_is_read_at_the_start(root, tmp_path):
    import shutil

    shutil.copytree(root, tmp_path / 'copy')
    for path in (tmp_path / 'copy').rglob('*.b2nd'):
        path.unlink()
    dataset = SliceDataset(tmp_path / 'copy', labelled=True, min_foreground=0.1)
    assert len(dataset) == 19
    case = json.loads((tmp_path / 'copy/cases/a1/case.json').read_text())
    assert dataset.get_data_info(0)['intensity']['mean'] == pytest.approx(
        case['intensity']['mean']
    )


LABELLED = [
    dict(type='medssl_mm.LoadSlice'),
    dict(type='medssl_mm.LoadSliceLabel'),
    dict(type='medssl_mm.CTWindow', level=40, width=400),
    dict(type='medssl_mm.PackSlice'),
]


def paired(root, **settings):
    return SliceDataset(
        root,
        split='tiny-1',
        labelled=True,
        pipeline=LABELLED,
        unlabelled=settings.pop('unlabelled', {}),
        **settings,
    )


def test_a_labelled_slice_brings_one_without_label(root):
    dataset = paired(root, fraction=0.3, fraction_seed=1)
    other = dataset.unlabelled
    assert {c for c, _ in locations(other)} == {'a1', 'a2', 'b1', 'c1'}
    assert len(dataset) < len(other)
    first, second = dataset[EpochIndex(2, 1, 5)]
    assert 'gt_sem_seg' in first['data_samples']
    assert 'gt_sem_seg' not in second['data_samples']
    alone = other[second['data_samples'].sample_idx]
    assert torch.equal(alone['inputs'], second['inputs'])


def test_companions_are_drawn_by_seed_epoch_and_sample(root):
    dataset = paired(root)

    def drawn(seed, epoch):
        return [
            dataset[EpochIndex(n, epoch, seed)][1]['data_samples'].sample_idx
            for n in range(len(dataset))
        ]

    assert drawn(0, 0) == drawn(0, 0)
    assert drawn(0, 0) != drawn(0, 1) and drawn(0, 0) != drawn(1, 0)
    everything = {n for epoch in range(8) for n in drawn(0, epoch)}
    assert everything == set(range(len(dataset.unlabelled)))


def test_what_is_beside_can_be_other_cases(root):
    dataset = paired(root, unlabelled=dict(subset=['train', 'test'], slice_step=2))
    assert {c for c, _ in locations(dataset.unlabelled)} == set(CASES[:5])
    assert {n for _, n in locations(dataset.unlabelled)} == {0, 2, 4}


def test_unlabelled_goes_with_labels(root):
    with pytest.raises(ValueError, match='set labelled=True as well'):
        SliceDataset(root, split='tiny-1', unlabelled={})


def test_pairs_are_collated_labelled_first(root):
    dataset = paired(root)
    pairs = [dataset[n] for n in (1, 2, 3)]
    batch = collate_pairs(pairs)
    wanted = [pair[side]['inputs'] for side in (0, 1) for pair in pairs]
    assert len(batch['inputs']) == 6
    assert all(torch.equal(a, b) for a, b in zip(batch['inputs'], wanted))
    labels = ['gt_sem_seg' in sample for sample in batch['data_samples']]
    assert labels == [True] * 3 + [False] * 3
    with pytest.raises(TypeError, match='pairs of samples, got dict; set unlabelled='):
        collate_pairs([pair[0] for pair in pairs])


def test_cases_without_labels_were_seen_as_well(root):
    dataset = paired(root, fraction=0.3, fraction_seed=1)
    (own, beside), unknown = cases_of(dataset)
    assert not unknown
    assert set(own.ids) < set(beside.ids) == {'a1', 'a2', 'b1', 'c1'}
