"""Train on one image set, test on another: data sets of what both tell."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from medssl_mm.datasets.image_sets import common_pictures, shared_findings
from medssl_mm.errors import UserError, similar
from medssl_mm.files import data_config
from medssl_mm.registry import DATASETS
from medssl_mm.store.header import DATASET_FILE, IMAGES
from medssl_mm.store.known import KNOWN, read_facts

# Settings that make other classes of those of the image set.
_OTHER_CLASSES = ('binary', 'finding', 'single_label')


def read_images(name: str) -> dict[str, Any]:
    """Read the data set that a file of ``configs/data`` describes.

    Args:
        name (str): Name of the data set, see
            :func:`medssl_mm.files.data_config`, or the path of a file.

    Raises:
        UserError: There is no such file, or it describes no images.
    """
    path = Path(name) if name.endswith('.py') else data_config(name)
    if not path.is_file():
        folder = data_config('').parent
        names = [path.stem for path in folder.glob('*.py')]
        raise UserError(
            f'no data config {path}{similar(path.stem, names)}; give a name of '
            f'{folder}, or the path of a file of your own'
        )
    images = Config.fromfile(str(path)).get('images')
    if not images:
        raise UserError(f'{path} describes no images (images = dict(...))')
    return images.to_dict()


def image_configs() -> dict[str, tuple[dict[str, Any], str]]:
    """All data sets of images that ``configs/data`` describes.

    Returns:
        dict: Name to settings, as :func:`read_images` reads them, and to what the
        file says about them.
    """
    found = {}
    for path in sorted(data_config('').parent.glob('*.py')):
        content = Config.fromfile(str(path)).get('images')
        if content:
            lines = path.read_text(encoding='utf-8').splitlines()
            about = itertools.takewhile(lambda line: line.startswith('#'), lines)
            words = ' '.join(line.lstrip('# ') for line in about)
            found[path.stem.replace('_', '-')] = content.to_dict(), words
    return found


def train_on_test_on(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Make the data sets of a test on another image set.

    Their samples have the findings that both sets know, several at once, in one
    order and under one name. Settings such as ``finding`` or ``single_label``
    choose which count; images are not chosen by them.

    Args:
        first (Mapping): Data set to train on and validate with: ``type``,
            ``data_root``, ``split`` ..., as in ``configs/data``.
        second (Mapping): Data set to test on.

    Returns:
        dict: 'train', 'val' and 'test' to the settings of a data set.

    Raises:
        UserError: The sets share no finding, are one set, or one is not there and
            unknown.
    """
    if first.get('data_root') == second.get('data_root'):
        raise UserError(
            f'{first.get("data_root")} is the set to train on and to test on; name '
            'another, or use its split alone'
        )
    names = shared_findings(_classes_of(first), _classes_of(second)).names
    _warn_of_common_pictures(first, second)
    return {
        subset: {
            **{k: v for k, v in settings.items() if k not in _OTHER_CLASSES},
            'findings': names,
            'subset': subset,
        }
        for subset, settings in (('train', first), ('val', first), ('test', second))
    }


def _classes_of(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Classes of the samples, also where the image set is not there yet."""
    kind: Any = DATASETS.get(settings['type'])
    root = Path(settings['data_root'])
    facts = KNOWN.get(kind.known or root.name)
    if facts is None or (root / DATASET_FILE).is_file():
        facts = read_facts(root, IMAGES)
    return kind.classes_by_settings(facts.classes, dict(settings))


def _warn_of_common_pictures(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> None:
    names = [Path(settings['data_root']).name for settings in (first, second)]
    common = common_pictures(names[:1], names[1:])
    if common:
        print_log(
            f'{first["data_root"]} and {second["data_root"]} hold pictures of '
            f'{common}, perhaps the same ones: scores may be too high. without= '
            'leaves patients out whose ids are of one kind.',
            logger='current',
            level=logging.WARNING,
        )
