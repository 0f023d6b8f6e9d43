import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.converters import (
    batch_norm_transform,
    export_backbone,
    fold_into_following,
    fold_into_preceding,
    trained_transform,
)
from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.engine.seen import seen_in_file
from medssl_mm.errors import UserError
from medssl_mm.models.heads import DecorrelationHead
from medssl_mm.provenance import Cases, Seen, Shown, attach
from medssl_mm.registry import MODELS
from tests import tools
from tests.models.algorithms.toy import (
    DIM,
    backbone,
    batches,
    build_method,
    build_ours,
    neck,
    train,
)
from tests.numerics import STORED, close, double

HEAD = dict(
    type='medssl_mm.DecorrelationHead',
    num_channels=64,
    num_groups=4,
    eps=1e-2,
    shuffle_seed=0,
)


@pytest.fixture(scope='module')
def head():
    torch.manual_seed(0)
    head = DecorrelationHead(6, num_groups=2, shuffle_seed=1, eps=1e-2).double()
    for _ in range(3):
        head(double(torch.randn(8, 6, 4, 4)).cumsum(1) + 2)
    return head.eval()


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(6, 5, 1),
        nn.Conv2d(6, 5, 1, bias=False),
        nn.Conv2d(6, 5, 2, stride=2),
        nn.Conv2d(6, 5, 1, padding='same'),
    ],
)
def test_folded_into_what_follows(head, conv):
    x, conv = double(torch.randn(2, 6, 6, 6)) + 2, double(conv)
    folded = fold_into_following(conv, *head.dense_transform())
    close(folded(x), conv(head(x)))
    assert folded.weight.shape == conv.weight.shape


@pytest.mark.parametrize(
    'conv', [nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 3, padding=1, bias=False)]
)
def test_folded_into_what_precedes(head, conv):
    x, conv = double(torch.randn(2, 3, 6, 6)), double(conv)
    folded = fold_into_preceding(conv, *head.dense_transform())
    close(folded(x), head(conv(x)))


def test_folded_into_a_linear_decoder(head):
    """Through its batch normalisation."""
    norm, conv = nn.BatchNorm2d(6).double(), nn.Conv2d(6, 3, 1).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm(double(torch.randn(8, 6, 4, 4)) * 3 + 1)
    norm.eval()
    x = double(torch.randn(2, 6, 4, 4)) + 2
    decoder = fold_into_following(conv, *batch_norm_transform(norm))
    close(decoder(x), conv(norm(x)))
    decoder = fold_into_following(decoder, *head.dense_transform())
    close(decoder(x), conv(norm(head(x))))


def test_what_cannot_be_folded(head):
    transform = head.dense_transform()
    with pytest.raises(ValueError, match='the border would differ'):
        fold_into_following(nn.Conv2d(6, 5, 3, padding=1), *transform)
    with pytest.raises(ValueError, match='of 2 groups cannot mix'):
        fold_into_following(nn.Conv2d(6, 6, 1, groups=2), *transform)
    with pytest.raises(ValueError, match='has 4 output channels'):
        fold_into_preceding(nn.Conv2d(6, 4, 1), *transform)


@pytest.fixture(scope='module')
def trained():
    model = build_ours(decorrelation=HEAD)
    train(model, batches(steps=2))
    return model.eval().float()  # as checkpoints are


def downstream(file, folded):
    """Encoder and neck of mmseg with the exported weights."""
    from mmseg.registry import MODELS as MMSEG

    settings = dict(
        type='ResNet',
        depth=18,
        in_channels=1,
        base_channels=8,
        stem_channels=8,
        init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=str(file)),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        encoder = MMSEG.build(settings)
        encoder.init_weights()
        encoder.double().eval()
        if not folded:
            return encoder
        conv = MMSEG.build(
            dict(
                type='medssl_mm.DecorrelationConv',
                num_channels=64,
                init_cfg=dict(
                    type='Pretrained',
                    checkpoint=str(file),
                    prefix='decorrelation_conv.',
                ),
            )
        )
        conv.init_weights()
        conv.double()
    return lambda images: conv(encoder(images))


@pytest.mark.parametrize('choice', ['drop', 'fold'])
def test_exported_network_equals_the_trained_one(trained, tmp_path, choice):
    checkpoint, out = tmp_path / 'epoch_1.pth', tmp_path / 'out.pth'
    text = Config(dict(model=dict(decorrelation=HEAD))).pretty_text
    content = dict(state_dict=trained.state_dict(), meta=dict(cfg=text))
    cases = Cases('ct', 'p', 'abc', ('pretrain',), ['a'], ['f' * 64], ['x'])
    seen = Seen((Shown.of('pretrain', cases),))
    torch.save(attach(content, seen), checkpoint)
    command = [checkpoint, '--out', out, '--decorrelation', choice]
    done = tools.run('convert_checkpoint.py', *command)
    assert done.returncode == 0, done.stderr
    assert f'decorrelation: {choice[:4]}' in done.stdout
    assert 'pretraining on ct (p, split abc, pretrain): 1 case' in done.stdout
    assert seen_in_file(out) == seen
    images = double(torch.rand(2, 1, 64, 64))
    exact = double(copy.deepcopy(trained))
    expected = exact.backbone(images)[-1]
    if choice == 'fold':
        expected = exact.decorrelation(expected)
    found = downstream(out, choice == 'fold')(images)[-1]
    close(found, expected, **(STORED if choice == 'fold' else {}))
    again = tools.run('convert_checkpoint.py', *command)
    assert again.returncode == 2
    assert 'exists; choose another --out' in again.stderr


