"""YAML files of InnerEye-DeepLearning: what they become, and what is refused."""

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from medssl_mm.converters.innereye import (
    AugmentationFile,
    FullFile,
    config_text,
    read_innereye,
    transforms_of,
)
from medssl_mm.errors import UserError
from tests import tools

# Texts and settings.
pytestmark = pytest.mark.exact

# The settings of its augmentation files, by the sheet of its configs.
ENCODER = dict(
    preprocess=dict(resize=256, center_crop_size=224),
    augmentation=dict(
        use_random_affine=True,
        random_affine=dict(
            max_angle=180,
            max_horizontal_shift=0.0,
            max_vertical_shift=0.0,
            max_shear=40,
        ),
        use_random_crop=True,
        random_crop=dict(scale='(0.4, 1.0)'),
        use_random_horizontal_flip=True,
        use_gamma_transform=True,
        use_random_color=True,
        random_color=dict(brightness=0.2, contrast=0.2, saturation=0.0),
        use_elastic_transform=True,
        elastic_transform=dict(sigma=4, alpha=34, p_apply=0.4),
        use_random_erasing=True,
        random_erasing=dict(scale='(0.15, 0.4)', ratio='(0.33, 3)'),
        add_gaussian_noise=True,
        gaussian_noise=dict(std=0.05),
    ),
)
FULL = dict(
    ENCODER,
    dataset=dict(name='RSNAKaggle', dataset_dir='/data/rsna'),
    train=dict(
        seed=3,
        batch_size=1600,
        base_lr='1e-3',
        output_dir='kaggle/ssup',
        self_supervision=dict(
            type='byol',
            encoder_name='resnet50',
            use_balanced_binary_loss_for_linear_head=True,
        ),
    ),
    scheduler=dict(epochs=1500),
)
STEPS = 'medssl_mm.TorchvisionSteps'


def write(folder, content, name='settings.yaml'):
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (folder / name).write_text(text)
    return folder / name


def changed(content, place, value):
    """A copy with another value at 'a.b.c'."""
    first, _, rest = place.partition('.')
    inner = changed(content.get(first, {}), rest, value) if rest else value
    return {**content, first: inner}


def test_the_transforms_of_training_in_their_order(tmp_path):
    settings = read_innereye(write(tmp_path, ENCODER))
    assert type(settings) is AugmentationFile
    assert transforms_of(settings) == [
        dict(
            type=STEPS,
            steps=[
                dict(type='RandomAffine', degrees=180, translate=[0, 0], shear=40),
                dict(type='RandomResizedCrop', size=256, scale=[0.4, 1.0]),
                dict(type='RandomHorizontalFlip', p=0.5),
            ],
        ),
        dict(type='medssl_mm.GammaJitter', gamma=[0.5, 1.5], prob=1.0, uniform=True),
        dict(
            type=STEPS,
            steps=[
                dict(type='ColorJitter', brightness=0.2, contrast=0.2, saturation=0)
            ],
        ),
        dict(type='medssl_mm.ElasticDeformation', alpha=34, sigma=4, prob=0.4),
        dict(
            type=STEPS,
            steps=[
                dict(type='CenterCrop', size=224),
                dict(type='RandomErasing', scale=[0.15, 0.4], ratio=[0.33, 3]),
            ],
        ),
        dict(type='medssl_mm.RangeNoise', std=0.05, prob=0.5),
    ]


def test_the_transforms_of_evaluation(tmp_path):
    settings = read_innereye(write(tmp_path, ENCODER))
    assert transforms_of(settings, train=False) == [
        dict(
            type=STEPS,
            steps=[dict(type='Resize', size=256), dict(type='CenterCrop', size=224)],
        )
    ]


def test_nothing_is_done_unless_it_is_asked_for(tmp_path):
    settings = read_innereye(write(tmp_path, dict(augmentation={})))
    assert transforms_of(settings) == transforms_of(settings, train=False)


def test_defaults_differ_between_the_forms(tmp_path):
    colour = dict(augmentation=dict(use_random_color=True))
    later = read_innereye(write(tmp_path, colour))
    full = read_innereye(write(tmp_path, dict(colour, dataset=dict(name='CIFAR10'))))
    assert isinstance(full, FullFile)
    for settings, size, saturation in ((later, 256, 0.0), (full, 32, 0.1)):
        (steps,) = transforms_of(settings)
        resize, jitter, _ = steps['steps']
        assert resize['size'] == size and jitter['saturation'] == saturation


def test_every_transform_can_be_built_and_run(tmp_path):
    import numpy as np

    import medssl_mm.registry  # noqa: F401
    from medssl_mm.registry import TRANSFORMS

    settings = read_innereye(write(tmp_path, ENCODER))
    image = np.random.default_rng(0).integers(0, 256, (280, 300), dtype=np.uint8)
    for source in (image, np.full((280, 300), 7, np.uint8)):
        results = dict(img=source, rng=np.random.default_rng(1))
        for step in transforms_of(settings):
            results = TRANSFORMS.build(step)(results)
        found = results['img']
        assert found.shape == (224, 224) and np.isfinite(found).all()
        assert 0 <= found.min() and found.max() <= 1


