#!/usr/bin/env python
"""Train what a config describes: pretraining, segmentation, classification.

Ctrl-C, SIGTERM and SIGUSR1 end the run after its iteration (in a validation: after
that), on all processes: a checkpoint is written from which --resume goes on bit for
bit, the command for it is printed, and the exit code is 75 (also before the first
iteration, where nothing is lost). A second signal ends the run at once.

Example:
  python tools/train.py configs/selfsup/mocov2/CONFIG.py --amp --resume
  bash tools/dist_train.sh configs/selfsup/mocov2/CONFIG.py 2 --seed 1
"""

import sys

from medssl_mm.arguments import add_config_options, tool_parser
from medssl_mm.errors import nothing_to_save, run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='folder of logs and checkpoints (default: work_dir of the '
        'config, or work_dirs/<name of the config>)',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue from PATH; without PATH, or with "auto", from the '
        'newest intact checkpoint of the work directory, if there is one',
    )
    parser.add_argument(
        '--amp',
        nargs='?',
        const='bfloat16',
        choices=['bfloat16', 'float16'],
        help='mixed precision; bfloat16 (default) also works on CPUs',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the global batch size',
    )
    parser.add_argument(
        '--allow-seen',
        action='store_true',
        help='go on where the weights have seen cases of validation or test',
    )
    parser.add_argument('--seed', type=int, help='random seed')
    add_config_options(
        parser,
        'change settings, e.g. train_cfg.max_epochs=2 train_dataloader.batch_size=16',
    )
    parser.add_argument(
        '--tracker',
        nargs='+',
        default=[],
        choices=['tensorboard', 'mlflow', 'wandb'],
        help='write the figures there, too; where it is, their own environment '
        'variables say: MLFLOW_TRACKING_URI, WANDB_MODE=offline, ...',
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm'],
        default='none',
        help='set by dist_train.sh and slurm_train.sh',
    )
    return parser.parse_args()


def main():
    """Build the Runner and train."""
    args = parse_args()
    with nothing_to_save():
        # Late: importing torch and mmengine takes seconds.
        import medssl_mm.registry  # noqa: F401
        from medssl_mm import compat
        from medssl_mm.engine import launch, preemption
        from medssl_mm.functional import distributed

        config = launch.load_config(args.config, args.cfg_options)
        runner = launch.make_runner(
            config,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            seed=args.seed,
            launcher=args.launcher,
            trackers=args.tracker,
            allow_seen=args.allow_seen,
        )
    code = preemption.train(runner)
    if code:
        preemption.ignore_signals()
    distributed.leave()
    del runner
    compat.end_distributed_process(code)
    sys.exit(code)


if __name__ == '__main__':
    run_tool(main)
