"""Pretraining leaves: every model of them trains a step on its images."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement

from tests.shipped import CONFIGS, Experiment, experiments

INTERMEDIATE = experiments('selfsup/intermediate')


@pytest.fixture(scope='module', autouse=True)
def _registries():
    import medssl_mm.registry  # noqa: F401


def smaller(model):
    """The model with a short queue and narrow projectors."""
    model = copy.deepcopy(model)
    model.queue_len = 64
    for level in model.multi_level_head.levels:
        if 'neck' in level:
            level.neck.update(hid_channels=128, out_channels=128)
    return model


def different_models(chosen_from):
    """One leaf for every model and optimizer among them.

    Further terms on grey and on colour images are taken for one.
    """
    chosen = {}
    for experiment in chosen_from:
        content = experiment.load()
        model = smaller(content.model).to_dict()
        if model['multi_level_head']['levels']:
            del model['backbone']['in_channels']
        key = json.dumps([model, content.optim_wrapper.to_dict()], sort_keys=True)
        chosen.setdefault(key, experiment)
    return list(chosen.values())


DIFFERENT = different_models(INTERMEDIATE)


@pytest.mark.slow
@pytest.mark.parametrize('experiment', DIFFERENT, ids=[p.stem for p in DIFFERENT])
def test_model_trains_a_step(experiment):
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, DefaultScope

    content = experiment.load()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(smaller(content.model)).train()
        model.backbone.init_weights()
        wrapper = build_optim_wrapper(model, content.optim_wrapper)
    channels = content.model.backbone.in_channels
    views = [torch.rand(4, channels, 64, 64) for _ in range(2)]
    logs = model.train_step(dict(inputs=views, data_samples=[]), wrapper)
    losses = {name: value.item() for name, value in logs.items() if 'loss' in name}
    assert all(map(math.isfinite, losses.values()))
    assert losses.pop('loss') == pytest.approx(sum(losses.values()), rel=1e-4)
    stages = [f'stage{level.stage}' for level in content.model.multi_level_head.levels]
    assert [name.split('_')[1] for name in losses] == ['contrastive', *stages]
    # Whatever had a gradient has momentum now.
    for name, value in model.named_parameters():
        learns = not name.startswith('encoder_k.')
        assert (value in wrapper.optimizer.state) == learns, name


def family(experiment):
    """Method, and what the configs of one table have in common."""
    method, _, rest = experiment.stem.partition('_')
    base, *parity = method.split('-parity')
    return base, (rest, bool(parity))


def test_rows_of_a_table_differ_in_the_terms_only():
    """Not in the start of the network, the schedule or the images."""
    tables = {}
    for experiment in INTERMEDIATE:
        method, key = family(experiment)
        content = experiment.load().to_dict()
        content['model']['multi_level_head'].pop('levels')
        for name in [name for name in content if name.endswith('_levels')]:
            del content[name]
        del content['work_dir']
        # The published code starts its plain method in another way.
        if key[1]:
            start = content['model']['backbone'].pop('zero_init_residual', False)
            assert start == (method != 'moco')
        tables.setdefault(key, {})[method] = content
    assert len(tables) == 8
    for rows in tables.values():
        assert set(rows) == {'moco', 'moco-mse', 'moco-btwins'}
        assert rows['moco-mse'] == rows['moco'] == rows['moco-btwins']


PARITY = [p for p in INTERMEDIATE if '-parity_' in p.name]


@pytest.mark.parametrize('experiment', PARITY, ids=[p.stem for p in PARITY])
def test_parity_with_the_published_code(experiment):
    """The settings that the published scripts have in common."""
    content = experiment.load()
    model = content.model
    assert model.neck.type == 'LinearNeck' and model.neck.out_channels == 128
    assert model.head.temperature == 0.07
    assert (model.get('queue_len', 65536), model.get('ema_decay', 0.999)) == (
        65536,
        0.999,
    )
    assert content.optim_wrapper.optimizer.to_dict() == dict(
        type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4, fused=True
    )
    assert not content.param_scheduler
    batch = {'nih-cxr14-512': 16, 'idc-255': 32, 'diabetic-retinopathy-299': 8}[
        experiment.stem.split('_')[-1]
    ]
    loader = content.train_dataloader
    assert loader.batch_size == batch and loader.drop_last
    assert f'_1xb{batch}-' in experiment.name
    assert loader.dataset.subset == 'train'
    types = [step.type for step in loader.dataset.pipeline]
    assert types == ['medssl_mm.ImageViews', 'medssl_mm.PackViews']


BATCH = [p for m in ('simclr', 'byol') for p in experiments(f'selfsup/{m}')]
ACDC = 'selfsup/{0}/{0}_resnet18_1xb64-coslr-150e_acdc-64'
PLACES = [p for m in ('densecl', 'vicreg') for p in experiments(f'selfsup/{m}')]
# By the method's name: its loss terms after the first.
TERMS = {'densecl': ['loss_stage4_dense'], 'vicregl': ['loss_stage4_local']}
TERMS |= {
    f'{method}-local': [f'loss_stage{s}_local' for s in (3, 4)]
    for method in ('simclr', 'byol')
}


def on_other_data(name, data):
    experiment = next(p for p in BATCH + PLACES if p.name == name)
    return replace(
        experiment, config=f'{experiment.config}+{data}', name=f'{name}+{data}'
    )


ON_OTHER_DATA = [
    on_other_data(ACDC.format(method), data)
    for method in ('simclr', 'byol', 'densecl', 'vicreg')
    for data in ('phantom', 'curvas', 'btcv')
] + [
    on_other_data(
        ACDC.format(method).replace('150e_acdc', '100e_nih1000'), 'pneumoniamnist'
    )
    for method in ('simclr', 'byol')
]


def built(experiment):
    """Model and optimizer of a config."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, DefaultScope

    content = experiment.load()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(content.model).train()
        model.backbone.init_weights()
        return content, model, build_optim_wrapper(model, content.optim_wrapper)


