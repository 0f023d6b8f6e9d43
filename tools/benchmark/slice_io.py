"""Measure random slice reads: the store against the usual containers."""

import tempfile
from pathlib import Path

from medssl_mm import benchmarking
from medssl_mm.arguments import tool_parser
from medssl_mm.errors import UserError, run_tool

EXAMPLE = """\
example:
  python tools/benchmark/slice_io.py --slices 64 --out work_dirs/slice_io.json
  python tools/benchmark/slice_io.py --nifti scan.nii.gz

One process, one thread, warm page cache. Ratios are within one run."""


PNG_OFFSET = 8192  # HU; a PNG has no negative values


def parse_args():
    """Parse the command line."""
    parser = tool_parser(__doc__, epilog=EXAMPLE)
    parser.add_argument(
        '--nifti',
        type=Path,
        help='real volume; default: a made one of 512 x 512 pixels',
    )
    parser.add_argument(
        '--slices', type=int, default=64, help='slices of the made volume (default: 64)'
    )
    parser.add_argument(
        '--seconds', type=float, default=4.0, help='time per container (default: 4)'
    )
    parser.add_argument(
        '--cases',
        type=int,
        default=400,
        help='cases of the store for the memory figure (default: 400)',
    )
    parser.add_argument('--out', type=Path, help='JSON file of the result')
    return parser.parse_args()


def make_volume(slices):
    """Make a CT-like volume in HU, ``(Z, 512, 512)`` int16."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    row, column = np.mgrid[:512, :512] - 256
    body = (row / 170) ** 2 + (column / 230) ** 2 < 1
    organs = gaussian_filter(rng.normal(size=(512, 512)), 12)
    organs = np.where(organs > 0.02, 110, np.where(organs < -0.03, -90, 40))
    volume = np.empty((slices, 512, 512), np.int16)
    for index in range(slices):
        noise = gaussian_filter(rng.normal(size=(512, 512)), 0.8) * 35
        air = -1000 + 0.3 * noise
        volume[index] = np.where(
            body, np.roll(organs, 2 * index, 1) + noise, air
        ).round()
    return volume


def read_volume(path):
    """Read a NIfTI file as a canonical volume of type int16."""
    import numpy as np

    from medssl_mm.importers.readers.nifti import read_nifti
    from medssl_mm.store.orientation import canonicalize

    array, affine, _ = read_nifti(path)
    return np.rint(canonicalize(array, affine)[0]).astype(np.int16)


def write_store(root, volume, cases):
    """Write a store of ``cases`` cases with one content."""
    from medssl_mm.store import StoreWriter

    writer = StoreWriter.create(root, 'benchmark', 'CT', 'HU', ['background'])
    for index in range(cases):
        writer.add_case(f'case{index:04d}', volume)
    return writer.finish()


def readers(folder, volume):
    """Write the volume in every container.

    Returns:
        dict: Name to (function that reads slice i, bytes on disk).
    """
    import cv2
    import nibabel
    import numpy as np

    cv2.setNumThreads(1)
    folder = Path(folder)
    nii = folder / 'volume.nii.gz'
    nibabel.save(nibabel.Nifti1Image(volume.T, np.eye(4)), nii)
    np.savez_compressed(folder / 'volume.npz', volume=volume)
    np.save(folder / 'volume.npy', volume)
    for kind in ('npz', 'png'):
        (folder / kind).mkdir()
    for index, image in enumerate(volume):
        np.savez_compressed(folder / 'npz' / f'{index}.npz', image=image)
        cv2.imwrite(
            str(folder / 'png' / f'{index}.png'), (image + PNG_OFFSET).astype(np.uint16)
        )
    memmap = np.load(folder / 'volume.npy', mmap_mode='r')
    store = write_store(folder / 'store', volume, 1)

    def png(index):
        image = cv2.imread(str(folder / 'png' / f'{index}.png'), -1)
        return image.astype(np.int16) - np.int16(PNG_OFFSET)

    return {
        'nii.gz, slice of dataobj': (
            lambda i: np.asarray(nibabel.load(nii).dataobj[..., i]).T,
            nii,
        ),
        'npz, whole volume': (
            lambda i: np.load(folder / 'volume.npz')['volume'][i],
            folder / 'volume.npz',
        ),
        'npz per slice': (
            lambda i: np.load(folder / 'npz' / f'{i}.npz')['image'],
            folder / 'npz',
        ),
        'PNG 16 bit per slice': (png, folder / 'png'),
        'npy memory map (not compressed)': (
            lambda i: np.array(memmap[i]),
            folder / 'volume.npy',
        ),
        'slice store': (
            lambda i: store.read_slice('case0000', i),
            folder / 'store' / 'cases',
        ),
        'slice store, file opened anew': (
            lambda i: type(store)(store.root).read_slice('case0000', i),
            folder / 'store' / 'cases',
        ),
    }


def measure(containers, volume, seconds, rounds=9):
    """Count random reads per second; every container must be exact.

    The containers take turns, so that a busy moment of the machine does not
    hit one of them alone; the median of the rounds counts.
    """
    import numpy as np

    order = np.random.default_rng(0).integers(0, len(volume), 4096).tolist()
    for name, (read, _) in containers.items():
        if not np.array_equal(read(order[0]), volume[order[0]]):
            raise UserError(
                f'{name} gave back other values than it was '
                'given: do not trust this run'
            )
    rates = benchmarking.rates_in_turns(
        {
            name: lambda number, read=read: read(order[number % len(order)])
            for name, (read, _) in containers.items()
        },
        rounds,
        seconds / rounds,
    )
    return {name: float(np.median(found)) for name, found in rates.items()}


def resident_mib():
    """Resident memory of this process, MiB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    import resource

    return pages * resource.getpagesize() / 2**20


