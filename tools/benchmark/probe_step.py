#!/usr/bin/env python
"""Time what an online probe adds to a training step of a pretraining config.

The step is that of the config's algorithm and optimizer on fixed random views;
the probe's is a pass of its encoder in evaluation mode and a step of the linear
classifier, at several batch sizes. No input pipeline. Steps take turns, so that
whatever else the machine does hits all of them alike.
"""

import statistics

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/probe_step.py \\
      configs/selfsup/intermediate/moco_resnet18_1xb64-coslr-100e_nih1000-64.py \\
      --size 64 --batch 64 --probe-batches 16 24 64
"""


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('--size', type=int, default=64, help='image side, px (64)')
    parser.add_argument('--batch', type=int, default=64, help='images per step (64)')
    parser.add_argument(
        '--probe-batches',
        type=int,
        nargs='+',
        default=[16, 24, 32, 64],
        help='images of a step of the probe (16 24 32 64)',
    )
    parser.add_argument('--classes', type=int, default=2, help='of the probe (2)')
    parser.add_argument('--amp', choices=['bfloat16', 'float16'])
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--threads', type=int, help='CPU threads (torch: all)')
    parser.add_argument('--steps', type=int, default=20, help='measured rounds (20)')
    parser.add_argument('--output', help='JSON file to write')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='settings'
    )
    return parser.parse_args()


def main():
    """Measure and print."""
    args = parse_args()
    if min(args.size, args.steps, args.batch - 1, *args.probe_batches) < 1:
        raise UserError('--size, --steps, --probe-batches must be >= 1, --batch >= 2')
    benchmarking.use_device(args.device, args.threads)
    names = ['pretraining', *args.probe_batches]
    times = benchmarking.times_in_turns(
        dict(zip(names, build_steps(args))),
        args.steps,
        burst=1 if args.device == 'cpu' else 10,
        warm_up=3,
        device=args.device,
    )
    rows = [
        dict(
            probe_batch=name,
            milliseconds=1e3 * statistics.median(times[name]),
            of_a_pretraining_step=benchmarking.median_ratio(
                times[name], times['pretraining']
            ),
        )
        for name in names
    ]
    benchmarking.print_rows(f'{args.config}, batch {args.batch}', rows)
    machine = benchmarking.machine(args.device)
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.output, dict(settings=vars(args), environment=machine, results=rows)
    )


def build_steps(args):
    """Return a step of the pretraining, and one of the probe per batch size."""
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    from medssl_mm.backbones import backbone_of
    from medssl_mm.engine import launch
    from medssl_mm.engine.hooks.linear_classifier import LinearClassifier
    from medssl_mm.engine.observing import (
        evaluated_backbone,
        own_randomness,
        pooled_features,
    )
    from medssl_mm.functional.features import evaluation_mode
    from medssl_mm.registry import MODELS

    torch.backends.cudnn.benchmark = True
    config = launch.load_config(args.config, args.cfg_options)
    if args.amp:
        config.optim_wrapper.pop('loss_scale', None)
        config.optim_wrapper.update(
            type='medssl_mm.AutocastOptimWrapper', dtype=args.amp
        )
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(config.model).to(args.device).train()
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    backbone = backbone_of(evaluated_backbone(model))
    shape = (backbone.in_channels, args.size, args.size)
    views = [torch.rand(args.batch, *shape, device=args.device) for _ in range(2)]
    classifier = LinearClassifier(
        backbone.channels[backbone.last],
        args.classes,
        multi_label=False,
        weights=None,
        dropout=0.2,
        lr=1e-4,
        weight_decay=1e-4,
        max_grad_norm=1.0,
        seed=0,
        device=torch.device(args.device),
    )

    def pretrain():
        model.train_step(dict(inputs=views, data_samples=[]), wrapper)

    def probe(images, targets):
        with own_randomness():
            with evaluation_mode(backbone.network), wrapper.optim_context(model):
                features = pooled_features(model, backbone, images)
            classifier.learn(features, targets)

    yield pretrain
    for number in args.probe_batches:
        images = torch.rand(number, *shape, device=args.device)
        rows = torch.arange(number, device=args.device) % args.classes
        targets = torch.nn.functional.one_hot(rows, args.classes)
        yield lambda images=images, targets=targets: probe(images, targets)


if __name__ == '__main__':
    run_tool(main)
