"""Pretrained backbone weights: find them, fit them, report, refuse."""

import copy
import inspect
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModule, is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.loops import BaseLoop
from torch import Tensor, nn
from torch.nn import functional as F

from medssl_mm import compat
from medssl_mm.backbones import TARGET, describe_weights, find_family
from medssl_mm.engine import checkpoints
from medssl_mm.engine.hooks import CalibrateBatchNormHook
from medssl_mm.engine.layouts import (
    Layout,
    containers,
    find_layout,
    find_state_dict,
)
from medssl_mm.engine.observing import quietly
from medssl_mm.engine.taps import compare_taps
from medssl_mm.errors import UserError
from medssl_mm.provenance import Seen, seen_of
from medssl_mm.registry import HOOKS, WEIGHT_INITIALIZERS


@dataclass(frozen=True)
class LoadReport:
    """What became of every tensor.

    Args:
        source (str): Checkpoint path or a name for a given state dict.
        prefix (str): What stood before the backbone's names.
        loaded (tuple[str]): Names filled from the checkpoint.
        missing (tuple[str]): Names of the model that the checkpoint lacks.
        unexpected (tuple[str]): Backbone names that the model lacks.
        mismatched (tuple[str]): ``name: checkpoint shape, model shape``.
        adapted (tuple[str]): Tensors changed to fit, and how.
        ignored (tuple[tuple[str, int]]): Other parts of the checkpoint and
            their number of tensors.
        advice (str): What the names say about the cause of a misfit.
        encoder (str): 'online' or 'target' where the checkpoint holds both,
            else empty.
        container (str): Keys that lead to the tensors, '' for the top.
        naming (str): Whose names they have; '' for the backbone's own.
        taps (str): What :func:`medssl_mm.engine.taps.compare_taps` found.
    """

    source: str
    prefix: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    adapted: tuple[str, ...]
    ignored: tuple[tuple[str, int], ...]
    advice: str = ''
    encoder: str = ''
    container: str = ''
    naming: str = ''
    taps: str = ''

    @property
    def complete(self) -> bool:
        """Whether every weight of the backbone was found and fits."""
        return not self.missing and not self.mismatched

    def __str__(self) -> str:
        lines = [
            f'Backbone weights from {self.source} ({self.where})',
            *self._encoder_lines(),
            f'  loaded     {len(self.loaded)} of '
            f'{len(self.loaded) + len(self.missing) + len(self.mismatched)}'
            ' tensors',
        ]
        for title, names in (
            ('adapted', self.adapted),
            ('missing', self.missing),
            ('misfit', self.mismatched),
            ('not in model', self.unexpected),
        ):
            if names:
                lines.append(f'  {title:<10} {len(names)}: {_first(names)}')
        if self.taps:
            lines.append(f'  {self.taps}')
        if self.ignored:
            parts = ', '.join(f'{name} ({n})' for name, n in self.ignored)
            lines.append(f'  not used   {parts}')
        return '\n'.join(lines)

    @property
    def where(self) -> str:
        """Container, prefix and kind of the names, in words."""
        inside = f'in {self.container}, ' * bool(self.container)
        keys = f'keys {self.prefix}*' if self.prefix else 'keys without prefix'
        return inside + keys + f', names of {self.naming}' * bool(self.naming)

    def _encoder_lines(self) -> list[str]:
        if not self.encoder:
            return []
        what, other = 'the one that learns', 'target'
        if self.encoder == TARGET:
            what, other = 'the slow copy', 'online'
        return [
            f'  encoder    {self.encoder}, {what}; the file holds both, '
            f'encoder={other!r} takes the other one'
        ]


def _first(names: tuple[str, ...], count: int = 4) -> str:
    rest = len(names) - count
    return ', '.join(names[:count]) + (f', and {rest} more' * (rest > 0))


