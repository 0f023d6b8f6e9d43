"""NIfTI volumes of one's own."""

from medssl_mm.importers.readers import NIFTI
from medssl_mm.importers.sets.volumes import VolumesImporter


class NIfTIImporter(VolumesImporter):
    """A folder of NIfTI images and, by choice, labels, paired as `volumes` are."""

    name = 'nifti'
    suffixes = NIFTI
    layout = """\
    <src>/images/CASE.nii.gz         <src>/labels/CASE.nii.gz
or  <src>/imagesTr/CASE_0000.nii.gz  <src>/labelsTr/CASE.nii.gz
or  any other, by globs relative to <src>:
    --images 'img/img*.nii.gz' --labels 'label/label*.nii.gz'
labels may be missing for some or all images"""
