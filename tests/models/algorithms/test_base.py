"""Decorrelation between backbone and neck."""

import copy
import functools

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.engine.pretrained import load_pretrained_backbone
from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import world_size
from medssl_mm.legacy.iter_norm import IterNorm
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import (
    FIXED_STATISTICS,
    TERMS,
    own_part,
    train_distributed,
)
from tests.models.algorithms.toy import (
    DEEPLAB,
    DIM,
    backbone,
    batches,
    build_method,
    build_ours,
    train,
)
from tests.numerics import close

HEAD = dict(type='medssl_mm.DecorrelationHead', num_channels=64, num_groups=8, eps=1e-2)


def test_without_it_names_and_start_are_as_before():
    plain, other = build_ours(), build_ours(decorrelation=HEAD)
    added = set(other.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) <= set(other.state_dict())
    assert {name.rpartition('.')[0] for name in added} == {
        'decorrelation',
        'encoder_k.module.2',
    }
    for name, value in plain.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_neck_gets_the_decorrelated_map():
    model = build_ours(decorrelation=HEAD)
    images = next(iter(batches()))[0]
    twin = copy.deepcopy(model)
    found = model.encoder(images)
    maps, embedding = found.maps, found.embedding
    plain = twin.backbone(images)[0]
    close(maps[4], twin.decorrelation(plain))
    close(embedding, twin.neck([maps[4]])[0])
    assert not torch.allclose(maps[4], plain)


def test_terms_may_keep_the_backbone_s_map():
    model = build_ours(decorrelation=dict(HEAD, for_levels=False))
    images = next(iter(batches()))[0]
    twin = copy.deepcopy(model)
    found = model.encoder(images)
    maps, embedding = found.maps, found.embedding
    plain = twin.backbone(images)[0]
    assert torch.equal(maps[4], plain)
    close(embedding, twin.neck([twin.decorrelation(plain)])[0])
    with pytest.raises(ValueError, match='leave decorrelation.for_levels=Tr'):
        build_ours(
            levels=TERMS,
            decorrelation=dict(
                HEAD, num_channels=32, place='after_stage3', for_levels=False
            ),
        )


def test_each_branch_has_its_own_statistics():
    """The key's map is white, too; the copy starts from the query's."""
    model = build_ours(decorrelation=HEAD, levels=TERMS)
    head, copied = model.decorrelation, model.encoder_k.module[2]
    views = next(iter(batches()))
    train(model, [views])
    assert head.num_batches_tracked == 1
    # Copied after the query's pass, then its own pass.
    assert copied.num_batches_tracked == 2
    assert not torch.equal(head.running_mean, copied.running_mean)
    white = copied(model.encoder_k.module[0](views[1])[-1])
    variance = white.detach().var(dim=(0, 2, 3), correction=0)
    # l / (l + eps) of each direction: up to eps of unit variance.
    assert ((variance > 0.3) & (variance < 1.001)).all()
    assert white.mean((0, 2, 3)).abs().max() < 1e-4


@pytest.mark.parametrize('method', ['MoCo', 'SimCLR', 'BYOL'])
def test_the_projection_can_be_decorrelated(method):
    """The loss gets white embeddings; the maps are the backbone's."""
    settings = dict(HEAD, place='projection', num_groups=4)
    del settings['num_channels']  # the neck's
    if method == 'MoCo':
        model = build_ours(decorrelation=settings)
    else:
        model = build_method(method, decorrelation=settings)
    assert model.decorrelation.num_channels == DIM
    views = next(iter(batches(batch=16)))
    twin = copy.deepcopy(model)
    found = model.encoder(views[0])
    plain = twin.backbone(views[0])[-1]
    close(found.maps[4], plain)
    close(found.embedding, twin.decorrelation(twin.neck([plain])[0]))
    _, grads = train(model, [views])[0]
    assert grads['backbone.conv1.weight'].abs().sum() > 0
    if method != 'SimCLR':  # the copy whitens by itself
        copied = model.encoders['target'].decorrelation
        assert copied is not model.decorrelation
        assert copied.num_batches_tracked > 0
    pooled = dict(type='medssl_mm.PooledNeck')
    if method == 'MoCo':
        with pytest.raises(ValueError, match='set decorrelation.num_channels'):
            build_ours(neck=pooled, decorrelation=settings)


