"""Configs of three lines over stores of one's own, and what is filled in."""

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, DefaultScope

import medssl_mm.registry  # noqa: F401
from medssl_mm.engine import launch
from medssl_mm.engine.completion import normalization_of
from medssl_mm.errors import UserError
from medssl_mm.store import StoreWriter
from medssl_mm.store.known import KNOWN, StoreFacts, read_facts
from medssl_mm.store.splits import Split, save_split
from tests.conftest import make_ct
from tests.datasets.images import write_image_set
from tests.shipped import CONFIGS, experiments

CT = ('background', 'liver', 'kidney')


def write_slices(
    root, modality='CT', units='HU', dtype=np.int16, classes=CT, channels=()
):
    writer = StoreWriter.create(
        root, 'own', modality, units, classes, channels=channels
    )
    for number in range(4):
        image, label = make_ct(number)
        if units != 'HU':
            image = (image - image.min()) / np.ptp(image) * 255
        if channels:
            image = np.stack([image * (n + 1) for n in range(len(channels))], 1)
        writer.add_case(
            f'case{number}', image.astype(dtype), label, patient_id=f'p{number}'
        )
    writer.finish()
    cases = [f'case{number}' for number in range(4)]
    subsets = dict(train=cases[:2], val=cases[2:3], test=cases[3:], pretrain=cases[:3])
    save_split(root, Split('mine', 'own', subsets))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('own')
    write_slices(folder / 'ct')
    write_slices(folder / 'mr', 'MR', 'arbitrary', np.float32)
    write_slices(folder / 'two', 'MR', 'arbitrary', np.float32, CT, ('T1', 'T2'))
    write_slices(folder / 'png', 'CT', 'arbitrary', np.uint8)
    write_slices(folder / 'float', 'CT', 'arbitrary', np.float32)
    write_image_set(folder / 'colour', classes=('a', 'b', 'c'), channels=3, side=64)
    write_image_set(folder / 'findings', task='multi-label', side=64)
    return folder


def three_lines(tmp_path, base, root, more=''):
    path = tmp_path / 'own.py'
    split = 'mine' if (root / 'cases').is_dir() else 'made'
    path.write_text(
        f"_base_ = '{CONFIGS / base}.py'\n"
        f"data_root = '{root}'\n"
        f"split = '{split}'\n{more}"
    )
    return path


MOCO = 'selfsup/mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64'
LOCAL = 'selfsup/mocov2/mocov2-local_resnet18_1xb64-coslr-150e_acdc-64'
LINEAR = 'segmentation/acdc/linear_resnet18_acdc-128'
DEEPLAB = 'segmentation/acdc/deeplabv3plus_resnet18_acdc-128'
FINETUNE = 'classification/nih1000/finetune_resnet18_nih1000-64'
COLOUR = 'classification/breakhis/finetune_resnet18_breakhis-224'
XRAY_MOCO = 'selfsup/intermediate/moco-btwins_resnet18_1xb64-coslr-100e_nih1000-64'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('base', 'store'),
    [
        (MOCO, 'mr'),
        (LOCAL, 'ct'),
        (LOCAL, 'two'),
        (LINEAR, 'ct'),
        (LINEAR, 'two'),
        (DEEPLAB, 'png'),
        (DEEPLAB, 'two'),
        (COLOUR, 'colour'),
        (FINETUNE, 'findings'),
        (XRAY_MOCO, 'findings'),
    ],
)
def test_three_lines_train_a_step(base, store, data, tmp_path):
    content = launch.load_config(three_lines(tmp_path, base, data / store))
    settings = content.train_dataloader.dataset
    generic = 'ClassificationImages' if store in ('colour', 'findings') else 'Slice'
    assert settings.type.startswith(f'medssl_mm.{generic}')
    assert settings.data_root == str(data / store)
    assert torch.isfinite(train_a_step(content))