@pytest.mark.slow
@pytest.mark.parametrize('experiment', BATCH + PLACES, ids=lambda p: p.name)
def test_batch_method_trains_a_step(experiment):
    """Large networks on the smallest batch and images that they take."""
    content, model, wrapper = built(experiment)
    large = content.model.backbone.depth > 18
    size = 16 if large else int(experiment.stem.rpartition('-')[2])
    channels = content.model.backbone.in_channels
    images = 2 if large else 4
    views = [torch.rand(images, channels, size, size) for _ in range(2)]
    samples = [
        BaseDataElement(metainfo=dict(view_geometry=[whole_view(size)] * 2))
        for _ in range(images)
    ]
    logs = model.train_step(dict(inputs=views, data_samples=samples), wrapper)
    losses = {name: value.item() for name, value in logs.items() if 'loss' in name}
    assert all(map(math.isfinite, losses.values()))
    assert losses.pop('loss') == pytest.approx(sum(losses.values()), rel=1e-4)
    assert list(losses)[1:] == TERMS.get(experiment.stem.partition('_')[0], [])
    for name, value in model.named_parameters():
        learns = not name.startswith(('target_net.', 'encoder_k.'))
        assert (value in wrapper.optimizer.state) == learns, name


SOFT, WHITE = 'soft_decorrelation', 'whitened_projection'
COVARIANCE = ['loss_stage4_covariance']
FINE, LOCAL = ([f'loss_stage{s}_local' for s in pair] for pair in ((1, 2), (3, 4)))
# What is tried beside the shipped methods: config, what is put on it, further terms.
ARMS = [
    ('mocov2/mocov2-local-stages12_resnet18_1xb64-coslr-150e_acdc-64', (), FINE),
    (
        'mocov2/mocov2-local-decoder_resnet18_1xb32-coslr-75e_acdc-128',
        (),
        [*LOCAL, 'loss_decoder_local'],
    ),
    ('mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64', (SOFT,), COVARIANCE),
    ('byol/byol_resnet18_1xb64-coslr-150e_acdc-64', (SOFT,), COVARIANCE),
    ('byol/byol_resnet18_1xb64-coslr-150e_acdc-64', (WHITE,), []),
    ('simclr/simclr_resnet18_1xb64-coslr-150e_acdc-64', (WHITE,), []),
    ('byol/byol_resnet18_1xb64-coslr-100e_nih1000-64', (WHITE, 'pneumoniamnist'), []),
    (
        'simclr/simclr_resnet18_1xb64-coslr-100e_nih1000-64',
        (SOFT, 'pneumoniamnist'),
        COVARIANCE,
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, parts, terms', ARMS, ids=lambda one: str(one).rpartition('/')[2]
)
def test_arm_trains_a_step(name, parts, terms):
    config = CONFIGS / 'selfsup' / f'{name}.py'
    put_on = ''.join(f'+{part}' for part in parts)
    content, model, wrapper = built(Experiment(name, f'{config}{put_on}'))
    size = content.train_dataloader.dataset.pipeline[2].get('crop', {}).get('size', 64)
    images = 4
    views = [torch.rand(images, 1, size, size) for _ in range(2)]
    samples = [
        BaseDataElement(metainfo=dict(view_geometry=[whole_view(size)] * 2))
        for _ in range(images)
    ]
    taps = gradients_of_taps(model.decoder)
    logs = model.train_step(dict(inputs=views, data_samples=samples), wrapper)
    losses = {key: value.item() for key, value in logs.items() if 'loss' in key}
    assert all(map(math.isfinite, losses.values()))
    losses.pop('loss')
    assert list(losses)[1:] == terms
    for parameter, value in model.named_parameters():
        learns = not parameter.startswith(('target_net.', 'encoder_k.'))
        assert (value in wrapper.optimizer.state) == learns, parameter
    assert bool(taps) == ('-decoder_' in name)
    assert all(gradient.all() for gradient in taps.values())
    white = WHITE in parts
    assert (model.decorrelation is not None) == white
    if white:
        assert model.decorrelation.on_projection
        assert model.decorrelation.num_channels == 128
        # Fewer channels in a group than images in a batch.
        size = model.decorrelation.num_channels // model.decorrelation.num_groups
        assert size < content.train_dataloader.batch_size


def gradients_of_taps(decoder):
    """Size of the gradient at each tap of each kernel, once there was a step.

    A tap that meets padding alone gets none and keeps its random start.
    """
    found = {}
    for name, value in decoder.named_parameters() if decoder is not None else ():
        if value.ndim == 4:
            value.register_hook(
                lambda grad, name=name: found.update({name: grad.abs().sum((0, 1))})
            )
    return found


def whole_view(size):
    return dict(
        matrix=np.eye(3)[:2], view_shape=(size, size), source_shape=(size, size)
    )


@pytest.mark.parametrize(
    'experiment', ON_OTHER_DATA, ids=[p.name for p in ON_OTHER_DATA]
)
def test_batch_method_on_other_data(experiment):
    from mmengine.registry import MODELS, DefaultScope

    content = experiment.load()
    with DefaultScope.overwrite_default_scope(content.default_scope):
        MODELS.build(content.model)
    assert (
        experiment.name.rpartition('+')[2] in content.train_dataloader.dataset.data_root
    )


HEADS = dict(
    simclr=((2048, 512), {'fc0.weight', 'fc0.bias', 'fc1.weight'}),
    byol=((2048, 512), {'fc0.weight', 'fc1.weight', 'fc1.bias'}),
)


@pytest.mark.parametrize('experiment', BATCH, ids=[p.name for p in BATCH])
def test_heads_of_the_original(experiment):
    """d -> 2048 -> 128, a narrower one for ResNet-18; 128 -> 128 -> 128."""
    from mmengine.registry import MODELS, DefaultScope

    content = experiment.load()
    method = experiment.name.split('/')[1]
    wide = 'resnet18' not in experiment.stem
    with DefaultScope.overwrite_default_scope(content.default_scope):
        neck = MODELS.build(content.model.neck)
    width, names = HEADS[method]
    hidden = width[0] if wide else width[1]
    linear = {
        n: tuple(v.shape) for n, v in neck.named_parameters() if n.startswith('fc')
    }
    assert set(linear) == names
    assert linear['fc0.weight'] == (hidden, 2048 if wide else 512)
    assert linear['fc1.weight'] == (128, hidden)
    if method == 'simclr':
        assert content.model.head.get('temperature', 0.1) == 0.1
        return
    with DefaultScope.overwrite_default_scope(content.default_scope):
        head = MODELS.build(content.model.head)
    layers = head.predictor
    assert layers.fc0.weight.shape == layers.fc1.weight.shape == (128, 128)
    assert layers.fc0.bias is None and layers.fc1.bias is not None


CIFAR = [p for p in BATCH if 'cifar10' in p.stem]


@pytest.mark.parametrize('experiment', CIFAR, ids=[p.name for p in CIFAR])
def test_cifar_stem_keeps_the_max_pooling(experiment):
    backbone = experiment.load().model.backbone
    assert backbone.type == 'medssl_mm.ResNetSmallStem'
    assert backbone.get('max_pool', True) and not backbone.zero_init_residual


def rates(experiment, steps_per_epoch, epochs):
    """The learning rate of every step of a short run of a config."""
    from mmengine.registry import PARAM_SCHEDULERS

    content = experiment.load()
    base = content.optim_wrapper.optimizer.lr
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=base)
    schedulers = []
    for settings in content.param_scheduler:
        settings = {'end': epochs, **settings}
        schedulers.append(
            PARAM_SCHEDULERS.build(
                settings,
                default_args=dict(optimizer=optimizer, epoch_length=steps_per_epoch),
            )
        )
    found = []
    for step in range(steps_per_epoch * epochs):
        found.append(optimizer.param_groups[0]['lr'] / base)
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % steps_per_epoch == 0:
                scheduler.step()
    return found


