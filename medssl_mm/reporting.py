"""Result tables, figures and a self-contained HTML report.

Everything is made from the files that a run leaves behind: ``metrics.json``,
``cases.csv`` and ``predictions/`` of :class:`medssl_mm.VolumeMetric`,
``metrics.json`` and ``predictions.csv`` of
:class:`medssl_mm.ClassificationMetric`, and the
``vis_data/scalars.json`` of a training run.
"""

import base64
import csv
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_whole

# Distinguishable with the common colour-vision deficiencies.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9',
           '#000000')
STYLE = {
    'font.size': 9, 'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'grid.alpha': 0.3, 'axes.axisbelow': True,
    'legend.frameon': False, 'figure.dpi': 130, 'savefig.bbox': 'tight',
}


@dataclass(frozen=True)
class Measure:
    """The score that a table compares.

    Args:
        name (str): In ``metrics.json`` and ``table.csv``.
        title (str): In headings.
        file (str): What an evaluation leaves behind to resample.
        definition (str): What the number is, for captions.
        axis (str): The same, short, for figures.
        classes (str): What the number of one class is.
    """

    name: str
    title: str
    file: str
    definition: str
    axis: str
    classes: str


DICE = Measure(
    'dice', 'Dice', 'cases.csv',
    'Dice per volume, averaged over cases, then over classes',
    'Dice per volume, mean over classes',
    'mean over cases that contain the class or for which it was predicted')
AUROC = Measure(
    'auroc', 'AUROC', 'predictions.csv',
    'Area under the ROC curve of every class against the rest, averaged over '
    'classes', 'AUROC, mean over classes', 'against the rest')


@dataclass(frozen=True)
class Run:
    """One arm of a comparison: the evaluations of one method, all seeds.

    Args:
        group (str): What is compared with each other, e.g. the decoder.
        label (str): What differs within a group, e.g. the initial weights.
        folders (tuple[Path]): Folder with ``metrics.json`` and ``cases.csv``
            or ``predictions.csv`` of every seed; for several splits see
            :func:`pool_results`.
        fraction (float): Share of the training patients, 0-1. Defaults to 1.
    """

    group: str
    label: str
    folders: tuple[Path, ...]
    fraction: float = 1.0


@dataclass(frozen=True)
class TableRow:
    """One row of a result table; scores over all seeds of a run.

    Args:
        run (Run): Where the numbers come from.
        measure (Measure): What the score is.
        score (tuple): Mean, low and high end of the 95 % interval.
        hd95 (tuple): The same in mm; NaN where distances were not measured.
        spread (float): Standard deviation of the score over seeds; NaN for
            one seed.
        difference (tuple, optional): Score minus the baseline's, paired by
            patient: mean, low, high. None for the baseline itself.
        patients (int): Patients that were scored.
        protocol (str): Name of the split.
        split_hash (str): Hash of the split; of all of them where the test
            cases of several are pooled.
        splits (int): Splits whose test cases are pooled. Defaults to 1.
        undefined (tuple[str]): Classes without a score. Defaults to ().
    """

    run: Run
    measure: Measure
    score: tuple[float, float, float]
    hd95: tuple[float, float, float]
    spread: float
    difference: tuple[float, float, float] | None
    patients: int
    protocol: str
    split_hash: str
    splits: int = 1
    undefined: tuple[str, ...] = ()


@dataclass
class Section:
    """A part of the HTML report.

    Args:
        title (str): Heading.
        text (str): Paragraph below it. Defaults to ''.
        body (list[str]): Ready HTML: tables, figures. Defaults to [].
    """

    title: str
    text: str = ''
    body: list[str] = field(default_factory=list)


# --------------------------------------------------------------------------
# Reading what runs leave behind
# --------------------------------------------------------------------------


def read_metrics(folder: str | Path) -> dict:
    """Read ``metrics.json`` of an evaluation folder.

    Raises:
        UserError: When it is absent or cannot be read.
    """
    path = Path(folder) / 'metrics.json'
    try:
        metrics = json.loads(path.read_text(encoding='utf-8'))
        metrics['mean'][measure_of(metrics).name]['mean']
    except FileNotFoundError as error:
        raise UserError(
            f'{path} does not exist; evaluate the run with tools/test.py and '
            'out_dir of its metric set to that folder') from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f'{path} is not a result of medssl_mm.VolumeMetric or '
            f'ClassificationMetric ({error}); evaluate the run again'
        ) from error
    return metrics


def measure_of(metrics: dict) -> Measure:
    """Tell by ``metrics.json`` what was measured."""
    return AUROC if AUROC.name in metrics['mean'] else DICE


