#!/usr/bin/env python
"""Measure whitening of a feature map, forward and backward.

For each number of channels, group size and method: the median time of
whiten() and its gradient, the same without the matrix inverse root (what the
moments and the transform cost alone), and how far the result is from white.
With --step-ms, the time of a training step, also the share of that step.
"""

import statistics
from pathlib import Path

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """\
example:
  python tools/benchmark/whitening.py --channels 512 --repeats 3
  python tools/benchmark/whitening.py --device cuda --channels 2048 \\
      --group-sizes 64 256 2048 --step-ms 120 --out whitening.json
"""

METHODS = ('zca', 'newton_schulz', 'cholesky', 'iternorm')


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument(
        '--channels',
        type=int,
        nargs='+',
        default=[64, 256, 512, 2048],
        help='channels of the map (default: 64 256 512 2048)',
    )
    parser.add_argument(
        '--group-sizes',
        type=int,
        nargs='+',
        default=[64, 256, 2048],
        help='channels per group; those that do not divide the channels are '
        'left out (default: 64 256 2048)',
    )
    parser.add_argument(
        '--methods',
        nargs='+',
        default=list(METHODS),
        choices=METHODS,
        help='default: all',
    )
    parser.add_argument(
        '--batch-size', type=int, default=64, help='images (default: 64)'
    )
    parser.add_argument(
        '--map-size',
        type=int,
        default=7,
        help='height and width; 7 is the last stage of a ResNet at 224 '
        'pixels (default: 7)',
    )
    parser.add_argument(
        '--slope',
        type=float,
        default=1.0,
        help='the eigenvalues fall as i^-slope (default: 1)',
    )
    parser.add_argument('--eps', type=float, default=1e-3, help='relative ridge (1e-3)')
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument(
        '--threads', type=int, help='CPU threads (default: as torch has them)'
    )
    parser.add_argument(
        '--repeats', type=int, default=5, help='timed runs (default: 5)'
    )
    parser.add_argument(
        '--step-ms',
        type=float,
        help='time of one training step, ms, to give shares of it',
    )
    parser.add_argument('--out', type=Path, help='JSON file of the result')
    return parser.parse_args()


def make_map(args, channels):
    """Draw a map whose covariance has a power-law spectrum."""
    import torch

    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, channels + 1).float() ** (-args.slope / 2)
    basis = torch.randn(channels, channels, generator=generator)
    basis = torch.linalg.qr(basis)[0] * scale
    shape = (args.batch_size, args.map_size, args.map_size, channels)
    x = torch.randn(shape, generator=generator) @ basis.T
    return x.permute(0, 3, 1, 2).contiguous().to(args.device)


def median_ms(run, args):
    """Median time of a call, ms, after one to warm up."""
    times = benchmarking.times_in_turns(dict(run=run), args.repeats, device=args.device)
    return 1e3 * statistics.median(times['run'])


def measure(args, channels, group_size, methods):
    """Measure one shape.

    Yields:
        dict: One row for each method.
    """
    import torch

    from medssl_mm.functional import whitening

    x = make_map(args, channels).requires_grad_()
    groups = channels // group_size
    grad = torch.randn_like(x)

    def without_root():
        mean, covariance = whitening.moments(x, groups)
        whitening.apply_whitening(x, mean, covariance).backward(grad)

    base = median_ms(without_root, args)
    mean, covariance = whitening.moments(x.detach(), groups)
    for method in methods:

        def forward(method=method):
            return whitening.whiten(x, method, groups, args.eps)

        with torch.no_grad():
            inference = median_ms(forward, args)
        total = median_ms(lambda: forward().backward(grad), args)
        matrix = whitening.whitening_matrix(covariance, method, args.eps)
        residual = whitening.whitening_residual(covariance, matrix, args.eps)
        row = dict(
            channels=channels,
            group_size=group_size,
            method=method,
            forward_ms=inference,
            forward_backward_ms=total,
            without_root_ms=base,
            residual=float(residual.max()),
        )
        if args.step_ms:
            row['share_of_step'] = total / args.step_ms
        yield row


def main():
    """Run the benchmark."""
    args = parse_args()
    benchmarking.use_device(args.device, args.threads)
    shapes = [
        (channels, size)
        for channels in args.channels
        for size in args.group_sizes
        if channels % size == 0
    ]
    if not shapes:
        raise UserError(
            f'none of --group-sizes {args.group_sizes} divides any of '
            f'--channels {args.channels}.'
        )
    rows = []
    for channels, size in shapes:
        rows.extend(measure(args, channels, size, args.methods))
    benchmarking.print_rows('whitening, median ms', rows)
    machine = benchmarking.machine(args.device)
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.out, dict(settings=vars(args), machine=machine, rows=rows)
    )


if __name__ == '__main__':
    run_tool(main)
