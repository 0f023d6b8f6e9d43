"""Sheets of pictures: rows and columns of them, for a person to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .figures import styled_subplots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Frames of what is right and what is wrong; told apart by the colour-blind.
RIGHT, WRONG = '#0072b2', '#d55e00'


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a sheet.

    Args:
        picture (np.ndarray): uint8, or colours 0-1.
        text (str): Below it. Defaults to ''.
        frame (str): Colour of a frame. Defaults to '': none.
        dashed (bool): Whether the frame is dashed. Defaults to False.
        heat (np.ndarray, optional): Map laid over the picture. Defaults to
            None.

    Shape: picture ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)``; heat ``(h, w)``.
    """

    picture: np.ndarray
    text: str = ''
    frame: str = ''
    dashed: bool = False
    heat: np.ndarray | None = None


def shortened(text: str, length: int = 26) -> str:
    """Leave out the middle of a long name."""
    keep = (length - 1) // 2
    return text if len(text) <= length else f'{text[:keep]}…{text[-keep:]}'


def draw_sheet(
    rows: Sequence[Sequence[Tile | None]],
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
    title: str = '',
    note: str = '',
    side: float = 1.5,
) -> Figure:
    """Draw a sheet.

    Args:
        rows: Pictures; None leaves a place empty.
        columns: Titles of the columns.
        names: Names of the rows, at their left.
        title: Above all.
        note: Below all.
        side: Of a picture, inches.

    Returns:
        matplotlib.figure.Figure: To be written.
    """
    width = max(map(len, rows))
    texts = any(tile is not None and tile.text for row in rows for tile in row)
    lines = max(
        (t.text.count('\n') + 1 for r in rows for t in r if t is not None and t.text),
        default=0,
    )
    height = side + (0.13 * lines if texts else 0)
    figure, axes = styled_subplots(
        len(rows),
        width,
        figsize=(width * (side + 0.08) + 0.5, len(rows) * (height + 0.1) + 0.6),
        layout='constrained',
    )
    for number, (row, line) in enumerate(zip(rows, axes)):
        for place, axis in enumerate(line):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(visible=False)
            for spine in axis.spines.values():
                spine.set_visible(False)
            tile = row[place] if place < len(row) else None
            if tile is not None:
                _draw_tile(axis, tile)
        if number < len(names):
            line[0].set_ylabel(names[number], fontsize=8)
    for axis, text in zip(axes[0], columns):
        axis.set_title(text, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10, fontweight='bold')
    if note:
        figure.supxlabel(note, fontsize=7)
    return figure


def _draw_tile(axis: object, tile: Tile) -> None:
    from matplotlib.axes import Axes

    assert isinstance(axis, Axes), 'subplots give axes'
    picture = np.squeeze(tile.picture)
    high = 255 if picture.dtype == np.uint8 else 1
    if picture.ndim == 2:
        axis.imshow(picture, cmap='gray', vmin=0, vmax=high)
    else:
        axis.imshow(picture)
    if tile.heat is not None:
        # Grey below, so that the colours are those of the map alone.
        grey = picture if picture.ndim == 2 else picture.mean(-1)
        axis.imshow(grey, cmap='gray', vmin=0, vmax=high)
        low, top = float(tile.heat.min()), float(tile.heat.max())
        axis.imshow(
            tile.heat, cmap='inferno', vmin=low, vmax=max(top, low + 1e-12), alpha=0.6
        )
    if tile.text:
        axis.set_xlabel(tile.text, fontsize=7, labelpad=2)
    if tile.frame:
        for spine in axis.spines.values():
            spine.set(visible=True, color=tile.frame, linewidth=2.5)
            if tile.dashed:
                spine.set(linestyle=(0, (2, 1.5)), capstyle='butt')


def lossless(picture: np.ndarray) -> bytes:
    """Encode a picture as PNG, pixel by pixel as it is.

    Shape: uint8 ``(h, w)``, ``(h, w, 1)`` or ``(h, w, 3)``.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.squeeze(picture)).save(buffer, format='png')
    return buffer.getvalue()
