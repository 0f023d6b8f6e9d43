"""Checkpoints under the names that tables and figures give them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl_mm.errors import UserError

RANDOM = 'random'


@dataclass(frozen=True)
class Weights:
    """Weights of a backbone under a name.

    Args:
        name (str): For tables and figures.
        path (Path, optional): Checkpoint; None for random initialisation.
            Defaults to None.
        seed (int): Of the random initialisation. Defaults to 0.
        number (int): Which one of those of the name, from 0. Defaults to 0.
    """

    name: str
    path: Path | None = None
    seed: int = 0
    number: int = 0

    @property
    def source(self) -> str:
        """Path of the checkpoint, or 'random:SEED'."""
        return str(self.path or f'{RANDOM}:{self.seed}')


def parse_weights(texts: Sequence[str], several: bool = False) -> list[Weights]:
    """Read ``NAME=CHECKPOINT``, ``random``, ``random:SEED``, ``NAME=random``.

    Args:
        texts (Sequence[str]): One per checkpoint.
        several (bool): Whether a name may stand for several checkpoints, the
            seeds of one method. Defaults to False.

    Raises:
        UserError: Another form, a name given twice or a file that does not
            exist.
    """
    result = []
    for text in texts:
        name, equals, value = text.partition('=')
        value = value if equals else name
        kind, _, seed = value.partition(':')
        is_random = kind == RANDOM and (seed.isdigit() or value == RANDOM)
        if not name or not value or not (equals or is_random):
            raise UserError(
                f'checkpoints are given as NAME=PATH, got {text!r}; random '
                'weights as random, random:SEED or NAME=random:SEED'
            )
        if is_random:
            result.append(Weights(name, None, int(seed or 0)))
        elif not Path(value).is_file():
            raise UserError(f'checkpoint {value} ({name}) does not exist')
        else:
            result.append(Weights(name, Path(value)))
    names = [weights.name for weights in result]
    for index, name in enumerate(names):
        number = names[:index].count(name)
        if number and not several:
            raise UserError(
                f'the name {name} stands for several checkpoints; give each '
                'its own: NAME=PATH'
            )
        result[index] = replace(result[index], number=number)
    return result


def sources_by_name(checkpoints: Sequence[Weights]) -> dict[str, list[str]]:
    """Paths, or 'random:SEED', of every name."""
    result: dict[str, list[str]] = {}
    for weights in checkpoints:
        result.setdefault(weights.name, []).append(weights.source)
    return result
