#!/usr/bin/env python
"""Measure CKA against six centred Gram matrices.

The reference forms the Gram matrices of all three kernel alignments anew and
centres each by matrix products, as widely used code does. Prints the median
times, the ratio and the difference of the values.
"""

import statistics
from pathlib import Path

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import run_tool

EXAMPLE = """\
example:
  python tools/benchmark/cka.py --samples 1000 --channels 256 2048
  python tools/benchmark/cka.py --device cuda --out work_dirs/cka.json
"""


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument('--samples', type=int, default=1000, help='default: 1000')
    parser.add_argument(
        '--channels',
        type=int,
        nargs='+',
        default=[256, 512, 1024, 2048],
        help='channels of both models (default: 256 512 1024 2048)',
    )
    parser.add_argument(
        '--kernels',
        nargs='+',
        default=['linear', 'rbf'],
        choices=['linear', 'rbf'],
        help='default: both',
    )
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument(
        '--threads', type=int, help='CPU threads (default: as torch has them)'
    )
    parser.add_argument(
        '--repeats', type=int, default=5, help='timed runs (default: 5)'
    )
    parser.add_argument('--out', type=Path, help='JSON file of the result')
    return parser.parse_args()


def gram(x, kernel, sigma):
    """Kernel matrix of all samples."""
    import torch

    product = x @ x.T
    if kernel == 'linear':
        return product
    lengths = product.diagonal()
    squared = lengths[:, None] + lengths[None] - 2 * product
    return torch.exp(-squared.clamp_min(0) / (2 * sigma**2))


def reference_cka(x, y, kernel, sigma):
    """Six Gram matrices, each centred by two products."""
    import torch

    samples = len(x)
    centring = torch.eye(samples, device=x.device) - 1 / samples

    def hsic(a, b):
        left = centring @ gram(a, kernel, sigma) @ centring
        right = centring @ gram(b, kernel, sigma) @ centring
        return (left * right).sum()

    return hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()


def measure(args, channels, kernel):
    """Measure one shape and return its row."""
    import torch

    from medssl_mm.functional.cka import linear_cka, rbf_cka

    generator = torch.Generator().manual_seed(0)
    common = torch.randn(args.samples, 64, generator=generator)
    x, y = (
        common @ torch.randn(64, channels, generator=generator)
        + torch.randn(args.samples, channels, generator=generator)
        for _ in range(2)
    )
    x, y = x.to(args.device), y.to(args.device)
    sigma = float(channels) ** 0.5 * 8  # about the distance of two samples

    def fast():
        if kernel == 'linear':
            return linear_cka(x, y)
        return rbf_cka(x, y, sigma, relative=False)

    def reference():
        return reference_cka(x, y, kernel, sigma)

    # The numbers are fetched within the time: that ends a computation.
    times = benchmarking.times_in_turns(
        dict(reference=lambda: float(reference()), ours=lambda: float(fast())),
        args.repeats,
        device=args.device,
    )
    medians = {
        name: 1e3 * statistics.median(seconds) for name, seconds in times.items()
    }
    value = float(fast())
    return dict(
        kernel=kernel,
        samples=args.samples,
        channels=channels,
        reference_ms=medians['reference'],
        ours_ms=medians['ours'],
        ratio=medians['reference'] / medians['ours'],
        value=value,
        difference=abs(float(reference()) - value),
    )


def main():
    """Run the benchmark."""
    args = parse_args()
    import torch

    benchmarking.use_device(args.device, args.threads)
    with torch.no_grad():
        rows = [
            measure(args, channels, kernel)
            for kernel in args.kernels
            for channels in args.channels
        ]
    benchmarking.print_rows('CKA, median ms', rows)
    machine = benchmarking.machine(args.device)
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.out, dict(settings=vars(args), machine=machine, rows=rows)
    )


if __name__ == '__main__':
    run_tool(main)
