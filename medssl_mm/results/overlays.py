"""Predictions laid over the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.statistics.measures import DICE
from medssl_mm.store import CaseInfo, SliceStore
from medssl_mm.store.orientation import canonicalize

from .figures import styled_subplots
from .runs import Run
from .volumes import read_cases

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def display_image(
    image: np.ndarray, units: str, window: tuple[float, float] = (40.0, 400.0)
) -> np.ndarray:
    """Map a stored slice to grey values between 0 and 1.

    Args:
        image: Slice.
        units: 'HU' applies the window, others the 0.5-99.5 percentiles.
        window: Level and width, HU.

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
    grey: np.ndarray,
    labels: np.ndarray,
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
) -> np.ndarray:
    """Lay labels over a grey picture; background stays clear.

    Args:
        grey: Values 0-1.
        labels: Class per pixel.
        palette: RGB 0-255 per class.
        opacity: Of the colours, 0-1.

    Shape: grey, labels ``(H, W)``; returns ``(H, W, 3)``, 0-1.
    """
    table = np.zeros((256, 3), np.float32)
    colours = np.asarray(palette, np.float32)[:256, :3] / 255
    table[: len(colours)] = colours
    picture = np.repeat(grey[..., None], 3, axis=2)
    shown = (labels > 0) & (labels < len(colours))
    picture[shown] = (1 - opacity) * picture[shown] + opacity * table[labels[shown]]
    return picture


def read_prediction(folder: str | Path, case: CaseInfo) -> np.ndarray | None:
    """Read the stored prediction of a case in the store's orientation.

    Args:
        folder: Evaluation folder.
        case: Which case.

    Returns:
        np.ndarray or None: ``(Z, H, W)``, or None when none was saved.
    """
    path = Path(folder) / 'predictions' / f'{case.case_id}.nii.gz'
    if path.exists():
        import nibabel as nib

        image = nib.Nifti1Image.from_filename(path)
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


class _Row(NamedTuple):
    """One slice of a case: its number, its labels, and those of every run."""

    case: CaseInfo
    place: int
    label: np.ndarray
    predictions: list[np.ndarray | None]


def _rows(
    runs: Sequence[Run], store: SliceStore, case_ids: Sequence[str]
) -> Iterator[_Row]:
    for case_id in case_ids:
        case = store.case(case_id)
        volumes = [read_prediction(run.folders[0], case) for run in runs]
        if all(volume is None for volume in volumes):
            continue
        label = store.read_label_volume(case_id)
        index = max(
            range(len(label)),
            key=lambda z: (len(np.unique(label[z])), int((label[z] > 0).sum())),
        )
        yield _Row(
            case, index, label[index], [v if v is None else v[index] for v in volumes]
        )


def plot_overlays(
    runs: Sequence[Run], store: SliceStore, case_ids: Sequence[str]
) -> Figure | None:
    """Draw image, ground truth and the prediction of every run.

    Of every case the slice with most classes (then most labelled pixels) is
    shown. Only the first seed of a run is drawn.

    Args:
        runs: Columns after the ground truth.
        store: Images and labels.
        case_ids: Rows.

    Returns:
        matplotlib.figure.Figure or None: None when no prediction was saved.
    """
    rows = list(_rows(runs, store, case_ids))
    if not rows:
        return None
    columns = 2 + len(runs)
    figure, axes = styled_subplots(
        len(rows),
        columns,
        figsize=(1.9 * columns, 1.6 * len(rows) + 0.7),
        layout='constrained',
    )
    name = 'image' if len(store.channels) == 1 else f'image ({store.channels[0]})'
    titles = [name, 'ground truth', *(f'{run.group}\n{run.label}' for run in runs)]
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=8)
    for row, line in zip(rows, axes):
        _draw_row(row, line, store)
    labels = [part for row in rows for part in (row.label, *row.predictions)]
    shown = {int(n) for part in labels if part is not None for n in np.unique(part)}
    _draw_legend(figure, store, sorted(shown - {0}))
    return figure


def _draw_row(row: _Row, line: Sequence[Axes], store: SliceStore) -> None:
    grey = display_image(store.read_channel(row.case.case_id, row.place), store.units)
    part = _bounding_box(grey)
    spacing = row.case.spacing
    pictures = [grey] + [
        labels if labels is None else paint_labels(grey, labels, store.palette)
        for labels in (row.label, *row.predictions)
    ]
    for axis, picture in zip(line, pictures):
        axis.axis('off')
        if picture is not None:
            aspect = spacing[1] / spacing[2] if spacing else 1
            axis.imshow(picture[part], cmap='gray', vmin=0, vmax=1, aspect=aspect)
    line[0].text(
        -0.03,
        0.5,
        f'{row.case.case_id}\nslice {row.place}',
        transform=line[0].transAxes,
        rotation=90,
        fontsize=7,
        ha='right',
        va='center',
    )


def _bounding_box(grey: np.ndarray) -> tuple[slice, slice]:
    """Part of a picture that is not black, with a small margin."""
    box = []
    for axis in (1, 0):
        places = np.flatnonzero((grey > 0.02).mean(axis=axis) > 0.02)
        if not len(places):
            return slice(None), slice(None)
        box.append(slice(max(0, places[0] - 3), places[-1] + 4))
    return box[0], box[1]


def _draw_legend(figure: Figure, store: SliceStore, indices: Sequence[int]) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(
            color='#' + bytes(store.palette[index][:3]).hex(),
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
