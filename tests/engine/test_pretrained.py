import copy
import os
from types import SimpleNamespace

import pytest
import torch
import torchvision
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmseg.models.backbones import ResNet

from medssl_mm.engine.pretrained import (
    CalibrateRandomBackboneHook,
    LoadReportHook,
    PretrainedBackbone,
    load_pretrained_backbone,
)
from medssl_mm.errors import UserError
from medssl_mm.registry import MODELS as OUR_MODELS
from medssl_mm.registry import WEIGHT_INITIALIZERS
from tests.models.algorithms.test_encoder import FAMILIES


@pytest.fixture(scope='module')
def torchvision18():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(weights=None)
    net.train()
    net(torch.randn(2, 3, 32, 32))  # moves the running statistics
    return net.eval()


def backbone(depth=18, in_channels=1, **kwargs):
    net = ResNet(depth, in_channels=in_channels, **kwargs)
    net.eval()  # returns None
    return net


def prefixed(state_dict, prefix):
    return {prefix + name: value for name, value in state_dict.items()}


def test_three_channel_stem_equals_grey_given_three_times(torchvision18):
    net = backbone(out_indices=(3,))
    report = load_pretrained_backbone(net, torchvision18.state_dict())
    grey = torch.randn(2, 1, 64, 64)
    body = torch.nn.Sequential(*list(torchvision18.children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(
            net(grey)[0], body(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
        )
    assert report.complete and len(report.loaded) == 100
    assert report.ignored == (('fc', 2),)
    assert 'conv1.weight: 3 -> 1 input channel (summed)' in str(report)


@pytest.mark.parametrize('channels', [2, 5])
def test_stem_of_several_channels_equals_that_of_grey(torchvision18, channels):
    """From colour or grey to sequences: the same maps of equal channels."""
    grey_net = backbone(out_indices=(3,))
    load_pretrained_backbone(grey_net, torchvision18.state_dict())
    grey = torch.randn(2, 1, 64, 64)
    for source in (torchvision18, grey_net):
        net = backbone(out_indices=(3,), in_channels=channels)
        report = load_pretrained_backbone(net, source.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(
                net(grey.expand(-1, channels, -1, -1))[0],
                grey_net(grey)[0],
                rtol=1e-4,
                atol=1e-5,
            )
        assert report.complete
        assert f'-> {channels} input channels' in str(report)


def test_stems_of_other_channels_do_not_fit():
    """Which of two sequences the third is like, nobody knows."""
    net = backbone(in_channels=3)
    with pytest.raises(UserError, match=r'conv1.weight: .*2, 7, 7.*3, 7, 7'):
        load_pretrained_backbone(net, backbone(in_channels=2).state_dict())


def test_one_channel_stem_to_three(torchvision18):
    source = backbone(in_channels=1)
    net = backbone(in_channels=3)
    load_pretrained_backbone(net, source.state_dict())
    grey = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        net(grey.expand(-1, 3, -1, -1))[-1], source(grey)[-1], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    'prefix, container',
    [
        ('backbone.', 'state_dict'),
        ('module.backbone.', 'state_dict'),
        ('module.encoder_q.', 'state_dict'),
        ('', 'state_dict'),
        ('', None),
        ('module.', 'model'),
        ('_feature_blocks.', 'vissl'),
    ],
)
def test_known_layouts(tmp_path, torchvision18, prefix, container):
    weights = {
        name: value
        for name, value in torchvision18.state_dict().items()
        if not name.startswith('fc.')
    }
    content = prefixed(weights, prefix)
    # A momentum encoder must not be taken for the online one.
    content.update(
        {
            name: value + 1
            for name, value in prefixed(weights, 'module.encoder_k.').items()
        }
    )
    if container == 'vissl':
        content = dict(
            classy_state_dict=dict(base_model=dict(model=dict(trunk=content)))
        )
    elif container:
        content = {container: content, 'epoch': 3}
    path = tmp_path / 'weights.pth'
    torch.save(content, path)
    net = backbone(in_channels=3)
    report = load_pretrained_backbone(net, path)
    for name, value in net.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert dict(report.ignored) == dict(encoder_k=len(weights))


def test_parts_of_pretraining_are_listed_not_loaded():
    content = prefixed(backbone().state_dict(), 'backbone.')
    content.update(
        {
            'neck.fc.weight': torch.ones(1),
            'queue': torch.ones(2, 2),
            'decorrelation.running_moment': torch.ones(2),
            'encoder_k.module.0.conv1.weight': torch.ones(1),
        }
    )
    report = load_pretrained_backbone(backbone(), content)
    assert dict(report.ignored) == dict(neck=1, queue=1, decorrelation=1, encoder_k=1)
    assert 'queue (1)' in str(report)


def two_encoders(prefix):
    """A checkpoint with an encoder that learns and its slow copy."""
    online, slow = backbone(), backbone()
    content = prefixed(online.state_dict(), 'backbone.')
    content.update(prefixed(slow.state_dict(), prefix))
    return online, slow, content


@pytest.mark.parametrize(
    'prefix, by_itself',
    [('target_net.module.0.', 'target'), ('encoder_k.module.0.', 'online')],
)
@pytest.mark.parametrize('asked', [None, 'online', 'target'])
def test_either_encoder_can_be_taken_and_the_report_names_it(prefix, by_itself, asked):
    online, slow, content = two_encoders(prefix)
    net = backbone()
    report = load_pretrained_backbone(net, content, asked)
    chosen = asked or by_itself
    other = dict(online='target', target='online')[chosen]
    expected = (slow if chosen == 'target' else online).state_dict()
    for name, value in net.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert report.encoder == chosen and not report.unexpected
    assert f'encoder    {chosen}' in str(report)
    assert f"encoder='{other}' takes the other one" in str(report)
    left_over = 'backbone' if chosen == 'target' else prefix.partition('.')[0]
    assert dict(report.ignored) == {left_over: len(expected)}


def test_initializer_takes_the_encoder_that_is_asked_for(tmp_path):
    _, slow, content = two_encoders('encoder_k.module.0.')
    file = tmp_path / 'moco.pth'
    torch.save(dict(state_dict=content), file)
    net = backbone(
        init_cfg=dict(
            type='medssl_mm.PretrainedBackbone', checkpoint=str(file), encoder='target'
        )
    )
    net.init_weights()
    for name, value in slow.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


def test_target_that_is_not_there():
    net = backbone()
    before = copy.deepcopy(net.state_dict())
    content = prefixed(backbone().state_dict(), 'backbone.')
    assert load_pretrained_backbone(backbone(), content).encoder == ''
    with pytest.raises(UserError, match='holds no target encoder'):
        load_pretrained_backbone(net, content, 'target')
    for name, value in before.items():
        assert torch.equal(net.state_dict()[name], value), name


def test_counter_of_batches_is_not_required():
    content = {
        f'backbone.{name}': value
        for name, value in backbone().state_dict().items()
        if 'num_batches_tracked' not in name
    }
    assert load_pretrained_backbone(backbone(), content).complete


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda s: s.pop('backbone.layer3.0.conv1.weight'),
            '1 missing: layer3.0.conv1.weight',
        ),
        (lambda s: s.pop('backbone.bn1.running_mean'), '1 missing: bn1.running_mean'),
        (
            lambda s: s.update({'backbone.bn1.weight': torch.ones(1, 64, 1)}),
            r'bn1.weight: \(1, 64, 1\) in the checkpoint, \(64,\) in the model',
        ),
        (
            lambda s: (
                [s.pop(name) for name in list(s)]
                and s.update({'vit.cls_token': torch.ones(1)})
            ),
            r'no name of the backbone was recognised \(the file starts with vit',
        ),
    ],
)
def test_any_weight_left_random_is_an_error(change, message):
    content = prefixed(backbone().state_dict(), 'backbone.')
    change(content)
    net = backbone()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UserError, match=message):
        load_pretrained_backbone(net, content)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), 'loaded by halves'