def train_a_step(content):
    """Build data set, model and optimizer of a config; return the loss of a step."""
    with DefaultScope.overwrite_default_scope(content.default_scope):
        dataset = DATASETS.build(content.train_dataloader.dataset)
        if 'queue_len' in content.model:
            content.model.queue_len = 8
        model = MODELS.build(content.model).train()
        wrapper = build_optim_wrapper(model, content.optim_wrapper)
    collate = content.train_dataloader.get('collate_fn')
    samples = [dataset[index] for index in range(4)]
    batch = default_collate(samples) if collate else pseudo_collate(samples)
    return model.train_step(batch, wrapper)['loss']


# What the config says, the maps that the network returns (after the transitions
# of a DenseNet), and the maps of its stages by their number.
FAMILIES = {
    'DenseNet': (
        "type='mmpretrain.DenseNet', arch='121', out_indices=(0, 1, 2, 3)",
        (128, 256, 512, 1024),
        {0: 64, 1: 256, 2: 512, 3: 1024, 4: 1024},
    ),
    'ConvNeXt': (
        "type='mmpretrain.ConvNeXt', arch='atto', out_indices=(0, 1, 2, 3), "
        'gap_before_final_norm=False',
        (40, 80, 160, 320),
        {0: 40, 1: 40, 2: 80, 3: 160, 4: 320},
    ),
    'timm': (
        "type='mmpretrain.TIMMBackbone', model_name='convnext_atto', "
        'features_only=True',
        (40, 80, 160, 320),
        {1: 40, 2: 80, 3: 160, 4: 320},
    ),
}
families = pytest.mark.parametrize('family', FAMILIES)


def with_backbone(family, settings=''):
    return (
        f'model = dict(backbone=dict(_delete_=True, {FAMILIES[family][0]}), '
        f'{settings})\n'
    )


@families
def test_segmentation_heads_get_the_maps_of_any_family(family, data, tmp_path):
    maps = FAMILIES[family][1]
    path = three_lines(tmp_path, DEEPLAB, data / 'two', with_backbone(family))
    model = launch.load_config(path).model
    assert model.backbone.in_channels == 2
    assert model.decode_head.in_channels == maps[3]
    assert model.decode_head.c1_in_channels == maps[0]
    assert model.auxiliary_head.in_channels == maps[2]
    more = with_backbone(family, 'decode_head=dict(in_index=[1, 3])')
    model = launch.load_config(three_lines(tmp_path, LINEAR, data / 'ct', more)).model
    assert model.backbone.in_channels == 1
    assert model.decode_head.in_channels == [maps[1], maps[3]]


@families
def test_classification_head_gets_the_last_map_of_any_family(family, data, tmp_path):
    path = three_lines(tmp_path, FINETUNE, data / 'colour', with_backbone(family))
    model = launch.load_config(path).model
    assert model.head.in_channels == FAMILIES[family][1][-1]
    assert model.backbone.in_channels == 3


@families
def test_loss_terms_get_the_stages_of_any_family(family, data, tmp_path):
    stages = FAMILIES[family][2]
    term = (
        "dict(stage={}, neck=dict(type='medssl_mm.LocalContrastNeck', hid_channels=8, "
        "out_channels=8), loss=dict(type='medssl_mm.LocalInfoNCELoss'))"
    )
    terms = ', '.join(term.format(stage) for stage in stages)
    head = f'multi_level_head=dict(levels=[{terms}]), '
    head += "decorrelation=dict(type='medssl_mm.DecorrelationHead')"
    more = with_backbone(family, head)
    model = launch.load_config(three_lines(tmp_path, MOCO, data / 'ct', more)).model
    found = {
        level.stage: level.neck.in_channels for level in model.multi_level_head.levels
    }
    assert found == stages
    assert model.neck.in_channels == stages[4]
    assert model.decorrelation.num_channels == stages[4]


VIT = (
    "model = dict(backbone=dict(_delete_=True, type='mmpretrain.VisionTransformer', "
    'arch=dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48), '
    "img_size=64, patch_size=16, out_type='{}'))\n"
)


@pytest.mark.parametrize('out_type', ['cls_token', 'featmap', 'raw'])
def test_heads_get_what_a_transformer_returns(out_type, data, tmp_path):
    path = three_lines(tmp_path, FINETUNE, data / 'colour', VIT.format(out_type))
    assert launch.load_config(path).model.head.in_channels == 24