def loaded(tmp_path, content, purpose=None):
    """The config of a file, with what it inherits."""
    path = write(tmp_path, content)
    text = config_text(read_innereye(path), path.name, purpose)
    (tmp_path / 'config.py').write_text(text)
    return Config.fromfile(str(tmp_path / 'config.py'))


def test_a_full_file_is_an_experiment(tmp_path):
    config = loaded(tmp_path, FULL)
    assert config.model.type == 'medssl_mm.MultiLevelBYOL'
    assert config.model.backbone.depth == 50
    assert config.images.data_root == 'data/rsna'
    assert config.optim_wrapper.optimizer.lr == 1e-3
    assert config.train_cfg.max_epochs == 1500 and config.randomness.seed == 3
    assert config.auto_scale_lr.base_batch_size == 1600
    assert config.train_dataloader.batch_size == 1600
    assert config.train_dataloader.dataset.subset == 'train'
    assert config.work_dir == 'work_dirs/kaggle/ssup/byol_seed_3'
    # The last ones are never far back, whatever the original kept.
    assert config.default_hooks.checkpoint.interval == 10
    views, pack = config.train_dataloader.dataset.pipeline
    assert views.transforms == transforms_of(read_innereye(tmp_path / 'settings.yaml'))
    assert pack.type == 'medssl_mm.PackViews'
    probe = config.default_hooks.online_probe
    assert probe.class_weights == 'balanced'
    # The head is validated on whole images.
    assert probe.val_dataset.pipeline[0].steps[0].type == 'Resize'
    text = (tmp_path / 'config.py').read_text()
    assert 'prepare_data.py rsna --src /data/rsna --out data/rsna' in text


def test_cifar_keeps_its_own_views(tmp_path):
    content = changed(FULL, 'dataset', dict(name='CIFAR10', num_workers=0))
    content = changed(content, 'train.self_supervision.type', 'simclr')
    content = changed(content, 'train.self_supervision.encoder_name', 'resnet101')
    config = loaded(tmp_path, content)
    assert config.model.type == 'medssl_mm.MultiLevelSimCLR'
    assert config.model.backbone.type == 'medssl_mm.ResNetSmallStem'
    assert config.model.backbone.depth == 101
    (steps,) = config.train_dataloader.dataset.pipeline[0].transforms
    assert steps.steps[0] == dict(type='RandomResizedCrop', size=32)
    assert config.train_dataloader.persistent_workers is False


@pytest.mark.parametrize(
    'encoder, length', [('resnet18', 512), ('resnet50', 2048), ('densenet121', 1024)]
)
def test_encoders_have_their_feature_lengths(tmp_path, encoder, length):
    import medssl_mm.registry  # noqa: F401
    from medssl_mm.engine.launch import load_config

    content = changed(FULL, 'train.self_supervision.encoder_name', encoder)
    path = write(tmp_path, content)
    (tmp_path / 'config.py').write_text(config_text(read_innereye(path), path.name))
    model = load_config(str(tmp_path / 'config.py')).model
    assert model.neck.in_channels == length
    assert model.backbone.in_channels == 1


def test_a_shorter_period_of_checkpoints_is_kept(tmp_path):
    content = changed(FULL, 'train.checkpoint_period', 5)
    assert loaded(tmp_path, content).default_hooks.checkpoint.interval == 5


CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SMALL = 'selfsup/byol/byol_resnet18_1xb64-coslr-100e_nih1000-64.py'
LARGE = 'selfsup/byol/byol_resnet50_16xb75-coslr-1000e_nih-cxr14-224.py'
PROBE = f'{CONFIGS}/selfsup/_base_/probes/rsna_64.py'
CLASSIFIER = 'classification/rsna/lastlayer_resnet50_rsna-224.py'
TRAIN = 'train_dataloader.dataset'
ONLINE = 'default_hooks.online_probe'


@pytest.mark.parametrize(
    'config, purpose, places',
    [
        (SMALL, None, {TRAIN: True}),
        (LARGE, 'pretraining', {TRAIN: True}),
        (
            f'{SMALL}+{PROBE}',
            'probe',
            {f'{ONLINE}.train_dataset': True, f'{ONLINE}.val_dataset': False},
        ),
        (
            CLASSIFIER,
            'classifier',
            {
                TRAIN: True,
                'val_dataloader.dataset': False,
                'test_dataloader.dataset': False,
            },
        ),
    ],
)
def test_augmentations_change_pipelines_and_nothing_else(
    tmp_path, config, purpose, places
):
    """Batch, workers, subsets and the rest are those of the config."""
    from medssl_mm.engine.reading import read_config
    from medssl_mm.registry import TRANSFORMS

    loaded(tmp_path, ENCODER, purpose)
    settings = read_innereye(tmp_path / 'settings.yaml')
    plain = read_config(f'{CONFIGS}/{config}').to_dict()
    changed = read_config(f'{CONFIGS}/{config}+{tmp_path / "config.py"}').to_dict()
    for place, training in places.items():
        first, second = (_at(content, place) for content in (plain, changed))
        first.pop('pipeline')
        *steps, pack = second.pop('pipeline')
        if place == TRAIN and purpose != 'classifier':
            (views,) = steps
            assert views['type'] == 'medssl_mm.ImageViews'
            steps = views['transforms']
        assert steps == transforms_of(settings, training)
        for step in (*steps, pack):
            TRANSFORMS.build(step)
    assert changed == plain


