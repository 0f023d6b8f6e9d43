"""Settings of InnerEye-DeepLearning's self-supervised part as configs.

Two forms of its YAML files are read: the full one of its command ``main.py
--config`` (dataset, train, scheduler, preprocess, augmentation), and the later
one of augmentations alone (preprocess, augmentation). Facts about both:
`InnerEye-DeepLearning <https://github.com/microsoft/InnerEye-DeepLearning>`_.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from mmengine.config import Config
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medssl_mm.errors import UserError, similar

# A pair of numbers, the smaller one first.
Pair = tuple[float, float]


class _Section(BaseModel):
    """A part of the file: known keys, of their types."""

    model_config = ConfigDict(extra='forbid', strict=True, allow_inf_nan=False)


class RandomAffine(_Section):
    """Turns (degrees), shifts (shares of the side) and shears (degrees)."""

    max_angle: float = 0
    max_horizontal_shift: float = 0.0
    max_vertical_shift: float = 0.0
    max_shear: float = 5


class RandomCrop(_Section):
    """Shares of the area."""

    scale: Pair = (0.9, 1.0)


class HorizontalFlip(_Section):
    """Probability of a flip."""

    prob: float = 0.5


class Gamma(_Section):
    """Smallest and largest exponent."""

    scale: Pair = (0.5, 1.5)


class RandomColor(_Section):
    """Strengths; that of saturation was 0.1 in the full form."""

    brightness: float = 0.0
    contrast: float = 0.1
    saturation: float | None = None


class Elastic(_Section):
    """Smoothing and factor of the field, pixels."""

    sigma: float = 4
    alpha: float = 35
    p_apply: float = 0.5


class Erasing(_Section):
    """Shares of the area, and ratios of the sides."""

    scale: Pair = (0.01, 0.1)
    ratio: Pair = (0.3, 3.3)


class Noise(_Section):
    """Standard deviation, of grey values 0 to 1."""

    std: float = 0.01
    p_apply: float = 0.5


class LabelSmoothing(_Section):
    """Never used by the original."""

    epsilon: float = 0.1


class Augmentation(_Section):
    """What is done to a picture, and how strongly."""

    use_random_affine: bool = False
    random_affine: RandomAffine = RandomAffine()
    use_random_crop: bool = False
    random_crop: RandomCrop = RandomCrop()
    use_random_horizontal_flip: bool = False
    random_horizontal_flip: HorizontalFlip = HorizontalFlip()
    use_gamma_transform: bool = False
    gamma: Gamma = Gamma()
    use_random_color: bool = False
    random_color: RandomColor = RandomColor()
    use_elastic_transform: bool = False
    elastic_transform: Elastic = Elastic()
    use_random_erasing: bool = False
    random_erasing: Erasing = Erasing()
    add_gaussian_noise: bool = False
    gaussian_noise: Noise = Noise()
    use_label_smoothing: bool = False
    label_smoothing: LabelSmoothing = LabelSmoothing()


class HistogramNormalization(_Section):
    """Never used by the original."""

    disk_size: int = 30


class Preprocess(_Section):
    """Sizes, pixels; 256 is the default of augmentation files, 32 of full ones."""

    resize: int | None = Field(None, gt=0)
    center_crop_size: int = Field(224, gt=0)
    use_resize: bool = False
    use_center_crop: bool = False
    histogram_normalization: HistogramNormalization = HistogramNormalization()


class Dataset(_Section):
    """Name and source folder of the data."""

    name: Literal['CIFAR10', 'RSNAKaggle'] = 'CIFAR10'
    dataset_dir: str = ''
    num_workers: int | None = Field(None, ge=0)


class SelfSupervision(_Section):
    """Method and network."""

    type: Literal['simclr', 'sim_clr', 'byol'] | None = None
    encoder_name: Literal['resnet18', 'resnet50', 'resnet101', 'densenet121'] | None = (
        None
    )
    use_balanced_binary_loss_for_linear_head: bool = False


class Train(_Section):
    """How it is trained; the batch is that of all processes."""

    seed: int | None = None
    batch_size: int | None = Field(None, gt=1)
    output_dir: str | None = None
    resume_from_last_checkpoint: bool = False
    base_lr: float | None = Field(None, gt=0)
    checkpoint_period: int = Field(200, gt=0)
    self_supervision: SelfSupervision = SelfSupervision()


class Scheduler(_Section):
    """Length of the training."""

    epochs: int | None = Field(None, gt=0)


class AugmentationFile(_Section):
    """A file of augmentations alone."""

    preprocess: Preprocess = Preprocess()
    augmentation: Augmentation = Augmentation()


class FullFile(AugmentationFile):
    """A file that describes a whole training."""

    dataset: Dataset = Dataset()
    train: Train = Train()
    scheduler: Scheduler = Scheduler()


_FULL = ('dataset', 'train', 'scheduler')


def read_innereye(path: str | Path) -> FullFile | AugmentationFile:
    """Read a YAML file of either form.

    Texts that are literals of Python, such as "(0.4, 1.0)" and 1e-3, count as
    what they say.

    Args:
        path (str | Path): The file.

    Raises:
        UserError: No YAML, an unknown or doubled key, or a value of another
            type; names key and line.
    """
    try:
        root = yaml.compose(Path(path).read_text(encoding='utf-8-sig'), yaml.SafeLoader)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        text = ' '.join(str(error).split())
        raise UserError(f'{path} is no YAML file: {text}') from None
    if not isinstance(root, yaml.MappingNode):
        raise UserError(
            f'{path} holds no settings; expected the keys preprocess and augmentation, '
            f'and in a full file {", ".join(_FULL)}'
        )
    lines: dict[tuple, int] = {}
    try:
        content = _plain(path, root, (), lines)
    except RecursionError:
        raise UserError(
            f'{path}: a value contains itself (an anchor & within which its alias * '
            'stands), or is nested too deeply; write the values out'
        ) from None
    kind = FullFile if set(_FULL) & set(content) else AugmentationFile
    try:
        settings = kind.model_validate(content)
    except ValidationError as error:
        raise _explained(path, kind, error, lines) from None
    whole = isinstance(settings, FullFile)
    if settings.preprocess.resize is None:
        settings.preprocess.resize = 32 if whole else 256
    if settings.augmentation.random_color.saturation is None:
        settings.augmentation.random_color.saturation = 0.1 if whole else 0.0
    return settings


def _plain(
    path: str | Path, node: yaml.Node, place: tuple, lines: dict[tuple, int]
) -> Any:
    """Values of a node; notes the line of each key."""
    lines[place] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        content: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(
                    f'{path}, line {line}: a key must be a word, found a list or '
                    'further settings'
                )
            key = key_node.value
            where = (*place, key)
            if key in content:
                raise UserError(
                    f'{path}, line {line}: the key {".".join(where)} is there '
                    f'twice, already in line {lines[where]}'
                )
            content[key] = _plain(path, value_node, where, lines)
            lines[where] = line
        return content
    if isinstance(node, yaml.SequenceNode):
        return tuple(
            _plain(path, item, (*place, n), lines) for n, item in enumerate(node.value)
        )
    try:
        value = yaml.SafeLoader('').construct_object(node)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError):
        # Of a tag, or of what looks like a date: each kind has errors of its own.
        raise UserError(
            f'{path}, line {lines[place]}: {".".join(map(str, place))}: '
            f'{_source(node)} is no value of YAML; write a number, a word, true or '
            'false, without a tag (!)'
        ) from None
    if isinstance(value, str):
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError):
            return value
    return value


def _source(node: yaml.Node) -> str:
    """A value as it is written, with its tag where it has one of its own."""
    own = '' if node.tag.startswith('tag:yaml.org,2002:') else f'{node.tag} '
    return f'{own}{node.value!r}'


def _explained(
    path: str | Path, kind: type[_Section], error: ValidationError, lines: dict
) -> UserError:
    """Say which key of which line is wrong, of the first wrong one."""
    first = error.errors()[0]
    place = tuple(first['loc'])
    known = next(
        place[:end] for end in range(len(place), -1, -1) if place[:end] in lines
    )
    where, key = f'{path}, line {lines[known]}', '.'.join(map(str, known))
    if first['type'] == 'extra_forbidden':
        names = _keys(kind, place[:-1])
        return UserError(f'{where}: unknown key {key}{similar(str(place[-1]), names)}')
    return UserError(f'{where}: {key}: {first["msg"]}, found {first["input"]!r}')


def _keys(kind: type[_Section], place: Sequence) -> list[str]:
    """Keys of the section at a place."""
    for name in place:
        kind = kind.model_fields[name].annotation  # type: ignore[assignment]
    return list(kind.model_fields)


def transforms_of(settings: AugmentationFile, train: bool = True) -> list[dict]:
    """The transforms of a file, in the original's order.

    Args:
        settings (AugmentationFile): Of :func:`read_innereye`.
        train (bool): Whether for training; else sizes alone. Defaults to True.

    Returns:
        list[dict]: Steps from an image to float values of 0 to 1.
    """
    sizes = settings.preprocess
    crop = dict(type='CenterCrop', size=sizes.center_crop_size)
    if not train:
        return _joined([dict(type='Resize', size=sizes.resize), crop])
    return _joined(_training_steps(settings, crop))


def _training_steps(settings: AugmentationFile, crop: dict) -> Iterator[dict]:
    """Steps of training in the original's order; of the random ones those in use."""
    what = settings.augmentation
    yield from _moved(what, settings.preprocess.resize)
    yield from _recoloured(what)
    yield crop
    if what.use_random_erasing:
        erasing = what.random_erasing
        yield dict(
            type='RandomErasing',
            scale=list(erasing.scale),
            ratio=list(erasing.ratio),
        )
    if what.add_gaussian_noise:
        noise = what.gaussian_noise
        yield dict(type='medssl_mm.RangeNoise', std=noise.std, prob=noise.p_apply)