def test_other_depth_is_named():
    content = prefixed(backbone(50).state_dict(), 'backbone.')
    with pytest.raises(UserError, match='looks like ResNet-50, model is ResNet-18'):
        load_pretrained_backbone(backbone(18), content)
    deep_stem = backbone(18, deep_stem=True)
    with pytest.raises(UserError, match=r'ResNet-18 with a deep stem'):
        load_pretrained_backbone(deep_stem, backbone(18).state_dict())


def test_unusable_files(tmp_path):
    net = backbone()
    with pytest.raises(UserError, match='none.pth does not exist'):
        load_pretrained_backbone(net, tmp_path / 'none.pth')
    whole = tmp_path / 'whole.pth'
    torch.save(dict(state_dict=net.state_dict()), whole)
    truncated = tmp_path / 'cut.pth'
    truncated.write_bytes(whole.read_bytes()[:100_000])
    text = tmp_path / 'text.pth'
    text.write_text('no weights at all')
    for path in (truncated, text):
        with pytest.raises(UserError, match=path.name):
            load_pretrained_backbone(net, path)
    empty = tmp_path / 'empty.pth'
    torch.save(dict(epoch=1, meta={}), empty)
    with pytest.raises(UserError, match='holds no weights: expected .* found epoch'):
        load_pretrained_backbone(net, empty)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    path, trace = tmp_path / 'bad.pth', tmp_path / 'ran'
    torch.save(dict(state_dict={}, extra=Payload(trace)), path)
    with pytest.raises(UserError, match='bad.pth'):
        load_pretrained_backbone(backbone(), path)
    assert not trace.exists()


