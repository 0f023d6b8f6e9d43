"""What the tools share that look into frozen encoders."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medssl_mm.checkpoint_features import Weights, parse_weights
from medssl_mm.errors import UserError
from medssl_mm.pictures import Pictures, add_picture_arguments

if TYPE_CHECKING:  # --help must not wait for torch
    from rich.progress import Progress

    from medssl_mm.encoders import PretrainedEncoder

MODES = STRICT, COMPAT = ('strict', 'compat')
#: Pictures that set the running statistics of random weights.
CALIBRATION = 320


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder of the command line.

    Args:
        weights (Weights): Name, source and seed.
        rule (str): What mode 'compat' does with it, in words. Defaults to '':
            nothing.
    """

    weights: Weights
    rule: str = ''

    @property
    def name(self) -> str:
        """For tables and figures."""
        return self.weights.name

    @property
    def number(self) -> int:
        """Which of those of the name, from 0."""
        return self.weights.number

    @property
    def key(self) -> str:
        """Name that no other one has."""
        return f'{self.name}-{self.number}' if self.number else self.name

    @property
    def part_key(self) -> dict[str, str]:
        """What finished parts are told apart by besides the weights."""
        return dict(rule=self.rule) if self.rule else {}

    def load(
        self, device: str = 'cpu', pictures: Pictures | None = None
    ) -> PretrainedEncoder:
        """Make it, frozen and in evaluation mode.

        Args:
            device (str): Defaults to 'cpu'.
            pictures (Pictures, optional): Set the running statistics of random
                weights, which are 0 and 1 else. Defaults to None.
        """
        from medssl_mm.encoders import fill_encoder, parse_source

        source = parse_source(self.weights.encoder or '')
        encoder = fill_encoder(source, self.weights.seed).to(device)
        if source.path is None and pictures is not None:
            _calibrate(encoder, pictures)
        return encoder


