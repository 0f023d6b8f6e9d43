"""What goes with exported weights: what their pictures must be, what they saw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medssl_mm.datasets.image_sets import IMAGE_SETS
from medssl_mm.provenance import Seen

from .plain import HOSTS, Plain
from .preprocessing import Preprocessing
from .settings import EncoderSettings

#: Terms of data that no row of the table of image sets is about.
LICENCES = {
    'imagenet': 'ImageNet: non-commercial research and education (its terms of access)',
    'mimic-cxr': 'MIMIC-CXR: PhysioNet credentialed access, its data use agreement',
    'phantom': 'made by this package, Apache-2.0',
    'btcv': 'Synapse registration, research use',
    'acdc': 'registration, non-commercial',
    'curvas': 'CC BY-NC 4.0',
    'abdomen1k': 'see its download page; the terms of its sources go on',
}
UNKNOWN = 'not known to this package: look at the source of the data'
# What registers the types of a library that is not called so.
_IMPORTS = {'medssl_mm': 'medssl_mm.registry'}
NNUNET = (
    'nnU-Net plans networks of its own for every data set, U-Nets for patches in 2D '
    'or 3D: an encoder of 2D pictures does not fit into one. For segmentation use '
    '--to mmseg.'
)


def licences(sets: Iterable[str]) -> dict[str, str]:
    """Terms of the image sets that weights have seen, by name."""
    return {
        name: LICENCES.get(name)
        or (IMAGE_SETS[name].licence if name in IMAGE_SETS else '')
        or UNKNOWN
        for name in sets
    }


def preprocessing_code(step: Preprocessing) -> str:
    """Python text that prepares a picture, with torchvision and NumPy alone."""
    size = step.resize_to or step.size
    exact = f'[{size}, {size}]' if step.resize_mode == 'exact' else f'[{size}]'
    mode = {1: 'L', 3: 'RGB'}[step.channels]
    lines = [
        'import numpy as np, torch',
        'from PIL import Image',
        'from torchvision.transforms import InterpolationMode',
        'from torchvision.transforms.v2 import functional',
        f"image = Image.open('picture.png').convert('{mode}')",
        f'image = functional.resize(image, {exact}, '
        f'InterpolationMode({step.interpolation!r}))',
        f'image = functional.center_crop(image, [{step.size}, {step.size}])',
        f'pixels = np.array(image).reshape({step.size}, {step.size}, {step.channels})',
        'x = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255',
    ]
    if step.normalisation == 'mean_std':
        lines.append(
            f'x = (x - torch.tensor({list(step.mean)})[:, None, None]) / '
            f'torch.tensor({list(step.std)})[:, None, None]'
        )
    elif step.normalisation == 'histogram':
        lines += [
            'values = x.double().numpy().ravel()',
            'counts, edges = np.histogram(values, 256, density=True)',
            'spread = counts.cumsum() * 255 / counts.sum()',
            'values = np.interp(values, edges[:-1], spread)',
            'x = torch.from_numpy(values).float().reshape(x.shape)',
        ]
    return '\n'.join(lines)


def values_of(step: Preprocessing) -> str:
    """The normalisation, in words."""
    if step.normalisation == 'unit':
        return '[0, 1], no mean and standard deviation'
    if step.normalisation == 'histogram':
        return 'grey values of each picture spread evenly over 0 to 255 (histogram)'
    return f'[0, 1], then mean {list(step.mean)}, standard deviation {list(step.std)}'


def write_card(
    settings: EncoderSettings,
    plain: Plain,
    notes: Mapping[str, str],
    length: int,
    seen: Seen,
) -> str:
    """Write the README of an export.

    Args:
        settings (EncoderSettings): The encoder.
        plain (Plain): The network of the target.
        notes (Mapping[str, str]): What else is known of its pictures: window.
        length (int): Numbers of a feature vector.
        seen (Seen): What the weights have seen.
    """
    step = settings.preprocessing
    size = step.resize_to or step.size
    sides = 'both sides' if step.resize_mode == 'exact' else 'the shorter side'
    rows = {
        'network': plain.name
        if plain.library in HOSTS
        else f'{plain.name} of {plain.library}',
        'features': f'{length} numbers: the mean over all positions of the last map'
        + f', decorrelated by {_decorrelation(plain)}' * bool(plain.linear),
        'channels': '1 (grey)' if step.channels == 1 else '3 (grey is repeated)',
        'size': f'{sides} to {size} px ({step.interpolation}), cut to {step.size} x '
        f'{step.size} in the middle',
        'values': values_of(step),
        **notes,
        **_comparison(plain),
        'weights from': settings.source or 'not stated',
        'have seen': ', '.join(settings.trained_on) or 'not stated',
        'in detail': '; '.join(seen.words()) or 'nothing: random weights',
        **{
            f'licence of {name}': text
            for name, text in licences(settings.trained_on).items()
        },
    }
    table = '\n'.join(f'| {key} | {value} |' for key, value in rows.items())
    use = (
        _host_text(plain, step)
        if plain.library in HOSTS
        else f'```python\n{plain.code()}\n{preprocessing_code(step)}\n'
        'with torch.inference_mode():\n    features = model(x[None])\n```'
    )
    return f"""# {settings.title}

