"""Figures of results, as PNG bytes."""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl_mm.errors import UserError

from .results import Run, TableRow, measure_of, read_metrics

# Distinguishable with the common colour-vision deficiencies.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
STYLE = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.grid': True,
    'grid.alpha': 0.3,
    'axes.axisbelow': True,
    'legend.frameon': False,
    'figure.dpi': 130,
    'savefig.bbox': 'tight',
}


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
    return {label: COLOURS[index % len(COLOURS)] for index, label in enumerate(unique)}


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
            axes.plot(
                [low, high], [height] * 2, color=colour, lw=2.2, solid_capstyle='round'
            )
        axes.plot(mean, height, 'o', color=colour, ms=7)
        axes.annotate(
            f'{mean:.1f}',
            (mean, height),
            (0, 6),
            textcoords='offset points',
            ha='center',
            fontsize=8,
        )
        share = (
            '' if row.run.fraction == 1 else f', {100 * row.run.fraction:g} % labels'
        )
        ticks.append((height, f'{row.run.group}{share}\n{row.run.label}'))
        height += 1
    axes.set_yticks([place for place, _ in ticks], [text for _, text in ticks])
    axes.set_ylim(height - 0.3, -0.8)
    axes.grid(axis='y', visible=False)
    axes.set_xlabel(f'{rows[0].measure.axis} (points), 95 % interval over patients')
    axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
    return _png(figure)


def plot_classes(runs: Sequence[Run]) -> bytes:
    """Draw the score of every class as a coloured grid, one row per run.

    Returns:
        bytes: PNG.
    """
    metrics = [[read_metrics(folder) for folder in run.folders] for run in runs]
    classes = list(metrics[0][0]['per_class'])
    score = measure_of(metrics[0][0]).name
    grid = np.full((len(runs), len(classes)), np.nan)
    for i, seeds in enumerate(metrics):
        for j, name in enumerate(classes):
            values = [
                m['per_class'][name][score]['mean']
                for m in seeds
                if name in m['per_class']
            ]
            values = [value for value in values if value is not None]
            if values:
                grid[i, j] = 100 * np.mean(values)
    figure, axes = _figure(figsize=(2.6 + 0.55 * len(classes), 1.6 + 0.32 * len(runs)))
    axes.imshow(grid, cmap='viridis', vmin=0, vmax=100, aspect='auto')
    axes.set_xticks(range(len(classes)), classes, rotation=40, ha='right')
    axes.set_yticks(range(len(runs)), [f'{run.group}, {run.label}' for run in runs])
    axes.grid(visible=False)
    for (i, j), value in np.ndenumerate(grid):
        axes.text(
            j,
            i,
            '–' if np.isnan(value) else f'{value:.0f}',
            ha='center',
            va='center',
            fontsize=8,
            color='black' if value > 60 else 'white',
        )
    return _png(figure)


class CurvePanel(NamedTuple):
    """What one pair of axes of the training curves shows."""

    title: str
    lines: list[tuple[str, str, np.ndarray]]  # run, label, points (steps, 2)
    chance: list[np.ndarray]  # what a guess gets, points (steps, 2)


def curve_panels(curves: dict[str, dict[str, np.ndarray]]) -> list[CurvePanel]:
    """Sort logged curves into a panel per loss term and one of scores.

    The sum of the terms is shown only where no term is logged: it says little,
    and there is no chance level to compare it with.

    Args:
        curves (dict): Per label of a run what :func:`read_scalars` returns.

    Raises:
        UserError: The logs hold neither a loss nor a score.
    """
    panels: dict[str, CurvePanel] = {}
    for label, values in curves.items():
        terms = [
            name for name in values if re.split('[/.]', name)[-1].startswith('loss_')
        ]
        sums = [name for name in values if name.split('/')[-1] == 'loss']
        for name in sorted(terms) or sorted(sums):
            panel = panels.setdefault(name, CurvePanel(name, [], []))
            panel.lines.append((label, label, values[name]))
            chance = values.get(_chance_of(name))
            if chance is not None and not any(
                np.array_equal(chance, other) for other in panel.chance
            ):
                panel.chance.append(chance)
    scores = [
        (label, f'{label} ({name.split("/")[-1]})', values[name])
        for label, values in curves.items()
        for name in sorted(values)
        if name.split('/')[-1] in ('mDice', 'macro_AUROC', 'contrastive_top1')
    ]
    found = list(panels.values())
    if scores:
        found.append(CurvePanel('score', scores, []))
    if not found:
        raise UserError('the logs hold neither a loss nor a score')
    return found


def _chance_of(term: str) -> str:
    """Name under which the chance level of a term is logged, if it has one."""
    if term == 'loss_contrastive':
        return 'chance_level'
    return f'{term.removeprefix("loss_")}_chance_level'


