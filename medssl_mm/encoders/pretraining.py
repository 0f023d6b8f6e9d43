"""Encoders from checkpoints of a pretraining: what their own config says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from medssl_mm.backbones import backbone_of
from medssl_mm.converters import config_of, export_backbone, trained_transform
from medssl_mm.engine.pretrained import (
    find_state_dict,
    load_pretrained_backbone,
    read_checkpoint,
)
from medssl_mm.errors import UserError
from medssl_mm.provenance import seen_of

from .encoder import PretrainedEncoder, build_backbone
from .exported import add_decorrelation
from .preprocessing import Preprocessing
from .settings import EncoderSettings


def pretrained_encoder(
    path: str | Path,
    config: str | Path | None = None,
    encoder: str | None = None,
    decorrelation: str = 'drop',
) -> tuple[PretrainedEncoder, dict[str, str]]:
    """Make an encoder from a checkpoint of a pretraining of this package.

    Args:
        path (str | Path): The checkpoint.
        config (str | Path, optional): Config of the pretraining. Defaults to
            None: the one that is saved in the checkpoint.
        encoder (str, optional): 'online' or 'target', see
            :func:`medssl_mm.backbones.choose_encoder`. Defaults to None.
        decorrelation (str): 'drop', or 'fold': a 1x1 convolution after the
            backbone. Defaults to 'drop'.

    Returns:
        tuple[PretrainedEncoder, dict[str, str]]: In evaluation mode, frozen;
        and what else is known of its pictures, in words.

    Raises:
        UserError: No such checkpoint, or none of a pretraining; or its images were
            normalised as no :class:`Preprocessing` does.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    state_dict = find_state_dict(checkpoint, str(path))
    try:
        described = config_of(checkpoint, path, config)
    except UserError as error:
        raise UserError(
            f'{error}, or, of weights of other origin, name the encoder: NAME:{path}'
        ) from error
    model = described.get('model')
    if not isinstance(model, Mapping) or 'backbone' not in model:
        raise UserError(f'{path}: its config has no model.backbone; give --config')
    transform = None
    if decorrelation == 'fold':
        transform = trained_transform(model.get('decorrelation'), state_dict, encoder)
    try:
        tensors = export_backbone(state_dict, decorrelation, transform, encoder)[0]
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'{path}: {error}') from error
    backbone, stride = _backbone_settings(model['backbone'], described)
    network = build_backbone(backbone, str(path))
    folded = {
        name.rpartition('.')[2]: value
        for name, value in tensors.items()
        if name.startswith('decorrelation_conv.')
    }
    load_pretrained_backbone(
        network,
        {name: v for name, v in tensors.items() if name.startswith('backbone.')},
        source=str(path),
        seen=seen_of(checkpoint, str(path)),
    )
    places = backbone_of(network)
    if folded:
        add_decorrelation(network, folded['weight'], folded['bias'])
    try:
        preprocessing, seen = _preprocessing(described, places.in_channels)
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    settings = EncoderSettings(
        name=path.stem,
        title=path.stem,
        backbone=backbone,
        embedding_length=places.channels[places.last],
        preprocessing=preprocessing,
        source=str(path.name),
        trained_on=tuple(dict.fromkeys(_sets(described))),
        group='medical ssl',
    )
    made = PretrainedEncoder(settings, network)
    return made.requires_grad_(False).eval(), {**seen, **stride}