def read_checkpoint(path: str | Path) -> object:
    """Read a checkpoint without running code from it.

    Args:
        path (str | Path): File written by ``torch.save``, or ``.safetensors``, or
            a folder with one of them.

    Returns:
        object: What the file holds, on the CPU.

    Raises:
        UserError: If the file is absent, truncated or holds other things
            than plain data.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = weights_in_folder(path)
    if not path.is_file():
        raise UserError(
            f'checkpoint {path} does not exist; give the path of a .pth file'
        )
    return compat.load_checkpoint(path, map_location='cpu')


def weights_in_folder(folder: Path) -> Path:
    """Find the weights of a folder with ``config.json``, as hubs have them.

    Raises:
        UserError: They are not there, or in several files.
    """
    names = ('model.safetensors', 'pytorch_model.bin', 'model.pth')
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f'{folder} is a folder without weights: expected {", ".join(names[:-1])} or '
        f'{names[-1]} in it (weights in several files are not read)'
    )


def _counts(name: str) -> bool:
    return not name.endswith('num_batches_tracked')


def _fit(name: str, value: Tensor, target: Tensor) -> tuple[Tensor | None, str]:
    """Return the tensor to load and what was changed, or None and why."""
    if value.shape == target.shape:
        return value, ''
    old, new = tuple(value.shape), tuple(target.shape)
    if name.rpartition('.')[2] == 'pos_embed':
        resized = _resized_positions(value, target)
        if resized is not None:
            return resized, f'{name}: {old[1]} -> {new[1]} tokens (interpolated)'
    if value.ndim == 4 and old[:1] + old[2:] == new[:1] + new[2:]:
        was, now = old[1], new[1]
        if was in (1, 3):  # grey or colour
            done = ['summed'] * (was > 1) + [f'divided by {now}'] * (now > 1)
            return value.sum(1, keepdim=True).expand(target.shape) / now, (
                f'{name}: {was} -> {now} input channel{"s" * (now > 1)} '
                f'({", ".join(done)})'
            )
    return None, f'{name}: {old} in the checkpoint, {new} in the model'


def _resized_positions(value: Tensor, target: Tensor) -> Tensor | None:
    """Interpolate the positions of a square of patches; None if they are not.

    The tokens before the patches (of class and distillation) are kept.

    Shape: ``(1, tokens, C)`` -> that of the target.
    """
    if value.ndim != 3 or value.shape[::2] != target.shape[::2]:
        return None
    for extra in (1, 0, 2):
        sides = [math.isqrt(max(p.shape[1] - extra, 0)) for p in (value, target)]
        if all(s**2 + extra == p.shape[1] for s, p in zip(sides, (value, target))):
            old, new = sides
            grid = value[:, extra:].float().mT.unflatten(2, (old, old))
            grid = F.interpolate(grid, (new, new), mode='bicubic')
            rows = grid.flatten(2).mT.to(value.dtype)
            return torch.cat([value[:, :extra], rows], dim=1)
    return None


def match_backbone(
    content: Mapping[str, Any],
    target: Mapping[str, Tensor],
    source: str,
    encoder: str | None = None,
) -> tuple[dict[str, Tensor], LoadReport]:
    """Fit the tensors of a checkpoint to the names of a backbone.

    Where they are is found by :func:`medssl_mm.engine.layouts.find_layout`.

    The stem of a grey or colour network fits any number of channels: its
    filters are summed over the input channels and shared out among the new
    ones, so it computes what it did on an image whose channels are all alike
    (with the same normalisation of each). Positions of a Vision Transformer
    are interpolated to another size of images.

    Args:
        content (Mapping): The checkpoint, or its tensors by name.
        target (Mapping[str, Tensor]): ``state_dict()`` of the backbone.
        source (str): Name for the report.
        encoder (str, optional): Which one of a checkpoint that also holds a
            slow copy of the encoder, 'online' or 'target', see
            :func:`medssl_mm.backbones.choose_encoder`. Defaults to None.

    Returns:
        tuple[dict[str, Tensor], LoadReport]: The fitting tensors by the
        backbone's names, and what became of the others.
    """
    layout = find_layout(content, target, source, encoder)
    fitted = _Fitted.of(layout.own, target)
    checkpoints.require_finite(fitted.tensors, source, target)
    wanted = [name for name in target if _counts(name)]
    parts = {name.split('.')[0] for name in wanted}
    unexpected = [
        name
        for name in layout.own
        if name.split('.')[0] in parts and name not in target and _counts(name)
    ]
    return fitted.tensors, LoadReport(
        source=source,
        prefix=layout.prefix,
        loaded=tuple(name for name in fitted.tensors if _counts(name)),
        missing=tuple(fitted.missing),
        unexpected=tuple(unexpected),
        mismatched=tuple(fitted.mismatched),
        adapted=tuple(fitted.adapted),
        ignored=tuple(sorted(_other_parts(content, layout, parts).items())),
        advice=_advice(layout, wanted, fitted.missing, unexpected),
        encoder=layout.encoder,
        container=layout.container,
        naming=layout.naming,
    )


@dataclass
class _Fitted:
    """Tensors that fit a model, and names or notes of the others."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, own: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> '_Fitted':
        fitted = cls()
        for name, tensor in target.items():
            if name not in own:
                if _counts(name):
                    fitted.missing.append(name)
                continue
            value, note = _fit(name, own[name], tensor)
            if value is None:
                fitted.mismatched.append(note)
                continue
            fitted.tensors[name] = value
            if note:
                fitted.adapted.append(note)
        return fitted


