"""Where foreign checkpoints keep a backbone, and what they call its tensors.

Trainers put tensors into containers (``state_dict``, ``student``, ...), prefixes
before their names (of wrappers and of the model around the backbone), and some
libraries have names of their own. All of it is tried here; what holds most
tensors of the backbone is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from medssl_mm.backbones import TARGET, choose_encoder
from medssl_mm.errors import UserError

__all__ = ['Layout', 'containers', 'find_layout', 'find_state_dict', 'no_weights']

# What stands before the backbone's own names, by the preference among those that
# hold equally many.
_PREFIXES = (
    'backbone.',  # mmengine hosts and this package
    'module.backbone.',
    'module.encoder_q.',  # MoCo
    'encoder_q.',
    'module.base_encoder.',  # MoCo v3
    '_feature_blocks.',  # VISSL
    'student.backbone.',
    'encoder.',
    'model.',
    'module.',
    '',  # torchvision, timm
)
# Parts of a checkpoint that are no weights.
_OTHER = re.compile(
    r'optim.*|.*sched.*|scaler|message_hub|random_states|contract|meta|callbacks|loops'
)
# A copy that follows the encoder which learns.
_SLOW = re.compile(
    r'(?:^|[._])(?:teacher|ema|encoder_k|key|momentum|target|shadow)(?:[._]|$)'
)
# Of two, the one that its method evaluates: DINO, BYOL.
_EVALUATED = re.compile(r'(?:^|\.)(?:teacher|target_net)\.')
_COUNTER = 'num_batches_tracked'


@dataclass(frozen=True)
class _Naming:
    """Names that a library gives the tensors of a backbone.

    Args:
        title (str): In reports; '' for the backbone's own.
        own (Mapping): From those names to the backbone's own.
        dots (bool): Whether underscores and dots are the same. Defaults to
            False.
    """

    title: str
    own: Mapping[str, str]
    dots: bool = False

    def plain(self, name: str) -> str:
        name = name.replace('_orig_mod.', '')  # of torch.compile
        return name.replace('_', '.') if self.dots else name


@dataclass(frozen=True)
class Layout:
    """One way to read a checkpoint as a backbone.

    Args:
        container (str): Keys that lead to the tensors, '' for the top.
        prefix (str): What stands before the names.
        naming (str): Whose names these are; '' for the backbone's own.
        count (int): Tensors of the backbone that are there.
        own (dict[str, Tensor]): What has the prefix, by the backbone's names
            where it has such a tensor.
        others (tuple[str]): Names without the prefix.
        encoder (str): 'online' or 'target' where the file holds both.
    """

    container: str
    prefix: str
    naming: str
    count: int
    own: dict[str, Tensor] = field(repr=False)
    others: tuple[str, ...] = field(repr=False)
    encoder: str = ''

    @property
    def place(self) -> str:
        """Container and prefix as one."""
        return f'{self.container}.{self.prefix}' if self.container else self.prefix


def containers(
    content: object, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """List the mappings of names to tensors inside a checkpoint, by their keys."""
    if not isinstance(content, Mapping):
        return
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if tensors:
        yield '.'.join(path), tensors
    for key, value in content.items():
        if len(path) < 5 and not _OTHER.fullmatch(str(key)):
            yield from containers(value, (*path, str(key)))


def find_layout(
    content: Mapping,
    target: Collection[str],
    source: str,
    encoder: str | None = None,
) -> Layout:
    """Find the backbone in a checkpoint.

    Args:
        content (Mapping): What the file holds, or tensors by name.
        target (Collection[str]): Names of the backbone's tensors.
        source (str): Name of the checkpoint for messages.
        encoder (str, optional): 'online' or 'target' of a file that holds both.
            Defaults to None: the one that its method evaluates where that is
            known, else the one that learns.

    Raises:
        UserError: There are no tensors, or no such encoder.
    """
    found = list(_candidates(content, target))
    if not found:
        raise no_weights(content, source)
    slow = [layout for layout in found if _SLOW.search(layout.place)]
    fast = [layout for layout in found if layout not in slow]
    best = max(found, key=lambda layout: layout.count)
    online = max(fast, key=lambda layout: layout.count, default=None)
    copy = max(slow, key=lambda layout: layout.count, default=None)
    both = online and copy and min(online.count, copy.count) > best.count / 2
    if encoder is not None:
        if copy is None or not copy.count:
            choose_encoder((), encoder, source)  # no such encoder
        chosen = copy if encoder == TARGET else online
    elif both and copy and _EVALUATED.search(copy.place):
        chosen = copy if online and copy.count >= online.count else online
    else:
        chosen = online if online and online.count == best.count else copy
    assert chosen is not None, 'one of both is there'
    which = TARGET if chosen is copy else 'online'
    return Layout(**{**vars(chosen), 'encoder': which if both else ''})


def find_state_dict(content: object, source: str) -> dict[str, Tensor]:
    """Find the mapping of names to tensors inside a checkpoint of a whole model.

    The largest one; of equally large ones that which learns, then the first.

    Args:
        content (object): What the file holds.
        source (str): Name for the error message.

    Returns:
        dict[str, Tensor]: All tensors, by names without what ``torch.compile``
        and a ``DataParallel`` around all of it have put before them.

    Raises:
        UserError: If there is none.
    """
    found = sorted(containers(content), key=lambda c: bool(_SLOW.search(c[0])))
    if not found:
        raise no_weights(content, source)
    tensors = max(found, key=lambda c: len(c[1]))[1]
    named = {name.replace('_orig_mod.', ''): v for name, v in tensors.items()}
    if all(name.startswith('module.') for name in named):
        named = {name.removeprefix('module.'): value for name, value in named.items()}
    return named


def no_weights(content: object, source: str) -> UserError:
    """Say what a file holds instead of weights."""
    found = type(content).__name__
    if isinstance(content, Mapping):
        found = ', '.join(map(str, list(content)[:6])) or 'nothing'
    return UserError(
        f'{source} holds no weights: expected named tensors at the top or '
        f'under "state_dict" or "model", found {found}'
    )


def _candidates(content: Mapping, target: Collection[str]) -> Iterator[Layout]:
    namings = list(_namings(target))
    for container, tensors in containers(content):
        for naming in namings:
            counted = {k for k in naming.own if not k.endswith(_COUNTER)}
            prefixes = Counter(
                prefix
                for name in tensors
                for prefix, rest in _cuts(naming.plain(name))
                if rest in counted
            )
            if not prefixes and not naming.title:
                prefixes[''] = 0
            for prefix in sorted(prefixes, key=_preference):
                yield _layout(container, tensors, naming, prefix, prefixes[prefix])


def _layout(
    container: str,
    tensors: Mapping[str, Tensor],
    naming: _Naming,
    prefix: str,
    count: int,
) -> Layout:
    own, others = {}, []
    for name, value in tensors.items():
        plain = naming.plain(name)
        if plain.startswith(prefix):
            rest = plain.removeprefix(prefix)
            own[naming.own.get(rest, rest)] = value
        else:
            others.append(name)
    return Layout(container, prefix, naming.title, count, own, tuple(others))


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """All ways to part a name into a prefix and a rest."""
    yield '', name
    place = name.find('.')
    while place >= 0:
        yield name[: place + 1], name[place + 1 :]
        place = name.find('.', place + 1)


def _preference(prefix: str) -> tuple[int, int]:
    known = _PREFIXES.index(prefix) if prefix in _PREFIXES else len(_PREFIXES)
    return known, len(prefix)


def _namings(target: Collection[str]) -> Iterator[_Naming]:
    """The backbone's own names, and those that libraries have for them."""
    yield _Naming('', {name: name for name in target})
    timm = {
        re.sub(r'^timm_model\.(model\.)?', '', name).replace('_', '.'): name
        for name in target
        if name.startswith('timm_model.')
    }
    if timm:
        yield _Naming('timm', timm, dots=True)
    if 'conv1.weight' in target and 'layer1.0.conv1.weight' in target:
        for first in (4, 3, 2):  # after ReLU and pooling, one of them, neither
            yield _Naming(
                'the children of a ResNet in order',
                {_as_child(name, first): name for name in target},
            )
        yield _Naming(
            'a ResNet of transformers', {_as_transformers(n): n for n in target}
        )