def pool_results(folders: Sequence[str | Path], out: str | Path,
                 samples: int = 2000, seed: int = 0) -> None:
    """Join the test results of the splits of a cross-validation.

    ``cases.csv`` and ``metrics.json`` are written to ``out`` as if one
    evaluation had scored the test cases of all splits; means and intervals
    are those of the pooled cases.

    Args:
        folders (Sequence[str | Path]): Evaluation folder of every split.
        out (str | Path): Folder to write.
        samples (int): Resamples of the intervals. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Raises:
        UserError: When results are missing, of a classifier, or of different
            data sets or classes, or when a case or patient was tested in two
            splits.
    """
    from medssl_mm.evaluation import bootstrap
    from medssl_mm.evaluation.report import interval_entry
    folders = [Path(folder) for folder in folders]
    metrics = [read_metrics(folder) for folder in folders]
    first = metrics[0]
    if measure_of(first) is AUROC:
        raise UserError(
            f'{folders[0]}: the test images of several splits are not pooled '
            'for classification, as the probabilities of different models '
            'have no common order; make a table of one split')
    for folder, other in zip(folders, metrics):
        for what, found, expected in (
                ('data', other.get('data_root'), first.get('data_root')),
                ('classes', list(other['per_class']),
                 list(first['per_class'])),
                ('scores', list(other['mean']), list(first['mean'])),
                ('policy', other.get('policy'), first.get('policy'))):
            if found != expected:
                raise UserError(
                    f'the splits {folder} and {folders[0]} cannot be pooled: '
                    f'{what} {found} and {expected}; evaluate all splits in '
                    'the same way')
    table = _pool_cases([folder / 'cases.csv' for folder in folders])
    out = Path(out)
    write_whole(out / 'cases.csv', table)

    names, per_class, mean = list(first['per_class']), {}, {}
    for score in first['mean']:
        scores, owners = bootstrap.read_scores(out / 'cases.csv', score)
        cases = sorted({case for case, _ in scores})
        values = np.array([[scores.get((case, name), math.nan)
                            for name in names] for case in cases])
        single, overall = bootstrap.bootstrap_means(
            values, [owners[case] for case in cases], samples, seed)
        mean[score] = interval_entry(overall)
        for name, interval in zip(names, single):
            per_class.setdefault(name, {})[score] = interval_entry(interval)
    for name in names:
        counts = [m['per_class'][name].get('counts') for m in metrics]
        if None not in counts:
            per_class[name]['counts'] = {
                key: sum(count[key] for count in counts) for key in counts[0]}
    splits = [dict(protocol=m.get('protocol'), split_hash=m.get('split_hash'),
                   folder=str(folder))
              for folder, m in zip(folders, metrics)]
    hashes = sorted(str(split['split_hash']) for split in splits)
    write_whole(out / 'metrics.json', json.dumps(dict(
        first,
        protocol=_pooled_protocol([str(s['protocol']) for s in splits]),
        split_hash=hashlib.sha256('\n'.join(hashes).encode()).hexdigest()[:12],
        splits=splits, cases=len(cases),
        patients=len({owners[case] for case in cases}),
        mean=mean, per_class=per_class,
        interval=dict(first.get('interval') or {}, samples=samples, seed=seed),
        volume_units=sorted({unit for m in metrics
                             for unit in m.get('volume_units') or ()}),
        notes=[f'{m.get("protocol")}: {note}'
               for m in metrics for note in m.get('notes') or ()],
    ), indent=1))


def _pool_cases(paths: Sequence[Path]) -> str:
    """Join per-case tables; a case or patient may be in one of them only."""
    from medssl_mm.evaluation.bootstrap import read_scores
    header, lines, seen = None, [], {'case': {}, 'patient': {}}
    for path in paths:
        _, owners = read_scores(path)
        for kind, names in (('case', owners), ('patient', owners.values())):
            for name in names:
                other = seen[kind].setdefault(name, path)
                if other != path:
                    raise UserError(
                        f'{kind} {name} is in {other} and in {path}; the '
                        'test subsets of the splits of a cross-validation '
                        'must not overlap')
        with path.open(newline='', encoding='utf-8') as file:
            names, *entries = csv.reader(file)
        header = header or names
        if names != header:
            raise UserError(f'{path} has the columns {names}, {paths[0]} '
                            f'{header}; evaluate both with one version')
        lines += entries
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows([header, *lines])
    return buffer.getvalue()


def _pooled_protocol(protocols: Sequence[str]) -> str:
    """Name what splits have in common: 'set-5fold' of 'set-5fold-fold0'."""
    found = [re.fullmatch(r'(.+)-fold\d+', name) for name in protocols]
    if all(found) and len({match[1] for match in found}) == 1:
        return found[0][1]
    return ' + '.join(dict.fromkeys(protocols))


