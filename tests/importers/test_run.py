"""The import: resume, change, strictness, damage, splits."""

import os
import shutil
from dataclasses import dataclass, field

import joblib
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import make_importer, run
from medssl_mm.importers.run import (
    ImportFailed,
    file_digest,
    import_dataset,
)
from medssl_mm.importers.sets.nifti import NIfTIImporter
from medssl_mm.importers.splits import write_splits
from medssl_mm.store import SliceStore
from tests.conftest import make_ct, write_nifti

OPTIONS = dict(classes='liver,kidney')


@dataclass(frozen=True)
class Counting(NIfTIImporter):
    """Counts the loads, and can stop in the middle like a killed run."""

    stop_after: int | None = None
    loaded: list = field(default_factory=list)

    @property
    def loads(self):
        return len(self.loaded)

    def load(self, case):
        if self.loads == self.stop_after:
            raise KeyboardInterrupt
        self.loaded.append(case.case_id)
        return super().load(case)


def statuses(result):
    return {r.case_id: r.status for r in result.results}


def codes(result):
    return {r.case_id: [p.code for p in r.problems] for r in result.results}


def test_import_and_read_back(tiny_nifti, tmp_path):
    importer = NIfTIImporter(**OPTIONS)
    before = dict(vars(importer))
    result = import_dataset(importer, tiny_nifti(), tmp_path / 'out')
    assert vars(importer) == before
    assert statuses(result) == dict.fromkeys(('case1', 'case2', 'case3'), 'imported')
    store = SliceStore(tmp_path / 'out')
    image, label = make_ct(2)  # RAS on disk: x and y turn round
    np.testing.assert_array_equal(store.read_volume('case2'), image[:, ::-1, ::-1])
    np.testing.assert_array_equal(
        store.read_label_volume('case2'), label[:, ::-1, ::-1]
    )
    info = store.case('case2')
    assert info.source_sha256 == file_digest([info.source_file])
    assert info.label_sha256 == file_digest([info.label_source_file])
    assert store.modality == 'CT' and store.units == 'HU'
    assert store.classes == ('background', 'liver', 'kidney')


def test_parallel_equals_serial(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'one')
    with joblib.parallel_config('threading'):
        import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'two', jobs=2)
    for case_id in SliceStore(tmp_path / 'one').case_ids:
        one, two = (SliceStore(tmp_path / n).case(case_id) for n in ('one', 'two'))
        assert one == two


