#!/usr/bin/env python
"""Measure CKA against six centred Gram matrices.

The reference forms the Gram matrices of all three kernel alignments anew and
centres each by matrix products, as widely used code does. Prints the median
times, the ratio and the difference of the values.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from medssl_mm.errors import UserError, run_tool

EXAMPLE = """\
example:
  python tools/benchmark/cka.py --samples 1000 --channels 256 2048
  python tools/benchmark/cka.py --device cuda --out work_dirs/cka.json
"""


def parse_args():
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--samples', type=int, default=1000, help='default: 1000'
    )
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
    parser.add_argument(
        '--device', default='cpu', help='cpu (default) or cuda'
    )
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


def timed(functions, args):
    """Medians in ms of functions that take turns, and their results."""
    import torch

    times = [[] for _ in functions]
    for repeat in range(args.repeats + 1):
        results = []
        for function, own in zip(functions, times):
            start = time.perf_counter()
            results.append(float(function()))
            if args.device != 'cpu':
                torch.cuda.synchronize()
            if repeat:
                own.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times], results


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

    medians, values = timed(
        [lambda: reference_cka(x, y, kernel, sigma), fast], args
    )
    return dict(
        kernel=kernel,
        samples=args.samples,
        channels=channels,
        reference_ms=medians[0],
        ours_ms=medians[1],
        ratio=medians[0] / medians[1],
        value=values[1],
        difference=abs(values[0] - values[1]),
    )


def print_table(rows):
    """Print the rows as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title='CKA, median ms')
    for name in rows[0]:
        table.add_column(name.replace('_', ' '), justify='right')
    for row in rows:
        table.add_row(
            *(
                f'{value:.3g}' if isinstance(value, float) else str(value)
                for value in row.values()
            )
        )
    Console().print(table)


def main():
    """Run the benchmark."""
    args = parse_args()
    import torch

    if args.device != 'cpu' and not torch.cuda.is_available():
        raise UserError(
            f'--device {args.device} was asked for, but torch sees no GPU; '
            'leave --device out.'
        )
    if args.threads:
        torch.set_num_threads(args.threads)
    with torch.no_grad():
        rows = [
            measure(args, channels, kernel)
            for kernel in args.kernels
            for channels in args.channels
        ]
    print_table(rows)
    if args.out:
        settings = {**vars(args), 'out': str(args.out)}
        machine = dict(
            torch=torch.__version__, threads=torch.get_num_threads()
        )
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(
            json.dumps(
                dict(settings=settings, machine=machine, rows=rows), indent=2
            )
        )


if __name__ == '__main__':
    run_tool(main)