@pytest.mark.parametrize('choice', ['drop', 'fold'])
def test_legacy_becomes_an_ordinary_resnet(choice):
    settings = {**backbone(), 'depth': 50, 'base_channels': 2}
    model = build_ours(
        backbone=settings,
        neck={**neck(), 'in_channels': 64},
        decorrelation=dict(
            type='medssl_mm.DecorrelationHead', num_channels=64, legacy='bn3'
        ),
    )
    train(model, batches(steps=2))
    model.float().eval()
    plain = MODELS.build(settings)
    with pytest.raises(
        UserError,
        match='layer4.2.bn3 is iterative .*convert_checkpoint.py makes it a plain one',
    ):
        load_pretrained_backbone(plain, model.state_dict())
    tensors, notes = export_backbone(model.state_dict(), choice)
    report = load_pretrained_backbone(plain, tensors)
    assert report.complete and not report.unexpected and not report.ignored
    plain.double().eval()
    images = double(torch.rand(2, 1, 64, 64))
    expected = double(model.backbone)(images)[-1]
    same = torch.allclose(plain(images)[-1], expected, **STORED)
    assert same == (choice == 'fold')
    words = {'drop': 'estimated anew', 'fold': 'layer4.2.conv3.weight'}
    assert words[choice] in notes[-1]


@pytest.mark.parametrize('choice', ['drop', 'fold'])
def test_target_encoder_can_be_exported(trained, tmp_path, choice):
    """With the decorrelation of the same encoder."""
    checkpoint, out = tmp_path / 'epoch_1.pth', tmp_path / 'out.pth'
    text = Config(dict(model=dict(decorrelation=HEAD))).pretty_text
    torch.save(dict(state_dict=trained.state_dict(), meta=dict(cfg=text)), checkpoint)
    done = tools.run(
        'convert_checkpoint.py',
        checkpoint,
        *('--out', out, '--decorrelation', choice, '--encoder', 'target'),
    )
    assert done.returncode == 0, done.stderr
    assert 'encoder: target (encoder_k.module.0.*)' in done.stdout
    images = double(torch.rand(2, 1, 64, 64))
    target = double(copy.deepcopy(trained)).encoder_k.module.eval()
    expected = target[0](images)[-1]
    if choice == 'fold':
        expected = target[2](expected)
    found = downstream(out, choice == 'fold')(images)[-1]
    close(found, expected, **(STORED if choice == 'fold' else {}))


def test_encoder_of_byol_is_the_target_unless_told_otherwise():
    model = build_method('BYOL', dtype=torch.float32)
    train(model, batches(2, dtype=torch.float32), after_step=model.update_target)
    tensors, notes = export_backbone(model.state_dict())
    name = 'conv1.weight'
    assert torch.equal(tensors[f'backbone.{name}'], model.target[0].conv1.weight)
    assert notes[1].startswith('encoder: target (target_net.module.0.*)')
    tensors, notes = export_backbone(model.state_dict(), encoder='online')
    assert torch.equal(tensors[f'backbone.{name}'], model.backbone.conv1.weight)
    assert notes[1].startswith('encoder: online')
    with pytest.raises(UserError, match='holds no target encoder'):
        export_backbone(tensors, encoder='target')


def test_necks_of_a_slow_copy_are_no_decorrelation():
    """They stand where it would."""
    neck = dict(type='medssl_mm.ToyProjector', channels=64)
    loss = dict(type='medssl_mm.ToyMapDistance')
    model = build_method('BYOL', levels=[dict(stage=4, neck=neck, loss=loss)])
    state = model.state_dict()
    assert any(name.startswith('target_net.module.2.') for name in state)
    assert trained_transform(None, state) is None
    assert not any('decorrelation' in note for note in export_backbone(state)[1])


def test_decorrelation_of_the_projection_is_not_folded():
    settings = dict(HEAD, num_channels=DIM, num_groups=4, place='projection')
    model = build_ours(decorrelation=settings)
    with pytest.raises(UserError, match='that of the projection.*choose "drop"'):
        trained_transform(settings, model.state_dict())
    tensors, notes = export_backbone(model.state_dict())
    assert notes[-1] == 'decorrelation: dropped'
    assert not any('decorrelation' in name for name in tensors)


def test_wrong_checkpoints(trained):
    state = trained.state_dict()
    with pytest.raises(ValueError, match='must be "drop" or "fold"'):
        export_backbone(state, 'keep')
    with pytest.raises(ValueError, match='takes transform='):
        export_backbone(state, 'fold')
    with pytest.raises(ValueError, match='no decorrelation to fold'):
        export_backbone(build_ours().state_dict(), 'fold')
    with pytest.raises(ValueError, match='no name starts with "backbone."'):
        export_backbone(dict(weight=torch.zeros(1)))
