"""Pickles of arrays: what they may hold, and what is refused unread."""

import os
import pickle
import sys
import types

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.unpickle import Record, load_arrays


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values(tmp_path, protocol):
    content = dict(
        data=np.arange(12, dtype=np.uint8).reshape(3, 4),
        labels=[1, 2, 3],
        mean=np.float32(2.5),
        names=['a', 'b'],
    )
    (tmp_path / 'batch').write_bytes(pickle.dumps(content, protocol))
    found = load_arrays(tmp_path / 'batch')
    np.testing.assert_array_equal(found.pop('data'), content.pop('data'))
    assert found == content


def test_texts_of_python_2_become_str(tmp_path):
    # What Python 2 writes: {'data': 'ab'}, protocol 0, and the same in bytes.
    (tmp_path / 'old').write_bytes(b"(dp0\nS'data'\np1\nS'ab'\np2\ns.")
    assert load_arrays(tmp_path / 'old') == {'data': 'ab'}
    (tmp_path / 'new').write_bytes(pickle.dumps({b'data': 1}))
    assert load_arrays(tmp_path / 'new') == {'data': 1}


def test_a_foreign_class_is_refused_before_it_runs(tmp_path):
    made = tmp_path / 'made'
    (tmp_path / 'batch').write_bytes(pickle.dumps({'data': Evil(made)}))
    with pytest.raises(UserError, match='mkdir.*could run a program.*fetch') as caught:
        load_arrays(tmp_path / 'batch')
    assert str(tmp_path / 'batch') in str(caught.value)
    assert not made.exists()


@pytest.mark.parametrize(
    'name', ['builtins.eval', 'numpy.core.multiarray.fromfile', 'os.system']
)
def test_functions_by_name(tmp_path, name):
    module, _, function = name.rpartition('.')
    (tmp_path / 'batch').write_bytes(f'c{module}\n{function}\n.'.encode())
    with pytest.raises(UserError, match='holds the class'):
        load_arrays(tmp_path / 'batch')


@pytest.mark.parametrize('content', [b'', b'no pickle', pickle.dumps([1] * 99)[:-9]])
def test_damaged_files(tmp_path, content):
    (tmp_path / 'batch').write_bytes(content)
    with pytest.raises(UserError, match='damaged or no pickle.*fetch it again'):
        load_arrays(tmp_path / 'batch')


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match='cannot read .*absent'):
        load_arrays(tmp_path / 'absent')


class Settings(dict):
    """Of a package that is not installed."""


def test_objects_of_named_packages_become_records(tmp_path, monkeypatch):
    monkeypatch.setattr(Settings, '__module__', 'trainer.settings')
    module = types.ModuleType('trainer.settings')
    module.Settings = Settings
    monkeypatch.setitem(sys.modules, 'trainer', types.ModuleType('trainer'))
    monkeypatch.setitem(sys.modules, 'trainer.settings', module)
    content = dict(mean=np.arange(3), settings=Settings(rate=1), more=[Settings()])
    (tmp_path / 'batch').write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r'holds the class trainer\.settings\.Settings'):
        load_arrays(tmp_path / 'batch')
    monkeypatch.delitem(sys.modules, 'trainer.settings')
    found = load_arrays(tmp_path / 'batch', ('trainer',))
    np.testing.assert_array_equal(found['mean'], [0, 1, 2])
    assert isinstance(found['settings'], Record)
    assert found['settings'].items == {'rate': 1}
    assert 'trainer.settings' not in sys.modules


def test_records_do_not_let_others_in(tmp_path):
    """A package whose name only begins alike, or a function that runs things."""
    for name in ('trainers.run', 'os.system', 'builtins.eval'):
        module, _, function = name.rpartition('.')
        (tmp_path / 'batch').write_bytes(f'c{module}\n{function}\n.'.encode())
        with pytest.raises(UserError, match='holds the class'):
            load_arrays(tmp_path / 'batch', ('trainer', 'dill'))
