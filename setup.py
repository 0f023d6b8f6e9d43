"""Packaging of medssl_mm; `pip install .` also carries configs and tools."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# Configs of other packages can inherit from `medssl_mm::...`; the hosts look
# for such bases in the folder `.mim` of the installed package.
MIM_ENTRIES = ('configs', 'tools', 'model-index.yml')


def read_version():
    text = (ROOT / 'medssl_mm' / 'version.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
    if match is None:
        raise RuntimeError("medssl_mm/version.py must hold a line __version__ = '...'")
    return match.group(1)


def read_requirements(name):
    lines = (
        (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    )
    lines = (line.split('#')[0].strip() for line in lines)
    return [line for line in lines if line]


def read_readme():
    path = ROOT / 'README.md'
    return path.read_text(encoding='utf-8') if path.exists() else ''


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


runtime = read_requirements('runtime')
tests = read_requirements('tests')
optional = read_requirements('optional')

setup(
    name='medssl_mm',
    version=read_version(),
    description='Self-supervised pretraining for medical image segmentation '
    'on mmselfsup and mmsegmentation',
    long_description=read_readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Processing',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
    ],
    packages=find_packages(include=['medssl_mm', 'medssl_mm.*']),
    package_data={'medssl_mm': ['**/*.json']},
    python_requires='>=3.10,<3.13',
    install_requires=runtime,
    extras_require={
        'tests': tests,
        'optional': optional,
        'all': tests + optional,
    },
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
