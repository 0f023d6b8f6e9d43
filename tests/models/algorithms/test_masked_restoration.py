"""Masked restoration, alone and beside another algorithm."""

import copy

import pytest
import torch
from mmengine.model import PretrainedInit
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.engine.observing import model_features
from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import rank, world_size
from medssl_mm.functional.restoration import hidden_at
from medssl_mm.registry import MODELS
from tests.distributed import run_processes
from tests.functional.test_restoration import patches
from tests.models.algorithms.toy import (
    DEEPLAB,
    DTYPE,
    backbone,
    batches,
    build_ours,
)
from tests.numerics import close

STRIDE_16 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
LIGHT = dict(
    type='mmseg.FCNHead',
    in_index=[0, 1, 2, 3],
    input_transform='resize_concat',
    channels=8,
    num_convs=1,
    concat_input=False,
    align_corners=False,
)


def restoration(decoder=LIGHT, **settings):
    return dict(type='medssl_mm.RestorationHead', decoder=decoder, **settings)


def build(seed=0, masking='sparse', decoder=LIGHT, network=(), **settings):
    torch.manual_seed(seed)
    model = MODELS.build(
        copy.deepcopy(
            dict(
                type='medssl_mm.MaskedRestoration',
                backbone={**backbone(**STRIDE_16), **dict(network)},
                restoration=restoration(decoder, masking=masking),
                **settings,
            )
        )
    )
    return model.to(DTYPE).train()


def samples(step=0, count=8):
    size = count // world_size()
    own = patches(count, seed=step)[rank() * size : (rank() + 1) * size]
    return [BaseDataElement(metainfo=dict(hidden_patches=one.numpy())) for one in own]


