"""Small models for the tests of the algorithms."""

import copy

import torch
from mmengine.registry import DefaultScope
from torch import nn

from medssl_mm.registry import MODELS

QUEUE, DIM, DECAY, TEMPERATURE = 32, 16, 0.9, 0.2
# Batch statistics, ReLU and max-pool turn float32's rounding into differences
# of any size: see tests/numerics.py.
DTYPE = torch.float64
DEEPLAB = dict(
    type='mmseg.DepthwiseSeparableASPPHead',
    in_index=3,
    channels=8,
    dilations=(1, 2),
    c1_channels=4,
    norm_cfg=dict(type='BN'),
    align_corners=False,
)


@MODELS.register_module(force=True)
class ToyMapDistance(nn.Module):
    """Mean squared distance of the maps."""

    def forward(self, query, key, context):
        return (query - key).square().mean()


@MODELS.register_module(force=True)
class ToyProjector(nn.Module):
    """One linear layer at every position."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, 8, 1)

    def forward(self, level, view, context):
        return self.layer(level)


def backbone(**changes):
    return dict(
        type='mmselfsup.ResNet',
        depth=18,
        in_channels=1,
        base_channels=8,
        stem_channels=8,
        norm_cfg=dict(type='BN'),
        **changes,
    )


def neck():
    return dict(
        type='mmselfsup.MoCoV2Neck', in_channels=64, hid_channels=32, out_channels=DIM
    )


def build_ours(seed=0, levels=(), dtype=DTYPE, **changes):
    torch.manual_seed(seed)
    settings = dict(
        type='medssl_mm.MultiLevelMoCo',
        backbone=backbone(),
        neck=neck(),
        head=dict(type='medssl_mm.InfoNCELoss', temperature=TEMPERATURE),
        queue_len=QUEUE,
        feat_dim=DIM,
        ema_decay=DECAY,
    )
    if levels:
        settings['multi_level_head'] = dict(
            type='medssl_mm.MultiLevelHead', levels=list(levels)
        )
    return MODELS.build(copy.deepcopy({**settings, **changes})).to(dtype).train()


def build_host(seed=0, **changes):
    torch.manual_seed(seed)
    settings = dict(
        type='mmselfsup.MoCo',
        backbone=backbone(),
        neck=neck(),
        head=dict(
            type='mmselfsup.ContrastiveHead',
            loss=dict(type='mmcls.CrossEntropyLoss'),
            temperature=TEMPERATURE,
        ),
        queue_len=QUEUE,
        feat_dim=DIM,
        momentum=DECAY,
    )
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build({**settings, **changes})
    return model.to(DTYPE)


def projector(in_channels=64, pools=True, **changes):
    """The host's neck of SimCLR and BYOL; ``changes`` as of InnerEye."""
    return dict(
        type='mmselfsup.NonLinearNeck',
        in_channels=in_channels,
        hid_channels=32,
        out_channels=DIM,
        with_avg_pool=pools,
        with_last_bn=False,
        norm_cfg=dict(type='BN1d'),
        **changes,
    )


def linear_neck(in_channels=64, pools=True):
    """Without batch statistics."""
    return dict(
        type='mmselfsup.MoCoV2Neck',
        in_channels=in_channels,
        hid_channels=32,
        out_channels=DIM,
        with_avg_pool=pools,
    )


def predictor_head(loss, predictor=None):
    return dict(
        type='mmselfsup.LatentPredictHead',
        loss=loss,
        predictor=predictor or projector(DIM, pools=False, with_last_bias=True),
    )


# By method: settings of ours and of the host.
METHODS = {
    'SimCLR': (
        dict(
            neck=projector(with_bias=True),
            head=dict(type='medssl_mm.NTXentLoss', temperature=TEMPERATURE),
        ),
        dict(
            neck=projector(with_bias=True),
            head=dict(
                type='mmselfsup.ContrastiveHead',
                loss=dict(type='mmcls.CrossEntropyLoss'),
                temperature=TEMPERATURE,
            ),
        ),
    ),
    'BYOL': (
        dict(
            neck=projector(with_last_bias=True),
            head=predictor_head(dict(type='medssl_mm.LatentPredictionLoss')),
            ema_decay=DECAY,
        ),
        dict(
            neck=projector(with_last_bias=True),
            head=predictor_head(dict(type='mmselfsup.CosineSimilarityLoss')),
            base_momentum=DECAY,
        ),
    ),
}


def build_method(method, seed=0, levels=(), dtype=DTYPE, **changes):
    """Our SimCLR or BYOL."""
    torch.manual_seed(seed)
    settings = dict(
        type=f'medssl_mm.MultiLevel{method}', backbone=backbone(), **METHODS[method][0]
    )
    if levels:
        settings['multi_level_head'] = dict(
            type='medssl_mm.MultiLevelHead', levels=list(levels)
        )
    return MODELS.build(copy.deepcopy({**settings, **changes})).to(dtype).train()


def build_host_method(method, seed=1, **changes):
    """The host's SimCLR or BYOL."""
    torch.manual_seed(seed)
    settings = dict(
        type=f'mmselfsup.{method}', backbone=backbone(), **METHODS[method][1]
    )
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build(copy.deepcopy({**settings, **changes}))
    return model.to(DTYPE).train()


def batches(steps=3, batch=8, size=64, seed=7, dtype=DTYPE):
    """Return pairs of views, each pair of one batch."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images = torch.rand(batch, 1, size, size, generator=generator)
        noise = torch.rand(2, batch, 1, size, size, generator=generator)
        yield [(images + 0.3 * part).to(dtype) for part in noise]


def train(model, data, optimizer=None, after_step=None):
    """Train; return the logs and the gradients of each step."""
    optimizer = optimizer or torch.optim.SGD(
        model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4
    )
    history = []
    for views in data:
        logs = model(views, [], mode='loss')
        total = sum(value for name, value in logs.items() if 'loss' in name)
        optimizer.zero_grad()
        total.backward()
        grads = {
            name.removeprefix('module.'): parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        optimizer.step()
        if after_step is not None:
            after_step(len(history))
        history.append(({name: value.detach() for name, value in logs.items()}, grads))
    return history
