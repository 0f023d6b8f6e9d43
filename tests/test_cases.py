"""Odd data as their owners have them: which test covers which kind.

The tests make their small files themselves. Where MEDSSL_CASES names the folder of
the cases as they were handed out, these are imported as well.
"""

import ast
import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import make_importer
from medssl_mm.importers.run import ImportFailed, import_dataset
from medssl_mm.importers.splits import write_splits

TESTS = Path(__file__).parent
COVERED_BY = {
    'dataset-json-modality-and-channels': (
        'importers/sets/test_volumes.py::test_modality_of_dataset_json',
        'importers/sets/test_volumes.py::test_channels_of_nnunet',
    ),
    'dicom-label-of-other-patient': (
        'importers/sets/test_dicom.py::test_a_label_of_two_series_is_refused',
        'importers/test_series_labels.py::test_one_file_belongs_to_one_series',
    ),
    'dicom-orientation-at-rounding-limit': (
        'importers/readers/test_dicom.py::test_orientations_are_compared_by_difference',
    ),
    'dicom-series-names-shift': (
        'importers/sets/test_dicom.py'
        '::test_names_of_a_shared_folder_stay_whatever_arrives',
    ),
    'dicom-siemens-mosaic': (
        'importers/readers/test_dicom_mosaic.py::test_tiles_are_slices_in_their_places',
    ),
    'dicom-slices-shifted-sideways': (
        'importers/readers/test_dicom.py::test_slices_beside_the_line_are_refused',
    ),
    'dicom-two-patients-one-series-uid': (
        'importers/readers/test_dicom_series.py'
        '::test_two_patients_under_one_uid_are_two_series',
    ),
    'dicom-without-preamble': (
        'importers/readers/test_dicom_series.py::test_files_without_preamble_are_read',
        'importers/readers/test_dicom_series.py'
        '::test_a_preamble_without_its_mark_is_passed_over',
    ),
    'lists-as-excel-and-pandas-write-them': (
        'importers/readers/test_table.py::test_tables_as_programs_write_them',
        'importers/sets/test_diabetic_retinopathy.py::test_lists_as_pandas_writes_them',
        'importers/readers/test_picture.py'
        '::test_masks_with_a_colour_table_are_read_by_its_entries',
        'importers/readers/test_picture.py::test_bytes_behind_the_end_are_passed_over',
    ),
    'macos-resource-forks': (
        'importers/sets/test_volumes.py::test_files_that_macos_adds_are_passed_over',
    ),
    'mixed-or-upper-case-extensions': (
        'importers/sets/test_volumes.py::test_formats_and_spellings_may_be_mixed',
    ),
    'nifti-two-scans-of-one-patient': (
        'importers/test_patients.py::test_sessions_of_one_person_are_never_parted',
    ),
    'nifti-units-micron-metre': (
        'importers/readers/test_nifti.py::test_lengths_become_millimetres',
        'test_inference.py::test_lengths_in_micrometre',
    ),
    'non-ascii-names': (
        'importers/sets/test_volumes.py::test_names_of_any_script_length_and_case',
        'importers/test_naming.py::test_names_of_any_kind_get_ids_that_a_disk_takes',
    ),
    'predict-gantry-tilt': (
        'test_inference.py::test_a_sheared_grid_is_written_with_one_affine',
    ),
    'predict-gz-name-without-gzip': (
        'test_inference.py::test_gzip_is_told_by_content',
    ),
    'pretrained-on-another-fold': (
        'engine/test_seen.py::test_training_tells_at_its_start_what_pretraining_saw',
        'test_provenance.py'
        '::test_pretraining_is_refused_where_the_split_keeps_test_cases_apart',
    ),
    'public-checkpoint-layouts': (
        'engine/test_layouts.py::test_public_layouts',
        'engine/test_layouts.py::test_ruined_weights_are_refused_and_nothing_is_loaded',
    ),
    'reimport-after-rename': (
        'importers/test_splits.py::test_renamed_cases_are_in_a_new_split_once',
    ),
    'split-hash-equal-for-two-data-sets': (
        'importers/test_splits.py::test_the_hash_covers_images_and_labels',
    ),
    'trained-and-tested-on-the-same-cases': (
        'engine/test_seen.py'
        '::test_a_test_on_cases_of_the_training_is_refused_or_recorded',
    ),
}


@pytest.fixture(scope='module')
def handed_out():
    if 'MEDSSL_CASES' not in os.environ:
        pytest.skip('MEDSSL_CASES does not name the folder of the cases')
    return Path(os.environ['MEDSSL_CASES'])


@pytest.fixture
def import_case(handed_out, tmp_path):
    """Import below ``src`` of a case into a new folder, or the one that is named."""

    def run(case, kind, src='', out='out', **options):
        importer = make_importer(kind, **options)
        source = src if isinstance(src, Path) else handed_out / case / 'src' / src
        return import_dataset(importer, source, tmp_path / out)

    return run


def test_every_case_has_a_test_that_is_there():
    for place in (place for places in COVERED_BY.values() for place in places):
        file, name = place.split('::')
        tree = ast.parse((TESTS / file).read_text('utf-8'))
        names = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
        assert name in names, place


def test_every_case_that_was_handed_out_is_covered(handed_out):
    assert {folder.name for folder in handed_out.iterdir()} == set(COVERED_BY)


def codes(result):
    return sorted({p.code for r in result.results for p in r.problems})


def labelled(result):
    return [case.case_id for case in result.store.infos() if case.labelled]


def test_dataset_json(import_case):
    store = import_case('dataset-json-modality-and-channels', 'nifti').store
    assert (store.modality, store.units) == ('MR', 'arbitrary')
    assert store.channels == ('T2', 'ADC')