| | |
|---|---|
{table}

{_user(plain)}, in the folder of this file:

{use}

With it:

```python
import medssl_mm
encoder = medssl_mm.load_encoder('FOLDER')
features = encoder(encoder.preprocessing(picture)[None])  # picture: uint8 (H, W[, 3])
```

{NNUNET.replace('--to mmseg', 'an export with --to mmseg')}
"""


def _decorrelation(plain: Plain) -> str:
    return 'the neck, a 1x1 convolution' if plain.library in HOSTS else 'a linear layer'


def _user(plain: Plain) -> str:
    parts = [part['type'] for part in (plain.backbone, plain.neck) if part]
    if plain.library in HOSTS and any(kind.startswith('medssl_mm.') for kind in parts):
        return f'By {plain.library}, with the types of this package'
    return 'Without this package'


def _comparison(plain: Plain) -> dict[str, str]:
    """A row that says so where nobody has built the network of the target."""
    if plain.compared:
        return {}
    return {
        'not checked': f'that {plain.library} builds this network and gives the same '
        'maps: it was not installed where this was written'
    }


def _host_text(plain: Plain, step: Preprocessing) -> str:
    mean, std = step.mean, step.std
    if step.normalisation == 'unit':
        mean, std = (0.0,), (1.0,)
    values = ', '.join(
        f'{key}={[round(255 * v, 4) for v in found] * (step.channels // len(found))}'
        for key, found in (('mean', mean), ('std', std))
    )
    colour = f', {"to" if plain.library == "mmpretrain" else "bgr_to"}_rgb=True'
    preprocessor = f'data_preprocessor = dict({values}{colour * (step.channels == 3)})'
    if step.normalisation == 'histogram':
        preprocessor = '# spread the grey values of each picture over 0 to 255'
    lines = [f'# in a config of {plain.library}']
    types = [part['type'] for part in (plain.backbone, plain.neck) if part]
    imports = {
        _IMPORTS.get(scope, f'{scope}.models')
        for scope in (kind.rpartition('.')[0] for kind in types)
        if scope not in ('', plain.library)
    }
    if imports:
        lines.append(f'custom_imports = dict(imports={sorted(imports)})')
    arguments = ', '.join(f'{key}={value!r}' for key, value in plain.backbone.items())
    lines += [
        'backbone = dict(',
        f'    {arguments},',
        "    init_cfg=dict(type='Pretrained', checkpoint='model.pth', "
        "prefix='backbone.'))",
    ]
    if plain.neck:
        neck = ',\n    '.join(f'{key}={value!r}' for key, value in plain.neck.items())
        lines += [
            '# of several necks the first; without it the maps are not decorrelated',
            f'neck = dict(\n    {neck})',
        ]
    return '\n'.join(['```python', *lines, preprocessor, '```'])
