"""CIFAR-100: photographs of a hundred kinds of things, 32 px."""

from __future__ import annotations

from medssl_mm.importers.cifar import Archive, CIFARImporter
from medssl_mm.store.known import KNOWN


class CIFAR100Importer(CIFARImporter):
    """CIFAR-100 with its fine classes, of its archive or of class folders.

    Nobody is shown twice, so every image is its own patient, except for those of
    equal pixels. Splits: 'cifar100-official', the published test images and a
    tenth of the others, stratified, for validation; with --split innereye that of
    InnerEye-DeepLearning besides ('cifar100-innereye-seed42').
    """

    name = 'cifar100'
    classes = KNOWN[name].classes
    torchvision_name = 'CIFAR100'
    archives = (
        Archive('cifar-100-python', ('train',), ('test',), labels='fine_labels'),
        Archive('cifar-100-binary', ('train.bin',), ('test.bin',), record=2),
    )
    layout = """\
    <src>/cifar-100-python/train, test (--download fetches it), or
    <src>/cifar-100-binary/train.bin, test.bin, or
    <src>/{train,test}/apple/PICTURE.png"""
