import pandas as pd
from rich.console import Console
from rich.table import Table

from medssl_mm.results.screen import (
    mean_and_sd,
    show_table,
    to_markdown,
    wide_console,
)


def test_piped_tables_have_room_for_long_names(capsys):
    table = Table()
    table.add_column('checkpoint', overflow='fold')
    for _ in range(6):
        table.add_column('value', no_wrap=True)
    name = 'pretrain-mocov2-local-decorr/epoch_150.pth'
    table.add_row(name, *['0.12345'] * 6)
    wide_console().print(table)
    assert name in capsys.readouterr().out


def test_table_too_wide_for_the_screen_loses_neither_names_nor_numbers(capsys):
    interval = '1.000 [0.900, 1.000]'
    cells = pd.DataFrame([['moco', '0.25', *[interval] * 5]] * 2)
    cells.columns = ['checkpoint', 'labels', *['against moco'] * 5]
    show_table(cells, folded='checkpoint', console=Console(width=100))
    out = capsys.readouterr().out
    assert out.count('moco ') >= 2 and out.count('0.25') == 2
    assert out.count('0.900,') == out.count('1.000]') == 10
    assert out.count('1.000') == 20 and '…' not in out


def test_markdown_escapes_what_would_end_a_cell():
    text = to_markdown(pd.DataFrame({'a|b': ['c|d'], 'n': ['1']}))
    assert text == '| a\\|b | n |\n| --- | --- |\n| c\\|d | 1 |\n'


def test_one_value_has_no_spread():
    assert mean_and_sd([0.5], '.2f') == '0.50'
    assert mean_and_sd([0.5, 0.7], '.2f', '.1g') == '0.60 ± 0.1'
