"""Names of others mean nothing to Markdown, CSV, figures, paths and the screen."""

import io
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from medssl_mm.errors import UserError
from medssl_mm.importers.base import warning
from medssl_mm.importers.report import print_notes, print_problems
from medssl_mm.importers.run import CaseResult
from medssl_mm.results.files import csv_text, png_of, read_csv, write_results
from medssl_mm.results.page import Section, render_page
from medssl_mm.results.screen import show_table, table_text, to_markdown
from medssl_mm.texts import for_csv, for_markdown, from_csv, inside

HOSTILE = (
    '[/x]',
    '[red]liver[/red]',
    r'$\foo$',
    '$a_b^c$ and $',
    'a|b',
    '<b>bold</b><script>',
    '=1+1',
    '@SUM(A1)',
    "'=x",
    '-x',
    '../up',
    'back`tick *star* _score_ \\',
    'line\nbreak',
    ':smile:',
    'http://[a](b)',
    '&amp;',
    '患者',
)


def frame():
    return pd.DataFrame({'class': HOSTILE, '=head': [f'x {n}' for n in HOSTILE]})


def test_the_screen_shows_names_as_they_are():
    buffer = io.StringIO()
    console = Console(file=buffer, width=200, color_system=None)
    show_table(frame(), '[/title]', ['[/note] :smile:'], console=console)
    shown = buffer.getvalue()
    for name in HOSTILE:
        for line in name.splitlines():
            assert line in shown
    assert '[/title]' in shown and 'note: [/note] :smile:' in shown
    assert '[/x]' in table_text(frame())


def test_findings_and_notes_show_names_as_they_are():
    buffer = io.StringIO()
    console = Console(file=buffer, width=200, color_system=None)
    results = [
        CaseResult(n, n, f'/src/{i}', None, 'imported', [warning('x', f'about {n}')])
        for i, n in enumerate(HOSTILE)
    ]
    print_problems(results, console)
    print_notes(HOSTILE, console)
    for name in HOSTILE:
        assert buffer.getvalue().count(name.splitlines()[0]) >= 3


def test_markdown_has_one_row_and_no_markup_per_name():
    rows = to_markdown(frame()).splitlines()
    assert len(rows) == len(HOSTILE) + 2
    for row in rows:
        assert len(re.findall(r'(?<!\\)(?:\\\\)*\|', row)) == 3  # two cells
    assert '<' not in ''.join(rows)
    assert for_markdown('51.2 [48.1, 53.0] × a_b') == '51.2 [48.1, 53.0] × a_b'
    markdown = pytest.importorskip('markdown_it').MarkdownIt()
    for name in HOSTILE:
        html = markdown.render(for_markdown(name))
        text = ' '.join(name.split('\n'))
        for letter, entity in (('&', '&amp;'), ('<', '&lt;'), ('>', '&gt;')):
            text = text.replace(letter, entity)
        assert html == f'<p>{text}</p>\n'


@pytest.mark.parametrize(
    'text', [*HOSTILE, '-1.5', '+3e4', '-', '', "''-5", "'x", '-inf']
)
def test_csv_comes_back_and_is_no_formula(text):
    written = for_csv(text)
    assert from_csv(written) == text
    number = re.fullmatch(r'[-+]?([\d.]+(e\d+)?|inf)|-', text)
    assert written == text if number else not re.match(r'[=+\-@\t\r]', written)


def test_tables_are_read_as_they_were_written(tmp_path):
    table = frame()
    path = tmp_path / 'table.csv'
    path.write_text(csv_text(table.assign(number=-1.5)), encoding='utf-8')
    found = read_csv(path)
    assert found.pop('number').unique().tolist() == ['-1.5']
    pd.testing.assert_frame_equal(found, table, check_dtype=False)
    assert '\n=1+1' not in path.read_text() and ',=' not in path.read_text()
    with pytest.raises(UserError, match=r'none.csv: No such file'):
        read_csv(tmp_path / 'none.csv')
    path.write_bytes(b'')
    with pytest.raises(UserError, match='is damaged'):
        read_csv(path)


def test_figures_draw_every_name():
    figure = Figure(layout='constrained')
    one, two = figure.subplots(1, 2)
    for name in HOSTILE[:-1]:  # a font need not have every letter
        one.plot([1, 2], label=name)
    one.set_xticks(range(len(HOSTILE) - 1), HOSTILE[:-1])
    one.set_title(r'$\foo$')
    one.legend(title=r'$\bar$')
    one.annotate(r'$\foo$', (0, 1))
    two.semilogy([1, 1000])
    figure.legend(*one.get_legend_handles_labels())
    figure.suptitle('$a$ and $b')
    assert png_of(figure).startswith(b'\x89PNG')
    labels = [t.label1 for t in two.yaxis.get_major_ticks()]
    assert any('10' in t.get_text() and t.get_parse_math() for t in labels)


def test_a_page_escapes_every_name():
    page = render_page(
        '<b>t</b>',
        '<i>lead</i>',
        [Section('<u>s</u>', '<u>x</u>', frame(), (), {'<k>': '<v>'}, ['<c>'])],
    )
    assert not re.search('<(b|i|u|k|v|c|script)>', page)
    assert '&lt;b&gt;bold' in page


def test_files_stay_in_their_folder(tmp_path):
    for name in ('../x.json', 'a/../../x.json', '/x.json', 'a\0.json'):
        with pytest.raises(UserError, match='leads out of the folder'):
            write_results(tmp_path / 'out', {name: {}})
    assert list(tmp_path.iterdir()) == []
    assert inside(tmp_path, 'a/b.json') == tmp_path / 'a' / 'b.json'


def test_numbers_keep_their_format():
    table = pd.DataFrame({'name': ['=x', 'y'], 'value': [np.nan, -0.25], 'n': [1, 2]})
    assert csv_text(table, '%.3f') == "name,value,n\n'=x,,1\ny,-0.250,2\n"