@pytest.mark.slow
@pytest.mark.parametrize('base', [LINEAR, DEEPLAB, FINETUNE, LOCAL])
@families
def test_any_family_trains_a_step(base, family, data, tmp_path):
    store = 'findings' if base == FINETUNE else 'ct'
    path = three_lines(tmp_path, base, data / store, with_backbone(family))
    assert torch.isfinite(train_a_step(launch.load_config(path)))


def test_map_that_the_backbone_does_not_return_is_named(data, tmp_path):
    more = "model = dict(backbone=dict(_delete_=True, type='mmpretrain.DenseNet'))\n"
    with pytest.raises(UserError) as raised:
        launch.load_config(three_lines(tmp_path, LINEAR, data / 'ct', more))
    for fact in (
        'own.py',
        'decode_head',
        'in_index=[0, 1, 2, 3]',
        '1 map',
        'out_indices',
    ):
        assert fact in str(raised.value)


def test_backbone_of_three_channels_is_named(data, tmp_path):
    more = (
        "model = dict(backbone=dict(_delete_=True, type='mmpretrain.EfficientNet'))\n"
    )
    with pytest.raises(UserError) as raised:
        launch.load_config(three_lines(tmp_path, MOCO, data / 'ct', more))
    facts = (
        'own.py',
        '1 channel',
        'mmpretrain.EfficientNet',
        'EfficientNetAnyChannels',
    )
    assert all(fact in str(raised.value) for fact in facts)


def test_unknown_backbone_is_left_to_the_model(data, tmp_path):
    more = "model = dict(backbone=dict(_delete_=True, type='NoSuchNetwork'))\n"
    content = launch.load_config(three_lines(tmp_path, LINEAR, data / 'ct', more))
    assert 'in_channels' not in content.model.decode_head


def test_reading_a_config_draws_no_random_numbers(data, tmp_path):
    torch.manual_seed(3)
    launch.load_config(three_lines(tmp_path, DEEPLAB, data / 'ct'))
    drawn = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))


@pytest.mark.parametrize(
    ('store', 'step'),
    [
        ('ct', dict(type='medssl_mm.CTWindow', level=50, width=500)),
        ('mr', dict(type='medssl_mm.PercentileNormalize')),
        ('png', dict(type='medssl_mm.ShiftScale', mean=0.0, std=255.0)),
        ('float', dict(type='medssl_mm.PercentileNormalize')),
    ],
)
def test_grey_values_follow_the_store(store, step, data, tmp_path):
    content = launch.load_config(three_lines(tmp_path, LINEAR, data / store))
    for name in ('train', 'val', 'test'):
        steps = content[f'{name}_dataloader'].dataset.pipeline
        assert [one.to_dict() for one in steps].count(step) == 1
    assert 'NormalizeByStore' not in content.pretty_text
    assert content.normalize.to_dict() == step
    assert content.model.decode_head.num_classes == 3
    with pytest.raises(AttributeError):
        content.slices  # of the data set that is not used  # noqa: B018


def test_head_of_a_pretraining_is_left_alone(data, tmp_path):
    """Of one without levels, too: it has neither channels nor classes."""
    path = tmp_path / 'own.py'
    path.write_text(
        "default_scope = 'mmselfsup'\n"
        "model = dict(type='medssl_mm.MultiLevelMoCo', queue_len=8, feat_dim=8,\n"
        "    backbone=dict(type='mmselfsup.ResNet', depth=18),\n"
        "    neck=dict(type='mmselfsup.MoCoV2Neck', in_channels=512, hid_channels=8,\n"
        '              out_channels=8),\n'
        "    head=dict(type='medssl_mm.InfoNCELoss'))\n"
        "train_dataloader = dict(dataset=dict(type='medssl_mm.SliceDataset',\n"
        f"    data_root='{data / 'ct'}', split='mine', subset='pretrain'))\n"
    )
    content = launch.load_config(str(path))
    assert content.model.head.to_dict() == dict(type='medssl_mm.InfoNCELoss')
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        MODELS.build(content.model)


