import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.dicom import DICOMImporter, read_series
from medssl_mm.importers.integrity import check_case
from medssl_mm.store.orientation import to_source_axes

CT_IMAGE = '1.2.840.10008.5.1.4.1.1.2'
AXIAL = (1, 0, 0, 0, 1, 0)
TILTED = (1, 0, 0, 0, np.cos(0.3), np.sin(0.3))


def stored_values(count=5, rows=12, columns=10, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2500, (count, rows, columns)).astype(np.uint16)


def make_slice(pixels, position, series='1.2.3', **changes):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE
    dataset.SOPClassUID = CT_IMAGE
    dataset.SOPInstanceUID = generate_uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.SeriesInstanceUID, dataset.StudyInstanceUID = series, '1.2'
    dataset.PatientID, dataset.PatientName = 'secret-77', 'Doe^Jane'
    dataset.PatientBirthDate = '19620101'
    dataset.Modality = 'CT'
    dataset.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL']
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing = [0.8, 0.7]
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.ImagePositionPatient = [float(v) for v in position]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = 'MONOCHROME2'
    dataset.PixelData = pixels.astype(np.uint16).tobytes()
    for name, value in changes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def write_series(folder, volume=None, step=(0, 0, 3.0), order=None, skip=(), **changes):
    """Write a series whose names and instance numbers are shuffled."""
    folder.mkdir(parents=True, exist_ok=True)
    volume = stored_values() if volume is None else volume
    names = np.random.default_rng(1).permutation(len(volume))
    for index, pixels in enumerate(volume):
        if index in skip:
            continue
        position = np.array([-40.0, -60.0, 100.0]) + index * np.array(step)
        dataset = make_slice(pixels, position, **changes)
        dataset.InstanceNumber = int(names[index])
        dataset.save_as(folder / f'image{names[index]}', enforce_file_format=True)
    return volume


def files_of(folder):
    return [str(p) for p in sorted(folder.iterdir())]


def load_only(folder, **options):
    importer = DICOMImporter()
    (case,) = importer.discover(folder, **options)
    return importer.load(case)


def test_slices_are_ordered_by_position_and_rescaled(tmp_path):
    stored = write_series(tmp_path / 'scan')
    loaded = load_only(tmp_path)
    assert loaded.image.dtype == np.int16
    np.testing.assert_array_equal(loaded.image, stored.astype(int) - 1024)
    np.testing.assert_allclose(loaded.spacing, (3.0, 0.8, 0.7))
    assert not loaded.problems


def test_affine_is_the_position_of_every_voxel(tmp_path):
    stored = write_series(tmp_path)
    array, affine, _ = read_series(files_of(tmp_path))
    assert array.shape == (10, 12, 5)
    for column, row, index in ((0, 0, 0), (7, 2, 3), (9, 11, 4)):
        assert array[column, row, index] == int(stored[index, row, column]) - 1024
        left, posterior, superior = (
            -40 + 0.7 * column,
            -60 + 0.8 * row,
            100 + 3.0 * index,
        )
        np.testing.assert_allclose(
            affine @ (column, row, index, 1), (-left, -posterior, superior, 1)
        )


def test_descending_positions_give_the_same_volume(tmp_path):
    stored = stored_values()
    write_series(tmp_path / 'up', stored)
    folder = tmp_path / 'down'
    folder.mkdir()
    for index in range(5):
        make_slice(stored[index], (-40, -60, 100 + 3 * index)).save_as(
            folder / f'{9 - index}.dcm', enforce_file_format=True
        )
    up = read_series(files_of(tmp_path / 'up'))
    down = read_series(files_of(folder))
    np.testing.assert_array_equal(up[0], down[0])
    np.testing.assert_allclose(up[1], down[1])


def test_oblique_series_keeps_its_tilt(tmp_path):
    normal = np.cross(TILTED[:3], TILTED[3:])
    stored = write_series(
        tmp_path, step=2.5 * normal, ImageOrientationPatient=list(TILTED)
    )
    loaded = load_only(tmp_path)
    np.testing.assert_array_equal(loaded.image, stored.astype(int) - 1024)
    np.testing.assert_allclose(loaded.spacing, (2.5, 0.8, 0.7))
    along = loaded.affine[:3, 2] / 2.5
    np.testing.assert_allclose(along, normal * (-1, -1, 1), atol=1e-6)