def _calibrate(encoder: PretrainedEncoder, pictures: Pictures) -> None:
    """Set running statistics, as for features of random weights elsewhere."""
    import torch
    from torch import Tensor

    from medssl_mm.analysis.frozen import normalised, pixels_of
    from medssl_mm.engine.hooks.calibrate_batch_norm_hook import calibrate_batch_norm
    from medssl_mm.functional.features import device_of

    class Prepared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def data_preprocessor(self, batch: Tensor, training: bool) -> dict[str, Tensor]:
            return dict(inputs=batch.to(device_of(encoder)))

    order = np.random.default_rng(0).permutation(len(pictures))[:CALIBRATION]
    batches = (
        normalised(
            encoder.preprocessing,
            [pixels_of(pictures.resized(row, encoder.preprocessing)) for row in rows],
        )
        for rows in np.array_split(order, -(-len(order) // 32))
    )
    calibrate_batch_norm(Prepared(), encoder.backbone, batches)


def named_encoders(
    texts: Sequence[str], several: bool = True, mode: str = STRICT
) -> list[NamedEncoder]:
    """Read ``ENCODER`` or ``NAME=ENCODER``.

    Args:
        texts (Sequence[str]): One per encoder.
        several (bool): Whether a name may stand for several, the seeds of one
            method. Defaults to True.
        mode (str): 'compat' takes the network that the study computed with, where
            that is another. Defaults to 'strict'.

    Raises:
        UserError: No such encoder or file, or a name that is given twice.
    """
    full = [text if '=' in text else f'{text}={text}' for text in texts]
    found = parse_weights(full, several)
    for weights in found:
        if weights.encoder is None:
            raise UserError(
                f'{weights.source} ({weights.name}) tells neither its network nor its '
                'preprocessing; name an encoder: NAME=ENCODER:PATH, or '
                'NAME=random:ENCODER'
            )
    if mode == STRICT:
        return [NamedEncoder(weights) for weights in found]
    from medssl_mm.encoders import compared_encoder

    others = [compared_encoder(weights.encoder or '') for weights in found]
    return [
        NamedEncoder(replace(weights, encoder=other.source), other.rule)
        for weights, other in zip(found, others)
    ]


def encoder_rules(encoders: Sequence[NamedEncoder]) -> list[str]:
    """What mode 'compat' does with encoders, for results."""
    return [f'{one.key}: {one.rule}' for one in encoders if one.rule]


def add_arguments(parser: ArgumentParser, pictures: bool = True) -> None:
    """Add pictures, encoders and the options that all these tools have.

    Args:
        parser (ArgumentParser): Of the tool.
        pictures (bool): Whether it takes pictures. Defaults to True.
    """
    if pictures:
        add_picture_arguments(parser)
        parser.add_argument(
            '--encoders',
            nargs='+',
            required=True,
            metavar='NAME=ENCODER',
            help='ENCODER is a name of configs/encoders, with :PATH of its weights if '
            'they lie elsewhere, random:NAME or random:NAME:SEED, or a folder written '
            'by tools/export.py; a NAME given several times has several seeds',
        )
    parser.add_argument(
        '--mode',
        choices=MODES,
        default='strict',
        help='compat: the formulas of the study, with their faults (default: strict)',
    )
    parser.add_argument('--seed', type=int, default=0, help='default: 0')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument(
        '--overwrite', action='store_true', help='replace the results in --out'
    )
    parser.add_argument(
        '--batch-size', type=int, default=32, help='images at a time (default: 32)'
    )
    parser.add_argument('--device', default='cpu', help='default: cpu')


def check_arguments(args: Namespace, result: str, **least: int) -> None:
    """Refuse what cannot work before anything is loaded.

    Args:
        args (Namespace): Parsed.
        result (str): File that will be written last, not to be there.
        **least: Smallest value of options.

    Raises:
        UserError: An option is out of range, or there is a result.
    """
    for name, low in dict(least, batch_size=1, seed=0).items():
        value = getattr(args, name)
        if value is not None and value < low:
            raise UserError(f'--{name.replace("_", "-")} must be {low} or more')
    if (args.out / result).exists() and not args.overwrite:
        raise UserError(
            f'{args.out / result} exists; choose another --out or add --overwrite'
        )
    if args.device.startswith('cuda'):
        import torch

        if not torch.cuda.is_available():
            raise UserError(f'--device {args.device}: torch sees no GPU; leave it out')


def add_chosen_arguments(parser: ArgumentParser, count: int) -> None:
    """Add the options that choose a few pictures.

    Args:
        parser (ArgumentParser): Of the tool.
        count (int): How many by default.
    """
    parser.add_argument(
        '--count',
        type=int,
        default=count,
        help=f'pictures, of the classes in turn and of different patients '
        f'(default: {count})',
    )
    parser.add_argument('--images', nargs='+', metavar='NAME', help='these pictures')


def chosen_pictures(args: Namespace, pictures: Pictures) -> Pictures:
    """Take what :func:`add_chosen_arguments` asks for."""
    if args.images:
        return pictures.take(pictures.rows_of(args.images))
    return pictures.take(pictures.spread(args.count, args.seed))


def find_pairs(
    pictures: Pictures, expressions: Sequence[str] = (), mode: str = STRICT
) -> list[tuple[int, int]]:
    """Rows of two images of each person: both eyes, or two views.

    Of sets where the study paired images of one label only, 'compat' does so.

    Args:
        pictures (Pictures): Their names, or their patients, tell which.
        expressions (Sequence[str]): Two, searched for in the names. Defaults to
            (): as is known of the set.
        mode (str): Defaults to 'strict': whatever the labels.

    Raises:
        UserError: There are fewer than two pairs, or nothing says which; or mode
            'compat' needs labels that the pictures come without.
    """
    from medssl_mm.datasets.image_sets import Views, known_set, pairs, views_of

    # Of a set that is known, also where expressions are given.
    row = known_set([pictures.name]) if mode == COMPAT else None
    labels = None
    if row is not None and row.views is not None and row.views.same_label:
        labels = _labels_for_pairs(pictures, row.classes)
    if not expressions:
        try:
            found = pairs(pictures.image_ids, views_of(pictures.name), labels)
        except UserError as error:
            raise UserError(
                f'{error}; here: --pairs FIRST SECOND, such as --pairs left right'
            ) from None
    elif len(expressions) != 2:
        raise UserError(f'--pairs takes two expressions or none, got {expressions}')
    elif not pictures.has_patients:
        raise UserError('--pairs needs patients: name them by --patient-pattern')
    else:
        # Patient and side in the place of a name.
        sides = [_side(name, expressions) for name in pictures.image_ids]
        names = [f'{p}\n{side}' for p, side in zip(pictures.patients, sides)]
        views = Views(r'(?s)(?P<pair>.*)\n(?P<view>[01])$', ('0', '1'))
        found = pairs(names, views, labels)
    if len(found) < 2:
        raise UserError(
            f'{len(found)} of {len(set(pictures.patients))} patients have two such '
            f'images{" of one label" * (labels is not None)}; pairs need several'
        )
    return found


def _labels_for_pairs(pictures: Pictures, classes: Sequence[str]) -> list[str]:
    """Label of every picture, of the classes of the study.

    Raises:
        UserError: The pictures have other classes, or some have none.
    """
    if pictures.classes != tuple(classes) or not pictures.known.all():
        raise UserError(
            f'--mode compat pairs images of {pictures.name} that have the same of '
            f'{", ".join(classes)}; here some have no label, or the classes are '
            f'{", ".join(pictures.classes) or "none"}. Name the folder of the image '
            f'set (data/{pictures.name}) instead, with its labelled images'
        )
    return [pictures.label(row) for row in range(len(pictures))]


def _side(name: str, expressions: Sequence[str]) -> str:
    """Place of the first expression that matches a name, '' of none."""
    try:
        matches = [bool(re.search(text, name)) for text in expressions]
    except re.error as error:
        raise UserError(
            f'--pairs {expressions}: no regular expression ({error})'
        ) from None
    return str(matches.index(True)) if any(matches) else ''


def progress_of(bar: Progress, what: str, total: int) -> Callable[[int], None]:
    """Add a task; returns what is called with the number of finished steps."""
    task = bar.add_task(what, total=total)
    return lambda count: bar.advance(task, count)


def note_enlarged(
    notes: list[str], encoder: PretrainedEncoder, pictures: Pictures
) -> None:
    """Add once where an encoder asks for more pixels than the first picture has."""
    step = encoder.preprocessing
    asked, side = step.resize_to or step.size, min(pictures.read(0).shape[:2])
    note = (
        f'{encoder.settings.name} asks for {asked} px and sees pictures of {side} px '
        'enlarged'
    )
    if side < asked and note not in notes:
        notes.append(note)


def picture_note(pictures: Pictures) -> list[str]:
    """What a reader has to know of the pictures."""
    if pictures.has_patients:
        return []
    return [
        'the pictures name no patients: images of one person count as several '
        '(--patient-pattern names them)'
    ]
