from medssl_mm.store.header import default_palette


def test_palette_colours_differ():
    colours = {tuple(c) for c in default_palette(256)}
    assert len(colours) == 256
    assert default_palette(3)[0] == [0, 0, 0]