def _as_child(name: str, first: int) -> str:
    """``conv1.weight`` -> ``0.weight``, ``layer1.0.`` -> ``4.0.``."""
    part, _, rest = name.partition('.')
    if part.startswith('layer'):
        return f'{int(part[5:]) + first - 1}.{rest}'
    return f'{dict(conv1=0, bn1=1).get(part, part)}.{rest}'


def _as_transformers(name: str) -> str:
    """``layer1.0.conv2.weight`` -> ``encoder.stages.0.layers.0.layer.1....``."""
    kinds = dict(conv='convolution', bn='normalization')
    stem = re.fullmatch(r'(conv|bn)1\.(\w+)', name)
    if stem:
        return f'embedder.embedder.{kinds[stem[1]]}.{stem[2]}'
    block = re.fullmatch(
        r'layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.(\d))\.(\w+)', name
    )
    if block is None:
        return name
    stage, number, kind, layer, shortcut, what = block.groups()
    inside = f'encoder.stages.{int(stage) - 1}.layers.{number}'
    if kind is None:
        kind = 'bn' if shortcut == '1' else 'conv'
        return f'{inside}.shortcut.{kinds[kind]}.{what}'
    return f'{inside}.layer.{int(layer) - 1}.{kinds[kind]}.{what}'
