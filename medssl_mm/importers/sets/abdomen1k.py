"""AbdomenCT-1K."""

from medssl_mm.importers.volumes import NumberedVolumes
from medssl_mm.store.known import KNOWN


class Abdomen1KImporter(NumberedVolumes):
    """AbdomenCT-1K: ``Case_00001_0000.nii.gz``, ``Case_00001.nii.gz``.

    Data of `AbdomenCT-1K: Is Abdominal Organ Segmentation A Solved Problem?
    <https://arxiv.org/abs/2010.14808>`_.
    """

    name = 'abdomen1k'
    classes = KNOWN[name].classes
    palette = [
        [0, 0, 0],
        [221, 130, 101],
        [185, 102, 83],
        [157, 108, 162],
        [249, 180, 111],
    ]
    image_name = r'Case_(\d+)_0000\.nii(?:\.gz)?'
    label_name = r'Case_(\d+)\.nii(?:\.gz)?'
    case_name = 'Case_{}'
    layout = """\
    <src>/AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz  (any sub-folders)
    <src>/Mask/Case_00001.nii.gz                          (may be missing)"""