def test_rate_rises_and_falls_with_every_step():
    for experiment in BATCH:
        if 'byol-parity' in experiment.stem:
            continue
        found = rates(experiment, steps_per_epoch=5, epochs=30)
        rise, fall = found[:50], found[50:]
        assert rise == sorted(rise) and rise[0] == pytest.approx(1e-4)
        assert fall == sorted(fall, reverse=True)
        assert max(found) == pytest.approx(1) and found.index(max(found)) in (49, 50)
        cosine = [(1 + math.cos(math.pi * k / 100)) / 2 for k in range(100)]
        assert fall == pytest.approx(cosine, abs=1e-9)


def test_rate_of_the_original_changes_by_epoch_from_zero():
    experiment = next(p for p in BATCH if 'byol-parity' in p.stem)
    found = rates(experiment, steps_per_epoch=5, epochs=30)
    epochs = found[::5]
    assert all(found[5 * e : 5 * e + 5] == [epochs[e]] * 5 for e in range(30))
    assert epochs[0] < 1e-11
    assert epochs[1:10] == pytest.approx([e / 9 for e in range(1, 10)])
    cosine = [(1 + math.cos(math.pi * k / 20)) / 2 for k in range(20)]
    assert epochs[10:] == pytest.approx(cosine, abs=1e-9)
    optimizer = experiment.load().optim_wrapper
    assert optimizer.paramwise_cfg.by_name
    assert optimizer.optimizer.lr == pytest.approx(4 * 1e-4)


