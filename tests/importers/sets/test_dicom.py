import nibabel
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.integrity import check_case
from medssl_mm.importers.readers.dicom import read_series
from medssl_mm.importers.sets.dicom import DICOMImporter
from medssl_mm.store.orientation import shear_of, to_source_axes
from tests.importers.dicom_files import (
    TILTED,
    files_of,
    make_segmentation,
    make_slice,
    stored_values,
    write_series,
)


def load_only(folder, **options):
    importer = DICOMImporter(**options)
    (case,) = importer.discover(folder).cases
    return importer.load(case)


def test_slices_are_ordered_by_position_and_rescaled(tmp_path):
    stored = write_series(tmp_path / 'scan')
    loaded = load_only(tmp_path)
    assert loaded.image.dtype == np.int16
    np.testing.assert_array_equal(loaded.image, stored.astype(int) - 1024)
    np.testing.assert_allclose(loaded.spacing, (3.0, 0.8, 0.7))
    assert not loaded.problems


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


def test_gantry_tilt_is_refused_or_kept_and_reported(tmp_path):
    write_series(tmp_path, step=(0, 0.9, 3.0))
    importer = DICOMImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(
        CaseError, match='16.7 degrees askew.*--tilt resample'
    ) as caught:
        importer.load(case)
    assert caught.value.code == 'sheared'
    loaded = DICOMImporter(tilt='keep').load(case)
    np.testing.assert_allclose(loaded.affine[:3, 2], (0, -0.9, 3.0))
    _, _, problems = check_case(loaded, 'HU', ('background',))
    assert 'sheared' in [problem.code for problem in problems]


@pytest.mark.parametrize('plane', ['axial', 'sagittal'])
def test_gantry_tilt_is_resampled(tmp_path, plane):
    """Of an image whose values are a linear function of the place, all is known."""
    directions, step = [1, 0, 0, 0, 1, 0], np.array([0.35, 0.9, 3.0])
    if plane == 'sagittal':
        directions, step = [0, 1, 0, 0, 0, -1], np.array([-3.0, 0.9, 0.4])
    row, column = np.reshape(directions, (2, 3)).astype(float)
    slope = np.array([9.0, -7, 5])
    (tmp_path / 'src').mkdir()
    for index in range(7):
        origin = index * step
        places = (
            origin
            + 0.7 * np.arange(20)[None, :, None] * row
            + 0.8 * np.arange(24)[:, None, None] * column
        )
        make_slice(
            np.rint(1500 + places @ slope), origin, ImageOrientationPatient=directions
        ).save_as(tmp_path / 'src' / str(index), enforce_file_format=True)
    save_label(tmp_path / 'label.nii.gz', tmp_path / 'src')
    loaded = load_only(
        tmp_path / 'src', labels=str(tmp_path / 'label.nii.gz'), classes='a',
        tilt='resample',
    )  # fmt: skip
    assert shear_of(loaded.affine) < 1e-6
    inside = loaded.label > 0
    assert int(inside.sum()) == 7 * 20 * 24  # nothing is cut off
    index = np.argwhere(inside)[:, ::-1]
    world = index @ loaded.affine[:3, :3].T + loaded.affine[:3, 3]
    expected = 1500 + world * (-1, -1, 1) @ slope - 1024
    off = np.abs(loaded.image[inside] - expected)
    assert np.quantile(off, 0.85) <= 1  # at the rim air is mixed in
    assert loaded.spacing == pytest.approx(
        (3.0, 0.8, 0.7) if plane == 'axial' else (0.8, 0.7, 3.0)
    )
    assert tuple(loaded.image.shape[::-1]) == loaded.source_shape
    np.testing.assert_array_equal(loaded.source_affine, loaded.affine)
    assert [problem.code for problem in loaded.problems] == ['tilt-resampled']


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
    found = importer.discover(tmp_path)
    cases = found.cases
    ids = [case.case_id for case in cases]
    assert [name[:-9] for name in ids] == ['study_series002', 'study_series007']
    assert len({case.patient_id for case in cases}) == 1
    np.testing.assert_array_equal(importer.load(cases[1]).image, two.astype(int) - 1024)
    for part in ('1 x localizer', '1 x modality SEG', '1 x no DICOM file'):
        assert part in found.notes[0]


def test_nothing_of_the_person_is_kept(tmp_path):
    write_series(tmp_path / 'scan')
    (case,) = DICOMImporter().discover(tmp_path).cases
    for text in ('secret-77', 'Doe', '1962'):
        assert text not in repr(case)
    assert case.patient_id.startswith('patient-')
    (case,) = DICOMImporter(patient_pattern='(s[a-z]+)').discover(tmp_path).cases
    assert case.patient_id == 'scan'


