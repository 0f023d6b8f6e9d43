"""Importers by name; their modules are loaded when asked for.

A data set is one file in :mod:`medssl_mm.importers.sets`, called after its
name on the command line ('-' becomes '_'), with one subclass of
:class:`medssl_mm.importers.base.Importer` of that ``name``; or a row of
:data:`medssl_mm.datasets.image_sets.IMAGE_SETS`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from medssl_mm.datasets.image_sets import IMAGE_SETS, IMPORTER
from medssl_mm.errors import UserError
from medssl_mm.importers import sets
from medssl_mm.importers.base import Importer
from medssl_mm.importers.options import flag, nearest, refuse

_FILES = {
    module.name.replace('_', '-')
    for module in pkgutil.iter_modules(sets.__path__)
    if not module.name.startswith('_')
}
_ROWS = {name for name, row in IMAGE_SETS.items() if row.layout != IMPORTER}
IMPORTERS = tuple(sorted(_FILES | _ROWS))


def importer_class(name: str) -> type[Importer]:
    """The class of a source format or published data set.

    Raises:
        UserError: Unknown name.
    """
    if name not in IMPORTERS:
        raise UserError(
            f'unknown data set {name!r}; known are {", ".join(IMPORTERS)}'
            + nearest(name, IMPORTERS)
        )
    if name in _ROWS:
        from medssl_mm.importers.image_rows import row_importer

        return row_importer(name)
    module = importlib.import_module(f'{sets.__name__}.{name.replace("-", "_")}')
    (found,) = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and getattr(value, 'name', None) == name
    }
    return found


def make_importer(name: str, **options: Any) -> Importer:
    """Make the importer of a source format or published data set.

    Args:
        name (str): One of :data:`IMPORTERS`.
        options: Its options; None leaves the default.

    Raises:
        UserError: Unknown name, or an option that it does not take.
    """
    found = importer_class(name)
    unknown = set(options) - set(found.options())
    refuse(name, found.options(), map(flag, unknown))
    return found(**{k: v for k, v in options.items() if v is not None})
