"""Whether the installed packages are those that this one works with."""

import functools
import importlib.metadata
import sys
from collections.abc import Callable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from medssl_mm.errors import InstallError

__all__ = ['check_install']

# import name: (distribution that works, other one that writes the same files)
_DISTRIBUTIONS = {
    'torch': ('torch', None),
    'torchvision': ('torchvision', None),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmselfsup': ('mmselfsup', None),
    'mmcls': ('mmcls', None),
}


def check_install(version_of: Callable[[str], str | None] | None = None) -> None:
    """Compare the installed distributions with what this package needs.

    Args:
        version_of (Callable, optional): Maps a distribution name to its
            version, or None when it is absent. Defaults to the metadata of
            the running interpreter.

    Raises:
        InstallError: Lists every problem and one command for each.
    """
    version_of = version_of or _installed_version
    ranges = _required_ranges()
    problems = []
    for module, (wanted, rival) in _DISTRIBUTIONS.items():
        problem = _problem(
            module,
            (wanted, version_of(wanted)),
            (rival, version_of(rival) if rival else None),
            ranges[wanted],
        )
        if problem:
            problems.append(problem)
    problems += _torchvision_problem(version_of('torch'), version_of('torchvision'))
    if problems:
        raise InstallError(
            f'the installation under {sys.prefix} cannot work:\n  - '
            + '\n  - '.join(problems)
        )


def _problem(
    module: str,
    wanted: tuple[str, str | None],
    rival: tuple[str | None, str | None],
    accepted: SpecifierSet,
) -> str | None:
    """Say what is wrong with one package, given names and versions found."""
    name, found = wanted
    other_name, other = rival
    # Lower bound first; the order of a set of bounds is no fixed one.
    requirement = name + ','.join(sorted(map(str, accepted), reverse=True))
    if found and other:
        return (
            f'{name} {found} and {other_name} {other} are both installed '
            f'and overwrite each other\'s files of "{module}"; run: pip '
            f'uninstall -y {other_name} {name} && pip install "{requirement}"'
        )
    if other:
        return (
            f'"{module}" comes from {other_name} {other}, which does not work '
            f'with current PyTorch; run: pip uninstall -y {other_name} && pip '
            f'install "{requirement}"'
        )
    if not found:
        return f'{name} is not installed; run: pip install "{requirement}"'
    if not accepted.contains(found, prereleases=True):
        return (
            f'{name} {found} is installed, {requirement} is needed; '
            f'run: pip install "{requirement}"'
        )
    return None


def _torchvision_problem(
    torch_version: str | None, torchvision_version: str | None
) -> list[str]:
    """Report an unmatched pair: torch 2.N goes with torchvision 0.(N+15)."""
    if not torch_version or not torchvision_version:
        return []
    torch, vision = Version(torch_version), Version(torchvision_version)
    wanted = f'0.{torch.minor + 15}'
    same_build = None in (torch.local, vision.local) or torch.local == vision.local
    if torch.major != 2:
        return []
    if f'{vision.major}.{vision.minor}' == wanted and same_build:
        return []
    return [
        f'torch {torch_version} and torchvision {torchvision_version} are '
        f'not a matched pair; run: pip install "torch=={torch.public}" '
        f'"torchvision=={wanted}.*" (both from the same index)'
    ]


def _installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _required_ranges() -> dict[str, SpecifierSet]:
    """Map each distribution that this package requires to its version range.

    The ranges are stated in requirements/runtime.txt, of which an installed
    package holds a copy in its metadata. A source tree comes first: it may be
    newer than the metadata of its editable installation, or not installed.
    """
    root = Path(__file__).resolve().parents[2]
    stated = root / 'requirements' / 'runtime.txt'
    if (root / 'pyproject.toml').is_file() and stated.is_file():
        lines = stated.read_text(encoding='utf-8').splitlines()
        lines = [line.split('#')[0].strip() for line in lines]
    else:
        try:
            lines = importlib.metadata.requires('medssl_mm') or []
        except importlib.metadata.PackageNotFoundError:
            raise InstallError(
                f'{root} holds medssl_mm without its metadata and without '
                'requirements/runtime.txt; install it by pip, or take the whole '
                'source tree'
            ) from None
    requirements = [Requirement(line) for line in lines if line]
    return {
        requirement.name: requirement.specifier
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({'extra': ''})
    }
