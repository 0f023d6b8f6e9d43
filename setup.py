"""Adds the folder `.mim` to the package; the rest is in pyproject.toml."""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Configs of other packages can inherit from `medssl_mm::...`; the hosts look
# for such bases in the folder `.mim` of the installed package.
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')


class BuildWithMim(build_py):
    """Adds the `.mim` folder: copies in a wheel, links when editable."""

    def run(self):
        super().run()
        if self.editable_mode:
            target = ROOT / 'medssl_mm' / '.mim'
        else:
            target = Path(self.build_lib) / 'medssl_mm' / '.mim'
        target.mkdir(parents=True, exist_ok=True)
        for entry in MIM_ENTRIES:
            self._place(ROOT / entry, target / entry)

    def _place(self, source, destination):
        if destination.is_symlink() or destination.is_file():
            destination.unlink()
        elif destination.is_dir():
            shutil.rmtree(destination)
        if self.editable_mode:
            destination.symlink_to(os.path.relpath(source, destination.parent))
        elif source.is_dir():
            shutil.copytree(
                source,
                destination,
                ignore=shutil.ignore_patterns('__pycache__', '*.py[cod]'),
            )
        else:
            shutil.copy2(source, destination)


setup(cmdclass={'build_py': BuildWithMim})
