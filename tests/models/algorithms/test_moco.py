import contextlib
import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement
from torch.nn.parallel import DistributedDataParallel

from medssl_mm.backbones import backbone_of
from medssl_mm.engine.runner import Runner
from medssl_mm.errors import UserError
from medssl_mm.functional.distributed import rank, world_size
from medssl_mm.registry import MODELS
from tests.distributed import run_processes
from tests.models.algorithms.toy import (
    DECAY,
    DTYPE,
    QUEUE,
    TEMPERATURE,
    backbone,
    batches,
    build_host,
    build_ours,
    train,
)
from tests.numerics import as_close_as, close, distances, err_as

DATA = Path(__file__).resolve().parents[2] / 'data'
TERMS = [
    dict(
        stage=3,
        loss=dict(type='medssl_mm.ToyMapDistance'),
        neck=dict(type='medssl_mm.ToyProjector', channels=32),
        weight=0.5,
    ),
    dict(stage=1, loss=dict(type='medssl_mm.ToyMapDistance')),
]
# Statistics that do not depend on how a batch is divided among processes.
FIXED_STATISTICS = dict(backbone=backbone(norm_eval=True))


def own_part(views):
    """The images of this process."""
    size = len(views[0]) // world_size()
    part = slice(rank() * size, (rank() + 1) * size)
    return [view[part] for view in views]


def train_distributed(model, steps=3):
    if world_size() > 1:
        model = DistributedDataParallel(model)
    torch.manual_seed(11)  # of the order in which the keys are mixed
    return train(model, [own_part(views) for views in batches(steps)])


def both_histories():
    ours, host = build_ours(), build_host()
    host.load_state_dict(ours.state_dict())  # strict: all names and shapes
    return (
        train_distributed(ours),
        train_distributed(host),
        ours.state_dict(),
        host.state_dict(),
    )


@pytest.mark.parametrize('processes', [1, 2])
def test_equals_the_host(processes):
    """Loss, gradients, queue and both encoders over three steps."""
    results = (
        run_processes(both_histories, processes)
        if processes > 1
        else [both_histories()]
    )
    for ours, host, our_state, host_state in results:
        for (our_logs, our_grads), (host_logs, host_grads) in zip(ours, host):
            close(our_logs['loss_contrastive'], host_logs['loss'])
            assert our_grads.keys() == host_grads.keys()
            close(our_grads, host_grads)
        assert our_state.keys() == host_state.keys()
        assert our_state['queue_ptr'] == 3 * 8 % QUEUE
        close(dict(our_state), dict(host_state))


def history_and_state(levels):
    model = build_ours(levels=levels, **FIXED_STATISTICS)
    return train_distributed(model), model.state_dict()


def test_two_processes_equal_one():
    """Mixed keys and key maps return to their queries; queues hold all."""
    history, state = history_and_state(TERMS)
    results = run_processes(history_and_state, 2, TERMS)
    for two, two_state in results:
        for (_, grads), (_, expected) in zip(two, history):
            close(grads, expected)
        close(dict(two_state), dict(state))
    for step, (logs, _) in enumerate(history):
        for name, value in logs.items():
            parts = [two[step][0][name] for two, _ in results]
            close(torch.stack(parts).mean(), value)


PATIENTS = ('a', 'b', 'c', 'a', 'b', 'd', 'd', 'e')


def patient_samples(shift=0):
    size = len(PATIENTS) // world_size()
    names = (PATIENTS[shift:] + PATIENTS[:shift])[rank() * size : (rank() + 1) * size]
    return [BaseDataElement(metainfo=dict(patient_id=name)) for name in names]


def masked_history():
    model = build_ours(mask_same_patient=True, **FIXED_STATISTICS)
    torch.manual_seed(11)
    found = []
    for step, views in enumerate(batches(steps=3)):
        logs = model.loss(own_part(views), patient_samples(step))
        found.append({name: value.detach() for name, value in logs.items()})
    return found, model.state_dict()