def _moved(what: Augmentation, size: int | None) -> Iterator[dict]:
    """Affine, crop or resizing, flip."""
    if what.use_random_affine:
        affine = what.random_affine
        yield dict(
            type='RandomAffine',
            degrees=affine.max_angle,
            translate=[affine.max_horizontal_shift, affine.max_vertical_shift],
            shear=affine.max_shear,
        )
    if what.use_random_crop:
        yield dict(
            type='RandomResizedCrop', size=size, scale=list(what.random_crop.scale)
        )
    else:
        yield dict(type='Resize', size=size)
    if what.use_random_horizontal_flip:
        yield dict(type='RandomHorizontalFlip', p=what.random_horizontal_flip.prob)


def _recoloured(what: Augmentation) -> Iterator[dict]:
    """Grey values, colours, and the elastic deformation behind them."""
    if what.use_gamma_transform:
        yield dict(
            type='medssl_mm.GammaJitter',
            gamma=list(what.gamma.scale),
            prob=1.0,
            uniform=True,
        )
    if what.use_random_color:
        colour = what.random_color
        yield dict(
            type='ColorJitter',
            brightness=colour.brightness,
            contrast=colour.contrast,
            saturation=colour.saturation,
        )
    if what.use_elastic_transform:
        elastic = what.elastic_transform
        yield dict(
            type='medssl_mm.ElasticDeformation',
            alpha=elastic.alpha,
            sigma=elastic.sigma,
            prob=elastic.p_apply,
        )


