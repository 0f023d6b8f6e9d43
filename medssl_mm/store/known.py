"""What is known of public data sets before they are imported.

The importers write these facts into the header of a store, the data sets of
training compare them with it, and configs are completed from them where the
store is not there yet (planning a table on another machine).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medssl_mm.store.header import IMAGES, SLICES
from medssl_mm.store.images import MULTI_LABEL, SINGLE_LABEL
from medssl_mm.store.opening import open_store

__all__ = ['KNOWN', 'StoreFacts', 'read_facts']


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
_CXR14 = _images(
    'Atelectasis',
    'Cardiomegaly',
    'Effusion',
    'Infiltration',
    'Mass',
    'Nodule',
    'Pneumonia',
    'Pneumothorax',
    'Consolidation',
    'Edema',
    'Emphysema',
    'Fibrosis',
    'Pleural_Thickening',
    'Hernia',
    task=MULTI_LABEL,
    channels=1,
)
_CIFAR100 = (
    'apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy '
    'bridge bus butterfly camel can castle caterpillar cattle chair chimpanzee '
    'clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant '
    'flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower '
    'leopard lion lizard lobster man maple_tree motorcycle mountain mouse '
    'mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree '
    'plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea '
    'seal shark shrew skunk skyscraper snail snake spider squirrel streetcar '
    'sunflower sweet_pepper table tank telephone television tiger tractor train '
    'trout tulip turtle wardrobe whale willow_tree wolf woman worm '
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
    'breakhis': _images('benign', 'malignant'),
    'cifar10': _images(
        'airplane',
        'automobile',
        'bird',
        'cat',
        'deer',
        'dog',
        'frog',
        'horse',
        'ship',
        'truck',
    ),
    'cifar100': _images(*_CIFAR100.split()),
    'diabetic-retinopathy': _images(
        'no retinopathy', 'mild', 'moderate', 'severe', 'proliferative'
    ),
    'idc': _images('negative', 'positive'),
    'nih-cxr14': _CXR14,
    'nih1000': _CXR14,
    'pneumoniamnist': _images('normal', 'pneumonia', channels=1),
    'rsna': _images('no opacity', 'opacity', channels=1),
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