def test_keys_of_the_same_patient_are_no_negatives():
    """Loss, gradient and the level of a guess against a loop over the negatives."""
    model = build_ours(mask_same_patient=True, **FIXED_STATISTICS)
    for step, views in enumerate(batches(steps=6)):  # more than the queue holds
        samples = patient_samples(step)
        queue = model.key_queue.rows.clone()
        owners = model.key_queue.queue_patients.tolist()
        logs = model.loss(views, samples)
        slots = torch.arange(step * 8, step * 8 + 8) % QUEUE
        keys = model.key_queue.rows[slots]  # what was queued just now
        query = model.encoder(views[0]).embedding
        query = query / query.norm(dim=1, keepdim=True)
        mine = model.key_queue.queue_patients[slots].tolist()
        losses, guesses = [], []
        for one, own, patient in zip(query, keys, mine, strict=True):
            negatives = [k for k, o in zip(queue, owners) if o != patient]
            logits = torch.stack([one @ k for k in (own, *negatives)]) / TEMPERATURE
            losses.append(logits.logsumexp(0) - logits[0])
            guesses.append(math.log(len(negatives) + 1))
        expected = torch.stack(losses).mean()
        close(logs['loss_contrastive'], expected)
        close(logs['chance_level'], torch.tensor(guesses, dtype=DTYPE).mean())
        weight = model.backbone.conv1.weight
        grads = [
            torch.autograd.grad(loss, weight)[0]
            for loss in (logs['loss_contrastive'], expected)
        ]
        close(*grads)
    assert len({o for o in owners if o}) == 5


def test_masked_patients_of_two_processes_equal_one():
    history, state = masked_history()
    results = run_processes(masked_history, 2)
    for _, two_state in results:
        close(dict(two_state), dict(state))
    for step, logs in enumerate(history):
        for name, value in logs.items():
            parts = torch.stack([two[step][name] for two, _ in results])
            close(parts.mean(), value)


def test_mask_of_patients_changes_no_other_run_and_needs_their_names():
    plain = build_ours(**FIXED_STATISTICS)
    masked = build_ours(mask_same_patient=True, **FIXED_STATISTICS)
    assert set(masked.state_dict()) - set(plain.state_dict()) == {'queue_patients'}
    different = [
        BaseDataElement(metainfo=dict(patient_id=str(number))) for number in range(8)
    ]
    views = next(iter(batches(steps=1)))
    close(plain.loss(views), masked.loss(views, different))
    with pytest.raises(UserError, match='8 of 8 have no patient_id'):
        masked.loss(views)


def test_gradient_reaches_the_query_side_only():
    model = build_ours(levels=TERMS)
    _, grads = train(model, batches(steps=1))[0]
    for name, parameter in model.named_parameters():
        learns = not name.startswith('encoder_k.')
        assert (name in grads) == learns == parameter.requires_grad
        if learns:
            assert grads[name].abs().sum() > 0, name


def test_key_encoder_follows_slowly():
    """Including the necks of terms: copied first, then averaged."""
    model = build_ours(levels=TERMS)
    expected = None
    for views in batches(steps=3):
        sources = {
            name: value.clone()
            for name, value in model.named_parameters()
            if value.requires_grad
        }
        train(model, [views])
        if expected is None:
            expected = sources
        else:
            expected = {
                name: DECAY * value + (1 - DECAY) * sources[name]
                for name, value in expected.items()
            }
    encoder = model.encoder_k.module
    places = {'backbone': encoder[0], 'neck': encoder[1]}
    for name, value in expected.items():
        part, _, rest = name.partition('.')
        if part == 'multi_level_head':
            rest = rest.removeprefix('necks.')
        close(places.get(part, encoder[-1]).get_parameter(rest), value)


def test_terms_are_logged_and_weighted():
    logs, _ = train(build_ours(levels=TERMS), batches(steps=1))[0]
    unweighted = [dict(level, weight=1.0) for level in TERMS]
    full, _ = train(build_ours(levels=unweighted), batches(steps=1))[0]
    close(
        logs['loss_stage3_toy_map_distance'], 0.5 * full['loss_stage3_toy_map_distance']
    )
    assert {name for name in logs if 'loss' in name} == {
        'loss_contrastive',
        'loss_stage1_toy_map_distance',
        'loss_stage3_toy_map_distance',
    }


def test_terms_leave_the_start_of_the_encoder():
    """Runs with and without terms are paired: same seed, same weights."""
    plain, other = build_ours(), build_ours(levels=TERMS)
    for name, value in plain.backbone.state_dict().items():
        assert torch.equal(other.backbone.state_dict()[name], value), name
    for name, value in plain.neck.state_dict().items():
        assert torch.equal(other.neck.state_dict()[name], value), name