@pytest.mark.parametrize('experiment', BATCH, ids=[p.name for p in BATCH])
def test_rate_is_meant_for_the_global_batch_of_the_name(experiment):
    content = experiment.load()
    processes, _, images = experiment.stem.split('_')[2].split('-')[0].partition('xb')
    assert content.train_dataloader.batch_size == int(images)
    assert content.auto_scale_lr.base_batch_size == int(processes) * int(images)
    assert content.train_dataloader.drop_last


def test_lars_can_be_put_on_a_config():
    import mmselfsup.engine.optimizers as host
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    from medssl_mm.engine.launch import load_config

    config = BATCH[0].config
    folder = config[: config.index('selfsup') + len('selfsup')]
    content = load_config(f'{config}+{folder}/_base_/schedules/lars.py')
    with DefaultScope.overwrite_default_scope(content.default_scope):
        wrapper = build_optim_wrapper(torch.nn.Linear(2, 2), content.optim_wrapper)
    assert isinstance(wrapper.optimizer, host.LARS)
    assert wrapper.optimizer.param_groups[1]['lars_exclude']


ENCODERS = {
    'ResNet-18': (dict(depth=18), 512),
    'ResNet-50': (dict(depth=50), 2048),
    'ResNet-101': (dict(depth=101), 2048),
    'DenseNet-121': (dict(_delete_=True, type='mmpretrain.DenseNet', arch='121'), 1024),
}


