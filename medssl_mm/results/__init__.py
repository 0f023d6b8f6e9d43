"""Results of runs as tables, figures and a page; of one evaluation, too.

From scores and intervals to CSV, JSON, Markdown, pictures and the screen.
pandas, matplotlib, nibabel and jinja2 are imported where they are used, as --help
and the start of a training must not wait for them.
"""

from medssl_mm.statistics.measures import Measure

from .evaluation import Evaluation, read_metrics
from .figures import COLOURS
from .files import plain, write_results
from .images import read_predictions
from .logs import curve_panels, read_scalars
from .overlays import choose_cases, display_image, paint_labels, read_prediction
from .page import build_report
from .runs import Run, TableRow, collect_scores, resample, summarize
from .screen import show_table, to_markdown
from .tables import (
    caption_of,
    print_table,
    table_cells,
    to_csv,
    wide_cells,
    write_table,
)
from .volumes import pool_results, read_cases, resample_cases

__all__ = [
    'COLOURS',
    'Evaluation',
    'Measure',
    'Run',
    'TableRow',
    'build_report',
    'caption_of',
    'choose_cases',
    'collect_scores',
    'curve_panels',
    'display_image',
    'paint_labels',
    'plain',
    'pool_results',
    'print_table',
    'read_cases',
    'read_metrics',
    'read_prediction',
    'read_predictions',
    'read_scalars',
    'resample',
    'resample_cases',
    'show_table',
    'summarize',
    'table_cells',
    'to_csv',
    'to_markdown',
    'wide_cells',
    'write_results',
    'write_table',
]