def test_series_without_uid_are_told_apart_by_folder(tmp_path):
    for name in ('a', 'b'):
        write_series(tmp_path / name, series='', PatientID='')
    cases = DICOMImporter().discover(tmp_path).cases
    assert [case.case_id for case in cases] == ['a', 'b']


def test_magnetic_resonance_is_not_hounsfield(tmp_path):
    stored = write_series(tmp_path, Modality='MR', RescaleSlope=0.5, RescaleIntercept=0)
    importer = DICOMImporter()
    found = importer.discover(tmp_path)
    (case,) = found.cases
    assert (found.modality, found.units) == ('MR', 'arbitrary')
    image = importer.load(case).image
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, stored * 0.5)


def test_two_modalities_need_a_choice(tmp_path):
    write_series(tmp_path / 'ct')
    write_series(tmp_path / 'mr', series='1.9', Modality='MR')
    with pytest.raises(UserError, match='both CT and MR'):
        DICOMImporter().discover(tmp_path)
    (case,) = DICOMImporter(modality='MR').discover(tmp_path).cases
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
        DICOMImporter(labels=str(tmp_path / 'labels'), classes='a').discover(
            tmp_path / 'src'
        )
    with pytest.raises(UserError, match='no class names'):
        DICOMImporter(labels=str(tmp_path / 'labels' / 'other.nii.gz')).discover(
            tmp_path / 'src'
        )
    with pytest.raises(UserError, match='does not exist'):
        DICOMImporter(labels=str(tmp_path / 'nowhere'), classes='a').discover(
            tmp_path / 'src'
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


def write_segmentation(path, folder, mask, labels):
    pytest.importorskip('highdicom')
    path.parent.mkdir(parents=True, exist_ok=True)
    made = make_segmentation(folder, mask, labels)
    made.save_as(path)


def test_segmentations_label_the_series_that_they_name(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / 'src' / f'p{number}' / 'CT', series=f'1.2.{number}')
    one = np.zeros((5, 12, 10), np.uint8)
    one[1, 3:6, 3:6], one[2, 5:9, 2:4] = 1, 2
    two = np.zeros((5, 12, 10), np.uint8)
    two[4, :2, :2] = 1
    labels = tmp_path / 'labels'
    write_segmentation(labels / 'x', tmp_path / 'src/p2/CT', two, ['kidney'])
    write_segmentation(labels / 'y', tmp_path / 'src/p1/CT', one, ['liver', 'kidney'])
    importer = DICOMImporter(labels=str(labels))
    found = importer.discover(tmp_path / 'src')
    assert found.classes == ('background', 'liver', 'kidney')
    for case, wanted in zip(found.cases, (one, two * 2)):
        loaded = importer.load(case)
        assert loaded.problems == []
        np.testing.assert_array_equal(loaded.label, wanted)
    # Beside the images, and in an order of one's own.
    (labels / 'x').rename(tmp_path / 'src' / 'p2' / 'x')
    importer = DICOMImporter(labels=str(tmp_path / 'src'), classes='Kidney,Liver')
    found = importer.discover(tmp_path / 'src')
    assert [bool(case.label) for case in found.cases] == [False, True]
    np.testing.assert_array_equal(importer.load(found.cases[1]).label, two)
    with pytest.raises(UserError, match="segments 'kidney'.*no class for 'kidney'"):
        DICOMImporter(labels=str(tmp_path / 'src'), classes='liver,').discover(
            tmp_path / 'src'
        )


def names_of(folder):
    return {
        case.case_id: sorted(case.extra['image_files'])
        for case in DICOMImporter().discover(folder).cases
    }


def test_names_of_a_shared_folder_stay_whatever_arrives(tmp_path):
    folder = tmp_path / 'P1'
    for name, study in (('m', '1.1'), ('n', '1.2')):
        write_series(tmp_path / name, StudyInstanceUID=study, series=study + '.7')
    folder.mkdir()
    for name in 'mn':
        for path in (tmp_path / name).iterdir():
            path.rename(folder / f'{name}{path.name}')
        (tmp_path / name).rmdir()
    before = names_of(tmp_path)
    assert all(name.startswith('P1_series000_') for name in before)
    write_series(tmp_path / 'a', StudyInstanceUID='1.0', series='1.0.7')
    for path in (tmp_path / 'a').iterdir():
        path.rename(folder / f'a{path.name}')
    after = names_of(tmp_path)
    assert len(after) == 3 and before.items() <= after.items()
    # and whatever the files are called
    for number, path in enumerate(sorted(folder.iterdir(), reverse=True)):
        path.rename(folder / f'{number:03d}')
    assert set(names_of(tmp_path)) == set(after)


def test_folders_that_give_one_name_are_told_apart(tmp_path):
    write_series(tmp_path / 'a' / 'b', series='1.1')
    write_series(tmp_path / 'a_b', series='1.2')
    names = names_of(tmp_path)
    assert len(names) == 2 and all(name.startswith('a_b_') for name in names)


def test_parts_of_a_series_are_cases_of_one_patient(tmp_path):
    for name, place in (('a', 0), ('b', 1)):
        write_series(
            tmp_path / 'scan' / name, stored_values(seed=place), EchoNumbers=place + 1,
            PatientID='', StudyInstanceUID='',
        )  # fmt: skip
    found = DICOMImporter().discover(tmp_path)
    assert [case.case_id for case in found.cases] == ['scan_echo-1', 'scan_echo-2']
    assert {case.patient_id for case in found.cases} == {'scan'}
    assert found.notes == [
        '1 series hold 2 volumes, each a case of its own, e.g. scan_echo-1, scan_echo-2'
    ]


@pytest.mark.parametrize('place', [1, 4])
def test_unreadable_files_are_a_finding_of_their_series(tmp_path, place):
    for index, pixels in enumerate(stored_values()):
        make_slice(pixels, (0, 0, 3 * index)).save_as(
            tmp_path / f'{index}.dcm', enforce_file_format=True
        )
    (tmp_path / f'{place}.dcm').write_bytes(b'')
    importer = DICOMImporter()
    (case,) = importer.discover(tmp_path).cases
    if place == 4:  # at an end nothing else tells
        loaded = importer.load(case)
        assert len(loaded.image) == 4
        ((code, message),) = [(p.code, p.message) for p in loaded.problems]
        assert code == 'unread-files'
    else:
        with pytest.raises(CaseError, match='about 1 slice.s. missing') as caught:
            importer.load(case)
        message = str(caught.value)
    assert '1 file(s) beside the slices' in message and f'{place}.dcm' in message


def test_a_label_of_two_series_is_refused(tmp_path):
    for number in (1, 2):
        write_series(tmp_path / 'src' / f'p{number}' / 'CT', series=f'1.2.{number}')
    save_label(tmp_path / 'labels' / 'CT.nii.gz', tmp_path / 'src' / 'p1' / 'CT')
    with pytest.raises(UserError, match='CT.nii.gz fits the series p1_CT and p2_CT'):
        DICOMImporter(labels=str(tmp_path / 'labels'), classes='a').discover(
            tmp_path / 'src'
        )


def test_many_classes_by_hand(tmp_path):
    """More letters than a file name may have."""
    write_series(tmp_path / 'src')
    save_label(tmp_path / 'labels' / 'src.nii.gz', tmp_path / 'src')
    names = ','.join(f'class{index}' for index in range(200))
    found = DICOMImporter(labels=str(tmp_path / 'labels'), classes=names).discover(
        tmp_path / 'src'
    )
    assert len(found.classes) == 201


@pytest.mark.parametrize(
    'patients, said',
    [
        (['a', 'b', 'b'], []),
        (['a', '', ''], ['2 of 3 cases have no patient in the headers (PatientID)']),
        (['x', 'x', 'x'], ['all 3 cases are of one patient in the headers']),
        (['ANON', 'ANON', 'b'], ["2 cases are of the patient 'ANON' in the headers"]),
    ],
)
def test_patients_that_headers_leave_open(tmp_path, patients, said):
    for number, patient in enumerate(patients):
        write_series(
            tmp_path / 'in' / f's{number}',
            stored_values(seed=number),
            series=f'1.2.{number}',
            PatientID=patient,
            StudyInstanceUID=f'1.9.{number}',
        )
    found = DICOMImporter().discover(tmp_path / 'in')
    notes = [note for note in found.notes if 'in the headers' in note]
    assert len(notes) == len(said)
    assert all(text in note for text, note in zip(said, notes))
    assert all('--patients FILE.csv' in note for note in notes)
    table = tmp_path / 'who.csv'
    table.write_text('case,patient\ns0,p\ns1,q\ns2,q\n')
    named = DICOMImporter(patients=str(table)).discover(tmp_path / 'in')
    assert [case.patient_id for case in named.cases] == ['p', 'q', 'q']
    assert not [note for note in named.notes if 'in the headers' in note]