def test_log_values():
    history = train(build_ours(), batches(steps=6))
    for step, (logs, _) in enumerate(history, start=1):
        assert logs['chance_level'].item() == pytest.approx(math.log(QUEUE + 1))
        assert logs['queue_fill'] == min(1.0, step * 8 / QUEUE)
        assert 0 <= logs['contrastive_top1'] <= 1


def test_equal_views_are_found():
    """Right after the start the encoders agree, so equal images match."""
    images = next(iter(batches()))[0]
    logs, _ = train(build_ours(), [[images, images]])[0]
    assert logs['contrastive_top1'] == 1
    assert logs['loss_contrastive'] < logs['chance_level']


@pytest.mark.exact
@pytest.mark.parametrize('levels', [(), TERMS])
def test_resume_is_exact(levels):
    data = list(batches(steps=4))
    straight = build_ours(levels=levels)
    train(
        straight,
        data[:2],
        optimizer := torch.optim.SGD(straight.parameters(), 0.05, momentum=0.9),
    )
    saved = copy.deepcopy((straight.state_dict(), optimizer.state_dict()))
    train(straight, data[2:], optimizer)
    resumed = build_ours(seed=1, levels=levels)
    optimizer = torch.optim.SGD(resumed.parameters(), 0.05, momentum=0.9)
    resumed.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    train(resumed, data[2:], optimizer)
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_channels_last_changes_nothing_but_the_layout():
    plain, other = build_ours(), build_ours(channels_last=True)
    logs, grads = train(plain, batches(steps=1))[0]
    other_logs, other_grads = train(other, batches(steps=1))[0]
    close(other_logs, logs)
    close(other_grads, grads)
    # Convolutions of float64 leave the layout; those for training keep it.
    other = build_ours(channels_last=True, dtype=torch.float32)
    maps = other.extract_feat(next(iter(batches(dtype=torch.float32))))
    stem = other.backbone.conv1(other.lay_out(torch.rand(2, 1, 32, 32)))
    for found in (*maps, stem):
        assert found.is_contiguous(memory_format=torch.channels_last)


def step(views, err_seed=None, dtype=torch.float64, autocast=False, **settings):
    """Loss and gradients of one step, and the model."""
    model = build_ours(dtype=dtype, **settings)
    views = [view.to(dtype) for view in views]
    errors = contextlib.nullcontext()
    if err_seed is not None:
        errors = err_as(model, torch.bfloat16, err_seed)
    with errors:
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            logs = model(views, [], mode='loss')
        logs['loss_contrastive'].backward()
    grads = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    return logs['loss_contrastive'].detach(), grads, model


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('norm_eval', [False, True])
def test_bfloat16_stays_close(channels_last, norm_eval):
    """As close as rounding lets it; very close with fixed statistics."""
    views = next(iter(batches(batch=16)))
    fixed = FIXED_STATISTICS if norm_eval else {}
    exact_loss, exact, _ = step(views, **fixed)
    erring = [step(views, err_seed=seed, **fixed)[1] for seed in range(6)]
    loss, grads, model = step(
        views,
        dtype=torch.float32,
        autocast=True,
        channels_last=channels_last,
        **fixed,
    )
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), exact_loss, rtol=0.02, atol=0)
    as_close_as(grads, exact, erring)
    if norm_eval:
        assert max(distances(grads, exact).values()) < 0.1
    else:
        assert distances(grads, exact)['neck.mlp.0.weight'] < 0.4
    keys = model.key_queue.rows
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(QUEUE))


def test_starts_from_a_checkpoint(tmp_path):
    source = build_ours(seed=5)
    train(source, batches(steps=1))
    file = tmp_path / 'pretrained.pth'
    torch.save(dict(state_dict=source.state_dict()), file)
    model = build_ours(
        backbone=backbone(
            init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=str(file))
        )
    )
    model.init_weights()
    close(dict(model.backbone.state_dict()), dict(source.backbone.state_dict()))
    model(next(iter(batches())), [], mode='loss')
    close(
        model.encoder_k.module[0].layer4[1].conv2.weight,
        source.backbone.layer4[1].conv2.weight,
    )