def _other_parts(
    content: Mapping[str, Any], layout: Layout, parts: set[str]
) -> Counter[str]:
    """Count the tensors of what is no part of the backbone, by its name."""
    others = [*layout.others]
    others += [name for name in layout.own if name.split('.')[0] not in parts]
    ignored = Counter(name.removeprefix('module.').split('.')[0] for name in others)
    for container, tensors in containers(content):
        if container != layout.container:
            ignored[container or 'the top'] += len(tensors)
    return ignored


def _advice(
    layout: Layout, wanted: Sequence[str], missing: Sequence[str], unexpected: list[str]
) -> str:
    """What the names say about the cause of a misfit."""
    whitening = [name for name in unexpected if name.endswith('.running_wm')]
    if whitening:
        return (
            f'{whitening[0].rpartition(".")[0]} is iterative normalisation; '
            'python tools/convert_checkpoint.py makes it a plain one'
        )
    theirs, ours = describe_weights(layout.own), describe_weights(wanted)
    if theirs != ours and theirs and ours:
        return f'checkpoint looks like {theirs}, model is {ours}'
    if not layout.own or len(missing) == len(wanted):
        return (
            'no name of the backbone was recognised (the file starts '
            f'with {_first((*layout.own, *layout.others), 3)})'
        )
    return ''


def load_pretrained_backbone(
    module: nn.Module,
    checkpoint: str | Path | Mapping[str, Tensor],
    encoder: str | None = None,
    source: str = 'the given state dict',
    seen: Seen | None = None,
    allow_other_dilation: bool = False,
) -> LoadReport:
    """Load pretrained weights into a backbone, all of them or none.

    Reads checkpoints of this package's pretraining and of other projects, see
    :mod:`medssl_mm.engine.layouts`. Other parts, such as necks and queues, are
    left out and listed.

    Args:
        module (nn.Module): The backbone.
        checkpoint (str | Path | Mapping[str, Tensor]): Checkpoint file, or
            its tensors by name.
        encoder (str, optional): 'online' or 'target', the slow copy, of a
            checkpoint that holds both. Defaults to None: the target of BYOL,
            else the online one.
        source (str): What given tensors are called in the report.
        seen (Seen, optional): What the weights have seen, which the module gets
            as ``provenance``. Defaults to None: what the file says.
        allow_other_dilation (bool): Whether a network is filled that makes
            something else of the weights, see :mod:`medssl_mm.engine.taps`.
            Defaults to False.

    Returns:
        LoadReport: What was loaded and what was not.

    Raises:
        UserError: If the file is unusable, a weight of the backbone is
            missing or has another shape, or strides and dilations are others
            than in the training; the module is then unchanged.
    """
    content: Any = checkpoint
    if not isinstance(checkpoint, Mapping):
        source = str(checkpoint)
        content = read_checkpoint(checkpoint)
    found, report = match_backbone(content, module.state_dict(), source, encoder)
    _require_complete(report)
    taps = compare_taps(module, content, source, allow_other_dilation)
    report = replace(report, taps=taps)
    module.load_state_dict(found, strict=False)
    network: Any = module  # gets attributes, which are no parts
    network.random_weights = False
    network.provenance = seen_of(content, source) if seen is None else seen
    # mmcls and mmpretrain would go on to zero the last scale of every block,
    # which they leave out for their own initialiser only.
    if hasattr(network, 'zero_init_residual'):
        network.zero_init_residual = False
    return report