def test_sagittal_series_is_turned_to_axial_slices(tmp_path):
    stored = write_series(
        tmp_path, step=(3.0, 0, 0), ImageOrientationPatient=[0, 1, 0, 0, 0, -1]
    )
    loaded = load_only(tmp_path)
    assert loaded.image.shape == (12, 10, 5)
    # Rows run downwards in the body, so the lowest row comes first.
    np.testing.assert_array_equal(
        loaded.image, stored.astype(int).transpose(1, 2, 0)[::-1] - 1024
    )
    back = to_source_axes(loaded.image, loaded.source_affine)
    assert back.shape == loaded.source_shape
    # The slice normal of this orientation points to the right.
    np.testing.assert_array_equal(
        back, stored[::-1].astype(int).transpose(2, 1, 0) - 1024
    )


def test_gantry_tilt_is_kept_and_reported(tmp_path):
    write_series(tmp_path, step=(0, 0.9, 3.0))
    importer = DICOMImporter()
    (case,) = importer.discover(tmp_path)
    loaded = importer.load(case)
    np.testing.assert_allclose(loaded.affine[:3, 2], (0, -0.9, 3.0))
    _, _, problems = check_case(loaded, 'HU', ('background',))
    assert 'sheared' in [problem.code for problem in problems]


def test_jpeg_2000_is_decoded(tmp_path):
    stored = stored_values(3, 32, 32)
    for index, pixels in enumerate(stored):
        dataset = make_slice(pixels, (0, 0, 2.0 * index))
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.save_as(tmp_path / f'{index}.dcm', enforce_file_format=True)
    np.testing.assert_array_equal(load_only(tmp_path).image, stored.astype(int) - 1024)


def test_padding_becomes_air(tmp_path):
    stored = stored_values() % 2000 + 100
    stored[:, :2] = 63
    write_series(tmp_path, stored, PixelPaddingValue=63)
    image = load_only(tmp_path).image
    assert (image[:, :2] == -1024).all()
    np.testing.assert_array_equal(image[:, 2:], stored[:, 2:].astype(int) - 1024)


@pytest.mark.parametrize(
    'changes, code, text',
    [
        (
            dict(skip=(2,)),
            'missing-slices',
            r'about 1 slice\(s\) missing.*3\.000 mm.*103\.00 to 109\.00 mm',
        ),
        (dict(PixelData=None), 'no-pixel-data', 'no pixel data'),
        (dict(NumberOfFrames=4), 'multi-frame', '4 frames.*dcm2niix'),
        (
            dict(ImagePositionPatient=None),
            'no-geometry',
            'ImagePositionPatient missing',
        ),
        (
            dict(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
            'bad-orientation',
            'perpendicular',
        ),
    ],
)
def test_bad_series_is_refused_with_its_reason(tmp_path, changes, code, text):
    write_series(tmp_path, **changes)
    with pytest.raises(CaseError, match=text) as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == code


def test_two_slices_at_one_position_are_refused(tmp_path):
    write_series(tmp_path)
    make_slice(stored_values(1)[0], (-40, -60, 106)).save_as(
        tmp_path / 'second', enforce_file_format=True
    )
    with pytest.raises(CaseError, match='106.00 mm.*phases') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'duplicate-position'
    assert 'second' in str(caught.value)


def test_a_file_copied_twice_is_used_once(tmp_path):
    stored = write_series(tmp_path)
    source = tmp_path / 'image0'
    (tmp_path / 'copy').write_bytes(source.read_bytes())
    array, _, problems = read_series(files_of(tmp_path))
    assert array.shape[2] == len(stored)
    assert [problem.code for problem in problems] == ['duplicate-file']


def test_uneven_steps_are_refused_and_small_ones_reported(tmp_path):
    stored = stored_values(4)
    for name, heights in (('uneven', (0, 3, 6, 10)), ('small', (0, 3, 6, 9.1))):
        (tmp_path / name).mkdir()
        for index, height in enumerate(heights):
            make_slice(stored[index], (0, 0, height)).save_as(
                tmp_path / name / f'{index}', enforce_file_format=True
            )
    with pytest.raises(CaseError, match='6.00 and 10.00 mm') as caught:
        read_series(files_of(tmp_path / 'uneven'))
    assert caught.value.code == 'uneven-spacing'
    _, _, problems = read_series(files_of(tmp_path / 'small'))
    assert [problem.code for problem in problems] == ['spacing-jitter']


@pytest.mark.parametrize(
    'odd, what',
    [
        (dict(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), 'orientation'),
        (dict(PixelSpacing=[0.8, 0.8]), 'pixel spacing'),
    ],
)
def test_mixed_series_names_the_odd_file(tmp_path, odd, what):
    write_series(tmp_path)
    make_slice(stored_values(1)[0], (-40, -60, 115), **odd).save_as(
        tmp_path / 'odd', enforce_file_format=True
    )
    with pytest.raises(CaseError, match=f'differ in {what}.*odd') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'mixed-series'


def test_mixed_sizes_are_refused(tmp_path):
    write_series(tmp_path)
    make_slice(stored_values(1, 8, 8)[0], (-40, -60, 115)).save_as(
        tmp_path / 'odd', enforce_file_format=True
    )
    with pytest.raises(CaseError, match=r'size.*\(8, 8\): 1 file.*odd'):
        read_series(files_of(tmp_path))


def test_truncated_pixels_name_the_file(tmp_path):
    write_series(tmp_path)
    path = tmp_path / 'image3'
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CaseError, match='image3') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code == 'damaged-pixels'