def memory_growth(folder, volume, cases):
    """Resident memory while reading over more and more cases."""
    store = write_store(Path(folder) / 'many', volume[:2], cases)
    marks, result = {1, cases // 4, cases // 2, cases}, []
    for count, case_id in enumerate(store.case_ids, 1):
        for index in range(2):
            store.read_slice(case_id, index)
        if count in marks:
            result.append(dict(cases=count, mib=round(resident_mib(), 1)))
    return result


def size_of(path):
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob('*') if p.is_file())


def main():
    """Measure, print a table, write JSON."""
    args = parse_args()
    from rich.console import Console
    from rich.table import Table

    if args.slices < 8 or args.cases < 4:
        raise UserError('--slices must be at least 8 and --cases at least 4')
    volume = read_volume(args.nifti) if args.nifti else make_volume(args.slices)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        containers = readers(folder, volume)
        rates = measure(containers, volume, args.seconds)
        for name, (_, path) in containers.items():
            rows[name] = dict(
                slices_per_second=rates[name],
                share_of_raw=size_of(path) / volume.nbytes,
            )
        memory = memory_growth(folder, volume, args.cases)
    png = rows['PNG 16 bit per slice']['slices_per_second']
    table = Table(title=f'volume {volume.shape}, int16')
    for column in ('container', 'slices / s', 'of PNG 16 bit', 'size of raw'):
        table.add_column(column)
    for name, row in rows.items():
        row['ratio_to_png16'] = row['slices_per_second'] / png
        table.add_row(
            name,
            f'{row["slices_per_second"]:.0f}',
            f'{row["ratio_to_png16"]:.2f} x',
            f'{row["share_of_raw"]:.0%}',
        )
    console = Console()
    console.print(table)
    console.print(
        'resident memory while reading: '
        + ', '.join(f'{m["cases"]} cases {m["mib"]} MiB' for m in memory)
    )
    machine = benchmarking.machine()
    benchmarking.print_machine(machine)
    benchmarking.write_report(
        args.out,
        dict(machine=machine, shape=volume.shape, containers=rows, memory=memory),
    )


if __name__ == '__main__':
    run_tool(main)