@pytest.mark.parametrize('levels', [(), TERMS])
def test_validation_changes_nothing(levels):
    """Neither weights, statistics, queue and mode nor random states."""
    # The host's preprocessor makes float32 of what a loop gives.
    model = build_ours(levels=levels, dtype=torch.float32)
    data = list(batches(steps=3, dtype=torch.float32))
    train(model, data[:1])
    before = copy.deepcopy(model.state_dict())
    modes = [part.training for part in model.modules()]
    state = torch.random.get_rng_state()
    first, again = (
        model.val_step(dict(inputs=data[1], data_samples=None))[-1].loss
        for _ in range(2)
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(value.requires_grad for value in first.values())


def test_validation_loss_is_that_of_both_encoders_in_evaluation():
    model = build_ours(levels=TERMS[1:])
    train(model, list(batches(steps=2)))
    views = next(iter(batches(seed=3)))
    found = model(views, [], mode='predict')[-1].loss
    model.eval()
    follower = model.encoder_k.module
    with torch.no_grad():
        query_map, key_map = (
            [backbone_of(part).maps(view, [stage])[stage] for stage in (1, 4)]
            for part, view in zip((model.backbone, follower[0]), views)
        )
        query = model.neck([query_map[-1]])[0]
        key = follower[1]([key_map[-1]])[0]
        query, key = (torch.nn.functional.normalize(rows) for rows in (query, key))
        logits = (
            torch.cat(
                [(query * key).sum(1, keepdim=True), query @ model.key_queue.queue], 1
            )
            / TEMPERATURE
        )
        expected = torch.nn.functional.cross_entropy(
            logits, torch.zeros(len(logits), dtype=torch.long)
        )
    close(found['loss_contrastive'], expected)
    close(
        found['loss_stage1_toy_map_distance'],
        (query_map[0] - key_map[0]).square().mean(),
    )


class TwoViews(torch.utils.data.Dataset):
    """Eight pairs of views."""

    def __init__(self, seed, size=32):
        views = batches(steps=1, size=size, seed=seed, dtype=torch.float32)
        views = next(iter(views))
        self.pairs = [list(pair) for pair in zip(*views)]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return dict(inputs=self.pairs[index], data_samples=BaseDataElement())


def run(work_dir, **validation):
    def loader(seed):
        return dict(
            dataset=TwoViews(seed),
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=seed == 0),
            collate_fn=dict(type='default_collate'),
        )

    if validation:
        validation['val_dataloader'] = loader(1)
    runner = Runner(
        build_ours(dtype=torch.float32),
        str(work_dir),
        train_dataloader=loader(0),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05)),
        default_scope='mmselfsup',
        log_level='ERROR',
        randomness=dict(seed=0),
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                **(dict(save_best='val_loss', rule='less') if validation else {}),
            )
        ),
        **validation,
    )
    runner.train()
    return runner


@pytest.mark.exact
@pytest.mark.slow
def test_run_with_validation_trains_alike_and_keeps_the_best(tmp_path):
    plain = run(tmp_path / 'plain')
    other = run(tmp_path / 'other', val_cfg=dict(), val_evaluator=[])
    for name, value in plain.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value), name
    assert list((tmp_path / 'other').glob('best_val_loss_epoch_*.pth'))
    scalars = other.message_hub.log_scalars
    assert scalars['val/val_loss'].current() == pytest.approx(
        scalars['val/loss_contrastive'].current()
    )


@pytest.mark.parametrize(
    'views, message',
    [
        ([torch.rand(4, 1, 32, 32)], r'two views .* got 1 view'),
        ([torch.rand(4, 1, 32, 32)] * 3, 'got 3 view'),
        (torch.rand(2, 1, 32, 32), 'got one tensor'),
        ([torch.rand(4, 1, 32, 32), torch.rand(3, 1, 32, 32)], 'of the same N'),
        ([torch.rand(1, 1, 32, 32)] * 2, 'batch of 1 image .* drop_last=True'),
        (
            [torch.rand(5, 1, 32, 32)] * 2,
            'queue_len=32 is not a multiple of the global batch size 5; set '
            'queue_len=30 or 35',
        ),
    ],
)
def test_wrong_batch(views, message):
    model = build_ours()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        model(views, [], mode='loss')
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name


def test_wrong_ema_decay():
    with pytest.raises(ValueError, match='ema_decay .* got 1.0'):
        build_ours(ema_decay=1.0)


def test_outputs_of_the_backbone_do_not_matter():
    views = next(iter(batches()))
    logs = [
        build_ours(backbone=backbone(**outputs))(views, [], mode='loss')
        for outputs in ({}, dict(out_indices=(3, 4)), dict(out_indices=(0,)))
    ]
    for other in logs[1:]:
        for name, value in logs[0].items():
            assert torch.equal(other[name], value), name


