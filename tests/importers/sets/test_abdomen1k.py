import re

from medssl_mm.importers.sets.abdomen1k import Abdomen1KImporter


def test_abdomen1k_layout(tiny_nifti):
    folder = tiny_nifti(
        2, 'AbdomenCT-1K-ImagePart1/Case_0000{}_0000.nii.gz', 'Mask/Case_0000{}.nii.gz'
    )
    (folder / 'Mask' / 'Case_00002.nii.gz').unlink()
    cases = Abdomen1KImporter().discover(folder).cases
    assert [c.case_id for c in cases] == ['Case_00001', 'Case_00002']
    assert cases[0].label.endswith('Mask/Case_00001.nii.gz')
    assert cases[1].label is None
    part = folder / 'AbdomenCT-1K-ImagePart2'
    part.mkdir()
    (part / 'Case_00001_0000.nii.gz').write_bytes(b'')
    cases = Abdomen1KImporter().discover(folder).cases
    code, message = cases[0].extra['problem']
    assert code == 'same-name'
    assert re.search('ImagePart1.*ImagePart2.*00001', message)
    assert 'problem' not in cases[1].extra


def test_names_in_any_case(tiny_nifti):
    folder = tiny_nifti(1, 'A/Case_0000{}_0000.nii.gz', 'Mask/Case_0000{}.nii.gz')
    image = folder / 'A' / 'Case_00001_0000.nii.gz'
    image.rename(image.with_name('CASE_00001_0000.NII.GZ'))
    (case,) = Abdomen1KImporter().discover(folder).cases
    assert case.case_id == 'Case_00001' and case.label is not None
