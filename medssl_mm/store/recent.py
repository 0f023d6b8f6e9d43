"""What a process keeps at hand: the values used last, a limited number."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar('Value')


class Recent(Generic[Value]):
    """The values used last, made when they are asked for.

    Safe in threads. A forked process and a copy (pickle) start empty: they
    share nothing with the one they come from.

    Args:
        limit (int): Number of values kept, at least 1.
        close (Callable, optional): Called with every value that is dropped.
            Defaults to None.
    """

    def __init__(self, limit: int, close: Callable[[Value], None] | None = None):
        self.limit = limit
        self.close = close
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __getstate__(self) -> dict:
        return dict(limit=self.limit, close=self.close)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key; ``make`` it when there is none."""
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
                while len(self._values) > self.limit:
                    self._drop(next(iter(self._values)))
            self._values.move_to_end(key)
            return self._values[key]

    def drop(self, key: Hashable) -> None:
        """Forget the value of a key, if there is one."""
        if self._pid != os.getpid():
            self._start()
        with self._lock:
            if key in self._values:
                self._drop(key)

    def _drop(self, key: Hashable) -> None:
        value = self._values.pop(key)
        if self.close is not None:
            self.close(value)
