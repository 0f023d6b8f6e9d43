from rich.table import Table

from medssl_mm.results.screen import wide_console


def test_piped_tables_have_room_for_long_names(capsys):
    table = Table()
    table.add_column('checkpoint', overflow='fold')
    for _ in range(6):
        table.add_column('value', no_wrap=True)
    name = 'pretrain-mocov2-local-decorr/epoch_150.pth'
    table.add_row(name, *['0.12345'] * 6)
    wide_console().print(table)
    assert name in capsys.readouterr().out
