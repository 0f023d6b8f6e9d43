#!/usr/bin/env python
r"""Segment a volume file or a DICOM folder.

The labels are written as NIfTI (uint8) on the grid of the input, whatever
its orientation and spacing. A model of 8-bit slices takes a volume of 0 to 255.

Example:
  python tools/predict.py configs/segmentation/btcv/CONFIG.py \
      work_dirs/CONFIG/iter_40000.pth scan.nii.gz labels.nii.gz

A model of several channels takes a file each, in the order of the training:
  python tools/predict.py CONFIG.py CHECKPOINT.pth t1.nii.gz t2.nii.gz labels.nii.gz
"""

from medssl_mm.arguments import add_config_options, tool_parser
from medssl_mm.errors import run_tool


def parse_args():
    """Read the command line."""
    parser = tool_parser(__doc__)
    parser.add_argument('config', help='config the model was trained with')
    parser.add_argument('checkpoint', help='checkpoint of that training')
    parser.add_argument(
        'input',
        nargs='+',
        help='volume file (NIfTI, NRRD, MHA ...) or folder of DICOM files; a file '
        'per channel where the model takes several',
    )
    parser.add_argument('output', help='file to write (.nii or .nii.gz)')
    parser.add_argument(
        '--modality',
        choices=['CT', 'MR', 'other'],
        help='CT means Hounsfield units (default: CT if the test pipeline '
        'has a CT window)',
    )
    parser.add_argument('--series', help='which series, if the folder holds several')
    parser.add_argument(
        '--device', help='such as cpu or cuda:1 (default: a GPU, if any)'
    )
    parser.add_argument(
        '--batch-size', type=int, default=8, help='slices at once (default 8)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace the output file'
    )
    parser.add_argument(
        '--allow-seen',
        action='store_true',
        help='predict a volume that the network was trained on or chosen by',
    )
    add_config_options(parser)
    return parser.parse_args()


def main():
    """Predict, write, and show what was found."""
    args = parse_args()
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    # Late: importing torch and mmengine takes seconds.
    import medssl_mm.registry  # noqa: F401
    from medssl_mm.engine import launch
    from medssl_mm.inference import predict_file

    config = launch.load_config(args.config, args.cfg_options)
    console = Console()
    with Progress(console=console) as bar:
        task = bar.add_task('slices', total=None)
        result = predict_file(
            config,
            args.checkpoint,
            args.input,
            args.output,
            modality=args.modality,
            series=args.series,
            device=args.device,
            batch_size=args.batch_size,
            overwrite=args.overwrite,
            allow_seen=args.allow_seen,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for message in result.warnings:
        console.print(Text(f'note: {message}'))
    table = Table('label', 'class', 'ml', title=Text(args.output))
    for index, (name, volume) in enumerate(result.volumes_ml().items(), 1):
        table.add_row(str(index), Text(name), f'{volume:.1f}')
    console.print(table)


if __name__ == '__main__':
    run_tool(main)