def _require_complete(report: LoadReport) -> None:
    if report.complete:
        return
    problems = []
    if report.advice:
        problems.append(report.advice)
    if report.missing:
        problems.append(f'{len(report.missing)} missing: {_first(report.missing)}')
    if report.mismatched:
        problems.append(
            f'{len(report.mismatched)} of another shape: {_first(report.mismatched)}'
        )
    raise UserError(
        f'{report.source} does not fill the backbone, which would stay partly '
        f'random ({len(report.loaded)} tensors fit); '
        f'{"; ".join(problems)}. Use a checkpoint of the same architecture or '
        'change model.backbone.'
    )


def _init_random(module: Any) -> None:
    """Initialise a backbone as the hosts do by default."""
    module.random_weights = True
    family = find_family(module)
    if family is not None and family.own_start:
        _start_by_itself(module)
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif (
            isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm))
            and layer.affine
        ):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    if getattr(module, 'zero_init_residual', False):
        for layer in module.modules():
            last = getattr(layer, 'norm3', getattr(layer, 'norm2', None))
            if isinstance(last, nn.modules.batchnorm._BatchNorm):
                nn.init.zeros_(last.weight)


def _start_by_itself(module: nn.Module) -> None:
    """Initialise by what the class does when no ``init_cfg`` is given."""
    if not isinstance(module, BaseModule):
        return
    stated = module.init_cfg
    # Of the class that states it; one that derives from it may not.
    stating = (
        inspect.signature(kind.__init__).parameters.get('init_cfg')
        for kind in cast(Any, type(module)).__mro__
    )
    default = next(p.default for p in stating if p is not None)
    module.init_cfg = copy.deepcopy(default)
    module.is_init = False
    # mmengine lists every parameter when a part is initialised by itself.
    try:
        with quietly():
            module.init_weights()
    finally:
        module.init_cfg = stated


def _keep_as_loaded(module: nn.Module, checkpoint: str) -> None:
    """Keep the rest of an initialisation from what was loaded.

    Parts of a network, and Vision Transformers their positions, would start
    anew after their weights were loaded, unless the initialisation is of the
    hosts' own kind.
    """
    if isinstance(module, BaseModule):
        module.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint))
    for part in module.modules():
        if part is not module and isinstance(part, BaseModule):
            part.is_init = True


@WEIGHT_INITIALIZERS.register_module()
class PretrainedBackbone:
    """Initialiser of a backbone: pretrained weights, or stated random ones.

    Used as ``init_cfg=dict(type='medssl_mm.PretrainedBackbone',
    checkpoint=...)`` of a backbone, so that
    ``--cfg-options model.backbone.init_cfg.checkpoint=FILE`` chooses the
    weights.

    Args:
        checkpoint (str, optional): Checkpoint file; None means random
            initialisation. Defaults to None.
        encoder (str, optional): Which encoder of a file that holds two, see
            :func:`load_pretrained_backbone`. Defaults to None.
        allow_other_dilation (bool): Whether strides and dilations may make
            something else of the weights than in their training, which is
            then logged. Defaults to False.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        encoder: str | None = None,
        allow_other_dilation: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.encoder = encoder
        self.allow_other_dilation = allow_other_dilation

    def __call__(self, module: nn.Module) -> None:
        """Initialise the backbone in place."""
        if not self.checkpoint:
            _init_random(module)
            print_log(
                'Backbone: RANDOM initialisation (init_cfg.checkpoint is '
                'None; weights given by load_from are loaded after this)',
                logger='current',
            )
            return
        report = load_pretrained_backbone(
            module,
            self.checkpoint,
            self.encoder,
            allow_other_dilation=self.allow_other_dilation,
        )
        _keep_as_loaded(module, self.checkpoint)
        print_log(str(report), logger='current')


@HOOKS.register_module()
class CalibrateRandomBackboneHook(CalibrateBatchNormHook):
    """Calibrates the normalisation of a backbone that stayed random.

    A frozen random network with running statistics of 0 and 1 is a weaker
    baseline than random features are. Backbones with loaded weights keep
    their own statistics; those without batch normalisation have none.

    Args:
        **kwargs: Arguments of
            :class:`medssl_mm.engine.hooks.CalibrateBatchNormHook`.
    """

    def before_train(self, runner: Runner) -> None:
        """Calibrate unless weights were loaded or there is nothing to do."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        backbone = model.get_submodule(self.module)
        has_norms = any(
            isinstance(part, nn.modules.batchnorm._BatchNorm)
            for part in backbone.modules()
        )
        if has_norms and getattr(backbone, 'random_weights', False):
            super().before_train(runner)