def test_initializer_through_init_cfg(tmp_path):
    path = tmp_path / 'pretraining.pth'
    source = backbone()
    torch.save(dict(state_dict=prefixed(source.state_dict(), 'backbone.')), path)
    net = backbone(
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=str(path))
    )
    net.init_weights()
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    assert net.random_weights is False


@pytest.mark.parametrize('host', ['mmselfsup', 'mmseg', 'mmpretrain'])
def test_no_host_zeroes_scales_that_were_loaded(tmp_path, host):
    from mmengine.registry import MODELS, DefaultScope

    settings = dict(type='ResNet', depth=18, in_channels=1, zero_init_residual=True)
    with DefaultScope.overwrite_default_scope(host):
        source = MODELS.build(settings)
        state = {
            f'backbone.{name}': torch.randn_like(value)
            if value.is_floating_point()
            else value
            for name, value in source.state_dict().items()
        }
        torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
        model = MODELS.build(
            dict(
                settings,
                init_cfg=dict(
                    type='medssl_mm.PretrainedBackbone',
                    checkpoint=str(tmp_path / 'weights.pth'),
                ),
            )
        )
    model.init_weights()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}']), name


@pytest.mark.parametrize('settings', FAMILIES.values(), ids=FAMILIES)
def test_weights_of_every_family_stay_as_loaded(tmp_path, settings):
    """Nothing of the network starts anew after its weights were loaded."""
    source = OUR_MODELS.build(copy.deepcopy(settings))
    state = {
        f'backbone.{name}': torch.randn_like(value)
        if value.is_floating_point()
        else value
        for name, value in source.state_dict().items()
    }
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=state), path)
    init = dict(type='medssl_mm.PretrainedBackbone', checkpoint=str(path))
    net = OUR_MODELS.build(dict(copy.deepcopy(settings), init_cfg=init))
    model = BaseModule()
    model.backbone = net
    model.init_weights()
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[f'backbone.{name}']), name