def read_scalars(work_dir: str | Path) -> dict[str, np.ndarray]:
    """Read the logged curves of a training run, resumed parts joined.

    Args:
        work_dir (str | Path): Work directory of the run.

    Returns:
        dict[str, np.ndarray]: Per name an array ``(points, 2)`` of step and
        value, sorted by step; where a resumed run logged a step again, the
        later value counts.

    Raises:
        UserError: When no log is found.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        raise UserError(
            f'{work_dir} holds no */vis_data/scalars.json; give the work '
            'directory of a training run')
    points = {}
    for path in files:
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the last line of a killed run
            step = entry.get('step', entry.get('iter'))
            for name, value in entry.items():
                if (step is not None and name not in ('step', 'iter')
                        and isinstance(value, (int, float))):
                    points.setdefault(name, {})[step] = value
    return {
        name: np.array(sorted(values.items()), dtype=float)
        for name, values in points.items()
    }


def seed_mean(paths: Sequence[Path], column: str = 'dice',
              samples: int = 2000, seed: int = 0):
    """Mean over cases, classes and seeds with its 95 % patient interval.

    Every resample of patients is evaluated for all seeds and averaged, so the
    interval is about patients; the spread over seeds is given beside it.

    Args:
        paths (Sequence[Path]): ``cases.csv`` or ``predictions.csv`` of every
            seed.
        column (str): Score in ``cases.csv``. Defaults to 'dice'.
        samples (int): Resamples. Defaults to 2000.
        seed (int): Seed of the resampling. Defaults to 0.

    Returns:
        tuple: (mean, low, high); list of the mean of every seed; number of
        patients. NaN where the score was not measured.
    """
    from medssl_mm.evaluation import bootstrap
    parts = [_resample(path, column, samples, seed) for path in paths]
    bootstrap.require_same_content(
        parts, 'seeds of one run must be evaluated on one split')
    curve = np.mean([part.values for part in parts], axis=0)
    drawn = curve[1:][~np.isnan(curve[1:])]
    low, high = (np.percentile(drawn, [2.5, 97.5])
                 if len(drawn) else (math.nan, math.nan))
    return ((float(curve[0]), float(low), float(high)),
            [float(part.values[0]) for part in parts], parts[0].patients)


def _resample(path: Path, column: str, samples: int, seed: int = 0):
    from medssl_mm.evaluation import bootstrap, classification_report
    if Path(path).name == AUROC.file:
        return classification_report.resample_predictions(
            path, samples, seed)
    return bootstrap.resample_cases(path, column, None, samples, seed)


def summarize(runs: Sequence[Run],
              baseline: str | None = None,
              samples: int = 2000) -> list[TableRow]:
    """Turn runs into table rows.

    Args:
        runs (Sequence[Run]): Arms, in the order of the table.
        baseline (str, optional): Label that the others of its group and
            fraction are compared with. Defaults to None.
        samples (int): Resamples of the intervals. Defaults to 2000.

    Returns:
        list[TableRow]: One per run.

    Raises:
        UserError: When results of one group are of different splits, those
            of the table of different measures, or the baseline is not among
            the runs.
    """
    from medssl_mm.evaluation import bootstrap
    if baseline is not None and all(run.label != baseline for run in runs):
        raise UserError(
            f'no run is labelled {baseline!r} (the baseline); there are '
            f'{sorted({run.label for run in runs})}')
    measures = {measure_of(read_metrics(folder)): folder for run in runs
                for folder in run.folders}
    if len(measures) > 1:
        raise UserError(
            'a table compares one kind of score, got ' + ' and '.join(
                f'{measure.title} ({folder})'
                for measure, folder in measures.items())
            + '; make two tables')
    measure, = measures
    tables = {id(run): [Path(folder) / measure.file for folder in run.folders]
              for run in runs}
    rows = []
    seen = {}
    for run in runs:
        metrics = [read_metrics(folder) for folder in run.folders]
        hashes = {(str(m.get('protocol')), str(m.get('split_hash')))
                  for m in metrics}
        # A label fraction is a split of its own, with the same test set.
        known = seen.setdefault((run.group, run.fraction), (hashes, run))
        if len(hashes) > 1 or known[0] != hashes:
            raise UserError(
                f'{run.folders[0]} ({sorted(hashes)}) and '
                f'{known[1].folders[0]} ({sorted(known[0])}) were evaluated '
                'on different splits; compare runs of one split only')
        paths = tables[id(run)]
        score, per_seed, patients = seed_mean(paths, 'dice', samples)
        hd95 = (math.nan,) * 3
        if measure is DICE:
            hd95, _, _ = seed_mean(paths, 'hd95', samples)
        difference = None
        other = next((r for r in runs if r.label == baseline
                      and (r.group, r.fraction) == (run.group, run.fraction)),
                     None)
        if other is not None and other is not run:
            change = bootstrap.compare(*(
                [_resample(path, 'dice', samples) for path in arm]
                for arm in (tables[id(other)], paths)))
            difference = (change.difference, change.low, change.high)
        (protocol, split_hash), = hashes
        rows.append(TableRow(
            run=run, measure=measure, score=score, hd95=hd95,
            spread=float(np.std(per_seed, ddof=1))
            if len(per_seed) > 1 else math.nan,
            difference=difference, patients=patients,
            protocol=protocol, split_hash=split_hash,
            splits=len(metrics[0].get('splits') or [None]),
            undefined=tuple((metrics[0].get('undefined') or {}).get(
                measure.name, ()))))
    return rows


# --------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------


def _interval(values, digits: int, signed: bool = False) -> str:
    if values is None or math.isnan(values[0]):
        return '–'
    sign = '+' if signed else ''
    mean, low, high = (f'{value:{sign}.{digits}f}' for value in values)
    return mean if math.isnan(values[1]) else f'{mean} [{low}, {high}]'


def table_cells(rows: Sequence[TableRow]) -> tuple[list[str], list[list[str]]]:
    """Lay out rows as text: scores in points (0-100), HD95 in mm.

    Returns:
        tuple: Header and cells. Columns that no row fills are left out.
    """
    header = ['Evaluation', 'Initial weights', 'Labelled patients',
              f'{rows[0].measure.title} [95 % interval]', 'SD over seeds',
              'Seeds', 'Difference to baseline', 'HD95, mm [95 % interval]']
    cells = []
    for row in rows:
        percent = [100 * value for value in row.score]
        change = (None if row.difference is None
                  else [100 * value for value in row.difference])
        cells.append([
            row.run.group, row.run.label, f'{100 * row.run.fraction:g} %',
            _interval(percent, 1),
            '–' if math.isnan(row.spread) else f'{100 * row.spread:.1f}',
            str(len(row.run.folders)),
            _interval(change, 1, signed=True), _interval(row.hd95, 1)])
    keep = [index for index in range(len(header)) if index < 4
            or any(line[index] not in ('–', '1') for line in cells)]
    if all(row.run.fraction == 1 for row in rows):
        keep.remove(2)
    return ([header[index] for index in keep],
            [[line[index] for index in keep] for line in cells])


def caption_of(rows: Sequence[TableRow]) -> str:
    """Say what the numbers of a table are, in one paragraph."""
    splits = sorted({f'{row.protocol} (split {row.split_hash})'
                     for row in rows})
    patients = sorted({row.patients for row in rows})
    text = (f'Protocol {", ".join(splits)}, '
            f'{"/".join(map(str, patients))} test patients. '
            f'{rows[0].measure.definition} (in points, 0–100); '
            'brackets: 95 % interval from resampling patients.')
    undefined = dict.fromkeys(name for row in rows for name in row.undefined)
    if undefined:
        text += (' Not in the mean, as all test images have one value of the '
                 f'class: {", ".join(undefined)}.')
    pooled = sorted({row.splits for row in rows if row.splits > 1})
    if pooled:
        text += (f' Cross-validation over {"/".join(map(str, pooled))} '
                 'splits: each has a model of its own, and their test cases '
                 'are pooled, so every patient counts once per seed.')
    if any(row.difference is not None for row in rows):
        text += (' Differences are paired by patient; an interval that '
                 'excludes 0 is unlikely to be chance in the choice of '
                 'patients.')
    if patients and patients[0] < 15:
        text += (' With so few patients the intervals are too narrow: read '
                 'them as a lower bound of the uncertainty.')
    if all(len(row.run.folders) == 1 for row in rows):
        runs = 'seed' if pooled else 'training run'
        text += (f' One {runs} per row: the variation between seeds is not '
                 'in the interval.')
    return text


def to_markdown(rows: Sequence[TableRow]) -> str:
    """Format rows as a Markdown table."""
    header, cells = table_cells(rows)
    lines = [header, ['---'] * len(header), *cells]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines) + '\n'


def to_csv(rows: Sequence[TableRow]) -> str:
    """Format rows as CSV with unrounded numbers (scores 0-1)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    name = rows[0].measure.name
    writer.writerow(['evaluation', 'initial_weights', 'fraction', 'seeds',
                     'patients', 'protocol', 'split_hash', 'splits', name,
                     f'{name}_low', f'{name}_high', f'{name}_seed_sd',
                     'difference', 'difference_low', 'difference_high',
                     'hd95_mm', 'hd95_low', 'hd95_high'])
    for row in rows:
        numbers = [*row.score, row.spread,
                   *(row.difference or (math.nan,) * 3), *row.hd95]
        writer.writerow([
            row.run.group, row.run.label, row.run.fraction,
            len(row.run.folders), row.patients, row.protocol, row.split_hash,
            row.splits,
            *('' if math.isnan(value) else f'{value:.6g}'
              for value in numbers)])
    return buffer.getvalue()