@pytest.mark.parametrize(
    'case, src, labels, ids',
    [
        ('dicom-label-of-other-patient', 'scans', 'labels', 'P1_CT and P2_CT'),
        ('dicom-label-of-other-patient', 'scans2', 'labels2', 'P1_series002_'),
        ('dicom-series-names-shift', 'scans', 'labels', 'P1_series002_'),
    ],
)
def test_labels_of_several_series_are_refused(
    import_case, handed_out, case, src, labels, ids
):
    labels = str(handed_out / case / 'src' / labels)
    with pytest.raises(UserError, match=f'fits the series {ids}.*name it after'):
        import_case(case, 'dicom', src, labels=labels, classes='liver,')


def test_names_do_not_shift(import_case, handed_out, tmp_path):
    case = 'dicom-series-names-shift'
    src = shutil.copytree(handed_out / case / 'src' / 'scans', tmp_path / 'src')
    before = import_case(case, 'dicom', src).store.case_ids
    shutil.copytree(handed_out / case / 'src/later', src / 'P1', dirs_exist_ok=True)
    after = import_case(case, 'dicom', src, 'later').store.case_ids
    assert len(before) == 2 and len(after) == 3 and set(before) < set(after)


@pytest.mark.parametrize(
    'case, shapes, found',
    [
        ('dicom-orientation-at-rounding-limit', [8], []),
        ('dicom-without-preamble', [8], []),
        ('dicom-two-patients-one-series-uid', [8, 8], []),
        ('dicom-siemens-mosaic', [9], ['mosaic']),
    ],
)
def test_series(import_case, case, shapes, found):
    result = import_case(case, 'dicom')
    infos = list(result.store.infos())
    assert [info.shape[0] for info in infos] == shapes
    assert len({info.patient_id for info in infos}) == len(infos)
    assert codes(result) == found


def test_a_shifted_part_is_refused(import_case):
    with pytest.raises(ImportFailed, match='50.00 mm beside the line'):
        import_case('dicom-slices-shifted-sideways', 'dicom')


@pytest.mark.parametrize(
    'kind, src, options, count',
    [
        ('nifti', 'bom', {}, 1),
        ('diabetic-retinopathy', 'floatgrade', {}, 6),
        ('diabetic-retinopathy', 'jpegname', {}, 6),
        ('png', 'palette', dict(classes='liver,'), 3),
        ('png', 'trailing', {}, 2),
    ],
)
def test_lists_of_other_programs(import_case, kind, src, options, count):
    case = 'lists-as-excel-and-pandas-write-them'
    result = import_case(case, kind, src, **options)
    assert result.count('imported') == len(result.results) == count
    assert len(labelled(result)) == (0 if src == 'trailing' else count)


@pytest.mark.parametrize('src, kind, count', [('msd', 'nifti', 2), ('png', 'png', 1)])
def test_resource_forks(import_case, src, kind, count):
    result = import_case('macos-resource-forks', kind, src)
    assert result.count('imported') == len(result.results) == count


def test_extensions_in_any_case(import_case):
    read = partial(import_case, 'mixed-or-upper-case-extensions')
    result = read('nifti', 'nifti', classes='liver,')
    assert result.store.case_ids == ('A', 'c1', 'c2', 'c5')
    assert labelled(result) == ['c1', 'c2'] and not result.notes
    store = read('png', 'png', 'out2').store
    assert [store.case(name).shape[0] for name in store.case_ids] == [2, 1]


def test_sessions_of_one_patient(import_case):
    case = 'nifti-two-scans-of-one-patient'
    importer = make_importer('nifti', classes='liver,')
    result = import_case(case, 'nifti', classes='liver,')
    write_splits(importer, result, holdout=0.4)
    (split,) = result.splits
    sides = {
        split_by: {n[:6] for n in split[split_by]} for split_by in ('train', 'test')
    }
    assert len(sides['train']) == 3 and len(sides['test']) == 2
    assert not sides['train'] & sides['test']
    assert 'of 5 patients by their names, as BIDS' in result.notes[0]


def test_lengths_are_millimetres(import_case):
    result = import_case('nifti-units-micron-metre', 'nifti')
    for info in result.store.infos():
        assert info.spacing == pytest.approx((2.5, 0.7, 0.8), rel=1e-5)
    assert codes(result) == ['duplicate', 'spacing-units']


@pytest.mark.parametrize(
    'src, names', [('one', ('患者一', '患者二')), ('two', ('Möller_1', 'Müller_1'))]
)
def test_names_of_other_scripts(import_case, src, names):
    assert import_case('non-ascii-names', 'nifti', src).store.case_ids == names


def test_renamed_cases_are_no_new_ones(import_case, handed_out, tmp_path):
    case = 'reimport-after-rename'
    src = shutil.copytree(handed_out / case / 'src', tmp_path / 'src')
    importer = make_importer('nifti', classes='liver,')
    write_splits(importer, import_case(case, 'nifti', src, classes='liver,'), 0.4)
    for path in [*src.glob('*/scan*')]:
        path.rename(path.with_name(path.name.replace('scan', 'patient_')))
    result = import_case(case, 'nifti', src, classes='liver,')
    write_splits(importer, result, 0.4)
    (split,) = result.splits
    assert len(split.case_ids) == 8
    assert all(name.startswith('patient_') for name in split.case_ids)
    assert any('under another name' in note for note in result.notes)


def test_equal_names_of_two_data_sets(import_case):
    hashes = set()
    for src in ('one', 'two'):
        importer = make_importer('nifti', classes='liver,')
        result = import_case(
            'split-hash-equal-for-two-data-sets', 'nifti', src, src, classes='liver,'
        )
        write_splits(importer, result, holdout=0.3)
        hashes |= {split.hash for split in result.splits}
    assert len(hashes) == 2
