"""Names and texts of others, on their way into Markdown, CSV, figures and paths.

Class names, labels and case ids come from files: whatever they hold is shown as it
is and means nothing to the program that shows it. On screen they are
``rich.text.Text``, which has no markup; in HTML the template escapes them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from medssl_mm.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Between the title of a table's row and the name of one of its checkpoints.
AT = ' @ '

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how spreadsheets begin a formula
_NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)|-')
_MARKDOWN = (
    (re.compile(r'([\\|`*$])'), r'\\\1'),
    (re.compile(r'\]\('), r']\\('),
    (re.compile(r'(?<!\w)_|_(?!\w)'), r'\\_'),
    (re.compile(r'&(?=#?\w+;)'), '&amp;'),
    (re.compile('<'), '&lt;'),
    (re.compile(r'\s*[\r\n]+\s*'), ' '),
)


def for_markdown(text: str) -> str:
    """Escape a text of one line for Markdown, a cell of a table included."""
    for pattern, replacement in _MARKDOWN:
        text = pattern.sub(replacement, text)
    return text


def for_csv(text: str) -> str:
    """Keep a spreadsheet from computing a text; :func:`from_csv` undoes it.

    A text that would be a formula gets an apostrophe before it; numbers stay.
    """
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


def from_csv(text: str) -> str:
    """Read a text that :func:`for_csv` wrote."""
    if text.startswith("'") and _FORMULA.match(text):
        return text[1:]
    return text


def show_as_is(figure: Figure) -> None:
    """Let the dollar signs of a figure's texts be no formulas.

    Ticks of logarithmic axes stay, whose labels are formulas.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    named = (FixedFormatter, FuncFormatter)
    ticks = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [
                label
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                for label in (tick.label1, tick.label2)
            ]
            if not isinstance(axis.get_major_formatter(), named):
                ticks.update(labels)
    for text in figure.findobj(Text):
        if text not in ticks:
            text.set_parse_math(False)


def inside(folder: str | Path, name: str | Path) -> Path:
    """Path of a file below a folder.

    Raises:
        UserError: The name leads out of it.
    """
    if Path(name).is_absolute() or '..' in Path(name).parts or '\0' in str(name):
        raise UserError(f'{str(name)!r} leads out of the folder {folder}; rename it')
    return Path(folder, name)
