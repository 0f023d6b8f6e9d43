"""What encoders were to the published comparison, which mode 'compat' repeats."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .settings import RANDOM, EncoderSettings, parse_source

# Names of configs/encoders: as it should be, and as the comparison computed. Weights
# of TensorFlow and Haiku were put into networks that pad as torch does, MoCo-CXR saw
# pictures as networks of ImageNet do.
_COMPARED = {
    'byol': 'byol_torch-padding',
    'simclr-v1': 'simclr-v1_torch-padding',
    'efficientnet-lite0': 'efficientnet-lite0_torch-padding',
    'efficientnet-lite1': 'efficientnet-lite1_torch-padding',
    'efficientnet-lite2': 'efficientnet-lite2_torch-padding',
    'moco-cxr_resnet18': 'moco-cxr_resnet18_imagenet-224',
    'moco-cxr_densenet121': 'moco-cxr_densenet121_imagenet-224',
}


class ComparedEncoder(NamedTuple):
    """An encoder as the published comparison would have used it.

    Args:
        source (str): See :func:`medssl_mm.encoders.load_encoder`.
        rule (str): What is different from what was asked for, or should be; ''
            for nothing.
    """

    source: str
    rule: str


def compared_encoder(source: str | Path) -> ComparedEncoder:
    """Find what stands for an encoder in mode 'compat'.

    Args:
        source (str | Path): See :func:`medssl_mm.encoders.load_encoder`.

    Raises:
        UserError: No such encoder, or no such file.
    """
    text = str(source)
    random = text.startswith(f'{RANDOM}:')
    name, colon, rest = text.removeprefix(f'{RANDOM}:').partition(':')
    other = None if Path(text).is_dir() else _COMPARED.get(name)
    if other is not None:
        prefix = f'{RANDOM}:' if random else ''
        return ComparedEncoder(f'{prefix}{other}{colon}{rest}', f'{other} for {name}')
    settings = parse_source(text).settings
    if pads_as_tensorflow(settings):
        return ComparedEncoder(
            text,
            f'{settings.name} pads as TensorFlow does; the published comparison put '
            'such weights into networks that pad as torch does',
        )
    return ComparedEncoder(text, '')


def pads_as_tensorflow(settings: EncoderSettings) -> bool:
    """Whether the network pads by what the stride needs ('SAME')."""
    config = settings.backbone
    return config.get('type') == 'medssl_mm.ResNetSamePadding' or str(
        config.get('model_name', '')
    ).startswith('tf_')