def _joined(steps: Iterator[dict] | Sequence[dict]) -> list[dict]:
    """Neighbouring steps of torchvision as one transform."""
    joined: list[dict] = []
    for step in steps:
        if step['type'].startswith('medssl_mm.'):
            joined.append(step)
        elif joined and joined[-1]['type'] == 'medssl_mm.TorchvisionSteps':
            joined[-1]['steps'].append(step)
        else:
            joined.append(dict(type='medssl_mm.TorchvisionSteps', steps=[step]))
    return joined


# What a file of augmentations may be meant for.
Purpose = Literal['pretraining', 'probe', 'classifier']
# Epochs between checkpoints of the configs, at most: what a power cut costs.
_MOST_BETWEEN_CHECKPOINTS = 10
_ENCODERS = dict(resnet18=18, resnet50=50, resnet101=101)
_BASES = 'medssl_mm::selfsup/_base_'
_PACK = dict(type='medssl_mm.PackViews')
_PACK_ONE = dict(type='medssl_mm.PackImage')


def config_text(
    settings: FullFile | AugmentationFile, name: str, purpose: Purpose | None = None
) -> str:
    """Text of a config with the settings of a file.

    A full file becomes an experiment with the online probe; one of
    augmentations nothing but pipelines, to be put on an experiment:
    ``CONFIG.py+THIS.py``.

    Args:
        settings (FullFile | AugmentationFile): Of :func:`read_innereye`.
        name (str): What the file is called, for the comment.
        purpose (str, optional): Whose pipelines a file of augmentations gives:
            'pretraining', 'probe' (the online one) or 'classifier'. Defaults to
            None: the pretraining's.

    Raises:
        UserError: A setting is missing that has no default, or a full file has a
            purpose.
    """
    if isinstance(settings, FullFile):
        if purpose is not None:
            raise UserError(
                f'{name} describes a whole training, which holds pretraining and '
                f'probe; --for {purpose} is for a file of augmentations alone: leave '
                f'it out, or remove {", ".join(_FULL)} from the file'
            )
        _check_given(settings, name)
        content, comments = _experiment(settings)
    else:
        # No base: it would bring batch, workers and subset, too.
        content, where = _pipelines(settings, purpose or 'pretraining')
        comments = [f'Put it on {where}.']
    head = [f'From {name} of InnerEye-DeepLearning, by tools/convert_config.py.']
    text = ''.join(f'# {line}\n' for line in (*head, *comments))
    return text + Config(content).pretty_text


