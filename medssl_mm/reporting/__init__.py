"""Results of runs as tables, figures and a page; reads files only."""

from .figures import (
    COLOURS,
    choose_cases,
    curve_panels,
    display_image,
    paint_labels,
    read_prediction,
)
from .page import build_report
from .results import (
    Run,
    TableRow,
    pool_results,
    read_metrics,
    read_scalars,
    seed_mean,
    summarize,
)
from .tables import (
    caption_of,
    print_table,
    table_cells,
    to_csv,
    to_markdown,
    wide_cells,
    write_table,
)

__all__ = [
    'COLOURS',
    'Run',
    'TableRow',
    'build_report',
    'caption_of',
    'choose_cases',
    'curve_panels',
    'display_image',
    'paint_labels',
    'pool_results',
    'print_table',
    'read_metrics',
    'read_prediction',
    'read_scalars',
    'seed_mean',
    'summarize',
    'table_cells',
    'to_csv',
    'to_markdown',
    'wide_cells',
    'write_table',
]
