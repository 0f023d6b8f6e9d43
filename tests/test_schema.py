"""How numbers in YAML files are read."""

from typing import Any

import pytest

from medssl_mm.errors import UserError
from medssl_mm.schema import Entry, read_yaml


class Options(Entry):
    """Holds anything."""

    options: dict[str, Any]


@pytest.mark.parametrize(
    ('written', 'value'),
    [
        ('1e-3', 1e-3),
        ('-2.5E4', -2.5e4),
        ('3.e2', 300.0),
        ('.5e+1', 5.0),
        ('0.1', 0.1),
        ('22', 22),
        ('0x1f', 31),
        ('2_2', '2_2'),
        ('0_5.1', '0_5.1'),
        ('1:30', '1:30'),
        ("'1e-3'", '1e-3'),
        ('1e-3a', '1e-3a'),
        ('e5', 'e5'),
        ('[1e-3, 2_2]', [1e-3, '2_2']),
    ],
)
def test_numbers_are_those_of_the_command_line(tmp_path, written, value):
    path = tmp_path / 'table.yaml'
    path.write_text(f'options: {{lr: {written}}}')
    found = read_yaml(Options, path, 'table').options['lr']
    assert found == value and type(found) is type(value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / 'table.yaml'
    path.write_text('options: {lr: 1, lr: 2}')
    with pytest.raises(UserError, match="'lr' stands twice"):
        read_yaml(Options, path, 'table')
