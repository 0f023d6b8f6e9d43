"""An encoder as a folder that other libraries read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError

from .card import licences, values_of, write_card
from .encoder import load_encoder
from .exported import write_folder
from .plain import Plain, plain_network
from .pretraining import pretrained_encoder
from .settings import EncoderSettings


def export_encoder(
    source: str | Path,
    target: str,
    folder: str | Path,
    config: str | Path | None = None,
    encoder: str | None = None,
    decorrelation: str = 'drop',
) -> Plain:
    """Write an encoder to a folder; see ``tools/export.py``.

    Args:
        source (str | Path): A checkpoint of a pretraining, or what
            :func:`medssl_mm.load_encoder` takes.
        target (str): 'torchvision', 'timm', 'mmpretrain' or 'mmseg'.
        folder (str | Path): Absent or empty.
        config (str | Path, optional): Of a pretraining. Defaults to None.
        encoder (str, optional): 'online' or 'target', of a pretraining.
            Defaults to None.
        decorrelation (str): 'drop' or 'fold', of a pretraining. Defaults to
            'drop'.

    Returns:
        Plain: The network of the target.

    Raises:
        UserError: The encoder cannot be made, or the target has no network
            that computes the same.
    """
    notes: dict[str, str] = {}
    if Path(source).is_file():
        made, notes = pretrained_encoder(source, config, encoder, decorrelation)
    elif config or encoder or decorrelation != 'drop':
        raise UserError(
            f'{source} is no checkpoint of a pretraining: --config, --encoder and '
            '--decorrelation have no meaning for it; leave them out'
        )
    else:
        made = load_encoder(source)
    plain, tensors = plain_network(made, target)
    keys = _keys_of_timm(made.settings, plain)
    if target == 'timm' and not keys:
        notes['local-dir: of timm'] = (
            'not possible, since its descriptions have no place for this network or '
            'these values; use the lines below'
        )
    # The weights are in the folder now, under other names than the published.
    settings = made.settings.model_copy(
        update=dict(converter=None, file_names=(), sha256=None)
    )
    content: dict[str, Any] = dict(
        target=target,
        encoder=settings.model_dump(mode='json'),
        plain=plain.model_dump(mode='json'),
        values=values_of(settings.preprocessing),
        notes=notes,
        licences=licences(settings.trained_on),
        provenance=made.provenance.to_plain(),
        nnunet='2D encoders do not fit nnU-Net',
    )
    card = write_card(
        settings, plain, notes, settings.embedding_length, made.provenance
    )
    write_folder(
        Path(folder),
        tensors,
        {**keys, 'medssl_mm': content},
        card,
    )
    return plain


def _keys_of_timm(settings: EncoderSettings, plain: Plain) -> dict[str, Any]:
    """What ``timm.create_model('local-dir:FOLDER', pretrained=True)`` reads.

    Nothing where timm has no words for the network or its pictures: it would take
    others without a word.
    """
    step = settings.preprocessing
    described = not plain.stem and not plain.no_pooling
    described = described and step.normalisation != 'histogram'
    if plain.library != 'timm' or not described:
        return {}
    # timm rounds size / crop_pct down, which must give resize_to again.
    resize_to = step.resize_to or step.size
    share = step.size / resize_to
    while int(step.size / share) < resize_to:
        share = math.nextafter(share, 0)
    known: dict[str, Any] = dict(
        input_size=[step.channels, step.size, step.size],
        interpolation=step.interpolation,
        crop_pct=share,
        crop_mode='squash' if step.resize_mode == 'exact' else 'center',
        num_classes=plain.linear or 0,
    )
    mean, std = (step.mean, step.std)
    if step.normalisation == 'unit':
        mean, std = (0.0,), (1.0,)
    for name, values in dict(mean=mean, std=std).items():
        known[name] = list(values) * (step.channels // len(values))
    return dict(
        architecture=plain.name,
        num_classes=plain.linear or 0,
        num_features=settings.embedding_length,
        model_args=plain.arguments,
        pretrained_cfg=known,
    )