# Part that tells a trained model from a pretrained backbone, by kind.
_HEADS = {'segmentation': 'decode_head', 'classification': 'head'}


@HOOKS.register_module()
class LoadReportHook(Hook):
    """Makes ``load_from`` of a run with labels strict and its result known.

    For segmentation and classification. A pretraining checkpoint is fitted
    to the backbone as by :func:`load_pretrained_backbone`; a checkpoint with
    the head of the model must fit the whole model. Models whose head predicts
    nothing are left alone.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Fit ``checkpoint['state_dict']`` to the model, in place."""
        model = runner.model
        if is_model_wrapper(model):
            model = model.module
        kind = next(
            (
                kind
                for kind, part in _HEADS.items()
                if hasattr(getattr(model, part, None), 'predict')
            ),
            None,
        )
        if kind is None or not hasattr(model, 'backbone'):
            return
        part = _HEADS[kind]
        source = str(getattr(runner, '_load_from', None) or 'the checkpoint')
        state_dict = find_state_dict(checkpoint, source)
        bare = {
            name.removeprefix('module.'): value for name, value in state_dict.items()
        }
        if any(
            name.startswith(f'{part}.') and name in bare for name in model.state_dict()
        ):
            require_equal(bare, model.state_dict(), source, kind)
            print_log(
                f'{kind.capitalize()} model from {source}: all {len(bare)} '
                'tensors loaded',
                logger='current',
            )
            return
        if not isinstance(runner._train_loop, BaseLoop):
            raise UserError(
                f'{source} holds no {part.replace("_", " ")}, so there is '
                'nothing to test; train one on it first (tools/train.py '
                f'CONFIG --cfg-options load_from={source})'
            )
        found, report = match_backbone(checkpoint, model.backbone.state_dict(), source)
        _require_complete(report)
        print_log(str(report), logger='current')
        # The rest keeps its own values, so that the loader that follows finds
        # nothing missing.
        merged = dict(model.state_dict())
        merged.update({f'backbone.{name}': value for name, value in found.items()})
        checkpoint['state_dict'] = merged
        model.backbone.random_weights = False


def require_equal(
    state_dict: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    source: str,
    kind: str = 'segmentation',
) -> None:
    """Raise unless the checkpoint of a trained model fits the whole model.

    Args:
        state_dict (Mapping[str, Tensor]): Tensors of the checkpoint.
        target (Mapping[str, Tensor]): ``state_dict()`` of the model.
        source (str): Name of the checkpoint for the message.
        kind (str): What the model does. Defaults to 'segmentation'.

    Raises:
        UserError: Names missing, additional and misfitting tensors, or those that
            are not finite.
    """
    problems = []
    missing = tuple(name for name in target if name not in state_dict and _counts(name))
    extra = tuple(name for name in state_dict if name not in target and _counts(name))
    shapes = tuple(
        f'{name}: {tuple(value.shape)} in the checkpoint, '
        f'{tuple(target[name].shape)} in the model'
        for name, value in state_dict.items()
        if name in target and value.shape != target[name].shape
    )
    for title, names in (
        ('missing', missing),
        ('not in the model', extra),
        ('of another shape', shapes),
    ):
        if names:
            problems.append(f'{len(names)} {title}: {_first(names)}')
    if problems:
        raise UserError(
            f'{source} is a {kind} checkpoint of another model; '
            f'{"; ".join(problems)}. Use the configuration it was trained '
            'with, or its backbone alone by '
            f'model.backbone.init_cfg.checkpoint={source}'
        )
    checkpoints.require_finite(state_dict, source, target)