@pytest.mark.slow
@pytest.mark.parametrize('method', ['simclr', 'byol'])
@pytest.mark.parametrize('name', ENCODERS)
def test_encoders_of_the_original(name, method):
    """Their feature lengths, and a loss of four images."""
    from mmengine.registry import MODELS, DefaultScope

    from medssl_mm.backbones import backbone_of
    from medssl_mm.engine.launch import load_config

    settings, length = ENCODERS[name]
    big = next(p for p in CIFAR if p.stem.startswith(f'{method}_') and '4xb' in p.stem)
    content = load_config(big.config, {'model.backbone': settings})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(content.model).train()
    encoder = model.encoders[model.evaluated]
    network = backbone_of(encoder.backbone)
    assert network.channels[network.last] == length
    views = [torch.rand(4, 3, 32, 32) for _ in range(2)]
    logs = model(views, [], mode='loss')
    loss = next(value for key, value in logs.items() if 'loss' in key)
    assert loss.isfinite()
    if method == 'byol':
        assert -1 <= loss <= 1
    assert encoder(views[0]).embedding.shape == (4, 128)


RESTORATION = experiments('selfsup/restoration')


@pytest.mark.parametrize('experiment', RESTORATION, ids=[p.stem for p in RESTORATION])
def test_restoration_trains_a_step_on_its_pipeline(experiment):
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

    content = experiment.load()
    _, _, *rest = content.train_dataloader.dataset.pipeline
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(content.model).train()
        wrapper = build_optim_wrapper(model, content.optim_wrapper)
        steps = [TRANSFORMS.build(step) for step in rest]
    packed = []
    for seed in range(4):
        sample = dict(
            img=np.random.default_rng(seed).random((80, 72), dtype=np.float32),
            patient_id=str(seed),
            rng=np.random.default_rng(seed),
        )
        for step in steps:
            sample = step(sample)
        packed.append(sample)
    views = [torch.stack(part) for part in zip(*(one['inputs'] for one in packed))]
    batch = dict(inputs=views, data_samples=[one['data_samples'] for one in packed])
    taps = gradients_of_taps(model.restoration.decode_head)
    logs = model.train_step(batch, wrapper)
    assert math.isfinite(logs['loss']) and logs['loss_restoration'] > 0
    hidden = packed[0]['data_samples'].hidden_patches
    side = views[0].shape[-1] // 16
    assert hidden.shape == (side, side) and hidden.sum() == round(0.6 * side**2)
    for name, value in model.named_parameters():
        learns = not name.startswith('encoder_k.')
        assert (value in wrapper.optimizer.state) == learns, name
    assert taps and all(gradient.all() for gradient in taps.values())


DECODERS = [p for p in RESTORATION if '-decoder_' in p.name]