def test_unknown_compression_says_what_to_install(tmp_path):
    write_series(tmp_path)
    dataset = make_slice(stored_values(1)[0], (-40, -60, 115))
    dataset.file_meta.TransferSyntaxUID = '1.2.840.10008.1.2.4.201'  # HTJ2K
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([b'\x00' * 64])
    dataset['PixelData'].is_undefined_length = True
    dataset.save_as(tmp_path / 'x', enforce_file_format=True)
    with pytest.raises(CaseError, match='/x: ') as caught:
        read_series(files_of(tmp_path))
    assert caught.value.code in ('no-decoder', 'damaged-pixels')
    if caught.value.code == 'no-decoder':
        assert 'pip install pylibjpeg' in str(caught.value)


def test_series_are_grouped_by_uid_and_localizers_skipped(tmp_path):
    one = write_series(tmp_path / 'study', series='1.2.3', SeriesNumber=2)
    folder = tmp_path / 'study'
    two = stored_values(3, seed=5)
    for index, pixels in enumerate(two):
        make_slice(pixels, (0, 0, index), series='1.2.4', SeriesNumber=7).save_as(
            folder / f'other{index}', enforce_file_format=True
        )
    make_slice(
        one[0],
        (0, 0, 0),
        series='1.2.5',
        ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'],
    ).save_as(folder / 'scout', enforce_file_format=True)
    make_slice(one[0], (0, 0, 0), series='1.2.6', Modality='SEG').save_as(
        folder / 'seg', enforce_file_format=True
    )
    (folder / 'notes.txt').write_text('nothing')
    importer = DICOMImporter()
    cases = importer.discover(tmp_path)
    assert [case.case_id for case in cases] == ['study_series002', 'study_series007']
    assert len({case.patient_id for case in cases}) == 1
    np.testing.assert_array_equal(importer.load(cases[1]).image, two.astype(int) - 1024)
    for part in ('1 x localizer', '1 x modality SEG', '1 x no DICOM file'):
        assert part in importer.notes[0]


def test_nothing_of_the_person_is_kept(tmp_path):
    write_series(tmp_path / 'scan')
    (case,) = DICOMImporter().discover(tmp_path)
    for text in ('secret-77', 'Doe', '1962'):
        assert text not in repr(case)
    assert case.patient_id.startswith('patient-')
    (case,) = DICOMImporter().discover(tmp_path, patient_pattern='(s[a-z]+)')
    assert case.patient_id == 'scan'


def test_series_without_uid_are_told_apart_by_folder(tmp_path):
    for name in ('a', 'b'):
        write_series(tmp_path / name, series='', PatientID='')
    cases = DICOMImporter().discover(tmp_path)
    assert [case.case_id for case in cases] == ['a', 'b']