def test_probes_look_at_the_data_of_the_config(data, tmp_path):
    """Unless they name some; grey values follow the store of each."""
    probe = (CONFIGS / 'selfsup/_base_/probes/images_64.py').as_posix()
    path = three_lines(tmp_path, XRAY_MOCO, data / 'findings')
    config = launch.load_config(f'{path}+{probe}')
    hooks = config.default_hooks
    train, val = hooks.online_probe.train_dataset, hooks.knn_probe.val_dataset
    for dataset, subset in ((train, 'train'), (val, 'val')):
        assert dataset.data_root == str(data / 'findings')
        assert (dataset.split, dataset.subset) == ('made', subset)
        assert dataset.pipeline[0].type == 'medssl_mm.ShiftScale'
    other = str(data / 'colour')
    options = [
        f'default_hooks.online_probe.val_dataset.data_root={other}',
        'default_hooks.online_probe.val_dataset.split=made',
    ]
    config = launch.load_config(f'{path}+{probe}', options)
    hooks = config.default_hooks
    assert hooks.online_probe.val_dataset.data_root == other
    assert hooks.online_probe.train_dataset.data_root == str(data / 'findings')


def test_classes_of_images_choose_the_head(data, tmp_path):
    content = launch.load_config(three_lines(tmp_path, FINETUNE, data / 'colour'))
    assert content.model.head.to_dict() == dict(
        type='LinearClsHead', num_classes=3, in_channels=512
    )
    assert content.model.backbone.in_channels == 3
    content = launch.load_config(three_lines(tmp_path, FINETUNE, data / 'findings'))
    assert content.model.head.type == 'MultiLabelLinearClsHead'
    assert content.model.head.num_classes == 2
    assert content.model.backbone.in_channels == 1


def test_what_the_config_says_itself_stays(data, tmp_path):
    more = (
        "normalize = dict(type='medssl_mm.CTWindow', level=-600, width=1500)\n"
        'model = dict(backbone=dict(depth=50), decode_head=dict(num_classes=3))\n'
        'val_dataloader = dict(dataset=dict(split=None))\n'
    )
    path = three_lines(tmp_path, LINEAR, data / 'ct', more)
    content = launch.load_config(path, ['train_dataloader.dataset.split=other'])
    (step,) = [
        step
        for step in content.test_dataloader.dataset.pipeline
        if 'Window' in step.type
    ]
    assert (step.level, step.width) == (-600, 1500)
    assert content.model.decode_head.in_channels == [256, 512, 1024, 2048]
    splits = [
        content[f'{name}_dataloader'].dataset.split for name in ('train', 'val', 'test')
    ]
    assert splits == ['other', None, 'mine']


def test_selected_classes_count(data, tmp_path):
    classes = "metainfo=dict(classes=['background', 'kidney'])"
    more = ''.join(
        f'{name}_dataloader = dict(dataset=dict({classes}))\n'
        for name in ('train', 'val', 'test')
    )
    path = three_lines(tmp_path, DEEPLAB, data / 'ct', more)
    content = launch.load_config(path)
    assert content.model.decode_head.num_classes == 2
    assert content.model.auxiliary_head.num_classes == 2


@pytest.mark.parametrize(
    ('more', 'facts'),
    [
        ('model = dict(decode_head=dict(num_classes=5))\n', ('num_classes=5', 'has 3')),
        (
            'model = dict(backbone=dict(in_channels=2))\n',
            ('in_channels=2', '1 channel', 'leave'),
        ),
        (
            "test_dataloader = dict(dataset=dict(data_root='elsewhere'))\n",
            ('test_dataloader', "'elsewhere'"),
        ),
    ],
)
def test_what_contradicts_the_data_is_refused(more, facts, data, tmp_path):
    with pytest.raises(UserError) as raised:
        launch.load_config(three_lines(tmp_path, LINEAR, data / 'ct', more))
    assert all(fact in str(raised.value) for fact in ('own.py', *facts))


def test_missing_store_is_named(tmp_path):
    path = three_lines(tmp_path, LINEAR, tmp_path / 'gone')
    with pytest.raises(UserError) as raised:
        launch.load_config(path)
    for fact in ('own.py', str(tmp_path / 'gone'), 'prepare_data.py', 'work directory'):
        assert fact in str(raised.value)


