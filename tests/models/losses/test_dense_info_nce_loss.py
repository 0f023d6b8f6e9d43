import copy
import math

import pytest
import torch

from medssl_mm.errors import UserError
from medssl_mm.models.heads.multi_level_head import LevelContext
from medssl_mm.models.losses import DenseInfoNCELoss
from medssl_mm.models.necks import DensePlaces
from medssl_mm.registry import MODELS
from tests.distributed import run_processes
from tests.models.algorithms.test_moco import (
    FIXED_STATISTICS,
    patient_samples,
    train_distributed,
)
from tests.models.algorithms.toy import (
    DIM,
    DTYPE,
    QUEUE,
    TEMPERATURE,
    batches,
    build_host,
    build_method,
    build_ours,
    neck,
    train,
)
from tests.numerics import close

SIDE = 2  # of the last map of a 64 px image


def levels(weight=0.5, stage=4, **more):
    return [
        dict(
            stage=stage,
            neck=dict(type='medssl_mm.DenseContrastNeck', out_channels=DIM, **more),
            loss=dict(
                type='medssl_mm.DenseInfoNCELoss', feat_dim=DIM, temperature=TEMPERATURE
            ),
            weight=weight,
        )
    ]


def dense_host():
    dense_neck = dict(
        type='mmselfsup.DenseCLNeck', in_channels=64, hid_channels=64, out_channels=DIM
    )
    return build_host(
        seed=1, type='mmselfsup.DenseCL', neck=dense_neck, loss_lambda=0.5
    )


# Names of ours by those of the host.
LEVEL = 'multi_level_head.{}.stage4_dense_info_nce'
NAMES = {
    'neck.mlp2': LEVEL.format('necks') + '.projector',
    'queue2_ptr': LEVEL.format('losses') + '.key_queue.queue_ptr',
    'queue2': LEVEL.format('losses') + '.key_queue.queue',
    'encoder_k.module.1.mlp2': 'encoder_k.module.2.stage4_dense_info_nce.projector',
}


def our_name(name):
    for theirs, ours in NAMES.items():
        if name == theirs or name.startswith(theirs + '.'):
            return ours + name[len(theirs) :]
    return name


def test_equals_the_host():
    """Both losses, gradients, both queues and encoders over three steps."""
    host = dense_host()
    ours = build_ours(
        levels=levels(),
        neck=dict(neck(), hid_channels=64),
        head=dict(type='medssl_mm.InfoNCELoss', temperature=TEMPERATURE),
        contrast_weight=0.5,  # DenseCL's share of the contrastive loss
    )
    ours.load_state_dict({our_name(n): v for n, v in host.state_dict().items()})

    data = list(batches(steps=3))
    for (found, grads), (expected, host_grads) in zip(
        train(ours, data), train(host, data), strict=True
    ):
        close(found['loss_contrastive'], expected['loss_single'])
        assert found['chance_level'].item() == pytest.approx(math.log(QUEUE + 1) / 2)
        close(found['loss_stage4_dense_info_nce'], expected['loss_dense'])
        close(grads, {our_name(name): grad for name, grad in host_grads.items()})
    close(
        dict(ours.state_dict()), {our_name(n): v for n, v in host.state_dict().items()}
    )
    assert ours.state_dict()[NAMES['queue2_ptr']] == 3 * 8 % QUEUE


def test_the_contrast_has_no_negative_weight():
    with pytest.raises(UserError, match='contrast_weight must not be negative, got -1'):
        build_ours(contrast_weight=-1)


def history(stage):
    model = build_ours(levels=levels(stage=stage, grid_size=3), **FIXED_STATISTICS)
    return train_distributed(model), model.state_dict()


@pytest.mark.parametrize('stage', [2, 4])
def test_two_processes_equal_one(stage):
    expected, state = history(stage)
    results = run_processes(history, 2, stage)
    for found, two_state in results:
        close(dict(two_state), dict(state))
        for (_, grads), (_, wanted) in zip(found, expected, strict=True):
            close(grads, wanted)
    for step, (logs, _) in enumerate(expected):
        for name, value in logs.items():
            parts = torch.stack([found[step][0][name] for found, _ in results])
            close(parts.mean(), value)


def places(seed, rows=6):
    torch.manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(2, rows, 5), dim=-1)
    return DensePlaces(directions.double(), torch.randn(2, rows, DIM).double())


def test_a_loop_over_places():
    query, key = places(0), places(1)
    loss = DenseInfoNCELoss(QUEUE, DIM, 0.5).double()
    queue = loss.key_queue.rows.clone()
    context = LevelContext(4, (), ())
    logs = loss(query, key, context)
    close(loss.key_queue.rows, queue, rtol=0, atol=0)  # until all terms are computed
    for action in context.pending:
        action()
    losses, hits, used = [], [], set()
    for image in range(2):
        for place in range(6):
            likeness = [
                (query.directions[image, place] * other).sum()
                for other in key.directions[image]
            ]
            found = max(range(6), key=lambda index: likeness[index])
            used.add((image, found))
            one = query.features[image, place]
            own = key.features[image, found]
            cosine = [torch.cosine_similarity(one, k, dim=0) for k in (own, *queue)]
            logits = torch.stack(cosine) / 0.5
            losses.append(logits.logsumexp(0) - logits[0])
            hits.append(float(logits.argmax() == 0))
    close(logs['loss'], torch.stack(losses).mean())
    close(logs['top1'], torch.tensor(hits, dtype=DTYPE).mean())
    assert logs['matched'].item() == pytest.approx(len(used) / 12)
    assert logs['chance_level'].item() == pytest.approx(math.log(QUEUE + 1))
    mean = key.features.mean(1)
    close(loss.key_queue.rows[:2], mean / mean.norm(dim=1, keepdim=True))