def history_and_state(place):
    model = build_ours(
        levels=TERMS,
        decorrelation=dict(
            HEAD,
            place=place,
            num_channels=dict(after_stage3=32, after_stage4=64)[place],
        ),
        **FIXED_STATISTICS,
    ).double()
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    torch.manual_seed(11)  # of the order in which the keys are mixed
    data = [[view.double() for view in own_part(views)] for views in batches(steps=2)]
    return train(wrapped, data), model.state_dict()


@pytest.mark.parametrize('place', ['after_stage4', 'after_stage3'])
def test_two_processes_equal_one(place):
    history, state = history_and_state(place)
    for two, two_state in run_processes(history_and_state, 2, place):
        for (_, grads), (_, expected) in zip(two, history):
            close(grads, expected)
        close(dict(two_state), dict(state))


def decoder_term():
    neck = dict(
        type='medssl_mm.LocalContrastNeck',
        hid_channels=8,
        out_channels=8,
        matching='feature',
        grid_size=2,
    )
    loss = dict(type='medssl_mm.LocalInfoNCELoss')
    return [dict(stage='decoder', neck=neck, loss=loss, name='local')]


@pytest.mark.parametrize('method', ['MoCo', 'SimCLR', 'BYOL'])
def test_a_term_on_the_map_of_a_decoder(method):
    """Both encoders have it, it learns, and it goes on in a segmentor."""
    settings = dict(levels=decoder_term(), decoder=DEEPLAB)
    plain = build_ours() if method == 'MoCo' else build_method(method)
    make = build_ours if method == 'MoCo' else functools.partial(build_method, method)
    model = make(**settings)
    # The random start of the encoder is that without it.
    for name, value in plain.state_dict().items():
        if name.startswith(('backbone.', 'neck.')):
            assert torch.equal(model.state_dict()[name], value), name
    views = next(iter(batches()))
    found = model.encoder(views[0]).maps['decoder']
    assert found.shape == (8, 8, 16, 16)  # as fine as stage 1
    logs, grads = train(model, [views])[0]
    assert logs['loss_decoder_local'].isfinite()
    own = {name for name, _ in model.decoder.named_parameters()}
    assert all(grads[f'decoder.{name}'].abs().sum() > 0 for name in own)
    held = {n for n in model.state_dict() if n.startswith('decode_head.')}
    assert len(held) > 20 and not any('conv_seg' in name for name in held)
    assert not any(n.startswith('decoder.') for n in model.state_dict())
    again = make(seed=1, **settings)
    again.load_state_dict(model.state_dict())  # strict
    close(again.decoder.state_dict(), model.decoder.state_dict())
    if method == 'SimCLR':
        return
    slow = model.encoders['target'].decoder
    assert slow is not model.decoder
    assert not any(p.requires_grad for p in slow.parameters())
    assert slow.decode_head.bottleneck.bn.num_batches_tracked > 0


def test_a_decoder_that_nothing_needs_is_refused():
    with pytest.raises(ValueError, match='decoder would have no effect'):
        build_ours(decoder=DEEPLAB)
    with pytest.raises(ValueError, match="stage='decoder' needs decoder"):
        build_ours(levels=decoder_term())
    restores = dict(type='medssl_mm.RestorationHead', decoder=DEEPLAB)
    with pytest.raises(ValueError, match='leave one of them out'):
        build_ours(levels=decoder_term(), decoder=DEEPLAB, restoration=restores)


