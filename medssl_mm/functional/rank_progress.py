"""Which rank the others wait for."""

import threading
import time
from typing import Any

__all__ = ['RankProgress']


class RankProgress:
    """Every rank notes how far it is and, regularly, that it lives.

    A collective that fails says how long it waited, but not for whom. The
    notes lie in the store by which the ranks found one another.

    Args:
        store (torch.distributed.Store): Of the group.
        rank (int): Number of this process.
        world_size (int): Number of processes.
        interval (float): Seconds between two signs of life. Defaults to 1.
    """

    def __init__(
        self, store: Any, rank: int, world_size: int, interval: float = 1.0
    ) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._interval = interval
        self._count = 0
        self._ended = threading.Event()
        self.note('start')
        self._beat(0)
        threading.Thread(target=self._live, daemon=True).start()

    def note(self, place: str) -> None:
        """Note that this rank has come to a place; all ranks pass the same ones.

        Args:
            place (str): Words for the message, such as 'iteration 12'.
        """
        self._store.set(f'medssl_mm/place/{self._rank}', f'{self._count} {place}')
        self._count += 1

    def end(self) -> None:
        """Give no more signs of life."""
        self._ended.set()

    def missing(self) -> str:
        """Say which ranks are behind or give no sign of life.

        Takes a few seconds: signs of life are waited for.
        """
        before = self._read('beat')
        time.sleep(4 * self._interval)
        after = self._read('beat')
        places = self._read('place')
        if before is None or after is None or places is None:
            return 'rank 0, which holds the notes of all ranks, does not answer'
        counts = [int(place.split(' ', 1)[0]) for place in places]
        words = [place.split(' ', 1)[1] for place in places]
        furthest = max(counts)
        found = []
        for rank in range(self._world_size):
            frozen = before[rank] == after[rank]
            behind = counts[rank] < furthest
            if frozen or behind:
                found.append(
                    f'rank {rank} '
                    + ('gives no sign of life' if frozen else 'lives')
                    + f', last seen at {words[rank]}'
                )
        here = f'{words[counts.index(furthest)]}'
        if not found:
            return f'all ranks live and have come to {here}, but not all to its end'
        return f'{"; ".join(found)}; the others at {here}'

    def _live(self) -> None:
        number = 0
        while not self._ended.wait(self._interval):
            number += 1
            try:
                self._beat(number)
            except RuntimeError:  # the group has gone
                return

    def _beat(self, number: int) -> None:
        self._store.set(f'medssl_mm/beat/{self._rank}', str(number))

    def _read(self, kind: str) -> list[str] | None:
        keys = [f'medssl_mm/{kind}/{rank}' for rank in range(self._world_size)]
        try:
            return [self._store.get(key).decode() for key in keys]
        except RuntimeError:
            return None