def _pipelines(settings: AugmentationFile, purpose: Purpose) -> tuple[dict, str]:
    """What a file of augmentations gives, and what it is to be put on."""
    if purpose == 'pretraining':
        return _views(settings), 'an experiment: CONFIG.py+THIS_FILE'
    train, val = (transforms_of(settings, training) for training in (True, False))
    if purpose == 'probe':
        probe = dict(
            train_dataset=dict(pipeline=[*train, _PACK]),
            val_dataset=dict(pipeline=[*val, _PACK]),
        )
        return (
            dict(default_hooks=dict(online_probe=probe)),
            'an experiment with the online probe: CONFIG.py+PROBE.py+THIS_FILE',
        )
    loaders = dict(train=train, val=val, test=val)
    return {
        f'{subset}_dataloader': dict(dataset=dict(pipeline=[*steps, _PACK_ONE]))
        for subset, steps in loaders.items()
    }, 'a classifier of images: CONFIG.py+THIS_FILE'


def _views(settings: AugmentationFile) -> dict[str, Any]:
    """Two views of each image as data of the pretraining."""
    views = dict(type='medssl_mm.ImageViews', transforms=transforms_of(settings))
    return dict(train_dataloader=dict(dataset=dict(pipeline=[views, _PACK])))


def _experiment(settings: FullFile) -> tuple[dict[str, Any], list[str]]:
    """Config of a full file, and what is said about it."""
    train, method = settings.train, settings.train.self_supervision
    cifar = settings.dataset.name == 'CIFAR10'
    algorithm = 'byol' if method.type == 'byol' else 'simclr'
    views = 'cifar_two_views' if cifar else 'images_two_views'
    content: dict[str, Any] = dict(
        _base_=[
            f'{_BASES}/models/{algorithm}_resnet50.py',
            f'{_BASES}/datasets/{views}.py',
            f'medssl_mm::data/{"cifar10" if cifar else "rsna"}.py',
            f'{_BASES}/schedules/adam_warmup-coslr-2000e.py',
            'medssl_mm::selfsup/default_runtime.py',
        ],
        model=dict(backbone=_backbone(str(method.encoder_name), cifar)),
        train_dataloader=dict(batch_size=train.batch_size),
        optim_wrapper=dict(optimizer=dict(lr=train.base_lr)),
        auto_scale_lr=dict(base_batch_size=train.batch_size),
        train_cfg=dict(max_epochs=settings.scheduler.epochs),
        default_hooks=dict(online_probe=_probe(settings, cifar)),
    )
    if train.checkpoint_period < _MOST_BETWEEN_CHECKPOINTS:
        content['default_hooks']['checkpoint'] = dict(interval=train.checkpoint_period)
    if not cifar:
        content['train_dataloader'].update(_views(settings)['train_dataloader'])
    if settings.dataset.num_workers is not None:
        workers = settings.dataset.num_workers
        content['train_dataloader'].update(
            num_workers=workers, persistent_workers=workers > 0
        )
    # The probe's validation images are none of pretraining, as in the original.
    content['train_dataloader'].setdefault('dataset', {})['subset'] = 'train'
    if train.seed is not None:
        content['randomness'] = dict(seed=train.seed)
    if train.output_dir:
        content['work_dir'] = (
            f'work_dirs/{train.output_dir}/{algorithm}_seed_{train.seed}'
        )
    if train.resume_from_last_checkpoint:
        content['resume'] = True
    return content, _comments(settings, cifar)