def decoder_history():
    # Batch statistics depend on how a batch is divided.
    decoder = dict(DEEPLAB, norm_cfg=None)
    model = build_ours(levels=decoder_term(), decoder=decoder, **FIXED_STATISTICS)
    return train_distributed(model, steps=2)


def test_two_processes_with_a_decoder_equal_one():
    """The keys' maps come back in the order of the queries'."""
    expected = decoder_history()
    results = run_processes(decoder_history, 2)
    for step, (logs, grads) in enumerate(expected):
        for two in results:
            close(two[step][1], grads)
        parts = [two[step][0]['loss_decoder_local'] for two in results]
        close(torch.stack(parts).mean(), logs['loss_decoder_local'])


@pytest.mark.exact
def test_resume_is_exact():
    data = list(batches(steps=4))
    settings = dict(decorrelation=HEAD, levels=TERMS)
    straight = build_ours(**settings)
    optimizer = torch.optim.SGD(straight.parameters(), 0.05, momentum=0.9)
    train(straight, data[:2], optimizer)
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    train(straight, data[2:], optimizer)
    resumed = build_ours(seed=1, **settings)
    optimizer = torch.optim.SGD(resumed.parameters(), 0.05, momentum=0.9)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, data[2:], optimizer)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_place_without_use():
    with pytest.raises(ValueError, match='after stage 2 would have no effect'):
        build_ours(decorrelation=dict(HEAD, num_channels=16, place='after_stage2'))


def test_checkpoint_loads_downstream():
    """Into the backbone of mmseg; the rest is named in the report."""
    from mmseg.models.backbones import ResNet

    source = build_ours(decorrelation=HEAD)
    train(source, batches(steps=1))
    target = ResNet(18, in_channels=1, base_channels=8, stem_channels=8)
    report = load_pretrained_backbone(target, source.state_dict())
    assert report.complete and not report.unexpected
    assert ('decorrelation', 3) in report.ignored
    images = torch.rand(2, 1, 32, 32, dtype=torch.float64)
    target.double().eval()
    source.float().double().eval()  # the target's weights are float32
    close(target(images)[-1], source.backbone(images)[-1])


def test_legacy_starts_from_an_ordinary_checkpoint(tmp_path):
    small = dict(depth=50, base_channels=2)
    neck = dict(
        type='mmselfsup.MoCoV2Neck', in_channels=64, hid_channels=16, out_channels=16
    )
    file = tmp_path / 'ordinary.pth'
    ordinary = build_ours(seed=3, backbone={**backbone(), **small}, neck=neck)
    torch.save(dict(state_dict=ordinary.state_dict()), file)
    model = build_ours(
        neck=neck,
        backbone={
            **backbone(
                init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=str(file))
            ),
            **small,
        },
        decorrelation=dict(
            type='medssl_mm.DecorrelationHead', num_channels=64, legacy='bn3'
        ),
    )
    model.init_weights()
    block = model.backbone.layer4[2]
    assert isinstance(block.bn3, IterNorm)
    close(block.conv3.weight, ordinary.backbone.layer4[2].conv3.weight)
    train(model, batches(steps=2))
    key = model.encoder_k.module[0].layer4[2].bn3
    assert isinstance(key, IterNorm)
    assert not torch.equal(key.running_wm, block.bn3.running_wm)


def test_one_image_is_enough_to_validate():
    """The rest of a validation set, where no image is compared with others."""
    (views,) = batches(steps=1)
    one = [view[:1] for view in views]
    mse = [dict(stage=4, loss=dict(type='medssl_mm.FeatureMSELoss'))]
    for model in (build_ours(levels=mse), build_method('BYOL')):
        model.eval()
        (found,) = model(one, [], mode='predict')
        assert all(value.isfinite() for value in found.loss.values())
    model = build_method('SimCLR').eval()
    with pytest.raises(UserError, match='batch of 1 image .* in val_dataloader'):
        model(one, [], mode='predict')
    with pytest.raises(UserError, match='batch of 1 image .* train_dataloader'):
        model.train()(one, [], mode='loss')