@pytest.mark.parametrize('name', ['ViT', 'ConvNeXt', 'EfficientNet'])
def test_random_start_is_that_of_the_class(name):
    """As without init_cfg; ResNets start as the hosts have it."""
    stds = []
    for init in ({}, dict(init_cfg=dict(type='medssl_mm.PretrainedBackbone'))):
        torch.manual_seed(0)
        net = OUR_MODELS.build(dict(copy.deepcopy(FAMILIES[name]), **init))
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter, 7.0)
        net.init_weights()
        stds.append(
            {n: p.std().item() for n, p in net.named_parameters() if p.numel() > 63}
        )
    assert stds[1] == pytest.approx(stds[0], rel=0.3, abs=1e-6)
    assert any(value > 0 for value in stds[0].values())
    assert net.random_weights is True


def test_positions_are_interpolated_to_another_size(tmp_path):
    settings = dict(copy.deepcopy(FAMILIES['ViT']), out_indices=[2])
    small = OUR_MODELS.build(copy.deepcopy(settings))
    torch.nn.init.normal_(small.pos_embed)
    large = OUR_MODELS.build(dict(settings, img_size=64))
    report = load_pretrained_backbone(large, small.state_dict())
    assert any('17 -> 65 tokens' in note for note in report.adapted)
    # As the host does it with small when it gets large images.
    small.eval(), large.eval()
    images = torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(small(images)[0], large(images)[0])


@pytest.mark.parametrize(
    'settings',
    [
        dict(model_name='convnext_atto', features_only=True),
        dict(model_name='efficientnet_b0', features_only=True),
        dict(model_name='vit_tiny_patch16_224', img_size=32, depth=2),
    ],
)
def test_files_of_timm_fit(settings):
    import timm

    options = {k: v for k, v in settings.items() if k != 'features_only'}
    source = timm.create_model(**options)
    net = OUR_MODELS.build(
        dict(type='mmpretrain.TIMMBackbone', in_channels=1, **settings)
    )
    report = load_pretrained_backbone(net, source.state_dict())
    assert report.complete
    assert len(report.adapted) == 1 and '3 -> 1' in report.adapted[0]
    net.eval(), source.eval()
    grey = torch.rand(1, 1, 32, 32)
    given = grey.expand(-1, 3, -1, -1)
    expected = (
        source.forward_intermediates(given, intermediates_only=True)[-1]
        if 'features_only' in settings
        else source.forward_features(given)
    )
    torch.testing.assert_close(net(grey)[-1], expected, rtol=1e-3, atol=1e-4)


def test_initializer_without_checkpoint_is_random_in_scale():
    initializer = WEIGHT_INITIALIZERS.build(dict(type='PretrainedBackbone'))
    assert isinstance(initializer, PretrainedBackbone)
    net = backbone(50, zero_init_residual=True)
    with torch.no_grad():
        net.conv1.weight.fill_(7.0)
    initializer(net)
    std = (2 / (64 * 49)) ** 0.5
    assert net.conv1.weight.std().item() == pytest.approx(std, rel=0.1)
    assert not net.layer1[0].bn3.weight.any()
    assert net.random_weights is True


def segmentor(num_classes=3):
    from mmseg.registry import MODELS

    return MODELS.build(
        dict(
            type='medssl_mm.FrozenEncoderDecoder',
            backbone=dict(type='ResNet', depth=18, in_channels=1),
            decode_head=dict(
                type='medssl_mm.LinearHead', in_channels=512, num_classes=num_classes
            ),
        )
    )


class Run:
    """The attributes of a Runner that the hook reads."""

    def __init__(self, model, training=True):
        from mmengine.runner import IterBasedTrainLoop

        self.model = model
        self._load_from = 'given.pth'
        self._train_loop = (
            IterBasedTrainLoop.__new__(IterBasedTrainLoop) if training else None
        )