def test_data_must_be_named(tmp_path):
    path = tmp_path / 'own.py'
    path.write_text(
        f"_base_ = ['{CONFIGS}/segmentation/_base_/models/linear_resnet18.py',\n"
        f"'{CONFIGS}/segmentation/_base_/datasets/slices_128.py']\n"
    )
    with pytest.raises(UserError, match=r'own\.py names no data.*data_root=DIR'):
        launch.load_config(path)


def test_config_of_the_work_directory_is_the_same_without_data(data, tmp_path):
    """It holds every number: prediction elsewhere does not need the store."""
    write_slices(tmp_path / 'store')
    content = launch.load_config(three_lines(tmp_path, DEEPLAB, tmp_path / 'store'))
    content.dump(tmp_path / 'dumped.py')
    (tmp_path / 'store').rename(tmp_path / 'moved')
    again = launch.load_config(tmp_path / 'dumped.py')
    assert again.to_dict() == content.to_dict()


def test_config_without_data_of_ours_is_left_alone(tmp_path):
    path = tmp_path / 'other.py'
    text = (
        "model = dict(type='Other', backbone=dict(type='Net'), head=dict(a=1))\n"
        "train_dataloader = dict(dataset=dict(type='mmseg.ADE20KDataset'))\n"
    )
    path.write_text(text)
    content = launch.load_config(path, ['work_dir=x']).to_dict()
    assert content['model'] == dict(
        type='Other', backbone=dict(type='Net'), head=dict(a=1)
    )
    assert content['train_dataloader'] == dict(dataset=dict(type='mmseg.ADE20KDataset'))


def test_several_channels_reach_the_backbone(data, tmp_path):
    for base in (LOCAL, LINEAR, DEEPLAB):
        content = launch.load_config(three_lines(tmp_path, base, data / 'two'))
        assert content.model.backbone.in_channels == 2
    facts = StoreFacts(('background',), modality='MR', units='arbitrary', channels=2)
    assert normalization_of(facts)['type'] == 'medssl_mm.PercentileNormalize'


def test_facts_of_a_store(data):
    assert read_facts(data / 'mr') == StoreFacts(CT, modality='MR', units='arbitrary')
    assert read_facts(data / 'png').eight_bit
    found = read_facts(data / 'findings')
    assert (found.task, found.channels, found.kind) == (
        'multi-label',
        1,
        'classification',
    )


@pytest.mark.parametrize('name', ['btcv', 'acdc', 'curvas', 'abdomen1k', 'phantom'])
def test_known_facts_are_those_of_the_importers(name):
    from medssl_mm.importers import make_importer

    importer = make_importer(name)
    facts = KNOWN[name]
    assert tuple(importer.classes) == facts.classes
    assert (importer.modality, importer.units) == (facts.modality, facts.units)


@pytest.mark.parametrize(
    'experiment', experiments('segmentation'), ids=lambda one: one.name
)
def test_absent_public_data_are_known(experiment, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no data folder
    content = experiment.load()
    classes = content.test_dataloader.dataset.get('metainfo', {}).get('classes')
    known = DATASETS.get(content.test_dataloader.dataset.type).METAINFO['classes']
    assert content.model.decode_head.num_classes == len(classes or known)


@pytest.mark.parametrize(
    ('readout', 'index', 'channels'),
    [
        ('', [0, 1, 2, 3], [64, 128, 256, 512]),
        ('+stage1', 0, 64),
        ('+stage2', 1, 128),
        ('+stage3', 2, 256),
        ('+stage4', 3, 512),
        ('+handmade', 0, 28),
    ],
)
def test_a_linear_decoder_reads_all_stages_or_one(
    data, tmp_path, readout, index, channels
):
    path = three_lines(tmp_path, LINEAR, data / 'two')
    where = CONFIGS / 'segmentation/_base_/readouts'
    part = f'+{where}/{readout[1:]}.py' if readout else ''
    head = launch.load_config(f'{path}{part}').model.decode_head
    assert (head.in_index, head.in_channels) == (index, channels)
    shipped = launch.load_config(f'{CONFIGS}/{LINEAR}.py{readout}')
    assert shipped.model.decode_head.in_channels == channels