def plot_curves(curves: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Draw training curves: a panel per loss term, then the scores.

    Args:
        curves (dict): Per label of a run what :func:`read_scalars` returns.

    Returns:
        bytes: PNG.

    Raises:
        UserError: The logs hold neither a loss nor a score.
    """
    panels = curve_panels(curves)
    colours = _colours(list(curves))
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, all_axes = _figure(
        rows,
        columns,
        figsize=(4.2 * columns, 3 * rows),
        squeeze=False,
        layout='constrained',
    )
    for axes in all_axes.flat[len(panels) :]:
        axes.remove()
    for axes, panel in zip(all_axes.flat, panels):
        _draw_panel(axes, panel, colours)
    return _png(figure)


def _draw_panel(axes, panel: CurvePanel, colours: dict[str, str]) -> None:
    for run, label, points in panel.lines:
        # A smoothed line over the pale logged one.
        window = max(1, len(points) // 25)
        kernel = np.ones(window) / window
        smooth = np.convolve(
            np.pad(points[:, 1], (window // 2, (window - 1) // 2), mode='edge'),
            kernel,
            mode='valid',
        )
        axes.plot(*points.T, color=colours[run], alpha=0.25, lw=0.8)
        axes.plot(
            points[:, 0],
            smooth,
            color=colours[run],
            label=label,
            marker='o' if len(points) < 12 else None,
            ms=3,
        )
    for points in panel.chance:
        level = points[-1, 1]
        axes.plot(*points.T, color='grey', ls='--', lw=1, label=f'chance = {level:.2f}')
    axes.set_xlabel('step')
    axes.set_title(panel.title, loc='left')
    axes.legend(fontsize=7)


def display_image(
    image: np.ndarray, units: str, window: tuple[float, float] = (40.0, 400.0)
) -> np.ndarray:
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


def paint_labels(
    grey: np.ndarray, labels: np.ndarray, palette, opacity: float = 0.5
) -> np.ndarray:
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
    table[: len(colours)] = colours
    picture = np.repeat(grey[..., None], 3, axis=2)
    shown = (labels > 0) & (labels < len(colours))
    picture[shown] = (1 - opacity) * picture[shown] + opacity * table[labels[shown]]
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

        from medssl_mm.store.orientation import canonicalize

        image = nib.load(path)
        volume = canonicalize(np.asanyarray(image.dataobj), image.affine)[0].astype(
            np.uint8
        )
    else:
        path = path.with_name(f'{case.case_id}.npz')
        if not path.exists():
            return None
        with np.load(path) as content:
            volume = content['labels'].astype(np.uint8)
    if volume.shape != tuple(case.shape):
        raise UserError(
            f'{path} has shape {volume.shape}, the stored case '
            f'{tuple(case.shape)}; it belongs to another data set'
        )
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
    ranked = sorted(per_case, key=lambda case: (-np.mean(per_case[case]), case))
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
        index = max(
            range(len(label)),
            key=lambda z: (len(np.unique(label[z])), int((label[z] > 0).sum())),
        )
        rows.append((case, index, label[index], predictions))
    if not rows:
        return None
    columns = 2 + len(runs)
    figure, axes = _figure(
        len(rows),
        columns,
        figsize=(1.9 * columns, 1.6 * len(rows) + 0.7),
        squeeze=False,
        layout='constrained',
    )
    shown = set()
    for number, (case, index, label, predictions) in enumerate(rows):
        line = axes[number]
        grey = display_image(store.read_channel(case.case_id, index), store.units)
        part = _bounding_box(grey)
        aspect = (case.spacing[1] / case.spacing[2]) if case.spacing else 1
        name = 'image' if len(store.channels) == 1 else f'image ({store.channels[0]})'
        pictures = [(grey, name), (label, 'ground truth')] + [
            (None if volume is None else volume[index], f'{run.group}\n{run.label}')
            for run, volume in zip(runs, predictions)
        ]
        for place, (axis, (content, title)) in enumerate(zip(line, pictures)):
            axis.axis('off')
            if content is None:
                continue
            if place:
                shown |= set(np.unique(content).tolist())
                content = paint_labels(grey, content, store.palette)
            axis.imshow(content[part], cmap='gray', vmin=0, vmax=1, aspect=aspect)
            if number == 0:
                axis.set_title(title, fontsize=8)
        line[0].text(
            -0.03,
            0.5,
            f'{case.case_id}\nslice {index}',
            transform=line[0].transAxes,
            rotation=90,
            fontsize=7,
            ha='right',
            va='center',
        )
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
        Patch(
            color=[value / 255 for value in store.palette[index][:3]],
            label=store.classes[index],
        )
        for index in indices
        if index < len(store.classes)
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc='outside lower center',
            fontsize=7,
            ncols=min(7, len(handles)),
        )