def test_hook_fits_a_pretraining_checkpoint():
    model, source = segmentor(), backbone()
    checkpoint = dict(state_dict=prefixed(source.state_dict(), 'backbone.'))
    checkpoint['state_dict']['queue'] = torch.ones(2)
    head = model.decode_head.conv_seg.weight.clone()
    LoadReportHook().after_load_checkpoint(Run(model), checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
    assert torch.equal(model.decode_head.conv_seg.weight, head)


def test_hook_leaves_a_segmentation_checkpoint_and_is_strict():
    model = segmentor()
    checkpoint = dict(state_dict=model.state_dict())
    before = checkpoint['state_dict']
    hook = LoadReportHook()
    hook.after_load_checkpoint(Run(model, training=False), checkpoint)
    assert checkpoint['state_dict'] is before
    other = dict(state_dict=segmentor(5).state_dict())
    with pytest.raises(UserError, match='another model.*conv_seg.weight'):
        hook.after_load_checkpoint(Run(model), other)


def test_hook_refuses_to_test_without_decode_head():
    checkpoint = dict(state_dict=prefixed(backbone().state_dict(), 'backbone.'))
    with pytest.raises(UserError, match='given.pth holds no decode head'):
        LoadReportHook().after_load_checkpoint(
            Run(segmentor(), training=False), checkpoint
        )


def test_hook_lets_pretraining_models_alone():
    model = torch.nn.Module()
    model.backbone, model.head = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    checkpoint = dict(state_dict={'anything': torch.ones(1)})
    LoadReportHook().after_load_checkpoint(Run(model), checkpoint)
    assert list(checkpoint['state_dict']) == ['anything']


def classifier(num_classes=3):
    from mmengine.registry import MODELS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='ResNet', depth=18, in_channels=1),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead', in_channels=512, num_classes=num_classes
                ),
            )
        )


def test_hook_serves_classifiers():
    model, source = classifier(), backbone()
    hook = LoadReportHook()
    state = prefixed(source.state_dict(), 'backbone.')
    # Some pretraining methods have a head of their own.
    state['head.predictor.weight'] = torch.ones(2)
    checkpoint = dict(state_dict=dict(state))
    hook.after_load_checkpoint(Run(model), checkpoint)
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)
    with pytest.raises(UserError, match='given.pth holds no head, so there'):
        hook.after_load_checkpoint(Run(model, training=False), dict(state_dict=state))
    trained = dict(state_dict=model.state_dict())
    hook.after_load_checkpoint(Run(model, training=False), trained)
    assert trained['state_dict'].keys() == model.state_dict().keys()
    with pytest.raises(
        UserError,
        match='is a classification checkpoint of another model.*head.fc.weight',
    ):
        hook.after_load_checkpoint(
            Run(model), dict(state_dict=classifier(5).state_dict())
        )


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(int(index))
        return 5 + torch.randn(1, 32, 32, generator=generator)


class Preprocessor(torch.nn.Module):
    def forward(self, batch, training):
        return dict(inputs=batch)


def calibration_run(checkpoint):
    model = segmentor()
    PretrainedBackbone(checkpoint)(model.backbone)
    model.data_preprocessor = Preprocessor()
    loader = torch.utils.data.DataLoader(Images(), batch_size=4)
    return SimpleNamespace(
        model=model,
        iter=0,
        cfg=dict(),
        train_dataloader=loader,
        logger=MMLogger.get_instance('calibration'),
    )


def test_only_a_random_backbone_is_calibrated(tmp_path):
    path = tmp_path / 'pretraining.pth'
    torch.save(dict(state_dict=prefixed(backbone().state_dict(), 'backbone.')), path)
    for checkpoint, changes in ((str(path), False), (None, True)):
        run = calibration_run(checkpoint)
        before = copy.deepcopy(run.model.state_dict())
        CalibrateRandomBackboneHook(num_batches=2).before_train(run)
        after = run.model.state_dict()
        changed = {
            name for name in before if not torch.equal(before[name], after[name])
        }
        assert bool(changed) == changes
        assert all('running' in n or 'tracked' in n for n in changed)
