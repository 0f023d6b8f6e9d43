"""Predictions laid over the images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medssl_mm.errors import UserError

from .figures import styled_subplots
from .measures import DICE
from .runs import Run
from .volumes import read_cases


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
    cases = read_cases(cases_csv, [DICE.name]).dropna(subset=DICE.name)
    per_case = cases.groupby('case_id')[DICE.name].mean()
    ranked = sorted(per_case.index, key=lambda case: (-per_case[case], case))
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
        matplotlib.figure.Figure or None: None when no prediction was saved.
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
    figure, axes = styled_subplots(
        len(rows),
        columns,
        figsize=(1.9 * columns, 1.6 * len(rows) + 0.7),
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
    return figure


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
