"""The rules of the tree: who imports whom, and where things live."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'medssl_mm'
SKIPPED = {
    '.git',
    '.venv',
    '.mim',
    '__pycache__',
    'work_dirs',
    'build',
    'dist',
    '.pytest_cache',
    '.ruff_cache',
    '.mypy_cache',
    'medssl_mm.egg-info',
}


def walk(folder, *suffixes):
    for path in sorted(folder.rglob('*')):
        inside = path.relative_to(ROOT)
        if (
            path.is_file()
            and path.suffix in suffixes
            and not SKIPPED & set(inside.parts)
            and inside.parts[0] != 'data'
        ):
            yield path


SOURCES = list(walk(PACKAGE, '.py'))
TEXTS = [
    path
    for path in walk(
        ROOT, '.py', '.sh', '.md', '.txt', '.yaml', '.yml', '.toml', '.cfg', '.in', ''
    )
    if path != Path(__file__) and path.name != 'LICENSE'
]


def ids(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@functools.cache
def parse(path):
    return ast.parse(path.read_text(encoding='utf-8'), str(path))


@functools.cache
def imports(path):
    """All absolute module names that a file imports, also inside functions."""
    return list(_imports(path))


def _imports(path):
    tree = parse(path)
    package = module_name(path).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                stem = package[: len(package) - node.level + 1]
                base = '.'.join([*stem, base] if base else stem)
            yield base
            if base.startswith('medssl_mm'):
                for alias in node.names:
                    yield f'{base}.{alias.name}'


def area(name):
    """medssl_mm.models.heads.x -> models; a module may have a floor of its own."""
    parts = name.split('.')[1:]
    module = '.'.join(parts[:2])
    return module if module in ARROWS else ''.join(parts[:1])


HOSTS = {'mmengine', 'mmcv', 'mmselfsup', 'mmseg', 'mmpretrain', 'mmcls'}
# The floors of the house, from the ground up: what each part may import, of
# this package besides itself and of the hosts. It may only be what stands above
# it in this table, so there are no circles.
ARROWS = {
    'version': (set(), set()),
    'errors': (set(), set()),
    'arguments': ({'errors'}, set()),
    'cores': (set(), set()),
    'files': ({'errors'}, set()),
    'texts': ({'errors'}, set()),
    # Starts the tools.
    'cli': ({'version', 'errors', 'files'}, set()),
    'unpickle': ({'errors'}, set()),
    'schema': ({'errors', 'files'}, set()),
    # What networks have seen: compared without a deep-learning installation.
    'provenance': ({'errors'}, set()),
    'tiff': (set(), set()),
    'functional': ({'errors'}, set()),
    # Networks by their parts, whatever host built them.
    'backbones': ({'functional', 'errors'}, set()),
    # Config types of before.
    'aliases': ({'errors'}, set()),
    # Numbers with intervals: needs numpy and scipy alone.
    'statistics': ({'errors'}, set()),
    'benchmarking': ({'cores', 'errors', 'files'}, set()),
    # What public sets of images are called, hold and look like.
    'datasets.image_sets': ({'errors'}, set()),
    # Read and written without a deep-learning installation.
    'store': ({'datasets.image_sets', 'errors', 'files'}, set()),
    'phantom': ({'errors', 'files'}, set()),
    'importers': (
        {
            'datasets.image_sets',
            'store',
            'phantom',
            'unpickle',
            'errors',
            'files',
            'texts',
            'tiff',
        },
        set(),
    ),
    # Computes; knows neither hosts nor configs, and draws nothing.
    'analysis': ({'statistics', 'functional', 'errors', 'files'}, set()),
    # Shows and writes what others computed.
    'results': (
        {'analysis', 'statistics', 'store', 'provenance', 'errors', 'files', 'texts'},
        set(),
    ),
    'compat': ({'errors'}, HOSTS),
    'registry': ({'aliases', 'compat', 'errors'}, {'mmengine'}),
    # What repeats released code with its quirks.
    'legacy': ({'functional', 'registry', 'errors'}, {'mmengine'}),
    'models': (
        {'backbones', 'functional', 'registry', 'compat', 'errors'},
        HOSTS,
    ),
    'datasets': (
        {
            'provenance',
            'datasets.image_sets',
            'store',
            'tiff',
            'functional',
            'registry',
            'compat',
            'errors',
            'files',
        },
        HOSTS,
    ),
    'evaluation': (
        {
            'provenance',
            'results',
            'statistics',
            'store',
            'functional',
            'registry',
            'compat',
            'errors',
            'files',
        },
        HOSTS,
    ),
    'loaders': ({'cores', 'errors', 'functional'}, {'mmengine'}),
    'engine': (
        {
            'provenance',
            'loaders',
            'results',
            'analysis',
            'statistics',
            'backbones',
            'functional',
            'registry',
            'compat',
            'errors',
            'files',
            'models',
            'store',
            'version',
        },
        HOSTS,
    ),
    'converters': (
        {
            'engine',
            'models',
            'legacy',
            'backbones',
            'registry',
            'unpickle',
            'errors',
            'files',
        },
        HOSTS,
    ),
    # Networks with their own preprocessing and weights.
    'encoders': (
        {
            'provenance',
            'datasets.image_sets',
            'engine',
            'converters',
            'importers',
            'backbones',
            'registry',
            'compat',
            'schema',
            'errors',
            'files',
        },
        HOSTS,
    ),
    'checkpoint_features': (
        {
            'provenance',
            'encoders',
            'engine',
            'loaders',
            'statistics',
            'backbones',
            'importers',
            'functional',
            'registry',
            'schema',
            'errors',
            'files',
        },
        HOSTS,
    ),
    # Pictures before any preprocessing, of configs, image sets and files.
    'pictures': (
        {
            'checkpoint_features',
            'encoders',
            'engine',
            'importers',
            'statistics',
            'store',
            'errors',
            'files',
        },
        {'mmengine'},
    ),
    # What the tools share that look into encoders.
    'encoder_analysis': (
        {
            'pictures',
            'checkpoint_features',
            'encoders',
            'functional',
            'engine',
            'analysis',
            'datasets.image_sets',
            'errors',
        },
        {'mmengine'},
    ),
    # What the tools share that look into pretrainings.
    'pretraining_analysis': (
        {
            'datasets',
            'engine',
            'results',
            'analysis',
            'backbones',
            'registry',
            'errors',
        },
        {'mmengine'},
    ),
    'inference': (
        {
            'provenance',
            'engine',
            'evaluation',
            'datasets',
            'importers',
            'store',
            'registry',
            'compat',
            'errors',
        },
        HOSTS,
    ),
    'experiments': (
        {
            'provenance',
            'checkpoint_features',
            'encoders',
            'datasets',
            'datasets.image_sets',
            'aliases',
            'engine',
            'results',
            'analysis',
            'statistics',
            'functional',
            'store',
            'registry',
            'cores',
            'schema',
            'errors',
            'files',
            'texts',
        },
        HOSTS,
    ),
    'executors': ({'experiments', 'errors'}, HOSTS),
}
# Imported without any host, by whatever they import.
HOST_FREE = [part for part, (_, hosts) in ARROWS.items() if not hosts]


def test_arrows_point_down():
    known = list(ARROWS)
    for place, (part, (own, _)) in enumerate(ARROWS.items()):
        higher = own - set(known[:place])
        assert not higher, f'{part} must stand below {sorted(higher)} in ARROWS'


@pytest.mark.parametrize('path', SOURCES, ids=ids(SOURCES))
def test_imports_follow_the_arrows(path):
    part = area(module_name(path))
    names = set(imports(path))
    assert not {n for n in names if n.split('.')[0] in ('tools', 'tests')}
    if not part:  # medssl_mm/__init__.py
        light = {'importlib', 'typing', 'medssl_mm.version'}
        assert names <= light | {'medssl_mm.version.__version__'}
        return
    assert part in ARROWS, f'{part} has no floor yet: say in ARROWS what it may import'
    own, hosts = ARROWS[part]
    for name in names:
        top = name.split('.')[0]
        if top == 'medssl_mm' and area(name) not in ('', '__version__', part):
            assert area(name) in own, f'{part} must not import {name}'
        if top in HOSTS:
            assert top in hosts, f'{part} must not import {name}'


def reached(start):
    """Modules that modules import, and those import, and so on."""
    paths = {module_name(path): path for path in SOURCES}
    found, waiting = set(), list(start)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name.split('.')[0] != 'medssl_mm':
            continue
        # A package is imported before its modules.
        waiting.extend([name.rpartition('.')[0]] * ('.' in name))
        if name in paths:
            waiting.extend(imports(paths[name]))
    return found


@pytest.mark.parametrize('part', HOST_FREE)
def test_no_host_is_reached(part):
    """Also not by a module that a module of this part imports."""
    modules = [name for name in map(module_name, SOURCES) if area(name) == part]
    assert modules, f'{part} does not exist; take it out of ARROWS'
    tops = {name.split('.')[0] for name in reached(modules)}
    assert not tops & HOSTS


@pytest.mark.parametrize(
    'part, absent',
    [
        ('analysis', HOSTS),
        ('results', HOSTS),
        ('functional', HOSTS),
        ('statistics', HOSTS | {'torch', 'matplotlib', 'pandas', 'jinja2', 'rich'}),
        ('store', HOSTS | {'torch'}),
    ],
)
def test_imports_without(part, absent):
    """Every module, in a process where these packages cannot be imported."""
    modules = [name for name in map(module_name, SOURCES) if area(name) == part]
    code = (
        'import importlib, sys\n'
        f'sys.modules.update(dict.fromkeys({sorted(absent)}))\n'
        f'for name in {sorted(modules)}:\n'
        '    importlib.import_module(name)\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


FUNCTIONAL = [path for path in SOURCES if PACKAGE / 'functional' in path.parents]


@pytest.mark.parametrize('path', FUNCTIONAL, ids=ids(FUNCTIONAL))
def test_functional_needs_only_torch_numpy_scipy(path):
    allowed = {'torch', 'numpy', 'scipy', 'medssl_mm', *sys.stdlib_module_names}
    assert {name.split('.')[0] for name in imports(path)} <= allowed


STATISTICS = [path for path in SOURCES if PACKAGE / 'statistics' in path.parents]


@pytest.mark.parametrize('path', STATISTICS, ids=ids(STATISTICS))
def test_statistics_needs_only_numpy_scipy(path):
    allowed = {'numpy', 'scipy', 'medssl_mm', *sys.stdlib_module_names}
    assert {name.split('.')[0] for name in imports(path)} <= allowed


def test_collectives_have_one_door():
    # compat starts the process group, and processes, which are no collectives.
    allowed = {'medssl_mm.functional.distributed', 'medssl_mm.compat.processes'}
    allowed.add('medssl_mm.compat.torchrun')
    users = {
        module_name(path)
        for path in SOURCES
        for name in imports(path)
        if name.startswith('torch.distributed')
    }
    assert users <= allowed


def test_algorithm_base_is_imported_once():
    users = {
        module_name(path)
        for path in SOURCES
        for name in imports(path)
        if name.startswith('mmselfsup.models.algorithms')
    }
    assert users <= {'medssl_mm.models.algorithms.base'}


def test_upstream_is_patched_only_in_compat():
    """Nobody else sets an attribute of an upstream module."""
    for path in SOURCES:
        if PACKAGE / 'compat' in path.parents:
            continue
        tree = parse(path)
        modules = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {
                    (alias.asname or alias.name).split('.')[0]
                    for alias in node.names
                    if alias.name.split('.')[0] in HOSTS | {'torch'}
                }
            elif isinstance(node, ast.ImportFrom) and not node.level:
                if (node.module or '').split('.')[0] in HOSTS:
                    modules |= {alias.asname or alias.name for alias in node.names}
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Assign, ast.AugAssign)):
                continue
            targets = getattr(node, 'targets', None) or [node.target]
            for target in targets:
                # np.x.y = ..., but not x[...] = ...
                while isinstance(target, ast.Attribute):
                    target = target.value
                    if isinstance(target, ast.Name):
                        assert target.id not in modules, (
                            f'{path}:{node.lineno} changes {target.id}'
                        )
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, 'id', '') == 'setattr'
                and isinstance(node.args[0], ast.Name)
            ):
                assert node.args[0].id not in modules, (
                    f'{path}:{node.lineno} changes {node.args[0].id}'
                )


@pytest.mark.parametrize('folder', ['medssl_mm', 'tools', 'tests', 'configs'])
def test_no_star_imports(folder):
    for path in walk(ROOT / folder, '.py'):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ImportFrom):
                assert '*' not in {alias.name for alias in node.names}, path


def test_all_lists_only_what_exists():
    for path in SOURCES:
        tree = parse(path)
        bound = set()
        listed = set()
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                bound.add(node.name)
            elif isinstance(node, (ast.Import, ast.ImportFrom)):
                bound |= {
                    (alias.asname or alias.name).split('.')[0] for alias in node.names
                }
            elif isinstance(node, ast.Assign):
                names = {
                    n.id
                    for target in node.targets
                    for n in ast.walk(target)
                    if isinstance(n, ast.Name)
                }
                bound |= names
                if names == {'__all__'}:
                    listed = set(ast.literal_eval(node.value))
        if '__getattr__' not in bound:  # lazy modules bind names later
            assert listed <= bound, f'{path}: {sorted(listed - bound)}'


def test_tests_mirror_the_sources():
    for path in walk(ROOT / 'tests', '.py'):
        inside = path.relative_to(ROOT / 'tests')
        if not path.name.startswith('test_') or path.parent == ROOT / 'tests':
            continue
        mirrored = PACKAGE / inside.parent / path.name.removeprefix('test_')
        assert mirrored.exists() or mirrored.with_suffix('').is_dir(), (
            f'tests/{inside} tests {mirrored.relative_to(ROOT)}, which does not exist'
        )


def test_test_folders_are_packages():
    # Files of one name in several folders would hide each other otherwise.
    for folder in {path.parent for path in walk(ROOT / 'tests', '.py')}:
        assert (folder / '__init__.py').exists(), (
            f'{folder.relative_to(ROOT)} needs an __init__.py'
        )


def test_source_folders_are_packages():
    for path in SOURCES:
        assert (path.parent / '__init__.py').exists(), (
            f'{path.parent.relative_to(ROOT)} needs an __init__.py, or the '
            'wheel leaves it out'
        )


FORBIDDEN = {
    'an absolute path of one machine': (
        r'(?<![\w.}$/])/(?:work|home|root|Users|mnt|tmp)/[\w.-]+'
    ),
    'a registry host': r'pypi\.(?:org|io)|pythonhosted|registry\.npmjs',
    'talk about how the project came about': (
        r'\b(?:issue [A-Z]\b|issue #\d|subagent|AI assistant|the spec says|'
        r'shared/specs)'
    ),
    'a conflict mark': r'^(?:<{7}|>{7}) ',
}


@pytest.mark.parametrize('path', TEXTS, ids=ids(TEXTS))
def test_text_speaks_of_the_project_alone(path):
    text = path.read_text(encoding='utf-8')
    for what, pattern in FORBIDDEN.items():
        found = re.search(pattern, text, re.MULTILINE)
        assert not found, f'{path.relative_to(ROOT)} holds {what}: {found[0]}'


# These prepare data on machines without a deep-learning installation, and
# `--help` must not wait for torch.
@pytest.mark.parametrize(
    'module',
    [
        'medssl_mm',
        'medssl_mm.errors',
        'medssl_mm.datasets',
        'medssl_mm.store',
        'medssl_mm.store.splits',
        'medssl_mm.phantom',
        'medssl_mm.importers',
        'medssl_mm.statistics',
        'medssl_mm.results',
        'medssl_mm.results.page',
    ],
)
def test_light_modules_stay_light(module):
    code = (
        f'import sys, {module}\n'
        'heavy = {"torch", "mmengine", "mmcv", "mmseg", "mmselfsup", '
        '"monai", "matplotlib", "pandas", "jinja2"} & set(sys.modules)\n'
        'sys.exit(f"{heavy}" if heavy else 0)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