def test_validation_leaves_the_queue():
    model = build_ours(levels=levels())
    views = next(iter(batches(steps=1)))
    model.loss(views)
    before = copy.deepcopy(model.state_dict())
    (found,) = model.predict(views)
    assert found.loss['loss_stage4_dense_info_nce'] > 0
    close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_moco_says_how_long_the_queue_is():
    queue = (
        build_ours(levels=levels())
        .multi_level_head.losses['stage4_dense_info_nce']
        .key_queue
    )
    assert queue.queue_len == QUEUE
    (level,) = levels()
    level['loss']['queue_len'] = 8
    model = build_ours(levels=[level])
    assert model.key_queue.queue_len == QUEUE
    losses = model.multi_level_head.losses
    assert losses['stage4_dense_info_nce'].key_queue.queue_len == 8


def test_what_does_not_fit():
    with pytest.raises(UserError, match='temperature must be positive, got 0'):
        DenseInfoNCELoss(8, temperature=0)
    with pytest.raises(UserError, match='feat_dim=4 .* out_channels=16 of the neck'):
        DenseInfoNCELoss(8, feat_dim=4)(places(0), places(1), None)
    build = MODELS.build
    with pytest.raises(UserError, match='at least 1, got 8, 0, 4'):
        build(dict(type='medssl_mm.DenseContrastNeck', in_channels=8, hid_channels=0,
                   out_channels=4))  # fmt: skip
    neck = build(
        dict(type='medssl_mm.DenseContrastNeck', in_channels=8, hid_channels=8)
    )
    with pytest.raises(UserError, match=r'needs a map .* got \(2, 8\)'):
        neck(torch.zeros(2, 8), 0, None)


class Seen(torch.nn.Module):
    """Notes the queue that the loss sees, and the keys that it gets."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss
        self.calls = []

    def forward(self, query, key, context):
        means = key.features.mean(1)
        means = (means / means.norm(dim=1, keepdim=True)).detach()
        self.calls.append((self.loss.key_queue.rows.clone(), means))
        return self.loss(query, key, context)


def test_second_direction_has_no_negative_of_its_own_images():
    """The queue is that of the first one, and gets the keys of both after it."""
    (level,) = levels()
    level['loss']['queue_len'] = QUEUE
    model = build_method('BYOL', levels=[level])
    losses = model.multi_level_head.losses
    seen = losses['stage4_dense_info_nce'] = Seen(losses['stage4_dense_info_nce'])
    model.loss(next(iter(batches(steps=1))))
    (before, first), (between, second) = seen.calls
    close(between, before, rtol=0, atol=0)
    queue = seen.loss.key_queue
    close(queue.rows[:16], torch.cat([first, second]))
    close(queue.rows[16:], before[16:], rtol=0, atol=0)
    assert queue.queue_ptr == 16


def test_places_of_the_same_patient_are_no_negatives():
    """MoCo hands its setting on; loss and level of a guess against a loop."""
    model = build_ours(mask_same_patient=True, levels=levels(1.0), **FIXED_STATISTICS)
    loss = model.multi_level_head.losses['stage4_dense_info_nce']
    data = batches(steps=2)
    model.loss(next(data), patient_samples(0))
    owners = loss.key_queue.queue_patients.tolist()
    assert owners == model.key_queue.queue_patients.tolist() and len(set(owners)) == 6
    queue = loss.key_queue.rows.clone()
    query, key = places(0), places(1)  # two images
    samples = patient_samples(0)[:2]
    context = LevelContext(4, (), samples)
    logs = loss(query, key, context)
    losses, guesses = [], []
    for image in range(2):
        negatives = [k for k, o in zip(queue, owners) if o != owners[image]]
        guesses.append(math.log(len(negatives) + 1))
        likeness = query.directions[image] @ key.directions[image].T
        for place, found in enumerate(likeness.argmax(1)):
            one, own = query.features[image, place], key.features[image, found]
            cosine = [torch.cosine_similarity(one, k, dim=0) for k in (own, *negatives)]
            logits = torch.stack(cosine) / TEMPERATURE
            losses.append(logits.logsumexp(0) - logits[0])
    close(logs['loss'], torch.stack(losses).mean())
    close(logs['chance_level'], torch.tensor(guesses, dtype=DTYPE).mean())
    assert max(guesses) < math.log(QUEUE + 1)
    with pytest.raises(UserError, match='2 of 2 have no patient_id'):
        loss(query, key, LevelContext(4, (), ()))


def test_queue_of_before_belongs_to_nobody():
    plain = build_ours(levels=levels())
    masked = build_ours(levels=levels(), mask_same_patient=True)
    state = {**plain.state_dict(), 'queue_patients': masked.key_queue.queue_patients}
    name = 'multi_level_head.losses.stage4_dense_info_nce.key_queue.queue_patients'
    assert set(masked.state_dict()) - set(state) == {name}
    masked.load_state_dict(state)
    assert not masked.state_dict()[name].any()
    (level,) = levels()
    level['loss']['mask_same_patient'] = False  # stated: stays
    stated = build_ours(levels=[level], mask_same_patient=True)
    assert name not in stated.state_dict()
