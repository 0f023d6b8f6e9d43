"""Libraries that only some formats need."""

import importlib
import importlib.util
from types import ModuleType

from medssl_mm.errors import InstallError


def check_installed(package: str) -> None:
    """Refuse to go on without an optional library.

    Raises:
        InstallError: Names the extra to install.
    """
    if importlib.util.find_spec(package) is None:
        raise InstallError(
            f'this format needs {package}, which is not installed; '
            'pip install "medssl_mm[readers]"'
        )


def require(package: str) -> ModuleType:
    """Import an optional library.

    Raises:
        InstallError: Names the extra to install.
    """
    check_installed(package)
    return importlib.import_module(package)
