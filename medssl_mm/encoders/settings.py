"""What is known of an encoder before it is built, and where its weights are."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveInt, StrictStr

from medssl_mm.engine.reading import read_config
from medssl_mm.errors import UserError, similar
from medssl_mm.files import shipped
from medssl_mm.importers.run import file_digest
from medssl_mm.schema import Entry, checked

from .preprocessing import Preprocessing

RANDOM = 'random'
TIMM = 'timm/'
#: Folders of weights, separated as in PATH.
WEIGHTS_VARIABLE = 'MEDSSL_WEIGHTS'
#: Begins the name of a file that is inside an installed package.
IN_PACKAGE = 'package:'
# What timm calls how a picture becomes a square; it pads with 'border'.
_RESIZE_MODES: dict[str, Literal['short', 'exact']] = dict(
    center='short', squash='exact'
)


class EncoderSettings(Entry):
    """An encoder, as ``configs/encoders/NAME.py`` describes it.

    Args:
        name (str): That of the file.
        title (str): For tables and figures.
        backbone (dict): Config of a registered network.
        embedding_length (int): Numbers of a feature vector.
        preprocessing (Preprocessing): Of its pictures.
        converter (str, optional): Name of the rules in
            :mod:`medssl_mm.converters` by which the published file is read.
            Defaults to None: the names are those of a host, timm or
            torchvision.
        file_names (tuple[str]): Names, or patterns, of the file with the
            weights; ``package:NAME/FILE`` is inside an installed package.
        source (str): Where to get it.
        sha256 (str, optional): Of the file.
        imagenet_top1 (float, optional): Accuracy on ImageNet, per cent.
        trained_on (tuple[str]): Image sets that the weights have seen.
        group (str): 'supervised', 'ssl', 'medical ssl', ...
    """

    name: StrictStr
    title: StrictStr
    backbone: dict[str, Any]
    embedding_length: PositiveInt
    preprocessing: Preprocessing = Preprocessing()
    converter: StrictStr | None = None
    file_names: tuple[StrictStr, ...] = ()
    source: StrictStr = ''
    sha256: StrictStr | None = None
    imagenet_top1: float | None = None
    trained_on: tuple[StrictStr, ...] = ()
    group: StrictStr = ''


def _folder() -> Path:
    return shipped('configs') / 'encoders'


def encoder_names() -> list[str]:
    """Names of all encoders that are described by a file."""
    return sorted(path.stem for path in _folder().glob('*.py'))


def read_settings(name: str | Path) -> EncoderSettings:
    """Read the description of an encoder.

    Args:
        name (str | Path): Of ``configs/encoders``; the path of such a file; or
            ``timm/MODEL``.

    Raises:
        UserError: There is none, or it says something else than it may.
    """
    text = str(name)
    if text.startswith(TIMM):
        return timm_settings(text.removeprefix(TIMM))
    path = Path(text) if text.endswith('.py') else _folder() / f'{text}.py'
    if not path.is_file():
        raise UserError(
            f'no encoder is called {text!r}{similar(path.stem, encoder_names())}; a '
            'network of timm is timm/MODEL'
        )
    content = read_config(path).to_dict().get('encoder')
    if not isinstance(content, dict):
        raise UserError(f'{path} describes no encoder: it needs encoder = dict(...)')
    return checked(EncoderSettings, dict(name=path.stem, **content), path)


def timm_settings(model: str) -> EncoderSettings:
    """Describe a network of timm as that library does.

    Args:
        model (str): Its name there, with or without the tag of weights.

    Raises:
        UserError: timm knows no such network, or shows it pictures of another
            form than :class:`Preprocessing` can.
        InstallError: timm is not installed.
    """
    from medssl_mm.backbones import require_timm

    require_timm(f'the encoder timm/{model}')
    import timm
    import torch

    try:
        with torch.device('meta'):  # its shapes are all that is asked for
            network = timm.create_model(model, num_classes=0)
    except (RuntimeError, ValueError) as error:
        names = timm.list_models()
        raise UserError(
            f'timm {timm.__version__} has no network {model!r}'
            f'{similar(model, names) if len(model) > 3 else ""} ({error})'
        ) from error
    known = timm.data.resolve_data_config({}, model=network)
    height, size = known['input_size'][-2:]
    mode = _RESIZE_MODES.get(known['crop_mode'])
    if mode is None or height != size:
        raise UserError(
            f'timm/{model} takes pictures of {height} x {size} px with crop_mode='
            f'{known["crop_mode"]!r}; here pictures are square, with crop_mode '
            f'{" or ".join(_RESIZE_MODES)}, and others would be no pictures of its '
            'training. Choose another network, or describe this one in a file of your '
            f'own, with the preprocessing that you want: encoder = dict(title={model!r}'
            f", backbone=dict(type='mmpretrain.TIMMBackbone', model_name={model!r}), "
            f'embedding_length={network.num_features}, preprocessing=dict(size={size}, '
            "resize_mode='exact'))"
        )
    return EncoderSettings(
        name=f'{TIMM}{model}',
        title=f'{model} (timm)',
        backbone=dict(
            type='mmpretrain.TIMMBackbone', model_name=model, pretrained=False
        ),
        # Of VGG and MobileNetV3 the head has a part before its last layer.
        embedding_length=getattr(network, 'head_hidden_size', network.num_features),
        preprocessing=Preprocessing(
            size=size,
            resize_mode=mode,
            resize_to=int(size / known['crop_pct']),
            interpolation=known['interpolation'],
            mean=tuple(known['mean']),
            std=tuple(known['std']),
        ),
        file_names=tuple(f'{model}.{end}' for end in ('safetensors', 'pth', 'bin')),
        source=f'timm.create_model({model!r}, pretrained=True), or its page there',
    )


def find_weights(settings: EncoderSettings) -> Path:
    """Find the file with the weights of an encoder.

    Looked for in the folders of ``MEDSSL_WEIGHTS``, then in ``data/weights``,
    and in installed packages where a name says so.

    Raises:
        UserError: It is nowhere; says where it can be had.
    """
    folders = [
        Path(part).expanduser()
        for part in os.environ.get(WEIGHTS_VARIABLE, '').split(os.pathsep)
        if part
    ] + [Path('data/weights')]
    for name in settings.file_names:
        if name.startswith(IN_PACKAGE):
            package, _, inside = name.removeprefix(IN_PACKAGE).partition('/')
            found = importlib.util.find_spec(package)
            places = [
                Path(p) for p in (found and found.submodule_search_locations) or ()
            ]
        else:
            places, inside = folders, name
        for place in places:
            paths = sorted(place.glob(inside))
            if paths:
                return paths[0]
    looked = ', '.join(settings.file_names) or 'no name of a file is known'
    raise UserError(
        f'the weights of {settings.name} ({looked}) are neither in '
        f'{WEIGHTS_VARIABLE} nor in data/weights; get them from '
        f'{settings.source or "where they were published"}, or name the file: '
        f'{settings.name}:PATH'
    )


def require_intact(settings: EncoderSettings, path: Path) -> None:
    """Refuse a file that is not the published one, where its digest is known.

    Raises:
        UserError: Expected and found digest.
    """
    if settings.sha256 is None:
        return
    found = file_digest([str(path)])
    if found != settings.sha256:
        raise UserError(
            f'{path} is not the file that {settings.name} was published as: SHA-256 '
            f'{found[:16]}..., expected {settings.sha256[:16]}...; get it again from '
            f'{settings.source}'
        )


def weights_digest(path: Path | None) -> str:
    """SHA-256 of the file, or folder, of weights; '' of random ones."""
    if path is None:
        return ''
    inside = sorted(p for p in path.rglob('*') if p.is_file())
    return file_digest([str(p) for p in inside or [path]])


def exported() -> Any:
    """The module that reads folders of exports: their settings and weights."""
    return import_module('medssl_mm.encoders.exported')


@dataclass(frozen=True)
class EncoderSource:
    """Which encoder, with which weights.

    Args:
        settings (EncoderSettings): What it is.
        path (Path, optional): File, or folder of an export, with the weights;
            None for random ones.
        published (bool): Whether the file was found by its published name,
            and must be that file.
    """

    settings: EncoderSettings
    path: Path | None
    published: bool = False


def parse_source(source: str | Path) -> EncoderSource:
    """Read ``random:NAME``, ``NAME``, ``NAME:PATH``, or a folder of an export.

    PATH is whatever holds weights: a file; of TensorFlow the name of a checkpoint
    without its ending, one of its files, or their folder; a folder with
    ``config.json`` and one file of weights.

    Raises:
        UserError: No such encoder, or no such file.
    """
    text = str(source)
    if Path(text).is_dir():
        return EncoderSource(exported().read_settings(Path(text)), Path(text))
    name, _, rest = text.partition(':')
    if name == RANDOM and rest:
        return EncoderSource(read_settings(rest), None)
    settings = read_settings(name)
    if not rest:
        return EncoderSource(settings, find_weights(settings), published=True)
    path = import_module('medssl_mm.converters').weights_file(rest)
    if path is None:
        raise UserError(f'the weights {rest} of {name} do not exist')
    return EncoderSource(settings, path)
