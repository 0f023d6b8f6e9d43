import pytest

from medssl_mm.errors import UserError
from medssl_mm.store import open_store
from medssl_mm.store.header import default_palette


@pytest.mark.parametrize(
    'name, content, fact',
    [
        ('dataset.json', '[1]', 'a list instead of a mapping'),
        ('dataset.json', '{"version": 1', 'is damaged'),
        ('cases/p0-0/case.json', '[]', 'a list instead of a mapping'),
        ('cases/p0-0/case.json', '{"shape": "big"}', 'missing'),
    ],
)
def test_description_of_another_shape_is_named(
    make_store, tmp_path, name, content, fact
):
    make_store(tmp_path / 'store')
    (tmp_path / 'store' / name).write_text(content)
    with pytest.raises(UserError, match=f'{name} is damaged') as caught:
        open_store(tmp_path / 'store').case('p0-0')
    assert fact in str(caught.value)


def test_classes_that_are_no_names_are_named(make_store, tmp_path):
    path = make_store(tmp_path / 'store').root / 'dataset.json'
    path.write_text(path.read_text().replace('"background"', '5', 1))
    with pytest.raises(UserError, match='classes should be a list of names, got'):
        open_store(tmp_path / 'store')


def test_palette_colours_differ():
    colours = {tuple(c) for c in default_palette(256)}
    assert len(colours) == 256
    assert default_palette(3)[0] == [0, 0, 0]
