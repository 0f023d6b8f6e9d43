"""The values used last: bounded, closed, empty after a fork or a copy."""

import os
import pickle

from medssl_mm.store.recent import Recent


def test_the_longest_unused_goes_first():
    gone, made = [], []
    recent = Recent(2, close=gone.append)

    def get(key):
        return recent.get(key, lambda: made.append(key) or f'value of {key}')

    assert [get(k) for k in 'abab'] == [f'value of {k}' for k in 'abab']
    assert made == ['a', 'b'] and gone == []
    get('b')
    get('a')
    get('c')  # b was used longest ago
    assert gone == ['value of b'] and len(recent) == 2
    recent.drop('a')
    recent.drop('a')
    assert gone == ['value of b', 'value of a']
    get('a')
    assert made == ['a', 'b', 'c', 'a']


def test_copies_and_children_start_empty():
    recent = Recent(3)
    recent.get('a', dict)
    copy = pickle.loads(pickle.dumps(recent))
    assert (copy.limit, len(copy)) == (3, 0)
    pid = os.fork()
    if not pid:
        mine = recent.get('a', lambda: 'of the child')
        os._exit(0 if mine == 'of the child' else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert recent.get('a', lambda: 'anew') == {}
