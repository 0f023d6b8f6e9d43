"""CIFAR-10: photographs of ten kinds of things, 32 px."""

from __future__ import annotations

from medssl_mm.importers.cifar import Archive, CIFARImporter
from medssl_mm.store.known import KNOWN

_TRAIN = tuple(f'data_batch_{number}' for number in range(1, 6))


class CIFAR10Importer(CIFARImporter):
    """CIFAR-10, of its archive (Python or binary version) or of class folders.

    Nobody is shown twice, so every image is its own patient, except for those of
    equal pixels. Splits: 'cifar10-official', the published test images and a
    tenth of the others, stratified, for validation; with --split innereye that of
    InnerEye-DeepLearning besides ('cifar10-innereye-seed42').
    """

    name = 'cifar10'
    classes = KNOWN[name].classes
    torchvision_name = 'CIFAR10'
    archives = (
        Archive('cifar-10-batches-py', _TRAIN, ('test_batch',), labels='labels'),
        Archive(
            'cifar-10-batches-bin',
            tuple(f'{name}.bin' for name in _TRAIN),
            ('test_batch.bin',),
            record=1,
        ),
    )
    layout = """\
    <src>/cifar-10-batches-py/data_batch_1 ... test_batch (--download fetches it), or
    <src>/cifar-10-batches-bin/data_batch_1.bin ... test_batch.bin, or
    <src>/{train,test}/airplane/PICTURE.png"""