def _check_given(settings: FullFile, name: str) -> None:
    """Refuse a file without what has no default."""
    train = settings.train
    values = {
        'train.batch_size': train.batch_size,
        'train.base_lr': train.base_lr,
        'train.self_supervision.type': train.self_supervision.type,
        'train.self_supervision.encoder_name': train.self_supervision.encoder_name,
        'scheduler.epochs': settings.scheduler.epochs,
    }
    missing = [key for key, value in values.items() if value is None]
    if missing:
        raise UserError(
            f'{name}: {", ".join(missing)} must be given; the original has no default '
            'either'
        )


def _backbone(encoder: str, cifar: bool) -> dict[str, Any]:
    if encoder == 'densenet121':
        return dict(
            _delete_=True,
            type='mmpretrain.DenseNet',
            arch='121',
            init_cfg=dict(type='medssl_mm.PretrainedBackbone', checkpoint=None),
        )
    stem = dict(type='medssl_mm.ResNetSmallStem') if cifar else {}
    return dict(**stem, depth=_ENCODERS[encoder], zero_init_residual=False)


def _probe(settings: FullFile, cifar: bool) -> dict[str, Any]:
    """The linear head: strong augmentation for training, none for validation."""
    if cifar:
        learning: list[dict] = [
            dict(type='RandomResizedCrop', size=32),
            dict(type='RandomHorizontalFlip'),
        ]
        train, val = _joined(learning), [dict(type='medssl_mm.TorchvisionSteps')]
    else:
        train, val = (transforms_of(settings, training) for training in (True, False))
    images = dict(type='medssl_mm.ClassificationImages', labelled=True)
    probe: dict[str, Any] = dict(
        type='medssl_mm.OnlineProbeHook',
        train_dataset=dict(images, subset='train', pipeline=[*train, _PACK]),
        val_dataset=dict(images, subset='val', test_mode=True, pipeline=[*val, _PACK]),
        batch_size=16,
    )
    if settings.train.self_supervision.use_balanced_binary_loss_for_linear_head:
        probe['class_weights'] = 'balanced'
    return probe


def _comments(settings: FullFile, cifar: bool) -> list[str]:
    period = settings.train.checkpoint_period
    source = settings.dataset.dataset_dir or 'DIR'
    name = 'cifar10' if cifar else 'rsna'
    download = ' --download' if cifar and not settings.dataset.dataset_dir else ''
    return [
        f'Data: python tools/prepare_data.py {name} --src {source} --out data/{name}'
        f'{download}',
        f'The batch of {settings.train.batch_size} is that of all processes: with N of '
        'them',
        f'--cfg-options train_dataloader.batch_size={settings.train.batch_size}/N, '
        'worked out.',
        f'Checkpoints: every {min(period, _MOST_BETWEEN_CHECKPOINTS)} epochs, the last '
        'three stay. The original wrote its last',
        f'one each epoch and kept every {period}th: '
        'default_hooks.checkpoint.max_keep_ckpts=-1.',
        'The original trained in 16 bit on GPUs: tools/train.py --amp float16.',
        'It wrapped Adam in LARS (not here) and drew its split without regard to',
        'classes.',
        *(_CIFAR_HEAD if cifar else ()),
    ]


_CIFAR_HEAD = (
    'Its head learned from, and was validated on, the first of the two strong views;',
    'here it learns from crops and mirror images, as in its later code, and is',
    'validated on whole images.',
)
