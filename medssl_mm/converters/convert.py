"""From a file of a known source to the names of a known target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medssl_mm.errors import InstallError, UserError, similar

from .architectures import ARCHITECTURES, Architecture
from .decorrelation import export_backbone, prefixes_of
from .reading import KINDS, check_hash_in_name, kind_of, read_named
from .rules import Renamed, apply
from .sources import DENSENET_TO_HOSTS, SOURCES, Source

#: Whose names the tensors can get.
TARGETS = ('torchvision', 'timm', 'mmpretrain', 'mmseg')
DECORRELATION = 'decorrelation.'
_COUNT = '.num_batches_tracked'


@dataclass(frozen=True)
class Converted:
    """Weights of an encoder, all of them.

    Args:
        tensors (dict[str, Tensor]): float32, by the names of
            :mod:`medssl_mm.converters.architectures`; besides, where a
            decorrelation was folded, ``decorrelation.weight`` ``(C', C, 1, 1)``
            and ``.bias``.
        architecture (str): Of ``ARCHITECTURES``.
        source (str): Of ``SOURCES``.
        dropped (tuple[str, ...]): Names of the file that were left out: all of it
            that is in no tensor.
        notes (tuple[str, ...]): What else was done, in words.
    """

    tensors: dict[str, Tensor]
    architecture: str
    source: str
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """How renamed tensors and an architecture agree."""

    architecture: str
    missing: list[str]
    left: list[str]
    misfits: list[str]

    @property
    def faults(self) -> int:
        return len(self.missing) + len(self.left) + len(self.misfits)


def convert(
    path: str | Path,
    source: str,
    encoder: str | None = None,
    decorrelation: str = 'drop',
    transform: tuple[Tensor, Tensor] | None = None,
) -> Converted:
    """Read a file of weights by the rules of its source; all fits or nothing.

    Args:
        path (str | Path): The file; of TensorFlow also the name without
            ending, or the folder.
        source (str): A key of ``SOURCES``.
        encoder (str, optional): 'online' or 'target', of a source that reads
            either. Defaults to None: see
            :func:`medssl_mm.backbones.choose_encoder`.
        decorrelation (str): 'drop' or 'fold', of a pretraining of this
            package. Defaults to 'drop'.
        transform (tuple[Tensor, Tensor], optional): As for
            :func:`medssl_mm.converters.export_backbone`. Defaults to None.

    Raises:
        UserError: The file is damaged, or not of this source: names all that
            is missing, left over or of another shape, and the source that it
            fits. Or a choice is asked for that the source does not have.
    """
    if source not in SOURCES:
        raise UserError(f'unknown source {source!r}{similar(source, SOURCES)}')
    rules = SOURCES[source]
    _require_choices(source, rules, encoder, decorrelation)
    check_hash_in_name(path)
    if rules.any_layout:
        return _in_any_layout(path, source, encoder)
    found = read_named(path)
    parts, kind = found.parts, kind_of(path)
    if rules.conversion and kind == SOURCES[rules.conversion].kind:
        source, rules = rules.conversion, SOURCES[rules.conversion]
        _require_choices(source, rules, encoder, decorrelation)
    if kind != rules.kind:
        raise UserError(
            f'{path} is {KINDS[kind]}, but {source} is {KINDS[rules.kind]} '
            f'({rules.title}){_advice(path, kind, parts, source)}'
        )
    notes: list[str] = []
    dropped: list[str] = []
    place = _place(parts, rules, encoder)
    if place is None:
        places = ', '.join(name or 'the top' for name in parts)
        wanted = ' or '.join(f'"{name}"' if name else 'the top' for name in rules.parts)
        raise UserError(
            f'{path}: {source} has its tensors under {wanted}, found some under '
            f'{places}{_advice(path, kind, parts, source)}'
        )
    named: Mapping[str, Any] = parts[place]
    if rules.pretraining:
        try:
            own, folded = prefixes_of(named, encoder)
            used = (own, folded) if transform is not None else (own,)
            dropped = [name for name in named if not name.startswith(used)]
            named, notes = export_backbone(named, decorrelation, transform, encoder)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(
                f'{path}: {str(error).rstrip(".")}{_advice(path, kind, parts, source)}'
            ) from error
    renamed = apply(rules.rules, named)
    fit = _best(renamed, rules)
    if fit.faults:
        raise UserError(
            f'{path} is no {source} ({rules.title}): {_listed(fit)}'
            f'{_advice(path, kind, parts, source)}'
        )
    tensors = _completed(renamed.tensors, ARCHITECTURES[fit.architecture], path)
    return Converted(
        tensors,
        fit.architecture,
        source,
        tuple(dropped + renamed.dropped + found.without(place)),
        tuple(notes),
    )


def _require_choices(
    source: str, rules: Source, encoder: str | None, decorrelation: str
) -> None:
    """Refuse choices that a source would pass over: it gave another encoder."""
    if encoder is not None and not rules.two_encoders:
        raise UserError(
            f'--encoder {encoder} has no meaning for {source} ({rules.title}), of '
            f'which one encoder is read; leave it out'
        )
    if decorrelation != 'drop' and not rules.pretraining:
        raise UserError(
            f'--decorrelation {decorrelation} has no meaning for {source} '
            f'({rules.title}), which has none; leave it out, or, of a pretraining of '
            'this package, give --from medssl_mm'
        )


def _in_any_layout(path: str | Path, source: str, encoder: str | None) -> Converted:
    """Find the largest network that a file holds all of, wherever it is in there."""
    from medssl_mm.engine.layouts import find_layout
    from medssl_mm.engine.pretrained import read_checkpoint

    content: Any = read_checkpoint(path)
    found, refused = [], []
    for name in SOURCES[source].architectures:
        shapes = ARCHITECTURES[name].shapes
        try:
            layout = find_layout(content, shapes, str(path), encoder)
        except UserError as error:
            # Names of another network have no such encoder; those of the file's may.
            refused.append(error)
            continue
        own = {key: value for key, value in layout.own.items() if key in shapes}
        # A deeper network holds the names of a shallower one.
        parts = {key.partition('.')[0] for key in shapes}
        rest = [key for key in layout.own if key not in shapes]
        renamed = Renamed(
            tensors=own,
            sources={key: key for key in own},
            left=[key for key in rest if key.partition('.')[0] in parts],
        )
        found.append((_fit(renamed, name, own_stem=True), layout, own, rest))
    if not found:
        raise refused[0]
    fit, layout, own, rest = min(found, key=lambda f: (f[0].faults, -len(f[2])))
    if fit.faults:
        raise UserError(
            f'{path} holds no whole network of {source} ({SOURCES[source].title}): '
            f'{_listed(fit)}; fetch the file again, or name its --from'
        )
    place = f'{layout.place}*' if layout.place else 'the top, without prefix'
    note = f'found at {place}' + f', as {layout.naming}' * bool(layout.naming)
    return Converted(
        _completed(own, ARCHITECTURES[fit.architecture], path),
        fit.architecture,
        source,
        (*rest, *layout.others),
        (note,),
    )


def convert_named(named: Mapping[str, Tensor], label: str) -> Converted:
    """Take the tensors of a host's backbone, as in its checkpoints.

    Args:
        named (Mapping[str, Tensor]): ``backbone.*``, and ``decorrelation_conv.*``
            of a folded decorrelation.
        label (str): For the message.

    Raises:
        UserError: They are of no network that other libraries have.
    """
    rules = SOURCES['hosts']
    renamed = apply(rules.rules, named)
    fit = _best(renamed, rules)
    if fit.faults:
        raise UserError(
            f'{label} is of no network that torchvision or timm has '
            f'({_listed(fit, 2)}); choose mmpretrain or mmseg'
        )
    tensors = _completed(renamed.tensors, ARCHITECTURES[fit.architecture], label)
    return Converted(tensors, fit.architecture, 'hosts', tuple(renamed.dropped))


def names_for_hosts(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of torchvision or timm the names of a host's backbone."""
    if any(name.startswith('features.denseblock') for name in tensors):
        return apply(DENSENET_TO_HOSTS, tensors).tensors
    return dict(tensors)


def named_for(converted: Converted, target: str) -> dict[str, Tensor]:
    """Give the tensors the names that a target has for them.

    For a host with the prefix ``backbone.``; a folded decorrelation is there
    the 1x1 convolution ``decorrelation_conv``, elsewhere, after the pooling,
    the linear layer in the place of the classifier.

    Args:
        converted (Converted): Weights.
        target (str): One of ``TARGETS``.

    Raises:
        UserError: The target has no such network.
    """
    if target not in TARGETS:
        raise UserError(f'unknown target {target!r}{similar(target, TARGETS)}')
    architecture = ARCHITECTURES[converted.architecture]
    if target in ('mmpretrain', 'mmseg'):
        return _for_hosts(converted, architecture)
    if target not in architecture.twins:
        able = [name for name in TARGETS if name in architecture.twins] + [
            'mmpretrain',
            'mmseg',
        ]
        raise UserError(
            f'{target} has no {converted.architecture}; convert it to '
            + ' or '.join(able)
        )
    result = {}
    for name, value in converted.tensors.items():
        if name.startswith(DECORRELATION):
            value = value.flatten(1) if value.ndim == 4 else value
            name = architecture.head + name.removeprefix(DECORRELATION)
        result[name] = value
    return result


def read_weights(
    source: str, path: str | Path, backbone: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Read a file for a backbone of the hosts: its names, without prefix.

    Args:
        source (str): A key of ``SOURCES``.
        path (str | Path): As for :func:`convert`.
        backbone (Mapping, optional): Its config, which need not be known: who
            loads the tensors sees whether they fit. Defaults to None.

    Raises:
        UserError: See :func:`convert`.
    """
    return {
        name.removeprefix('backbone.'): value
        for name, value in named_for(convert(path, source), 'mmpretrain').items()
    }


def backbone_settings(converted: Converted, mode: str = 'strict') -> dict[str, Any]:
    """Config of the backbone that weights are for.

    Args:
        converted (Converted): Weights.
        mode (str): 'strict': padded as they were trained; 'compat': as torch
            pads, which published comparisons used. Defaults to 'strict'.
    """
    settings = dict(ARCHITECTURES[converted.architecture].backbone)
    if mode == 'strict':
        settings.update(SOURCES[converted.source].padding)
    return settings


def _for_hosts(converted: Converted, architecture: Architecture) -> dict[str, Tensor]:
    own, folded = {}, {}
    for name, value in converted.tensors.items():
        if name.startswith(DECORRELATION):
            name = f'decorrelation_conv.conv.{name.removeprefix(DECORRELATION)}'
            folded[name] = value
        else:
            own[name] = value
    prefix = 'backbone.'
    if architecture.family == 'densenet':
        own = apply(DENSENET_TO_HOSTS, own).tensors
    elif architecture.family == 'efficientnet-lite':
        prefix += 'timm_model.'
    return {**{prefix + name: value for name, value in own.items()}, **folded}


def _place(
    parts: Mapping[str, Mapping[str, Any]], source: Source, encoder: str | None
) -> str | None:
    """The part of a file in which its source has the tensors; None of another one."""
    places = source.parts
    if source.kind == 'haiku' and encoder:
        places = (encoder,)
    return next((place for place in places if place in parts), None)


def _best(renamed: Renamed, source: Source) -> _Fit:
    """Fit tensors to the architecture of a source that they agree with most."""
    fits, absent = [], InstallError('no network to fit')
    for name in source.architectures:
        try:
            fits.append(_fit(renamed, name, source.own_stem))
        except InstallError as error:  # another network may fit
            absent = error
            continue
        if not fits[-1].faults:
            break
    if not fits:
        raise absent
    # That whose names agree; of another width it is the shapes that do not.
    return min(fits, key=lambda f: (len(f.missing) + len(f.left), len(f.misfits)))


def _fit(renamed: Renamed, name: str, own_stem: bool) -> _Fit:
    architecture = ARCHITECTURES[name]
    shapes = architecture.shapes
    missing = [
        key for key in shapes if key not in renamed.tensors and not key.endswith(_COUNT)
    ]
    left = list(renamed.left)
    misfits = []
    for key, value in renamed.tensors.items():
        shape, old = tuple(value.shape), renamed.sources[key]
        if key.startswith(DECORRELATION):
            continue
        if key not in shapes:
            left.append(old)
        elif own_stem and key == architecture.stem:
            if len(shape) != 4 or shape[0] != shapes[key][0]:
                misfits.append(f'{old}: {shape}, expected {shapes[key]}')
        elif shape != shapes[key]:
            misfits.append(f'{old}: {shape}, expected {shapes[key]}')
    return _Fit(name, missing, left, misfits)


def _listed(fit: _Fit, count: int = 6) -> str:
    texts = []
    for title, names in (
        (f'missing for {fit.architecture}', fit.missing),
        ('left over', fit.left),
        ('of another shape', fit.misfits),
    ):
        if names:
            rest = len(names) - count
            more = f', and {rest} more' if rest > 0 else ''
            texts.append(f'{len(names)} {title}: {", ".join(names[:count])}{more}')
    return '; '.join(texts)


def _advice(
    path: str | Path, kind: str, parts: Mapping[str, Mapping], asked: str
) -> str:
    """Say which other source a file fits, and else what to do."""
    for name, source in SOURCES.items():
        if name == asked or source.kind != kind:
            continue
        if source.any_layout:
            try:
                _in_any_layout(path, name, None)
            except UserError:
                continue
            return f'. It fits {name} ({source.title}): use that source'
        place = _place(parts, source, None)
        if place is None:
            continue
        named = parts[place]
        if source.pretraining:
            try:
                named = export_backbone(named)[0]
            except ValueError:
                continue
        renamed = apply(source.rules, named)
        try:
            fits = not _best(renamed, source).faults
        except InstallError:
            continue
        if fits:
            return f'. It fits {name} ({source.title}): use that source'
    return (
        '. It fits no other source either: fetch the file again from where it is '
        'published'
    )


def _completed(
    tensors: Mapping[str, Tensor], architecture: Architecture, path: str | Path
) -> dict[str, Tensor]:
    """In the order of the network, float32, with all counters."""
    result = {}
    folded = [name for name in tensors if name.startswith(DECORRELATION)]
    for name in [*architecture.shapes, *folded]:
        if name not in tensors:  # a counter, which only training uses
            result[name] = torch.zeros((), dtype=torch.long)
            continue
        value = tensors[name]
        if value.is_floating_point():
            value = value.float()
            damaged = not value.isfinite().all()
            if damaged or (name.endswith('running_var') and (value < 0).any()):
                raise UserError(
                    f'{path}: {name} holds values that no training leaves (not '
                    'finite, or a variance below 0); fetch the file again'
                )
        result[name] = value.contiguous()
    return result