def _at(config, place):
    for key in place.split('.'):
        config = config[key]
    return config


def test_the_tool_writes_the_pipelines_of_a_purpose(tmp_path):
    write(tmp_path, ENCODER)
    done = tools.run(
        'convert_config.py',
        *('innereye', 'settings.yaml', '--for', 'probe', '--out', 'head.py'),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    content = Config.fromfile(str(tmp_path / 'head.py')).to_dict()
    assert set(content) == {'default_hooks'}
    assert set(content['default_hooks']) == {'online_probe'}


def test_a_whole_training_is_for_no_single_purpose(tmp_path):
    path = write(tmp_path, FULL)
    with pytest.raises(UserError, match='settings.yaml describes a whole training'):
        config_text(read_innereye(path), path.name, 'probe')


@pytest.mark.parametrize(
    'place, value, message',
    [
        (
            'augmentation.use_random_crops',
            True,
            'unknown key augmentation.use_random_crops; did you mean use_random_crop',
        ),
        (
            'augmentation.elastic_transform.p_aply',
            0.4,
            'elastic_transform.p_aply; did you mean p_apply',
        ),
        ('augmentation.random_crop.scale', '(0.4)', 'scale: .*tuple, found 0.4'),
        ('augmentation.random_crop.scale', '(0.4, "a")', 'random_crop.scale.*number'),
        ('augmentation.use_random_affine', 1, 'use_random_affine: .*boolean, found 1'),
        ('preprocess.resize', 'big', "preprocess.resize: .*integer, found 'big'"),
        ('train.base_lr', 'fast', "train.base_lr: .*number, found 'fast'"),
        ('train.self_supervision.type', 'moco', "'simclr', 'sim_clr' or 'byol'"),
        ('dataset.name', 'ImageNet', "'CIFAR10' or 'RSNAKaggle'"),
        ('schedule', {}, 'unknown key schedule; did you mean scheduler'),
        ('train.batch_size', 1, 'train.batch_size: .*greater than 1'),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, place, value, message):
    path = write(tmp_path, changed(FULL, place, value))
    key = place.rpartition('.')[2]
    line = 1 + next(
        number
        for number, text in enumerate(path.read_text().splitlines())
        if text.strip().startswith(f'{key}:')
    )
    with pytest.raises(UserError, match=message) as caught:
        read_innereye(path)
    if key != 'scale':  # two keys of that name
        assert f'{path}, line {line}: ' in str(caught.value)


@pytest.mark.parametrize(
    'value, shown',
    [
        ('2020-13-45', "'2020-13-45'"),  # looks like a date
        ('!foo 3', "!foo '3'"),
        ('!!int three', "'three'"),
        ('!!int ""', "''"),
        ('!!bool 3', "'3'"),
        ('!!timestamp soon', "'soon'"),
    ],
)
def test_values_that_yaml_cannot_read(tmp_path, value, shown):
    path = write(tmp_path, f'preprocess:\n  resize: {value}\n')
    with pytest.raises(UserError) as caught:
        read_innereye(path)
    start = f'{path}, line 2: preprocess.resize: {shown} is no value of YAML'
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    'text, message',
    [
        ('preprocess:\n  ? [resize]\n  : 3\n', 'line 2: a key must be a word'),
        ('preprocess: &a\n  resize: *a\n', 'a value contains itself'),
        ('preprocess: ' + 500 * '[', 'is no YAML file'),
        (
            'augmentation:\n  elastic_transform:\n    alpha: .inf\n',
            'line 3: .*alpha: .*finite number',
        ),
        ('preprocess:\n  resize: "{[]: 1}"\n', 'line 2: preprocess.resize: '),
    ],
)
def test_structures_that_are_no_settings(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_innereye(write(tmp_path, text))


def test_doubled_keys(tmp_path):
    path = write(tmp_path, 'preprocess:\n  resize: 32\n  resize: 64\n')
    with pytest.raises(UserError, match=r'line 3: .*resize is there twice.* line 2'):
        read_innereye(path)


@pytest.mark.parametrize(
    'text, message', [('a: [1', 'is no YAML file'), ('', 'holds no settings')]
)
def test_no_settings(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_innereye(write(tmp_path, text))
    with pytest.raises(UserError, match='cannot read .*absent'):
        read_innereye(tmp_path / 'absent.yaml')


def test_what_has_no_default_must_be_given(tmp_path):
    path = write(tmp_path, changed(FULL, 'scheduler', {}))
    with pytest.raises(UserError, match='settings.yaml: scheduler.epochs must be'):
        config_text(read_innereye(path), path.name)