def test_magnetic_resonance_is_not_hounsfield(tmp_path):
    stored = write_series(tmp_path, Modality='MR', RescaleSlope=0.5, RescaleIntercept=0)
    importer = DICOMImporter()
    (case,) = importer.discover(tmp_path)
    assert (importer.modality, importer.units) == ('MR', 'arbitrary')
    image = importer.load(case).image
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, stored * 0.5)


def test_two_modalities_need_a_choice(tmp_path):
    write_series(tmp_path / 'ct')
    write_series(tmp_path / 'mr', series='1.9', Modality='MR')
    with pytest.raises(UserError, match='both CT and MR'):
        DICOMImporter().discover(tmp_path)
    (case,) = DICOMImporter().discover(tmp_path, modality='MR')
    assert case.case_id == 'mr'


def test_nothing_found_says_what_was_there(tmp_path):
    (tmp_path / 'readme.txt').write_text('x')
    with pytest.raises(UserError, match='1 x no DICOM file.*Expected layout'):
        DICOMImporter().discover(tmp_path)


def save_label(path, folder, flip=False, shift=0.0):
    array, affine, _ = read_series(files_of(folder))
    label = (array > 0).astype(np.uint8)
    affine = affine.copy()
    affine[0, 3] += shift
    image = nibabel.Nifti1Image(label, affine)
    if flip:
        image = image.as_reoriented(np.array([[0, -1], [1, 1], [2, -1]]))
    path.parent.mkdir(exist_ok=True)
    nibabel.save(image, path)


@pytest.mark.parametrize('flip', [False, True])
def test_label_is_put_on_the_grid_of_the_series(tmp_path, flip):
    write_series(tmp_path / 'src' / 'scan')
    save_label(tmp_path / 'labels' / 'scan.nii.gz', tmp_path / 'src' / 'scan', flip)
    loaded = load_only(
        tmp_path / 'src', labels=str(tmp_path / 'labels'), classes='dense'
    )
    np.testing.assert_array_equal(loaded.label, loaded.image > 0)
    assert not loaded.problems


def test_label_on_another_grid_is_an_error(tmp_path):
    write_series(tmp_path / 'src')
    save_label(tmp_path / 'labels' / 'src.nii.gz', tmp_path / 'src', shift=2.0)
    loaded = load_only(
        tmp_path / 'src', labels=str(tmp_path / 'labels'), classes='dense'
    )
    assert [(p.severity, p.code) for p in loaded.problems] == [
        ('error', 'affine-mismatch')
    ]


def test_labels_need_names_and_a_match(tmp_path):
    write_series(tmp_path / 'src')
    save_label(tmp_path / 'labels' / 'other.nii.gz', tmp_path / 'src')
    with pytest.raises(UserError, match='other.nii.gz, expected names such'):
        DICOMImporter().discover(
            tmp_path / 'src', labels=str(tmp_path / 'labels'), classes='a'
        )
    with pytest.raises(UserError, match='no class names'):
        DICOMImporter().discover(
            tmp_path / 'src', labels=str(tmp_path / 'labels' / 'other.nii.gz')
        )
    with pytest.raises(UserError, match='does not exist'):
        DICOMImporter().discover(
            tmp_path / 'src', labels=str(tmp_path / 'nowhere'), classes='a'
        )


def test_published_series_overlays_its_label(realdata):
    folder = realdata / 'totalsegmentator_tests'
    loaded = load_only(
        folder / 'example_ct_dicom',
        labels=str(folder / 'example_seg_dicom.nii.gz'),
        classes='spleen',
    )
    assert loaded.image.shape == loaded.label.shape == (20, 512, 512)
    assert not loaded.problems
    np.testing.assert_allclose(loaded.spacing, (2, 0.9765625, 0.9765625))
    for value, mean, deviation in ((1, 80, 21), (5, 89, 22)):
        inside = loaded.image[loaded.label == value]
        assert abs(inside.mean() - mean) < 1
        assert abs(inside.std() - deviation) < 1
    # Liver on the image's left, spleen on its right.
    assert np.nonzero(loaded.label == 5)[2].mean() < 256
    assert np.nonzero(loaded.label == 1)[2].mean() > 256