def test_second_run_reads_nothing(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    stamp = (tmp_path / 'out' / 'dataset.json').stat().st_mtime_ns
    importer = Counting(**OPTIONS)
    result = import_dataset(importer, folder, tmp_path / 'out')
    assert importer.loads == 0
    assert set(statuses(result).values()) == {'unchanged'}
    assert (tmp_path / 'out' / 'dataset.json').stat().st_mtime_ns == stamp


def test_interrupted_import_goes_on(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    with pytest.raises(KeyboardInterrupt):
        import_dataset(Counting(**OPTIONS, stop_after=2), folder, tmp_path / 'out')
    with pytest.raises(UserError, match='was interrupted'):
        SliceStore(tmp_path / 'out')
    importer = Counting(**OPTIONS)
    result = import_dataset(importer, folder, tmp_path / 'out')
    assert importer.loads == 1
    assert len(result.store.case_ids) == 3


def test_touched_and_changed_sources(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    os.utime(folder / 'images' / 'case1.nii.gz')  # same content
    write_nifti(folder / 'images' / 'case2.nii.gz', make_ct(55)[0].T)
    (folder / 'labels' / 'case3.nii.gz').unlink()
    importer = Counting(**OPTIONS)
    result = import_dataset(importer, folder, tmp_path / 'out')
    assert statuses(result) == dict(
        case1='unchanged', case2='imported', case3='imported'
    )
    assert importer.loads == 2
    np.testing.assert_array_equal(
        result.store.read_volume('case2'), make_ct(55)[0][:, ::-1, ::-1]
    )
    assert not result.store.case('case3').labelled


def test_moved_sources_are_recognised(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    moved = folder.rename(tmp_path / 'moved')
    importer = Counting(**OPTIONS)
    result = import_dataset(importer, moved, tmp_path / 'out')
    assert importer.loads == 0
    assert result.store.case('case1').source_file.startswith(str(moved))


@pytest.fixture
def damaged(tiny_nifti):
    """Four cases: fine, truncated, a copy of the first, unknown label."""
    folder = tiny_nifti(4)
    path = folder / 'images' / 'case2.nii.gz'
    path.write_bytes(path.read_bytes()[:1000])
    shutil.copy(folder / 'images' / 'case1.nii.gz', folder / 'images' / 'case3.nii.gz')
    label = make_ct(4)[1]
    label[0, 0, 0] = 99
    write_nifti(folder / 'labels' / 'case4.nii.gz', label.T)
    return folder


def test_bad_cases_are_left_out(damaged, tmp_path):
    result = import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out')
    assert result.store.case_ids == ('case1',)
    assert codes(result) == dict(
        case1=[], case2=['unreadable'], case3=['duplicate'], case4=['label-unexpected']
    )
    again = import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out')
    assert codes(again) == codes(result)
    assert again.store.case_ids == ('case1',)


def test_strict_leaves_nothing(damaged, tmp_path):
    with pytest.raises(ImportFailed, match="3 of 4 .*'case2'.*case2.nii.gz"):
        import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out', strict=True)
    assert not (tmp_path / 'out').exists()


def test_strict_keeps_the_finished_store(damaged, tmp_path):
    import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out')
    before = SliceStore(tmp_path / 'out').case('case1')
    write_nifti(damaged / 'images' / 'case1.nii.gz', make_ct(9)[0].T)
    with pytest.raises(ImportFailed):
        import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out', strict=True)
    assert SliceStore(tmp_path / 'out').case('case1') == before
    assert not (tmp_path / 'out' / '.import').exists()


def test_a_case_that_became_bad_is_dropped(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    (folder / 'images' / 'case1.nii.gz').write_bytes(b'gone')
    result = import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    assert result.store.case_ids == ('case2', 'case3')


def test_nothing_usable_is_an_error(damaged, tmp_path):
    for name in ('case1', 'case3', 'case4'):
        (damaged / 'images' / f'{name}.nii.gz').write_bytes(b'')
    with pytest.raises(ImportFailed, match='no case is usable: 4 of 4'):
        import_dataset(NIfTIImporter(**OPTIONS), damaged, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_limit_then_all(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    first = import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out', limit=1)
    assert first.store.case_ids == ('case1',)
    importer = Counting(**OPTIONS)
    import_dataset(importer, folder, tmp_path / 'out')
    assert importer.loads == 2


def test_cases_gone_from_the_source_are_told(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    (folder / 'images' / 'case1.nii.gz').unlink()
    result = import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    assert any("kept, e.g. 'case1'" in n for n in result.notes)
    result = import_dataset(
        NIfTIImporter(**OPTIONS), folder, tmp_path / 'out', overwrite=True
    )
    assert result.store.case_ids == ('case2', 'case3')


def test_other_options_need_overwrite(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    import_dataset(NIfTIImporter(**OPTIONS), folder, tmp_path / 'out')
    changed = dict(OPTIONS, patient_pattern=r'(case)')
    with pytest.raises(UserError, match='import_options.*--overwrite'):
        import_dataset(NIfTIImporter(**changed), folder, tmp_path / 'out')
    result = import_dataset(
        NIfTIImporter(**changed), folder, tmp_path / 'out', overwrite=True
    )
    assert result.store.case('case1').patient_id == 'case'


def test_messages_for_settings(tiny_nifti, tmp_path):
    with pytest.raises(UserError, match='does not take --size;.*--images'):
        make_importer('nifti', **OPTIONS, size=4)
    with pytest.raises(UserError, match=r'--patien-pattern.*mean --patient-pattern\?'):
        make_importer('nifti', patien_pattern='x')
    with pytest.raises(UserError, match=r'nowhere does not exist[\s\S]*images/'):
        import_dataset(NIfTIImporter(**OPTIONS), tmp_path / 'nowhere', tmp_path / 'out')
    with pytest.raises(UserError, match='limit must be at least 1'):
        import_dataset(
            NIfTIImporter(**OPTIONS), tiny_nifti(), tmp_path / 'out', limit=0
        )
    assert not (tmp_path / 'out').exists()


def test_two_imports_at_once(tiny_nifti, tmp_path):
    importer = NIfTIImporter(**OPTIONS)
    writer = importer.discover(tiny_nifti()).create_writer(tmp_path / 'out')
    with (
        run._only_one(writer),
        pytest.raises(UserError, match='another import is writing'),
    ):
        import_dataset(importer, tiny_nifti(), tmp_path / 'out')


def test_splits_are_patient_wise_and_use_unlabelled_cases(tiny_nifti, tmp_path):
    folder = tiny_nifti(6)
    (folder / 'labels' / 'case6.nii.gz').unlink()
    importer = NIfTIImporter(**OPTIONS)
    result = import_dataset(importer, folder, tmp_path / 'out')
    write_splits(importer, result, holdout=0.4, folds=5, seed=2)
    assert [s.protocol for s in result.splits] == [
        'holdout-40-seed2',
        *[f'kfold-5-seed2-fold{i}' for i in range(5)],
    ]
    for split in result.splits:
        assert 'case6' in split['pretrain']
        assert 'case6' not in split['train'] + split['test']
        path = tmp_path / 'out' / 'splits' / f'{split.protocol}.json'
        assert path.is_file()
    with pytest.raises(UserError, match='--val needs --holdout'):
        write_splits(importer, result, val=0.1)