def train(model, steps, optimizer=None):
    """Train; return the logs and the gradients of each step."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    history = []
    for step in steps:
        views = list(batches(seed=step))[0]
        size = len(views[0]) // world_size()
        part = slice(rank() * size, (rank() + 1) * size)
        logs = model([view[part] for view in views], samples(step), mode='loss')
        optimizer.zero_grad()
        logs['loss_restoration'].backward()
        grads = {
            name.removeprefix('module.'): parameter.grad.clone()
            for name, parameter in model.named_parameters()
        }
        optimizer.step()
        history.append(({n: value.detach() for n, value in logs.items()}, grads))
    return history


@pytest.mark.parametrize('masking', ['sparse', 'zero'])
def test_hidden_patches_are_not_seen(masking):
    """Whatever they hold, all maps and the prediction are the same."""
    model = build(masking=masking)
    head = model.restoration
    images = list(batches(seed=1))[0][0]
    hidden = patches(8)
    behind = hidden_at(hidden, (64, 64))
    other = torch.where(behind, torch.randn_like(images), images)
    maps = head.visible_maps(model.backbone, images, hidden)
    close(head.visible_maps(model.backbone, other, hidden), maps)
    close(
        head.restore(model.backbone, other, hidden),
        head.restore(model.backbone, images, hidden),
    )
    visible = torch.where(behind, images, images + torch.rand_like(images))
    changed = head.visible_maps(model.backbone, visible, hidden)
    for stage, level in maps.items():
        assert not torch.allclose(changed[stage], level)
        at_hidden = level[hidden_at(hidden, tuple(level.shape[-2:])).expand_as(level)]
        # Zeros stay zeros at every stage, or are filled from the sides.
        assert bool(at_hidden.any()) == (masking == 'zero')


def test_split_statistics_do_not_go_with_sparse_layers():
    split = dict(type='medssl_mm.SplitBatchNorm', num_splits=4)
    images = list(batches(seed=1))[0][0]
    model = build(network=dict(norm_cfg=split))
    with pytest.raises(UserError, match="sparse masking .* take masking='zero'"):
        model.restoration.visible_maps(model.backbone, images, patches(8))
    zero = build(masking='zero', network=dict(norm_cfg=split))
    maps = zero.restoration.visible_maps(zero.backbone, images, patches(8))
    assert all(torch.isfinite(level).all() for level in maps.values())


def test_loss_is_that_of_the_prediction():
    model = build(denoise=True)
    noisy, clean = list(batches(seed=2))[0]
    one_crop = [dict(matrix=torch.eye(2, 3).numpy())] * 2
    data = samples()
    for sample in data:
        sample.set_metainfo(dict(view_geometry=one_crop))
    logs = model.loss([noisy, clean], data)
    hidden = patches(8, seed=0)
    prediction = model.restoration.restore(model.backbone, noisy, hidden)
    assert prediction.shape == clean.shape
    errors, guesses = [], []
    for n in range(8):
        mask = hidden[n].repeat_interleave(16, 0).repeat_interleave(16, 1)
        errors.append((prediction[n, 0] - clean[n, 0])[mask].abs())
        guesses.append((clean[n, 0][~mask].mean() - clean[n, 0][mask]).abs())
    close(logs['loss_restoration'], torch.cat(errors).mean())
    close(logs['restoration_of_mean'], torch.cat(guesses).mean())


@pytest.mark.parametrize('decoder', [LIGHT, DEEPLAB])
def test_gradient_reaches_every_weight(decoder):
    model = build(decoder=decoder)
    _, grads = train(model, [0])[0]
    assert all(grad.abs().sum() > 0 for grad in grads.values())


def statistics(model, prefix='backbone.'):
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
        and name.split('.')[-1].startswith(('running', 'num'))
    }


@pytest.mark.parametrize('masking', ['sparse', 'zero'])
def test_running_statistics_are_those_of_whole_images(masking):
    """What a frozen network is evaluated on."""
    model, plain = build(masking=masking), build(masking=masking)
    images = list(batches(seed=0))[0][0]
    model.loss([images], samples())
    plain.backbone(images)
    found = statistics(model)
    assert len(found) == 3 * 20
    close(found, statistics(plain))


def test_held_out_images_are_normalised_as_in_training():
    """Running statistics are of whole images, whose visible cells differ."""
    model = build(masking='zero')
    images = list(batches(seed=0))[0][0]
    maps = model.restoration.visible_maps(model.backbone, images, patches(8))
    model.eval()
    close(model.restoration.visible_maps(model.backbone, images, patches(8)), maps)
    # What keeps its statistics while it learns is evaluated by them.
    model = build(network=dict(norm_eval=True))
    maps = model.restoration.visible_maps(model.backbone, images, patches(8))
    model.eval()
    close(model.restoration.visible_maps(model.backbone, images, patches(8)), maps)


def history_and_state():
    # Without batch statistics, which depend on how the batch is divided.
    model = build(network=dict(norm_eval=True), masking='zero')
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    return train(wrapped, range(2)), model.state_dict()


def test_two_processes_equal_one():
    history, state = history_and_state()
    results = run_processes(history_and_state, 2)
    for two, two_state in results:
        close(dict(two_state), dict(state))
        for (_, grads), (_, expected) in zip(two, history, strict=True):
            close(grads, expected)
    for step, (logs, _) in enumerate(history):
        for name, value in logs.items():
            close(torch.stack([two[step][0][name] for two, _ in results]).mean(), value)


@pytest.mark.exact
def test_resume_is_exact():
    straight = build()
    optimizer = torch.optim.SGD(straight.parameters(), 0.05, momentum=0.9)
    train(straight, [0], optimizer)
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    train(straight, [1, 2], optimizer)
    resumed = build(seed=1)
    optimizer = torch.optim.SGD(resumed.parameters(), 0.05, momentum=0.9)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, [1, 2], optimizer)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_channels_last_changes_nothing_but_the_layout():
    plain, other = build(), build(channels_last=True)
    assert other.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for (logs, grads), (expected, expected_grads) in zip(
        train(other, [0]), train(plain, [0]), strict=True
    ):
        close(logs, expected)
        close(grads, expected_grads)


def test_prediction_changes_nothing():
    model = build()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    views = list(batches(seed=1))[0]
    found = model.predict(views, samples())[0].loss
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    assert [module.training for module in model.modules()] == modes
    model.eval()
    close(found, {n: v.detach() for n, v in model.loss(views, samples()).items()})


def test_the_decoder_goes_on_in_a_segmentor(tmp_path):
    """Its names and shapes are those of the segmentor; classes are not in it."""
    model = build(decoder=DEEPLAB)
    path = tmp_path / 'pretrained.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    with DefaultScope.overwrite_default_scope('mmseg'):
        segmentor = MODELS.build(
            dict(
                type='mmseg.EncoderDecoder',
                backbone=dict(backbone(**STRIDE_16), type='mmseg.ResNet'),
                decode_head=dict(
                    DEEPLAB, in_channels=64, c1_in_channels=8, num_classes=5
                ),
            )
        )
    wanted = {
        name: value.shape
        for name, value in segmentor.state_dict().items()
        if name.startswith('decode_head.') and '.conv_seg.' not in name
    }
    held = {
        name: value.shape
        for name, value in model.state_dict().items()
        if name.startswith('decode_head.')
    }
    assert held == wanted and len(held) > 20
    PretrainedInit(str(path), prefix='decode_head.')(segmentor.decode_head)
    for name in held:
        torch.testing.assert_close(
            segmentor.state_dict()[name],
            model.state_dict()[name].to(segmentor.state_dict()[name].dtype),
        )
    again = build(seed=1, decoder=DEEPLAB)
    again.load_state_dict(model.state_dict())  # strict
    assert {name.partition('.')[0] for name in model.state_dict()} == {
        *('backbone', 'decode_head', 'to_image')
    }


@pytest.mark.parametrize('method', ['MoCo', 'SimCLR', 'BYOL'])
def test_it_is_a_further_term_of_the_others(method):
    from tests.models.algorithms.toy import build_method

    def made(**more):
        if method == 'MoCo':
            return build_ours(**more)
        return build_method(method, **more)

    views = list(batches(seed=3))[0]
    settings = dict(backbone=backbone(**STRIDE_16))
    plain = made(**settings)
    both = made(restoration=restoration(weight=0.5), **settings)
    # The random start of the encoder is that without it; keys are drawn after it.
    for name, value in plain.state_dict().items():
        if name.startswith(('backbone.', 'neck.')):
            assert torch.equal(both.state_dict()[name], value), name
    left = both.load_state_dict(plain.state_dict(), strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith('restoration.') for name in left.missing_keys)
    alone, logs = plain.loss(views), both.loss(views, samples())
    assert set(logs) - set(alone) == {'loss_restoration', 'restoration_of_mean'}
    close({name: logs[name] for name in alone}, alone)
    # Masked images leave no trace in the statistics that evaluation uses.
    close(statistics(both, ''), {**statistics(both, ''), **statistics(plain, '')})
    weights = both.backbone.conv1.weight
    grad = torch.autograd.grad(logs['loss_restoration'], weights, retain_graph=True)[0]
    assert grad.abs().sum() > 0


def test_monitors_see_its_stages():
    model = build().float()  # the preprocessor gives float32
    batch = dict(inputs=list(batches(seed=1))[0], data_samples=samples())
    with torch.no_grad():
        found = model_features(model, batch)
    assert set(found) == {*(f'stage{n}' for n in range(1, 5)), 'pooled', 'projection'}
    torch.testing.assert_close(found['projection'], found['pooled'])


def test_what_does_not_fit_is_named():
    views = list(batches(seed=1))[0]
    with pytest.raises(UserError, match='HidePatches after the views'):
        build().loss(views)
    with pytest.raises(UserError, match=r'needs two views of one crop, got 1 view'):
        build(denoise=True).loss(views[:1], samples())
    apart = samples()
    geometry = [dict(matrix=torch.eye(2, 3).numpy() * k) for k in (1, 2)]
    apart[3].set_metainfo(dict(view_geometry=geometry))
    with pytest.raises(UserError, match='of different crops.*shared_crop=True'):
        build(denoise=True).loss(views, apart)
    with pytest.raises(UserError, match='masking must be one of'):
        build(masking='some')
    with pytest.raises(UserError, match=r'in_index=\[0, 7\].*4 stages'):
        build(decoder=dict(LIGHT, in_index=[0, 7]))
    levels = dict(
        type='medssl_mm.MultiLevelHead',
        levels=[dict(stage=3, loss=dict(type='medssl_mm.ToyMapDistance'))],
    )
    with pytest.raises(UserError, match='no second view of another crop'):
        build(multi_level_head=levels)


@pytest.mark.parametrize('masking', ['sparse', 'zero'])
def test_activation_checkpointing_of_the_backbone_is_refused(masking):
    model = build(masking=masking, network=dict(with_cp=True))
    views = list(batches(seed=1))[0]
    with pytest.raises(UserError, match='with_cp is on in .* with_cp=False'):
        model(views, samples(), mode='loss')
    model.eval()
    with torch.no_grad():
        assert model(views, samples(), mode='predict')[0].loss['loss_restoration'] > 0
