"""Options of importers: declared as fields, asked for on the command line."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

from medssl_mm.errors import UserError


def option(help: str, kept: Callable[[Any], Any] | None = None, **keywords: Any) -> Any:
    """Declare an option: a field of an importer and a flag of the tool.

    Args:
        help (str): Text for ``--help``.
        kept (Callable, optional): What a store remembers of a value, e.g. the content
            of a file instead of its name. Defaults to None: the value.
        keywords: Further ones of ``argparse.add_argument``; ``flags`` are
            further spellings.
    """
    metadata = dict(option=dict(help=help, **keywords), kept=kept)
    return field(default=None, metadata=metadata)


def patient_option(more: str = '') -> Any:
    """The option ``patient_pattern`` of importers that find patients in paths.

    Args:
        more (str): What follows in the help. Defaults to ''.
    """
    return option(
        'its first group, searched in the path below --src, is the patient id' + more,
        metavar='REGEX',
    )


def patients_option() -> Any:
    """The option ``patients`` of the same importers."""
    return option(
        'CSV file with the columns case,patient: the patient of every case (case id, '
        'or its file), instead of a pattern',
        kept=bool,  # that there is one: it may be moved or corrected
        metavar='FILE',
    )


def flag(name: str) -> str:
    """Command-line spelling of an option."""
    return '--' + name.replace('_', '-')


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the nearest known word: '; did you mean ...?', or nothing."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f'; did you mean {found[0]}?' if found else ''


def refuse(
    name: str, options: Iterable[str], flags: Iterable[str], others: Iterable[str] = ()
) -> None:
    """Refuse flags that an importer does not take.

    Args:
        name (str): The importer.
        options (Iterable[str]): Names of its options.
        flags (Iterable[str]): The unknown flags; none is no fault.
        others (Iterable[str]): Flags of the tool that any importer takes.

    Raises:
        UserError: Names them, the known ones and the nearest.
    """
    flags, known = sorted(flags), [flag(option) for option in options]
    if flags:
        raise UserError(
            f'{name!r} does not take {", ".join(flags)}; its options are '
            f'{", ".join(known) or "none"}' + nearest(flags[0], [*known, *others])
        )


def parse_with(
    parser: argparse.ArgumentParser, name: str, options: Mapping[str, Mapping]
) -> argparse.Namespace:
    """Parse a command line with the options of an importer.

    Args:
        parser (argparse.ArgumentParser): With the options of the tool; one of
            them may serve as an option of the importer, by its name.
        name (str): The importer.
        options (Mapping): Its options with their keywords.

    Raises:
        UserError: A flag that neither the tool nor the importer takes.
    """
    common = {word for action in parser._actions for word in action.option_strings}
    group = parser.add_argument_group(f'options of {name}')
    for option_name, keywords in options.items():
        if flag(option_name) not in common:
            rest = dict(keywords)
            flags = (flag(option_name), *rest.pop('flags', ()))
            group.add_argument(*flags, dest=option_name, **rest)
    args, unknown = parser.parse_known_args()
    words = [word.partition('=')[0] for word in unknown if word.startswith('-')]
    refuse(name, options, words, common)
    if unknown:
        parser.error(f'{unknown[0]!r} belongs to no option')
    return args