def print_table(rows: Sequence[TableRow], title: str) -> None:
    """Show the table on screen."""
    from rich.console import Console
    from rich.table import Table
    header, cells = table_cells(rows)
    table = Table(title=title, title_justify='left')
    for index, name in enumerate(header):
        table.add_column(name, justify='left' if index < 2 else 'right')
    previous = None
    for line in cells:
        if previous is not None and line[0] != previous:
            table.add_section()
        table.add_row(*line)
        previous = line[0]
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # a log has room for whole cells
    console.print(table)
    console.print(caption_of(rows), style='dim', highlight=False)


def write_table(rows: Sequence[TableRow], folder: str | Path,
                title: str, note: str = '') -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.png``.

    Args:
        rows (Sequence[TableRow]): Rows of the table.
        folder (str | Path): Where to write.
        title (str): Heading of the table.
        note (str): Sentence added to the caption. Defaults to ''.

    Returns:
        list[Path]: The files.
    """
    folder = Path(folder)
    paths = [folder / f'table.{suffix}' for suffix in ('md', 'csv', 'png')]
    write_whole(paths[0], f'### {title}\n\n{to_markdown(rows)}\n'
                     f'{caption_of(rows)} {note}'.rstrip() + '\n')
    write_whole(paths[1], to_csv(rows))
    write_whole(paths[2], plot_intervals(rows, title))
    return paths


# --------------------------------------------------------------------------
# Figures, as PNG bytes
# --------------------------------------------------------------------------


def _figure(*args, **kwargs):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    with pyplot.rc_context(STYLE):
        return pyplot.subplots(*args, **kwargs)


def _png(figure) -> bytes:
    from matplotlib import pyplot
    buffer = io.BytesIO()
    with pyplot.rc_context(STYLE):
        figure.savefig(buffer, format='png')
    pyplot.close(figure)
    return buffer.getvalue()


def _colours(labels: Sequence[str]) -> dict[str, str]:
    unique = list(dict.fromkeys(labels))
    return {label: COLOURS[index % len(COLOURS)]
            for index, label in enumerate(unique)}


def plot_intervals(rows: Sequence[TableRow], title: str = '') -> bytes:
    """Draw the score of every row with its 95 % interval.

    Returns:
        bytes: PNG.
    """
    colours = _colours([row.run.label for row in rows])
    height, ticks, previous = 0.0, [], None
    figure, axes = _figure(figsize=(7, 1.1 + 0.34 * len(rows)))
    for row in rows:
        group = (row.run.group, row.run.fraction)
        if previous is not None and group != previous:
            height += 0.6
        previous = group
        mean, low, high = (100 * value for value in row.score)
        colour = colours[row.run.label]
        if not math.isnan(low):
            axes.plot([low, high], [height] * 2, color=colour, lw=2.2,
                      solid_capstyle='round')
        axes.plot(mean, height, 'o', color=colour, ms=7)
        axes.annotate(f'{mean:.1f}', (mean, height), (0, 6),
                      textcoords='offset points', ha='center', fontsize=8)
        share = ('' if row.run.fraction == 1
                 else f', {100 * row.run.fraction:g} % labels')
        ticks.append((height, f'{row.run.group}{share}\n{row.run.label}'))
        height += 1
    axes.set_yticks([place for place, _ in ticks],
                    [text for _, text in ticks])
    axes.set_ylim(height - 0.3, -0.8)
    axes.grid(axis='y', visible=False)
    axes.set_xlabel(f'{rows[0].measure.axis} (points), '
                    '95 % interval over patients')
    axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
    return _png(figure)


def plot_classes(runs: Sequence[Run]) -> bytes:
    """Draw the score of every class as a coloured grid, one row per run.

    Returns:
        bytes: PNG.
    """
    metrics = [[read_metrics(folder) for folder in run.folders]
               for run in runs]
    classes = list(metrics[0][0]['per_class'])
    score = measure_of(metrics[0][0]).name
    grid = np.full((len(runs), len(classes)), np.nan)
    for i, seeds in enumerate(metrics):
        for j, name in enumerate(classes):
            values = [m['per_class'][name][score]['mean'] for m in seeds
                      if name in m['per_class']]
            values = [value for value in values if value is not None]
            if values:
                grid[i, j] = 100 * np.mean(values)
    figure, axes = _figure(
        figsize=(2.6 + 0.55 * len(classes), 1.6 + 0.32 * len(runs)))
    axes.imshow(grid, cmap='viridis', vmin=0, vmax=100, aspect='auto')
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha='right')
    axes.set_yticks(range(len(runs)),
                    [f'{run.group}, {run.label}' for run in runs])
    axes.grid(visible=False)
    for (i, j), value in np.ndenumerate(grid):
        axes.text(j, i, '–' if np.isnan(value) else f'{value:.0f}',
                  ha='center', va='center', fontsize=8,
                  color='black' if value > 60 else 'white')
    return _png(figure)


def plot_curves(curves: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Draw training curves: losses left, scores right.

    Args:
        curves (dict): Per label of a run what :func:`read_scalars` returns.

    Returns:
        bytes: PNG.
    """
    def losses(name):
        return name.split('/')[-1] == 'loss'

    def scores(name):
        return name.split('/')[-1] in (
            'mDice', 'macro_AUROC', 'contrastive_top1')

    colours = _colours(list(curves))
    panels = [(title, [
        (label, name, values[name]) for label, values in curves.items()
        for name in sorted(values) if wanted(name)
    ]) for title, wanted in (('training loss', losses), ('score', scores))]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        raise UserError('the logs hold neither a loss nor a score')
    figure, all_axes = _figure(
        1, len(panels), figsize=(4.2 * len(panels), 3), squeeze=False)
    for axes, (title, lines) in zip(all_axes[0], panels):
        for label, name, points in lines:
            suffix = '' if title == 'training loss' else (
                f' ({name.split("/")[-1]})')
            # A smoothed line over the pale logged one.
            window = max(1, len(points) // 25)
            kernel = np.ones(window) / window
            smooth = np.convolve(
                np.pad(points[:, 1], (window // 2, (window - 1) // 2),
                       mode='edge'), kernel, mode='valid')
            axes.plot(*points.T, color=colours[label], alpha=0.25, lw=0.8)
            axes.plot(points[:, 0], smooth, color=colours[label],
                      label=label + suffix,
                      marker='o' if len(points) < 12 else None, ms=3)
        if title == 'training loss':
            _draw_chance(axes, curves)
        axes.set_xlabel('step')
        axes.set_title(title, loc='left')
        axes.legend(fontsize=7)
    return _png(figure)


def _draw_chance(axes, curves) -> None:
    levels = {float(values['chance_level'][-1, 1])
              for values in curves.values() if 'chance_level' in values}
    for level in levels:
        axes.axhline(level, color='grey', ls='--', lw=1,
                     label=f'chance, log(K+1) = {level:.2f}')


def display_image(image: np.ndarray, units: str,
                  window: tuple[float, float] = (40.0, 400.0)) -> np.ndarray:
    """Map a stored slice to grey values between 0 and 1.

    Args:
        image (np.ndarray): Slice.
        units (str): 'HU' applies the window, others the 0.5-99.5 percentiles.
        window (tuple): Level and width, HU. Defaults to (40, 400).

    Shape: image ``(H, W)``; returns the same, float32.
    """
    image = np.asarray(image, np.float32)
    if units == 'HU':
        low, width = window[0] - window[1] / 2, window[1]
    else:
        low, high = np.percentile(image, [0.5, 99.5])
        width = high - low
    if width <= 0:
        return np.zeros_like(image)
    return np.clip((image - low) / width, 0, 1)


def paint_labels(grey: np.ndarray, labels: np.ndarray, palette,
                 opacity: float = 0.5) -> np.ndarray:
    """Lay labels over a grey picture; background stays clear.

    Args:
        grey (np.ndarray): Values 0-1.
        labels (np.ndarray): Class per pixel.
        palette (Sequence): RGB 0-255 per class.
        opacity (float): Of the colours, 0-1. Defaults to 0.5.

    Shape: grey, labels ``(H, W)``; returns ``(H, W, 3)``, 0-1.
    """
    table = np.zeros((256, 3), np.float32)
    colours = np.asarray(palette, np.float32)[:256, :3] / 255
    table[:len(colours)] = colours
    picture = np.repeat(grey[..., None], 3, axis=2)
    shown = (labels > 0) & (labels < len(colours))
    picture[shown] = ((1 - opacity) * picture[shown]
                      + opacity * table[labels[shown]])
    return picture


def read_prediction(folder: str | Path, case) -> np.ndarray | None:
    """Read the stored prediction of a case in the store's orientation.

    Args:
        folder (str | Path): Evaluation folder.
        case (CaseInfo): Which case.

    Returns:
        np.ndarray or None: ``(Z, H, W)``, or None when none was saved.
    """
    path = Path(folder) / 'predictions' / f'{case.case_id}.nii.gz'
    if path.exists():
        import nibabel as nib

        from medssl_mm.datasets.orientation import canonicalize
        image = nib.load(path)
        volume = canonicalize(
            np.asanyarray(image.dataobj), image.affine)[0].astype(np.uint8)
    else:
        path = path.with_name(f'{case.case_id}.npz')
        if not path.exists():
            return None
        with np.load(path) as content:
            volume = content['labels'].astype(np.uint8)
    if volume.shape != tuple(case.shape):
        raise UserError(
            f'{path} has shape {volume.shape}, the stored case '
            f'{tuple(case.shape)}; it belongs to another data set')
    return volume


def choose_cases(cases_csv: str | Path, number: int = 3) -> list[str]:
    """Pick cases from the best to the worst by mean Dice, evenly spread.

    The choice is by rank, never by eye: best, middle and worst for 3.
    """
    from medssl_mm.evaluation.bootstrap import read_scores
    scores, _ = read_scores(cases_csv, 'dice')
    per_case = {}
    for (case, _), value in scores.items():
        if not math.isnan(value):
            per_case.setdefault(case, []).append(value)
    ranked = sorted(per_case, key=lambda case: (-np.mean(per_case[case]),
                                                case))
    places = np.linspace(0, len(ranked) - 1, min(number, len(ranked)))
    return [ranked[int(round(place))] for place in places]


def plot_overlays(runs: Sequence[Run], store, case_ids: Sequence[str]):
    """Draw image, ground truth and the prediction of every run.

    Of every case the slice with most classes (then most labelled pixels) is
    shown. Only the first seed of a run is drawn.

    Args:
        runs (Sequence[Run]): Columns after the ground truth.
        store (SliceStore): Images and labels.
        case_ids (Sequence[str]): Rows.

    Returns:
        bytes or None: PNG; None when no prediction was saved.
    """
    rows = []
    for case_id in case_ids:
        case = store.case(case_id)
        predictions = [read_prediction(run.folders[0], case) for run in runs]
        if all(volume is None for volume in predictions):
            continue
        label = store.read_label_volume(case_id)
        index = max(range(len(label)), key=lambda z: (
            len(np.unique(label[z])), int((label[z] > 0).sum())))
        rows.append((case, index, label[index], predictions))
    if not rows:
        return None
    columns = 2 + len(runs)
    figure, axes = _figure(
        len(rows), columns, figsize=(1.9 * columns, 1.6 * len(rows) + 0.7),
        squeeze=False, layout='constrained')
    shown = set()
    for number, (case, index, label, predictions) in enumerate(rows):
        line = axes[number]
        grey = display_image(
            store.read_slice(case.case_id, index), store.units)
        part = _bounding_box(grey)
        aspect = (case.spacing[1] / case.spacing[2]) if case.spacing else 1
        pictures = [(grey, 'image'), (label, 'ground truth')] + [
            (None if volume is None else volume[index],
             f'{run.group}\n{run.label}')
            for run, volume in zip(runs, predictions)]
        for place, (axis, (content, title)) in enumerate(zip(line, pictures)):
            axis.axis('off')
            if content is None:
                continue
            if place:
                shown |= set(np.unique(content).tolist())
                content = paint_labels(grey, content, store.palette)
            axis.imshow(content[part], cmap='gray', vmin=0, vmax=1,
                        aspect=aspect)
            if number == 0:
                axis.set_title(title, fontsize=8)
        line[0].text(-0.03, 0.5, f'{case.case_id}\nslice {index}',
                     transform=line[0].transAxes, rotation=90, fontsize=7,
                     ha='right', va='center')
    _draw_legend(figure, store, sorted(shown - {0}))
    return _png(figure)


def _bounding_box(grey: np.ndarray) -> tuple[slice, slice]:
    """Part of a picture that is not black, with a small margin."""
    box = []
    for axis in (1, 0):
        places = np.flatnonzero((grey > 0.02).mean(axis=axis) > 0.02)
        if not len(places):
            return slice(None), slice(None)
        box.append(slice(max(0, places[0] - 3), places[-1] + 4))
    return box[0], box[1]


def _draw_legend(figure, store, indices) -> None:
    from matplotlib.patches import Patch
    handles = [
        Patch(color=[value / 255 for value in store.palette[index][:3]],
              label=store.classes[index])
        for index in indices if index < len(store.classes)]
    if handles:
        figure.legend(handles=handles, loc='outside lower center',
                      fontsize=7, ncols=min(7, len(handles)))


# --------------------------------------------------------------------------
# HTML
# --------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ --ink: #1c2733; --soft: #5b6b7b; --line: #dfe5ea; --tint: #f4f7f9;
  --accent: #0072b2; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: var(--tint); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }}
main {{ max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
header p {{ color: var(--soft); max-width: 46rem; }}
h1 {{ font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; }}
h2 {{ font-size: 1.2rem; margin: 0 0 .6rem; }}
section {{ background: #fff; border: 1px solid var(--line);
  border-radius: 10px; padding: 1.4rem 1.5rem; margin: 1.2rem 0; }}
section > p {{ max-width: 48rem; color: var(--soft); margin: .2rem 0 1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-size: .93rem;
  font-variant-numeric: tabular-nums; }}
th, td {{ padding: .45rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }}
th {{ color: var(--soft); font-weight: 600; border-bottom-width: 2px; }}
th:first-child, td:first-child, table.rows th:nth-child(2),
table.rows td:nth-child(2) {{ text-align: left; }}
table.facts td {{ text-align: left; white-space: normal; }}
table.facts td:first-child {{ width: 14rem; color: var(--soft); }}
tr.first td {{ border-top: 2px solid var(--line); }}
figure {{ margin: 1.2rem 0 0; }}
figure img {{ max-width: 100%; height: auto; }}
figcaption {{ color: var(--soft); font-size: .9rem; max-width: 48rem; }}
code, pre {{ font: .86rem/1.5 ui-monospace, Menlo, Consolas, monospace; }}
pre {{ background: var(--tint); border-radius: 6px; padding: .9rem 1rem;
  overflow-x: auto; margin: 0; }}
</style></head><body><main>
<header><h1>{title}</h1><p>{lead}</p></header>
{sections}
</main></body></html>
"""


def html_table(header: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Format a result table as HTML; a line parts groups."""
    head = ''.join(f'<th>{html.escape(name)}</th>' for name in header)
    body, previous = [], None
    for line in cells:
        parted = previous is not None and line[0] != previous
        previous = line[0]
        columns = ''.join(f'<td>{html.escape(cell)}</td>' for cell in line)
        body.append(f'<tr{" class=first" if parted else ""}>{columns}</tr>')
    return (f'<div class="scroll"><table class="rows"><thead><tr>{head}</tr>'
            f'</thead><tbody>{"".join(body)}</tbody></table></div>')


def html_facts(facts: dict[str, str]) -> str:
    """Format names and values as a two-column table."""
    lines = ''.join(
        f'<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td></tr>'
        for name, value in facts.items())
    return f'<table class="facts"><tbody>{lines}</tbody></table>'


def html_figure(png: bytes, caption: str) -> str:
    """Embed a picture; the page needs no other file."""
    data = base64.b64encode(png).decode()
    text = html.escape(caption)
    return (f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f'<figcaption>{text}</figcaption></figure>')


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Put sections together into one HTML page."""
    parts = []
    for section in sections:
        text = f'<p>{html.escape(section.text)}</p>' if section.text else ''
        parts.append(f'<section><h2>{html.escape(section.title)}</h2>{text}'
                     f'{"".join(section.body)}</section>')
    return _PAGE.format(title=html.escape(title), lead=html.escape(lead),
                        sections='\n'.join(parts))


def build_report(path: str | Path,
                 runs: Sequence[Run],
                 *,
                 title: str,
                 lead: str = '',
                 baseline: str | None = None,
                 curves: dict[str, str | Path] | None = None,
                 commands: Sequence[str] = (),
                 num_cases: int = 3) -> list[TableRow]:
    """Write the HTML report of a comparison.

    Args:
        path (str | Path): HTML file to write.
        runs (Sequence[Run]): Arms of the comparison.
        title (str): Heading.
        lead (str): What was done, in one or two sentences. Defaults to ''.
        baseline (str, optional): Label the others are compared with.
            Defaults to None.
        curves (dict, optional): Label to work directory of training runs.
            Defaults to None.
        commands (Sequence[str]): What was run, shown at the end. Defaults
            to ().
        num_cases (int): Cases in the overlay figure. Defaults to 3.

    Returns:
        list[TableRow]: Rows of the result table.
    """
    if not runs:
        raise UserError('a report needs at least one evaluated run')
    rows = summarize(runs, baseline)
    metrics = read_metrics(runs[0].folders[0])
    measure = rows[0].measure
    sections = [
        Section('Result', caption_of(rows), [
            html_table(*table_cells(rows)),
            html_figure(plot_intervals(rows),
                        f'{measure.title} of every run with its interval.')]),
        Section('Classes',
                f'{measure.title} per class in points, {measure.classes}.',
                [html_figure(plot_classes(runs), 'Small and thin organs are '
                             'the hard ones at low resolution.'
                             if measure is DICE else
                             'A dash: the test set has one value only.')]),
    ]
    overlays = measure is DICE and _overlay_section(runs, metrics, num_cases)
    if overlays:
        sections.append(overlays)
    if curves:
        sections.append(_curve_section(curves))
    sections.append(_facts_section(metrics, rows, commands))
    write_whole(Path(path), render_page(title, lead, sections))
    return rows


def _overlay_section(runs, metrics, num_cases):
    root = metrics.get('data_root')
    if not root or not Path(root).is_dir():
        return None
    from medssl_mm.datasets.store import open_store
    chosen = choose_cases(Path(runs[-1].folders[0]) / 'cases.csv', num_cases)
    png = plot_overlays(runs, open_store(root), chosen)
    if png is None:
        return None
    return Section(
        'Predictions',
        f'Test cases from the best to the worst by the mean Dice of '
        f'"{runs[-1].group}, {runs[-1].label}", evenly spaced by rank. Shown '
        'is the slice with most classes, at its native resolution; first '
        'seed.',
        [html_figure(png, 'Image, ground truth and predictions.')])


def _curve_section(curves):
    by_kind = {'pretraining': {}, 'labels': {}}
    for label, folder in curves.items():
        values = read_scalars(folder)
        kind = ('pretraining' if any('contrastive' in name for name in values)
                else 'labels')
        by_kind[kind][label] = values
    body = []
    if by_kind['pretraining']:
        body.append(html_figure(
            plot_curves(by_kind['pretraining']),
            'Pretraining. A contrastive loss below the dashed chance line '
            'means that views of one slice are told from other slices; the '
            'loss rises while the queue fills.'))
    if by_kind['labels']:
        body.append(html_figure(
            plot_curves(by_kind['labels']),
            'Training with labels; pale: as logged, strong: smoothed.'))
    return Section('Training curves', '', body)


def _facts_section(metrics, rows, commands):
    interval = metrics.get('interval') or {}
    facts = {
        'Data': str(metrics.get('data_root')),
        'Protocol': str(metrics.get('protocol')),
        'Split hash': str(metrics.get('split_hash')),
        'Test cases / patients':
        f'{metrics.get("cases") or metrics.get("images")} / '
        f'{metrics.get("patients")}',
        'Training runs per row':
        '/'.join(sorted({str(len(row.run.folders)) for row in rows})),
        'Intervals': f'{interval.get("kind", "bootstrap")}, resampled: '
        f'{interval.get("resampled", "patients")}',
        'Empty classes': str(metrics.get('policy', '')),
        'Notes': '; '.join(metrics.get('notes') or ['none']),
        'Versions': ', '.join(
            f'{name} {version}' for name, version in
            (metrics.get('versions') or {}).items()),
    }
    body = [html_facts(facts)]
    if commands:
        body.append('<p></p><pre>' + html.escape('\n'.join(commands))
                    + '</pre>')
    return Section('How this was made', '', body)