def _backbone_settings(
    settings: Mapping, described: Mapping
) -> tuple[dict[str, Any], dict[str, str]]:
    """Config of a backbone that is found from everywhere, and what to say of it."""
    result = {k: v for k, v in settings.items() if k != 'init_cfg'}
    notes: dict[str, str] = {}
    scope = described.get('default_scope', 'mmpretrain')
    norm = dict(result.get('norm_cfg') or {})
    if str(norm.get('type')).rpartition('.')[2] == 'SplitBatchNorm':
        # In evaluation it is batch normalisation, which every library has.
        norm.pop('num_splits', None)
        result['norm_cfg'] = {**norm, 'type': 'BN'}
    if result['type'].rpartition('.')[2] == 'DilatedResNet':
        network = _scoped(result.get('network', 'ResNet'), scope)
        if result.get('legacy_dilation'):
            return {**result, 'network': network}, notes
        # The network of strides computes the same at the positions that it has,
        # and every library has it.
        stride = result.pop('output_stride', 32)
        for name in ('network', 'legacy_dilation'):
            result.pop(name, None)
        result['type'] = network
        notes['stride of training'] = (
            f'{stride} px; this is the network of strides of the same weights, which '
            'computes the same at the positions that it has'
        )
    result['type'] = _scoped(result['type'], scope)
    return result, notes


def _scoped(kind: str, scope: str) -> str:
    if '.' in kind:
        return kind
    # What mmselfsup calls so is mmpretrain's, by another name.
    return f'{"mmpretrain" if kind in _SHARED else scope}.{kind}'


_SHARED = ('ResNet', 'DenseNet', 'TIMMBackbone', 'ConvNeXt', 'EfficientNet')


def _preprocessing(
    described: Mapping, channels: int
) -> tuple[Preprocessing, dict[str, str]]:
    """Size and normalisation of the views, and what no picture tells of them."""
    dataset = (described.get('train_dataloader') or {}).get('dataset') or {}
    sizes: list[int] = []
    notes: dict[str, str] = {}
    for step in _steps(dataset):
        kind = str(step['type']).rpartition('.')[2]
        found = step.get('size')
        if found and ('Crop' in kind or 'Resize' in kind or 'Affine' in kind):
            sizes.append(found if isinstance(found, int) else max(found))
        if kind == 'CTWindow':
            level, width = step['level'], step['width']
            notes['window'] = (
                f'level {level}, width {width} HU: {level - width / 2:g} to '
                f'{level + width / 2:g} HU become 0 to 255'
            )
        elif kind in ('PercentileNormalize', 'NormalizeByStore'):
            given = {key: value for key, value in step.items() if key != 'type'}
            notes['window'] = f'{kind} of each image {given or ""}'.strip()
    # The host's comes after the pipeline.
    last = (described.get('model') or {}).get('data_preprocessor') or {}
    scaling = _scaling_of(dataset)
    if scaling is None and last.get('mean') is None:
        scaling = _UNIT
        notes['values of training'] = 'not stated by its config; [0, 1] is a guess'
    scaling = (scaling or _AS_READ).then(last)
    if not sizes:
        notes['size of training'] = 'not stated by its config; 224 px is a guess'
    # The last one cuts out of what the ones before have made.
    size = sizes[-1] if sizes else 224
    return (
        Preprocessing(
            size=size,
            resize_to=max(sizes) if sizes and max(sizes) > size else None,
            interpolation='bilinear',
            channels=3 if channels == 3 else 1,
            **scaling.settings(),
        ),
        notes,
    )


_PerChannel = tuple[Fraction, ...]


class _Scaling(NamedTuple):
    """What has become of a value v of [0, 1]: ``(v - mean) / std``, exactly."""

    mean: _PerChannel
    std: _PerChannel

    def then(self, step: Mapping) -> _Scaling:
        """After a further mean and deviation, one of all channels or one of each."""
        if step.get('mean') is None or step.get('std') is None:
            return self
        mean, std = (
            tuple(map(Fraction, v if isinstance(v, (list, tuple)) else [v]))
            for v in (step['mean'], step['std'])
        )
        count = max(map(len, (*self, mean, std)))
        parts = [
            part * count if len(part) == 1 else part for part in (*self, mean, std)
        ]
        # ((v - M) / S - m) / s is v less M + m S, by S s.
        return _Scaling(
            tuple(M + m * S for M, S, m, _ in zip(*parts)),
            tuple(S * s for _, S, _, s in zip(*parts)),
        )

    def settings(self) -> dict[str, Any]:
        """Of a :class:`Preprocessing`, which begins with [0, 1]."""
        if set(self.mean) == {0} and set(self.std) == {1}:
            return dict(normalisation='unit')
        mean, std = (tuple(map(float, part)) for part in self)
        return dict(mean=mean, std=std, normalisation='mean_std')