# What wrote tests/data/moco_edb8d4d_*: the checkpoint of one epoch of a run by
# the commit edb8d4d, and its weights after two further steps in float64.
BEFORE = dict(
    type='medssl_mm.MultiLevelMoCo',
    backbone=dict(backbone(), base_channels=2, stem_channels=2),
    neck=dict(
        type='mmselfsup.MoCoV2Neck', in_channels=16, hid_channels=8, out_channels=8
    ),
    head=dict(type='medssl_mm.InfoNCELoss', temperature=0.2),
    queue_len=16,
    feat_dim=8,
    ema_decay=0.9,
    decorrelation=dict(
        type='medssl_mm.DecorrelationHead', num_channels=16, num_groups=4, eps=1e-2
    ),
    multi_level_head=dict(
        type='medssl_mm.MultiLevelHead',
        levels=[
            dict(stage=1, loss=dict(type='medssl_mm.FeatureMSELoss')),
            dict(
                stage=3,
                neck=dict(
                    type='medssl_mm.BarlowTwinsNeck',
                    in_channels=8,
                    hid_channels=8,
                    out_channels=8,
                ),
                key_neck='shared',
                loss=dict(type='medssl_mm.BarlowTwinsLoss'),
                weight=0.01,
            ),
            dict(
                stage=4,
                neck=dict(
                    type='medssl_mm.LocalContrastNeck',
                    in_channels=16,
                    hid_channels=8,
                    out_channels=8,
                    matching='feature',
                    grid_size=2,
                ),
                loss=dict(type='medssl_mm.LocalInfoNCELoss'),
                weight=0.5,
                name='local',
            ),
        ],
    ),
)


def test_checkpoint_of_before_trains_on_as_it_did():
    """Strictly loaded, with the optimizer: to the weights it had then."""
    saved = torch.load(DATA / 'moco_edb8d4d_epoch_1.pth', weights_only=True)
    model = MODELS.build(copy.deepcopy(BEFORE)).double().train()
    model.load_state_dict(saved['state_dict'])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    optimizer.load_state_dict(saved['optimizer'])
    train(model, batches(steps=2), optimizer)
    found, before = (
        torch.cat([state[name].double().flatten() for name in sorted(state)])
        for state in (model.state_dict(), saved['state_dict'])
    )
    expected = np.load(DATA / 'moco_edb8d4d_2_steps_later.npz')['weights']
    torch.testing.assert_close(
        found, torch.from_numpy(expected).double(), rtol=1e-6, atol=1e-6
    )
    assert (found - before).abs().max() > 0.1


def test_run_of_before_is_resumed(tmp_path):
    model = MODELS.build(copy.deepcopy(BEFORE))
    runner = Runner(
        model,
        str(tmp_path),
        train_dataloader=dict(
            dataset=TwoViews(7, 64),
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9)
        ),
        default_scope='mmselfsup',
        log_level='ERROR',
        randomness=dict(seed=0),
        resume=True,
        load_from=str(DATA / 'moco_edb8d4d_epoch_1.pth'),
    )
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 4)
    # Counted over both epochs.
    assert model.encoder_k.steps == 4
    assert model.key_queue.queue_ptr == 0  # 4 batches of 4 keys among 16


def test_split_statistics_mix_the_keys_of_one_process():
    """Keys in another order of the images, query statistics of parts in order."""
    split = dict(type='medssl_mm.SplitBatchNorm', num_splits=4)
    model = build_ours(backbone=dict(backbone(), norm_cfg=split))
    model.encoder_k.start(model.encoder)
    images = torch.randn(8, 1, 32, 32, dtype=DTYPE)
    torch.manual_seed(3)
    order = torch.randperm(8)
    encoder = copy.deepcopy(model.encoder_k.module)
    with torch.no_grad():
        expected = encoder(images[order]).embedding[order.argsort()]
        in_order = copy.deepcopy(model.encoder_k.module)(images).embedding
    torch.manual_seed(3)
    found = model._encode_keys(images).embedding
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, in_order)
    losses = model.loss([images, images.flip(0)])
    losses['loss_contrastive'].backward()
    assert torch.isfinite(losses['loss_contrastive'])
