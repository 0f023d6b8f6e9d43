import subprocess
import sys

import pytest


def _python(code):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_importing_the_package_and_its_registries_imports_no_torch():
    code = (
        'import sys, medssl_mm, medssl_mm.registry; '
        'heavy = {"torch", "mmcv", "mmseg", "mmselfsup", "mmcls"}; '
        'print(sorted(heavy & set(sys.modules)))'
    )
    assert _python(code) == '[]'


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        ('HOOKS', 'FiniteLossHook'),
        ('OPTIM_WRAPPERS', 'AutocastOptimWrapper'),
        ('RUNNERS', 'Runner'),
        ('LOG_PROCESSORS', 'ShortLogProcessor'),
    ],
)
def test_types_are_found_from_the_root_by_their_prefix(registry, name):
    from mmengine import registry as roots

    import medssl_mm.registry  # noqa: F401

    found = getattr(roots, registry).get(f'medssl_mm.{name}')
    assert found.__name__ == name
    assert found.__module__.startswith('medssl_mm.engine')


def test_registries_fall_back_to_the_root():
    from medssl_mm.registry import HOOKS

    assert HOOKS.get('CheckpointHook').__module__.startswith('mmengine')


def test_the_table_of_model_modules_is_complete():
    import pkgutil
    from importlib import import_module

    import medssl_mm.models
    from medssl_mm.registry import MODEL_MODULES, MODELS

    for package in pkgutil.iter_modules(medssl_mm.models.__path__):
        import_module(f'medssl_mm.models.{package.name}')
    for module in set(MODEL_MODULES.values()):  # some lie in legacy
        import_module(module)
    registered = {
        name: cls.__module__
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith('medssl_mm.')  # not the tests' own
    }
    assert set(registered) == set(MODEL_MODULES)
    for name, module in registered.items():
        assert module.startswith(MODEL_MODULES[name])


def test_a_segmentation_model_does_not_import_mmselfsup():
    code = (
        'import sys; from mmengine import registry as roots; '
        'import medssl_mm.registry; '
        'roots.MODELS.get("medssl_mm.LinearHead"); '
        'print("mmseg" in sys.modules, "mmselfsup" in sys.modules)'
    )
    assert _python(code).splitlines()[-1] == 'True False'


def test_no_warning_that_this_package_is_not_installed():
    code = (
        'import medssl_mm.registry; from mmengine.registry import MODELS; '
        'print(MODELS.build(dict(type="medssl_mm.InfoNCELoss")))'
    )
    assert 'not installed' not in _python(code)
