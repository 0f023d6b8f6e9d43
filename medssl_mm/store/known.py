"""What is known of public data sets before they are imported.

The importers write these facts into the header of a store, the data sets of
training compare them with it, and configs are completed from them where the
store is not there yet (planning a table on another machine).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl_mm.datasets.image_sets import IMAGE_SETS, origins
from medssl_mm.store.header import IMAGES, SLICES
from medssl_mm.store.images import SINGLE_LABEL
from medssl_mm.store.opening import open_store

__all__ = ['KNOWN', 'StoreFacts', 'picture_source', 'read_facts']


@dataclass(frozen=True)
class StoreFacts:
    """What the settings of a network depend on.

    Args:
        classes (tuple[str]): Class names; of slices the first is the
            background.
        kind (str): 'slices' or 'classification'. Defaults to 'slices'.
        modality (str): 'CT', 'MR', 'XR' or 'other'. Defaults to 'CT'.
        units (str): 'HU' or 'arbitrary'. Defaults to 'HU'.
        eight_bit (bool): Whether the values are those of 8-bit files, 0 to
            255. Defaults to False.
        channels (int): Channels of an image. Defaults to 1.
        task (str, optional): Of images: 'multi-label' or 'single-label'.
            Defaults to None.
    """

    classes: tuple[str, ...]
    kind: str = SLICES
    modality: str = 'CT'
    units: str = 'HU'
    eight_bit: bool = False
    channels: int = 1
    task: str | None = None


def _images(*classes: str, task: str = SINGLE_LABEL, channels: int = 3) -> StoreFacts:
    return StoreFacts(
        classes,
        kind=IMAGES,
        modality='other',
        units='arbitrary',
        eight_bit=True,
        channels=channels,
        task=task,
    )


_BTCV = StoreFacts(
    (
        'background',
        'spleen',
        'right kidney',
        'left kidney',
        'gallbladder',
        'esophagus',
        'liver',
        'stomach',
        'aorta',
        'inferior vena cava',
        'portal and splenic vein',
        'pancreas',
        'right adrenal gland',
        'left adrenal gland',
    )
)
# By the NAME of tools/prepare_data.py, or that of a set of MedMNIST.
KNOWN = {
    'abdomen1k': StoreFacts(('background', 'liver', 'kidney', 'spleen', 'pancreas')),
    'acdc': StoreFacts(
        ('background', 'right ventricle', 'myocardium', 'left ventricle'),
        modality='MR',
        units='arbitrary',
    ),
    'btcv': _BTCV,
    'curvas': StoreFacts(
        ('background', 'pancreas', 'kidney', 'liver'), units='arbitrary', eight_bit=True
    ),
    'phantom': _BTCV,
    **{
        name: _images(*row.classes, task=row.task, channels=row.channels)
        for name, row in IMAGE_SETS.items()
    },
}


def read_facts(root: str | Path, kind: str | None = None) -> StoreFacts:
    """Read what is known of a store.

    Args:
        root: Folder of the store.
        kind: 'slices' or 'classification', refuses the other. Defaults to None:
            as the header says.

    Raises:
        UserError: When there is no (finished) store, or one of the other
            kind.
    """
    store = open_store(root, kind)
    if store.kind == IMAGES:
        return _images(*store.classes, task=store.task, channels=store.channels)
    return StoreFacts(
        store.classes,
        modality=store.modality,
        units=store.units,
        channels=len(store.channels),
        # Only asked where no unit tells what the values mean.
        eight_bit=store.units != 'HU'
        and all(info.dtype == 'uint8' for info in store.infos()),
    )


def picture_source(name: str) -> str | None:
    """Published image set that the pictures of a set first come from, maybe itself.

    Args:
        name (str): Name of the data set.

    Returns:
        str | None: None: it is none of the published image sets.
    """
    return origins([name])[-1] if name in IMAGE_SETS else None
