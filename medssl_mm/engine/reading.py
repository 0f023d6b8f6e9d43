"""Reads config files: one, or several that are put on top of each other."""

from __future__ import annotations

import re
from pathlib import Path

from mmengine.config import Config

from medssl_mm.errors import UserError, similar
from medssl_mm.files import config_path

__all__ = ['config_name', 'read_config']


#: Folders of what can be put on a config: data sets, read-outs, loss terms.
KINDS = ('data', '_base_/readouts', '_base_/terms')


def read_config(text: str | Path) -> Config:
    """Read ``CONFIG.py`` or ``CONFIG.py+OTHER.py+NAME``.

    What comes later in the sum wins. A part without ``.py`` is the name of a
    file in the nearest of the folders ``KINDS`` beside or above the first part:
    ``configs/selfsup/mocov2/X.py+curvas`` puts the config on
    ``configs/selfsup/data/curvas.py``. Shipped configs are found from any folder,
    see :func:`medssl_mm.files.config_path`.

    Raises:
        UserError: A file is missing or faulty.
    """
    first, *others = _parts(text)
    config = _read(first)
    for path in others:
        _put_on(config, _read(path))
    return config


def config_name(text: str | Path) -> str:
    """Name of what is read, for work directories."""
    return '+'.join(path.stem for path in _parts(text))


def _parts(text: str | Path) -> list[Path]:
    if Path(text).is_file():
        return [Path(text)]
    first, *others = str(text).split('+')
    method = config_path(first)
    return [method, *(_find(name, method) for name in others)]


def _find(name: str, first: Path) -> Path:
    if name.endswith('.py'):
        return config_path(name)
    folders = [folder / kind for folder in first.absolute().parents for kind in KINDS]
    for folder in folders:
        if (folder / f'{name}.py').is_file():
            return folder / f'{name}.py'
    names = sorted({p.stem for folder in folders for p in folder.glob('*.py')})
    raise UserError(
        f'{first}+{name}: no folder {", ".join(KINDS[:-1])} or {KINDS[-1]} beside or '
        f'above {first.parent} holds '
        f'{name}.py{similar(name, names)}'
    )


def _put_on(config: Config, other: Config) -> None:
    content = other._cfg_dict.to_dict()
    content = _with_settings_for(config, content)
    for key in ('slices', 'images'):
        # Other data, not other settings of the same data.
        if 'type' in (content.get(key) or {}):
            for former in ('slices', 'images'):
                config._cfg_dict.pop(former, None)
    config.merge_from_dict(content, allow_list_keys=False)


def _with_settings_for(config: Config, content: dict) -> dict:
    """Take the settings that a data set has for the method of the config.

    ``settings_for = dict(MultiLevelMoCo=dict(model=dict(queue_len=64)))``: a
    key queue must be shorter than the data set, and only that method has one.
    """
    kind = str((config.get('model') or {}).get('type')).rpartition('.')[2]
    settings = content.pop('settings_for', {}).get(kind, {})
    return Config._merge_a_into_b(settings, content)


def _read(path: Path) -> Config:
    if not path.is_file():
        raise UserError(_where_it_went(path))
    try:
        return Config.fromfile(str(path))
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            f'config {path}: a file it is based on is missing: {error}; '
            'correct its _base_ list'
        ) from error
    except ImportError as error:
        raise UserError(f'config {path} imports what is not there: {error}') from error
    except Exception as error:  # a config is a program: anything may happen
        kind = '' if isinstance(error, SyntaxError) else f'{type(error).__name__}: '
        raise UserError(f'config {path} cannot be read: {kind}{error}') from error


def _where_it_went(path: Path) -> str:
    message = f'config {path} does not exist'
    for folder in path.absolute().parents:
        if folder.name == 'configs' and (folder / 'README.md').is_file():
            inside = path.absolute().relative_to(folder).with_suffix('').as_posix()
            for former, now in moved_configs(folder / 'README.md').items():
                if former == inside:
                    return f'{message} any more; use {folder.name}/{now}'
    folder = path.parent
    names = [p.name for p in folder.glob('*.py')] if folder.is_dir() else []
    return f'{message} (looked from {Path.cwd()}){similar(path.name, names)}'


def moved_configs(readme: Path) -> dict[str, str]:
    """Read the table of former configs: former path to what replaces it."""
    rows = re.findall(
        r'^\| `([^`]+)` \| `([^`]+)` \|$', readme.read_text(encoding='utf-8'), re.M
    )
    return dict(rows)
