"""Time one pretraining step of this package and of others.

Compares medssl_mm.MultiLevelMoCo with mmselfsup's MoCo and with a step made
of lightly's building blocks: same ResNet, batch, image size, queue, projector
and optimizer, random grey images, no input pipeline; with --method simclr or
byol, that method of this package with mmselfsup's. Further contenders tell
what the parts of a method add to the own step: medssl_mm+decorr, +local and
+local-decorr (with the settings of the shipped configs; local contrast has
the last stage at stride 16), and on all four stages +mse (maps averaged over
a grid) and +btwins (Barlow Twins with a three-layer projector per stage). The
contenders take turns within each round, so that whatever else the machine
does hits all of them alike; read the ratios rather than the milliseconds.
"""

import copy
import os
import statistics
from pathlib import Path
from types import SimpleNamespace

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/train_step.py --arch resnet18 --size 96 --batch 16
  python tools/benchmark/train_step.py --arch resnet18 --size 64 --batch 64 \\
      --queue 256 --projector 512 --variants float32-channels_last bfloat16 \\
      --packages medssl_mm medssl_mm+mse medssl_mm+btwins
  python tools/benchmark/train_step.py --arch resnet50 --size 224 --batch 64 \\
      --variants bfloat16 --packages medssl_mm medssl_mm+decorr
  python tools/benchmark/train_step.py --device cuda --arch resnet50 \\
      --size 224 --batch 64 --queue 65536 --output work_dirs/train_step.json
  python tools/benchmark/train_step.py --method byol --size 64 --batch 64
