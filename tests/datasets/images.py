"""Small image sets and image files for the tests."""

import numpy as np

from medssl_mm.store.image_writer import ImageStoreWriter
from medssl_mm.store.splits import Split, save_split


def make_picture(seed, side=16, channels=3):
    """Make a picture with structure: uint8, grey or RGB."""
    rng = np.random.default_rng(seed)
    shape = (side, side) if channels == 1 else (side, side, channels)
    ramp = np.linspace(0, 120, side)[:, None]
    if channels > 1:
        ramp = ramp[..., None]
    return (ramp + rng.integers(0, 120, shape)).astype(np.uint8)


def write_picture(path, pixels):
    """Write a picture (RGB order) in the format of its suffix."""
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]]
    assert cv2.imwrite(str(path), pixels)
    return path


def write_image_set(
    root,
    patients=6,
    each=2,
    classes=('no', 'yes'),
    task='single-label',
    channels=1,
    side=16,
    label=None,
):
    """Write an image set with the split 'made'.

    Image 'p0-1' is the second of patient 'p0'. By default patients take
    turns through the classes. The split: patient p0 test, p1 val, the others
    train, pretrain = train + val.

    Args:
        label (callable, optional): (patient number, image number) to label.
    """
    writer = ImageStoreWriter.create(
        root, 'made', task, classes, channels, (side, side)
    )

    def default(patient, number):
        index = patient % len(classes)
        if task == 'single-label':
            return index
        return [int(n == index) for n in range(len(classes))]

    label = label or default
    patient_of = {}
    for patient in range(patients):
        for number in range(each):
            image_id = f'p{patient}-{number}'
            patient_of[image_id] = f'p{patient}'
            writer.add_case(
                image_id,
                make_picture(100 * patient + number, side, channels),
                label(patient, number),
                patient_id=f'p{patient}',
                source_file=f'{image_id}.png',
                source_stat=[(f'{image_id}.png', 1, 2)],
            )
    store = writer.finish()
    part = {'p0': 'test', 'p1': 'val'}
    subsets = {'train': [], 'val': [], 'test': [], 'pretrain': []}
    for image_id, patient in patient_of.items():
        subsets[part.get(patient, 'train')].append(image_id)
        if patient != 'p0':
            subsets['pretrain'].append(image_id)
    save_split(root, Split('made', 'made', subsets))
    return store
