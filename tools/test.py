#!/usr/bin/env python
r"""Evaluate a checkpoint on the test set of a config.

A run that validates keeps the weights that validation found best as
best_*.pth in its work directory, beside the last ones: test those, never the
one of several that is best on the test set.

Example:
  python tools/test.py configs/segmentation/btcv/CONFIG.py \
      work_dirs/CONFIG/iter_40000.pth --out work_dirs/CONFIG/metrics.json
  python tools/test.py configs/classification/nih1000/CONFIG.py \
      work_dirs/CONFIG/best_*.pth
"""

from medssl_mm.arguments import add_config_options, tool_parser
from medssl_mm.errors import run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint of that config')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and results (default: work_dir of the config, '
        'or work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--out', metavar='FILE', help='write the metrics to this JSON file too'
    )
    parser.add_argument(
        '--allow-seen',
        action='store_true',
        help='score cases all the same that the network was trained on or chosen by; '
        'metrics.json says which',
    )
    add_config_options(parser, 'change settings, e.g. test_dataloader.batch_size=4')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='set by dist_test.sh',
    )
    return parser.parse_args()


def main():
    """Build the Runner and test."""
    args = parse_args()
    # Late: importing torch and mmengine takes seconds.
    import medssl_mm.registry  # noqa: F401
    from medssl_mm import compat
    from medssl_mm.engine import launch
    from medssl_mm.functional import distributed

    config = launch.load_config(args.config, args.cfg_options)
    runner = launch.make_runner(
        config,
        work_dir=args.work_dir,
        launcher=args.launcher,
        checkpoint=args.checkpoint,
        allow_seen=args.allow_seen,
    )
    metrics = runner.test()
    if args.out:
        seen = runner.seen_in_test  # in the metrics.json of the metric, too
        launch.write_metrics(args.out, dict(metrics, seen=seen) if seen else metrics)
    distributed.leave()
    del runner
    compat.end_distributed_process()


if __name__ == '__main__':
    run_tool(main)