"""
WIDTH = dict(resnet18=512, resnet50=2048)
EMBEDDING = 128
TEMPERATURE = 0.2
DECAY = 0.999
# variant: (autocast dtype or None, channels innermost)
VARIANTS = {
    'float32': (None, False),
    'float32-channels_last': (None, True),
    'bfloat16': ('bfloat16', True),
    'float16': ('float16', True),
}
# Names, and the loss of ours and of the host.
METHODS = {
    'simclr': SimpleNamespace(
        name='SimCLR',
        ours=dict(type='medssl_mm.NTXentLoss'),
        host=dict(
            type='mmselfsup.ContrastiveHead', loss=dict(type='mmcls.CrossEntropyLoss')
        ),
    ),
    'byol': SimpleNamespace(
        name='BYOL',
        ours=dict(type='medssl_mm.LatentPredictionLoss'),
        host=dict(type='mmselfsup.CosineSimilarityLoss'),
    ),
}
BASELINE = ('mmselfsup', 'float32')
STAGES = (1, 2, 3, 4)
LEVELS = Path(__file__).parents[2] / 'configs/selfsup/_base_/levels'


def parse_args():
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument('--method', choices=('moco', *METHODS), default='moco')
    parser.add_argument('--arch', choices=WIDTH, default='resnet18')
    parser.add_argument(
        '--size', type=int, default=96, help='image side in pixels (96)'
    )
    parser.add_argument('--batch', type=int, default=16, help='images per step (16)')
    parser.add_argument(
        '--queue', type=int, default=65536, help='number of keys (65536)'
    )
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--steps', type=int, default=10, help='measured rounds (10)')
    parser.add_argument(
        '--burst',
        type=int,
        help='steps of one contender per round (1 on the CPU, 10 on a GPU)',
    )
    parser.add_argument(
        '--threads', type=int, help='CPU threads (all that torch finds)'
    )
    parser.add_argument(
        '--variants',
        nargs='+',
        choices=VARIANTS,
        help='arithmetic to compare (all that the device has)',
    )
    parser.add_argument(
        '--packages',
        nargs='+',
        choices=BUILDERS,
        help='contenders (medssl_mm mmselfsup lightly; the first two of other '
        'methods than moco)',
    )
    parser.add_argument(
        '--projector',
        type=int,
        default=2048,
        help='width of the projectors of medssl_mm+btwins (2048)',
    )
    parser.add_argument('--output', help='JSON file to write')
    return parser.parse_args()


def main():
    args = parse_args()
    known = BUILDERS if args.method == 'moco' else TWO_PACKAGES
    args.packages = args.packages or [
        name for name in ('medssl_mm', 'mmselfsup', 'lightly') if name in known
    ]
    absent = [name for name in args.packages if name not in known]
    if absent:
        raise UserError(
            f'--packages {absent[0]} is there for --method moco only; for '
            f'{args.method} choose among {", ".join(known)}'
        )
    if args.method == 'moco' and args.queue % args.batch:
        raise UserError(
            f'--queue {args.queue} is not a multiple of --batch {args.batch}'
        )
    if args.output and os.path.exists(args.output):
        raise UserError(f'{args.output} exists; remove it or choose another --output')
    if min(args.size, args.steps, args.batch - 1) < 1:
        raise UserError('--size and --steps must be >= 1, --batch >= 2')
    benchmarking.use_device(args.device, args.threads)
    import torch

    # As a run of tools/train.py has it.
    torch.backends.cudnn.benchmark = True
    variants = args.variants or [
        name for name in VARIANTS if name != 'float16' or args.device == 'cuda'
    ]
    times = measure(args, variants)
    rows = summarise(times)
    report = dict(
        settings=vars(args), environment=benchmarking.machine(args.device), results=rows
    )
    print_table(report)
    benchmarking.print_machine(report['environment'])
    benchmarking.write_report(args.output, report)


def measure(args, variants):
    """Return the seconds per step, {(package, variant): [one per round]}."""
    import torch

    steps = {}
    for variant in variants:
        dtype, channels_last = VARIANTS[variant]
        for package in args.packages:
            torch.manual_seed(0)
            builders = BUILDERS if args.method == 'moco' else TWO_PACKAGES
            model, loss = builders[package](args, channels_last)
            steps[package, variant] = make_step(args, model, loss, dtype, channels_last)
    burst = args.burst or (10 if args.device == 'cuda' else 1)
    return benchmarking.times_in_turns(
        steps, args.steps, burst, warm_up=3, device=args.device
    )


def make_step(args, model, loss, dtype, channels_last):
    """Return a function that does one training step on fixed images."""
    import torch

    views = [
        torch.rand(args.batch, 1, args.size, args.size, device=args.device)
        for _ in range(2)
    ]
    if channels_last:
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad],
        lr=0.03,
        momentum=0.9,
        weight_decay=1e-4,
        fused=True,
    )
    half = dtype == 'float16'
    scaler = torch.amp.GradScaler(args.device, enabled=half)

    def step():
        with torch.autocast(
            args.device,
            dtype=getattr(torch, dtype or 'bfloat16'),
            enabled=dtype is not None,
        ):
            value = loss(views)
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        if hasattr(model, 'update_target'):
            model.update_target(0.0)

    return step


def build_ours(args, channels_last, levels=(), backbone=None, decorrelation=None):
    from medssl_mm.registry import MODELS

    parts = host_parts(args)
    if backbone:  # a DilatedResNet of the host's
        parts['backbone'].update(backbone, network=parts['backbone']['type'])
    samples = view_samples(args)
    model = MODELS.build(
        dict(
            type='medssl_mm.MultiLevelMoCo',
            **parts,
            decorrelation=decorrelation,
            head=dict(type='medssl_mm.InfoNCELoss', temperature=TEMPERATURE),
            ema_decay=DECAY,
            multi_level_head=dict(type='medssl_mm.MultiLevelHead', levels=list(levels)),
            channels_last=channels_last,
        )
    ).to(args.device)

    def loss(views):
        logs = model(views, samples, mode='loss')
        return sum(value for name, value in logs.items() if 'loss' in name)

    return model, loss


def build_method(args, channels_last):
    """SimCLR or BYOL of this package."""
    from medssl_mm.registry import MODELS

    loss = METHODS[args.method]
    model = MODELS.build(
        dict(
            type=f'medssl_mm.MultiLevel{loss.name}',
            **method_parts(args, loss.ours),
            channels_last=channels_last,
        )
    ).to(args.device)

    def total(views):
        logs = model(views, [], mode='loss')
        return sum(value for name, value in logs.items() if 'loss' in name)

    return model, total


def build_method_of_mmselfsup(args, channels_last):
    """SimCLR or BYOL of mmselfsup."""
    import torch
    from mmengine.logging import MessageHub
    from mmengine.registry import DefaultScope

    from medssl_mm.registry import MODELS

    loss = METHODS[args.method]
    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build(
            dict(type=f'mmselfsup.{loss.name}', **method_parts(args, loss.host))
        ).to(args.device)
    # Its target asks how long the run is.
    MessageHub.get_current_instance().update_info('max_iters', 10**6)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, lambda views: model(views, [], mode='loss')['loss']


def method_parts(args, loss):
    """Backbone, projector and head that both packages build."""
    parts = host_parts(args)
    width = WIDTH[args.arch]

    def projector(in_channels, hid_channels, pools):
        return dict(
            type='mmselfsup.NonLinearNeck',
            in_channels=in_channels,
            hid_channels=hid_channels,
            out_channels=EMBEDDING,
            with_avg_pool=pools,
            with_last_bn=False,
            norm_cfg=dict(type='BN1d'),
        )

    head = loss
    if args.method == 'byol':
        head = dict(
            type='mmselfsup.LatentPredictHead',
            loss=loss,
            predictor=projector(EMBEDDING, EMBEDDING, False),
        )
    return dict(
        backbone=parts['backbone'], neck=projector(width, width, True), head=head
    )


def view_samples(args):
    """Where the two views of every image lie, as a pipeline tells it."""
    import numpy as np
    from mmengine.structures import BaseDataElement

    from medssl_mm.datasets.transforms import RandomCropView

    crop = RandomCropView(args.size)
    rng = np.random.default_rng(0)
    shape = (2 * args.size, 2 * args.size)
    return [
        BaseDataElement(
            metainfo=dict(view_geometry=[crop.sample(shape, rng) for _ in range(2)])
        )
        for _ in range(args.batch)
    ]


def shipped(name, args):
    """Read a part of the pretraining configs."""
    from mmengine.config import Config

    from medssl_mm.engine.completion import MapChannels, fill_stage_channels

    path = LEVELS / f'{name}_{args.arch}.py'
    parts = Config.fromfile(path if path.exists() else LEVELS / f'{name}.py').to_dict()
    depth = int(args.arch.removeprefix('resnet'))
    backbone = dict(type='mmselfsup.ResNet', depth=depth)
    fill_stage_channels(MapChannels(backbone, 'mmselfsup'), parts)
    return parts


def build_with_decorrelation(args, channels_last):
    return build_ours(
        args,
        channels_last,
        decorrelation=shipped('decorrelation', args)['decorrelation'],
    )


def build_with_local(args, channels_last, decorrelation=None):
    parts = shipped('local_contrast', args)
    return build_ours(
        args,
        channels_last,
        parts['local_levels'],
        parts['local_backbone'],
        decorrelation,
    )


def build_with_both(args, channels_last):
    return build_with_local(
        args, channels_last, shipped('decorrelation', args)['decorrelation']
    )


def build_with_mse(args, channels_last):
    return build_ours(
        args,
        channels_last,
        [
            dict(stage=stage, loss=dict(type='medssl_mm.FeatureMSELoss'), weight=0.25)
            for stage in STAGES
        ],
    )


def build_with_btwins(args, channels_last):
    return build_ours(
        args,
        channels_last,
        [
            dict(
                stage=stage,
                neck=dict(
                    type='medssl_mm.BarlowTwinsNeck',
                    in_channels=WIDTH[args.arch] >> (STAGES[-1] - stage),
                    hid_channels=args.projector,
                    out_channels=args.projector,
                ),
                key_neck='shared',
                loss=dict(type='medssl_mm.BarlowTwinsLoss'),
                weight=1e-3,
            )
            for stage in STAGES
        ],
    )


def build_mmselfsup(args, channels_last):
    import torch
    from mmengine.registry import DefaultScope

    from medssl_mm.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmselfsup'):
        model = MODELS.build(
            dict(
                type='mmselfsup.MoCo',
                **host_parts(args),
                head=dict(
                    type='mmselfsup.ContrastiveHead',
                    loss=dict(type='mmcls.CrossEntropyLoss'),
                    temperature=TEMPERATURE,
                ),
                momentum=DECAY,
            )
        ).to(args.device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model, lambda views: model(views, [], mode='loss')['loss']


def host_parts(args):
    width = WIDTH[args.arch]
    return dict(
        backbone=dict(
            type='mmselfsup.ResNet',
            depth=int(args.arch.removeprefix('resnet')),
            in_channels=1,
            norm_cfg=dict(type='BN'),
        ),
        neck=dict(
            type='mmselfsup.MoCoV2Neck',
            in_channels=width,
            hid_channels=width,
            out_channels=EMBEDDING,
        ),
        queue_len=args.queue,
        feat_dim=EMBEDDING,
    )


def build_lightly(args, channels_last):
    import torch
    import torchvision
    from lightly.loss import NTXentLoss
    from lightly.models.modules import MoCoProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from torch import nn

    width = WIDTH[args.arch]
    backbone = getattr(torchvision.models, args.arch)()
    backbone.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    backbone.fc = nn.Identity()
    model = nn.Sequential(backbone, MoCoProjectionHead(width, width, EMBEDDING))
    model = model.to(args.device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    follower = copy.deepcopy(model)
    deactivate_requires_grad(follower)
    criterion = NTXentLoss(
        temperature=TEMPERATURE, memory_bank_size=(args.queue, EMBEDDING)
    )
    criterion = criterion.to(args.device)

    def loss(views):
        update_momentum(model, follower, DECAY)
        query = model(views[0])
        with torch.no_grad():
            key = follower(views[1])
        return criterion(query, key)

    return model, loss


BUILDERS = {
    'medssl_mm': build_ours,
    'mmselfsup': build_mmselfsup,
    'lightly': build_lightly,
    'medssl_mm+decorr': build_with_decorrelation,
    'medssl_mm+local': build_with_local,
    'medssl_mm+local-decorr': build_with_both,
    'medssl_mm+mse': build_with_mse,
    'medssl_mm+btwins': build_with_btwins,
}


TWO_PACKAGES = {'medssl_mm': build_method, 'mmselfsup': build_method_of_mmselfsup}


def summarise(times):
    """Return one row per contender: median time and speed ratios."""
    rows = []
    for (package, variant), seconds in times.items():
        row = dict(
            package=package,
            variant=variant,
            milliseconds=1e3 * statistics.median(seconds),
            milliseconds_quartiles=[1e3 * q for q in statistics.quantiles(seconds, n=4)]
            if len(seconds) > 1
            else None,
        )
        for name, other in (
            ('stock', BASELINE),
            ('same', ('mmselfsup', variant)),
            ('lightly', ('lightly', variant)),
        ):
            row[f'times_faster_than_{name}'] = (
                benchmarking.median_ratio(times[other], seconds)
                if other in times
                else None
            )
        plain = times.get(('medssl_mm', variant))
        if package.startswith('medssl_mm+') and plain:
            row['added_to_medssl_mm'] = benchmarking.median_ratio(seconds, plain) - 1
        rows.append(row)
    return rows


def print_table(report):
    from rich.console import Console
    from rich.table import Table

    settings = report['settings']
    table = Table(
        title=(
            '{method} step, {arch}, {size} px, batch {batch}'
            + ', queue {queue}' * (settings['method'] == 'moco')
        ).format(**settings),
        caption=f'medians of {settings["steps"]} rounds',
    )
    rows = report['results']
    # Contenders that were not asked for leave no empty column.
    ratios = {
        column: (key, form)
        for column, key, form in (
            ('x mmselfsup float32', 'times_faster_than_stock', '.2f'),
            ('x mmselfsup', 'times_faster_than_same', '.2f'),
            ('x lightly', 'times_faster_than_lightly', '.2f'),
            ('added to medssl_mm', 'added_to_medssl_mm', '+.1%'),
        )
        if any(row.get(key) is not None for row in rows)
    }
    for column in ('package', 'arithmetic'):
        table.add_column(column)
    for column in ('ms / step', *ratios):
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(
            row['package'],
            row['variant'],
            f'{row["milliseconds"]:.1f}',
            *(
                '' if row.get(key) is None else format(row[key], form)
                for key, form in ratios.values()
            ),
        )
    Console().print(table)


if __name__ == '__main__':
    run_tool(main)
