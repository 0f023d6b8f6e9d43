#!/usr/bin/env python
"""Time the two-view input pipeline against mmselfsup's stock MoCo v2 one.

Both start from a 512 x 512 source in memory and end in two packed 224 px
views, on one core: the stock pipeline from RGB bytes, ours from 16-bit
Hounsfield units, with the same kinds of steps (random resized crop with
flip, colour or intensity jitter with probability 0.8, blur with 0.5). Further
rows add the reading of a slice from a store, and time the pipeline that the
CT data configs use. The contenders take turns within each round; read the
ratios rather than the rates.
"""

import os
import statistics
import tempfile
import warnings
from pathlib import Path

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """example:
  python tools/benchmark/pipeline.py
  python tools/benchmark/pipeline.py --data-root data/btcv \\
      --output work_dirs/pipeline.json
"""
STOCK = 'mmselfsup::selfsup/_base_/datasets/imagenet_mocov2.py'
SHIPPED = (
    Path(__file__).resolve().parents[2]
    / 'configs/selfsup/_base_/datasets/ct_two_views.py'
)
SOURCE = 512  # pixels
VIEW = 224  # pixels


def parse_args():
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument(
        '--data-root', help='CT slice store to read from (a small one is made)'
    )
    parser.add_argument(
        '--config',
        default=str(SHIPPED),
        help='pretraining data config to time besides (%(default)s)',
    )
    parser.add_argument('--repeats', type=int, default=7, help='rounds (7)')
    parser.add_argument(
        '--seconds',
        type=float,
        default=0.5,
        help='time of one contender per round (0.5)',
    )
    parser.add_argument('--output', help='JSON file to write')
    args = parser.parse_args()
    if args.repeats < 1 or args.seconds <= 0:
        raise UserError('--repeats and --seconds must be above 0')
    return args


def make_store(folder):
    """Write a small CT-like store: smooth organs, noise, air around."""
    import cv2
    import numpy as np

    from medssl_mm.store import StoreWriter

    rng = np.random.default_rng(0)
    grid = np.linspace(-1, 1, SOURCE)
    body = (grid[:, None] / 0.7) ** 2 + (grid[None] / 0.9) ** 2 < 1
    volume = np.full((16, SOURCE, SOURCE), -1000, np.int16)
    for index in range(len(volume)):
        coarse = rng.normal(30, 60, (24, 24)).astype(np.float32)
        tissue = cv2.resize(coarse, (SOURCE, SOURCE), interpolation=cv2.INTER_CUBIC)
        noisy = tissue + rng.normal(0, 12, body.shape)
        volume[index][body] = noisy[body].astype(np.int16)
    writer = StoreWriter.create(folder, 'benchmark', 'CT', 'HU', ['background'])
    writer.add_case('case', volume)
    writer.finish()


def contenders(args, folder):
    """Name and function (number of the sample -> packed sample) of each."""
    import numpy as np
    from mmengine.dataset import Compose
    from mmengine.hub import get_config
    from mmengine.registry import DefaultScope

    from medssl_mm.datasets.sampler import EpochIndex, sample_rng
    from medssl_mm.datasets.slices import SliceDataset
    from medssl_mm.engine.launch import load_config

    root = args.data_root
    if root is None:
        root = os.path.join(folder, 'store')
        make_store(root)
    matched = [
        dict(type='medssl_mm.CTWindow', level=40, width=400),
        dict(
            type='medssl_mm.CropViews',
            crop=dict(type='medssl_mm.RandomCropView', size=VIEW),
            transforms=[
                dict(type='medssl_mm.IntensityJitter'),
                dict(type='medssl_mm.BlurJitter'),
            ],
        ),
        dict(type='medssl_mm.PackViews'),
    ]
    load = dict(type='medssl_mm.LoadSlice')
    shipped = load_config(args.config, dict(data_root=root, split=None))
    shipped = shipped.train_dataloader.dataset.pipeline
    reading = SliceDataset(root, pipeline=[load, *matched])
    configured = SliceDataset(root, pipeline=shipped)
    sources = SliceDataset(root, pipeline=[load])
    slices = []
    for n in range(min(8, len(sources))):
        image = sources[n]['img']
        slices.append(np.ascontiguousarray(np.resize(image, (SOURCE, SOURCE))))
    ours = Compose(matched)

    with DefaultScope.overwrite_default_scope('mmselfsup'):
        config = get_config(STOCK)
        stock = Compose(config.train_pipeline[1:])
    colour = [
        np.repeat(
            ((np.clip(image, -160, 240) + 160) * 0.6375).astype(np.uint8)[..., None],
            3,
            2,
        )
        for image in slices
    ]

    def run_stock(number):
        image = colour[number % len(colour)]
        return stock(
            dict(
                img=image,
                img_path='',
                img_shape=image.shape[:2],
                ori_shape=image.shape[:2],
            )
        )

    def run_ours(number):
        return ours(dict(img=slices[number % len(slices)], rng=sample_rng(number)))

    def run_dataset(dataset):
        return lambda number: dataset[
            EpochIndex(number % len(dataset), number // len(dataset))
        ]

    return {
        'mmselfsup, RGB in memory': run_stock,
        'ours, same steps, in memory': run_ours,
        'ours, same steps, from the store': run_dataset(reading),
        f'ours, {Path(args.config).stem}, from the store': run_dataset(configured),
    }


def main():
    args = parse_args()
    os.environ['OMP_NUM_THREADS'] = '1'
    import cv2
    import torch
    from rich.console import Console
    from rich.table import Table

    import medssl_mm.registry  # noqa: F401

    # mmselfsup asks mmcv for a Pillow option that its backend ignores.
    warnings.filterwarnings('ignore', message='Only use .alpha.')
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        functions = contenders(args, folder)
        for function in functions.values():
            for number in range(4):
                function(number)
        rates = benchmarking.rates_in_turns(functions, args.repeats, args.seconds)
    medians = {name: statistics.median(r) for name, r in rates.items()}
    base = next(iter(medians.values()))
    table = Table(title=f'two {VIEW} px views of a {SOURCE} px slice, 1 core')
    for column in ('pipeline', 'pairs per second', 'ratio'):
        table.add_column(column, justify='right')
    for name, rate in medians.items():
        table.add_row(name, f'{rate:.0f}', f'{rate / base:.1f}')
    Console().print(table)
    machine = benchmarking.machine()
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.output,
        dict(
            machine=machine,
            opencv=cv2.__version__,
            torch=torch.__version__,
            pairs_per_second=rates,
            median=medians,
            ratio={name: rate / base for name, rate in medians.items()},
        ),
    )


if __name__ == '__main__':
    run_tool(main)
