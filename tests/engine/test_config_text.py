import pytest
from mmengine.config import Config

from medssl_mm.engine.config_text import parse_config_text

# Texts.
pytestmark = pytest.mark.exact


def test_reads_what_mmengine_writes():
    content = dict(
        model=dict(type='a.B', sizes=(1, 2), deep=[dict(x=-1.5, y=None)]),
        odd={'not-a-name': 1, 3: 'three'},
        flag=True,
        words="it's\nhere",
    )
    assert parse_config_text(Config(content).pretty_text) == content


@pytest.mark.parametrize(
    'text',
    ['import os', 'x = open("f")', 'x = [].append(1)', 'x = a', 'x = dict(1, 2)'],
)
def test_runs_nothing(text):
    with pytest.raises(ValueError, match='line 2 .* is not a plain value'):
        parse_config_text('y = 1\n' + text)


def test_broken_text():
    with pytest.raises(ValueError, match='is no Python'):
        parse_config_text('x = = 1')