@pytest.mark.parametrize('experiment', DECODERS, ids=[p.stem for p in DECODERS])
def test_decoder_of_restoration_is_that_of_fine_tuning(experiment):
    """Else its weights would not fit."""
    (tuned,) = [
        p
        for p in experiments('segmentation/acdc')
        if p.stem.startswith('deeplabv3plus_resnet18')
    ]
    decoder = experiment.load().model.restoration.decoder.to_dict()
    head = tuned.load().model.decode_head.to_dict()
    assert decoder.pop('type') == f'mmseg.{head.pop("type")}'
    assert decoder == {name: head[name] for name in decoder}


@pytest.mark.parametrize(
    'name',
    [
        'mocov2/mocov2_resnet18_1xb64-coslr-150e_acdc-64',
        'mocov2/mocov2_resnet50_8xb32-coslr-200e_abdomen1k-224',
    ],
)
def test_slices_are_mirrored_only_on_request(name):
    """Left and right organs stay apart; the views of before by one setting."""
    from medssl_mm.engine.launch import load_config

    folder = BATCH[0].config
    folder = folder[: folder.index('selfsup') + len('selfsup')]
    place = 'train_dataloader.dataset.pipeline.2.crop'

    def probability(options=()):
        crop = load_config(f'{folder}/{name}.py', options).train_dataloader
        crop = crop.dataset.pipeline[2].crop
        assert crop.type == 'medssl_mm.RandomCropView'
        return crop.flip_prob

    assert probability() == 0
    assert probability([f'{place}.flip_prob=0.5']) == 0.5


def test_split_statistics_reach_the_backbone():
    from mmengine.registry import MODELS, DefaultScope

    from medssl_mm.engine.launch import load_config
    from medssl_mm.models.utils import SplitBatchNorm

    folder = BATCH[0].config
    folder = folder[: folder.index('selfsup') + len('selfsup')]
    content = load_config(
        f'{folder}/mocov2/mocov2-split-bn_resnet18_1xb64-coslr-150e_acdc-64.py'
    )
    content.model.queue_len = 64
    content.model.backbone.in_channels = 1
    with DefaultScope.overwrite_default_scope(content.default_scope):
        model = MODELS.build(content.model)
    norms = [m for m in model.backbone.modules() if hasattr(m, 'running_var')]
    assert len(norms) == 20
    assert all(isinstance(m, SplitBatchNorm) and m.num_splits == 8 for m in norms)
    assert 'layer1.0.bn1.running_var' in model.backbone.state_dict()


def test_decoders_read_the_network_that_was_pretrained():
    """Of one depth, whatever the stride of the pretraining or of the decoder."""
    from mmengine.registry import MODELS, DefaultScope

    from medssl_mm.backbones import different_taps, tap_distances

    def taps_of(experiment):
        content = experiment.load()
        settings = dict(content.model.backbone, in_channels=1, stem_channels=8)
        settings.update(base_channels=8, init_cfg=None)
        with DefaultScope.overwrite_default_scope(content.default_scope):
            return content.model.backbone.depth, tap_distances(MODELS.build(settings))

    every = [p for p in experiments('selfsup/mocov2') if 'legacy' not in p.stem]
    sliced = [p for p in every if 'resnet' in p.stem]
    pretrained = dict(map(taps_of, [p for p in sliced if 'local' not in p.stem]))
    assert set(pretrained) == {18, 50}
    others = [p for p in sliced if 'local' in p.stem] + RESTORATION
    decoders = [p for p in experiments('segmentation') if 'resnet' in p.stem]
    assert others and decoders
    for experiment in [*others, *decoders]:
        depth, taps = taps_of(experiment)
        assert not different_taps(taps, pretrained[depth]), experiment.stem
    # timm's networks are not dilated: pretraining and decoders have the same one.
    lite = [p for p in [*every, *experiments('segmentation')] if 'lite0' in p.stem]
    networks = [dict(p.load().model.backbone) for p in lite]
    assert len(lite) == 4 and all(network == networks[0] for network in networks)