_UNIT = _Scaling((Fraction(0),), (Fraction(1),))
# Pictures are read as 0 to 255.
_AS_READ = _Scaling((Fraction(0),), (Fraction(1, 255),))
# What maps its own range, such as a window, to 0-1. NormalizeByStore stands for
# one of these, or for a division by 255.
_TO_UNIT = ('CTWindow', 'PercentileNormalize', 'NormalizeByStore')


def _scaling_of(dataset: Any) -> _Scaling | None:
    """What the pipelines of all sets make of the values; None without a pipeline."""
    pipelines = list(_pipelines(dataset))
    found = {_scaled(steps, _AS_READ) for steps in pipelines}
    if len(found) > 1:
        # Of a wrapper that leaves the values to the pipeline of its set.
        found.discard(_AS_READ)
    if not pipelines:
        return None
    return _the_one(found, 'the sets of the pretraining')


def _pipelines(dataset: Any) -> Iterator[Sequence]:
    if isinstance(dataset, (list, tuple)):
        for part in dataset:
            yield from _pipelines(part)
    elif isinstance(dataset, Mapping):
        if dataset.get('pipeline'):
            yield dataset['pipeline']
        for name in ('dataset', 'datasets'):
            yield from _pipelines(dataset.get(name))


def _scaled(steps: Sequence, scaling: _Scaling) -> _Scaling:
    """Follow the values through the steps of a pipeline, in their order."""
    for step in steps:
        kind = str(step['type']).rpartition('.')[2]
        if kind == 'ZScoreNormalize':
            raise UserError(
                'the pretraining standardised every image by its own mean and '
                'deviation (ZScoreNormalize), which the preprocessing of an encoder '
                'cannot: its features of pictures in [0, 1] would mean nothing. '
                'tools/convert_checkpoint.py writes its backbone, for images that you '
                'standardise yourself'
            )
        if kind in _TO_UNIT:
            scaling = _UNIT
        elif kind in ('ShiftScale', 'Normalize'):
            scaling = scaling.then(step)
        inner = step.get('transforms') or step.get('steps') or ()
        if any(isinstance(part, (list, tuple)) for part in inner):
            views = {_scaled(part, scaling) for part in inner}
            scaling = _the_one(views, 'the views of the pretraining')
        else:
            scaling = _scaled(inner, scaling)
        if kind == 'TorchvisionSteps' and scaling == _AS_READ:
            scaling = _UNIT  # it divides 8-bit values by 255
    return scaling


def _the_one(found: set[_Scaling], owner: str) -> _Scaling:
    if len(found) == 1:
        return found.pop()
    listed = '; '.join(sorted(str(one.settings()) for one in found))
    raise UserError(
        f'{owner} are normalised in {len(found)} ways ({listed}), an encoder has one '
        'preprocessing; give a --config with the one that your pictures are to have'
    )


def _steps(part: Any) -> Iterator[Mapping]:
    """All steps of a pipeline, also those inside others; of several sets all."""
    if isinstance(part, (list, tuple)):
        for inner in part:
            yield from _steps(inner)
    elif isinstance(part, Mapping):
        if 'type' in part:
            yield part
        for inner in part.values():
            yield from _steps(inner)


def _sets(described: Mapping) -> Iterator[str]:
    """Names of the stores that the training read."""

    def find(dataset: Any) -> Iterator[str]:
        if not isinstance(dataset, Mapping):
            return
        if dataset.get('data_root'):
            yield Path(str(dataset['data_root'])).name
        inner = dataset.get('datasets') or dataset.get('dataset') or ()
        for part in [inner] if isinstance(inner, Mapping) else inner:
            yield from find(part)

    yield from find((described.get('train_dataloader') or {}).get('dataset'))
