"""Checkpoints under the names that tables and figures give them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medssl_mm.errors import UserError, similar

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
        encoder (str, optional): A pretrained encoder, with weights and
            preprocessing, as :func:`medssl_mm.encoders.parse_source` reads it.
            Defaults to None: the network of the config.
        preprocessing (tuple): Pairs of settings that differ from those of the
            encoder. Defaults to ().
    """

    name: str
    path: Path | None = None
    seed: int = 0
    number: int = 0
    encoder: str | None = None
    preprocessing: tuple[tuple[str, object], ...] = ()

    @property
    def source(self) -> str:
        """Path of the checkpoint, 'random:SEED', or the encoder."""
        if self.encoder is None:
            return str(self.path or f'{RANDOM}:{self.seed}')
        is_random = self.encoder.startswith(f'{RANDOM}:')
        return self.encoder + (f':{self.seed}' if is_random else '')


def parse_weights(texts: Sequence[str], several: bool = False) -> list[Weights]:
    """Read which networks a command line asks for.

    ``NAME=CHECKPOINT``, ``random``, ``random:SEED`` and ``NAME=random`` are
    weights of the network of the config; ``NAME=ENCODER``,
    ``NAME=ENCODER:CHECKPOINT``, ``NAME=FOLDER`` (of an export),
    ``NAME=random:ENCODER`` and ``NAME=random:ENCODER:SEED`` bring a network,
    see :mod:`medssl_mm.encoders`.

    Args:
        texts (Sequence[str]): One per checkpoint.
        several (bool): Whether a name may stand for several checkpoints, the
            seeds of one method. Defaults to False.

    Raises:
        UserError: Another form, a name given twice, or a file or encoder that
            does not exist.
    """
    result = [_parse(text) for text in texts]
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


def _parse(text: str) -> Weights:
    name, equals, value = text.partition('=')
    value = value if equals else name
    kind, _, seed = value.partition(':')
    is_random = kind == RANDOM and (seed.isdigit() or value == RANDOM)
    if not name or not value or not (equals or is_random):
        raise UserError(
            f'checkpoints are given as NAME=PATH, got {text!r}; pretrained encoders '
            'as NAME=ENCODER or NAME=ENCODER:PATH, random weights as random, '
            'random:SEED or NAME=random:SEED'
        )
    if is_random:
        return Weights(name, None, int(seed or 0))
    if Path(value).is_file() and not value.endswith('.py'):
        return Weights(name, Path(value))
    return _named(name, value)


def _named(name: str, value: str) -> Weights:
    """A pretrained encoder; looked up at once, so that slips end here."""
    # Late: `--help` must not wait for it.
    from medssl_mm.encoders import encoder_names, parse_source

    source, seed = value, 0
    if value.startswith(f'{RANDOM}:') and value.rpartition(':')[2].isdigit():
        source, _, number = value.rpartition(':')
        seed = int(number)
    names = encoder_names()
    plain = source.removeprefix(f'{RANDOM}:').partition(':')[0]
    known = plain in names or plain.startswith('timm/') or plain.endswith('.py')
    if not known and not Path(value).is_dir():
        raise UserError(
            f'checkpoint {value} ({name}) does not exist, and no encoder is called '
            f'{plain!r}{similar(plain, names)}'
        )
    parse_source(source)
    return Weights(name, None, seed, encoder=source)


def sources_by_name(checkpoints: Sequence[Weights]) -> dict[str, list[str]]:
    """Paths, encoders, or 'random:SEED', of every name."""
    result: dict[str, list[str]] = {}
    for weights in checkpoints:
        result.setdefault(weights.name, []).append(weights.source)
    return result
