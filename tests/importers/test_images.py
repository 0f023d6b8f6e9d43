"""What holds for every importer of images, tried with a made one."""

import os
import pickle
import shutil
from dataclasses import dataclass, field, replace

import joblib
import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers import make_importer
from medssl_mm.importers.images import ImageFiles
from medssl_mm.importers.run import (
    ImportFailed,
    import_dataset,
)
from medssl_mm.importers.splits import write_splits
from medssl_mm.store.images import ImageStore
from medssl_mm.store.splits import check_no_leak, load_split
from tests.datasets.images import make_picture, write_picture


@dataclass(frozen=True)
class MadeImporter(ImageFiles):
    """Files <patient>-<number>-<class>.png."""

    stop_after: int | None = None
    loaded: list = field(default_factory=list)

    name = 'made'
    classes = ('no', 'yes')
    default_size = 16
    layout = '    <src>/1-0-1.png'

    @property
    def loads(self):
        return len(self.loaded)

    def discover(self, src):
        cases = []
        for path in sorted(src.glob('*.png')):
            patient, _, label = path.stem.split('-')
            cases.append(
                self.image_case(
                    path.stem, patient, path, None if label == 'x' else int(label)
                )
            )
        return self.found(cases)

    def load(self, case):
        if self.loads == self.stop_after:
            raise KeyboardInterrupt
        self.loaded.append(case.case_id)
        return super().load(case)


@pytest.fixture
def folder(tmp_path):
    for patient in range(10):
        for number in range(2):
            write_picture(
                tmp_path / 'source' / f'{patient}-{number}-{patient % 2}.png',
                make_picture(10 * patient + number),
            )
    return tmp_path / 'source'


def statuses(result):
    return {r.case_id: r.status for r in result.results}


def codes(result):
    return {
        r.case_id: [p.code for p in r.problems] for r in result.results if r.problems
    }


def run(folder, importer=None, **settings):
    return import_dataset(
        importer or MadeImporter(), folder, folder.parent / 'out', **settings
    )


def test_import_and_read_back(folder):
    importer = MadeImporter()
    before = dict(vars(importer), loaded=20)
    store = run(folder, importer).store
    assert dict(vars(importer), loaded=importer.loads) == before
    assert isinstance(store, ImageStore) and len(store) == 20
    index = store.index_of('3-1-1')
    np.testing.assert_array_equal(store.read(index), make_picture(31))
    assert store.labels[index] == 1 and store.patient_ids[index] == '3'
    info = list(store.infos())[index]
    assert info.source_file == str(folder / '3-1-1.png')
    assert len(info.source_sha256) == 64


def test_parallel_equals_serial(folder, tmp_path):
    run(folder)
    with joblib.parallel_config('threading'):
        import_dataset(MadeImporter(), folder, tmp_path / 'two', jobs=2)
    one, two = (ImageStore(tmp_path / n) for n in ('out', 'two'))
    assert list(one.infos()) == list(two.infos())
    for index in range(20):
        np.testing.assert_array_equal(one.read(index), two.read(index))


def test_second_run_reads_nothing(folder, tmp_path):
    run(folder)
    stamps = [
        os.stat(tmp_path / 'out' / name).st_mtime_ns
        for name in ('images.b2nd', 'images.csv', 'dataset.json')
    ]
    importer = MadeImporter()
    result = run(folder, importer)
    assert importer.loads == 0 and result.count('unchanged') == 20
    assert stamps == [
        os.stat(tmp_path / 'out' / name).st_mtime_ns
        for name in ('images.b2nd', 'images.csv', 'dataset.json')
    ]


def test_interrupted_import_goes_on(folder):
    with pytest.raises(KeyboardInterrupt):
        run(folder, MadeImporter(stop_after=7))
    importer = MadeImporter()
    result = run(folder, importer)
    assert importer.loads == 13 and len(result.store) == 20


def test_touched_changed_and_relabelled(folder):
    run(folder)
    os.utime(folder / '1-0-1.png')
    write_picture(folder / '2-0-0.png', make_picture(99))
    (folder / '3-0-1.png').rename(folder / '3-0-0.png')
    (folder / '4-0-0.png').rename(folder / '4-0-x.png')
    importer = MadeImporter()
    result = run(folder, importer)
    assert importer.loads == 3
    store = result.store
    np.testing.assert_array_equal(store.read(store.index_of('2-0-0')), make_picture(99))
    assert not store.labelled[store.index_of('4-0-x')]
    # Those of the old names are told, and kept.
    assert any('2 image(s) of the store are no longer' in n for n in result.notes)


def test_a_corrected_label_alone(folder):
    class Corrected(MadeImporter):
        def discover(self, src):
            return self.found(
                self.image_case(c.case_id, c.patient_id, c.image, 1 - c.extra['label'])
                for c in super().discover(src).cases
            )

    run(folder)
    store = run(folder, Corrected()).store
    assert store.labels[store.index_of('0-0-0')] == 1


def test_bad_images_are_left_out_and_named(folder):
    (folder / '1-0-1.png').write_bytes(b'')
    shutil.copy(folder / '2-0-0.png', folder / '2-9-0.png')
    shutil.copy(folder / '2-0-0.png', folder / '5-9-0.png')
    write_picture(folder / '6-0-0.png', np.full((16, 16, 3), 7, np.uint8))
    result = run(folder)
    assert codes(result) == {
        '1-0-1': ['unreadable'],
        '2-9-0': ['duplicate'],
        '5-9-0': ['duplicate'],
        '6-0-0': ['blank'],
    }
    status = statuses(result)
    # The copy of the same patient is no leak.
    assert status['2-9-0'] == 'imported' and status['5-9-0'] == 'rejected'
    assert len(result.store) == 19
    again = run(folder)
    assert codes(again) == codes(result)
    assert len(again.store) == 19
    with pytest.raises(
        ImportFailed,
        match="3 of 22 images are bad, first '1-0-1'.*Nothing was imported",
    ):
        run(folder, strict=True)
    assert len(ImageStore(folder.parent / 'out')) == 19


@pytest.mark.parametrize('patient', [2, 5])
def test_one_picture_in_two_classes(folder, patient):
    """Nobody knows which label is right: all are left out, and named."""
    for name in (f'{patient}-8-1.png', '3-8-x.png'):
        shutil.copy(folder / '2-0-0.png', folder / name)
    shutil.copy(folder / '4-0-0.png', folder / '4-8-x.png')  # unlabelled: no conflict
    result = run(folder)
    conflicts = {'2-0-0', f'{patient}-8-1', '3-8-x'}
    assert {n for n, c in codes(result).items() if c == ['label-conflict']} == conflicts
    assert codes(result)['4-8-x'] == ['duplicate']
    assert conflicts.isdisjoint(result.store.case_ids)
    message = (
        next(r for r in result.results if r.case_id == '2-0-0').problems[0].message
    )
    assert f'{folder / "2-0-0.png"} (no)' in message
    assert f'{folder / f"{patient}-8-1.png"} (yes)' in message
    assert 'remove the wrong ones' in message


def test_conflicts_may_be_allowed(folder):
    class Archive(MadeImporter):
        conflicts_allowed = True

    shutil.copy(folder / '2-0-0.png', folder / '2-8-1.png')
    result = run(folder, Archive())
    assert codes(result) == {'2-8-1': ['duplicate']} and len(result.store) == 21


def test_blank_images_may_be_allowed(folder):
    class Patches(MadeImporter):
        blank_allowed = True

    for name in ('0-0-0', '6-0-0', '7-0-1'):
        write_picture(folder / f'{name}.png', np.full((16, 16, 3), 255, np.uint8))
    result = run(folder, Patches())
    assert set(map(tuple, codes(result).values())) == {('blank',)}
    assert len(result.store) == 20


def test_strict_leaves_nothing(folder):
    (folder / '1-0-1.png').write_bytes(b'')
    with pytest.raises(ImportFailed):
        run(folder, strict=True)
    assert not (folder.parent / 'out').exists()


def test_a_missing_file_is_named(folder):
    class Listed(MadeImporter):
        def discover(self, src):
            more = self.image_case('z', 'z', src / 'z.png', 0)
            return self.found([*super().discover(src).cases, more])

    result = run(folder, Listed())
    assert codes(result) == {'z': ['missing']}
    assert 'z.png: No such file' in result.results[-1].problems[0].message


def test_size_is_part_of_the_set(folder):
    result = run(folder, MadeImporter(size=8))
    assert result.store.size == (8, 8)
    with pytest.raises(UserError, match=r'size=\[8, 8\], now it is'):
        run(folder)
    with pytest.raises(UserError, match='--size must lie between'):
        MadeImporter(size=5000)


def test_shipped_split_is_stratified_and_by_patient(folder):
    shutil.copy(folder / '8-0-0.png', folder / '8-5-x.png')
    importer = MadeImporter()
    result = run(folder, importer)
    write_splits(importer, result)
    split = load_split(folder.parent / 'out', 'made-patients')
    store = result.store
    for name, patients in (('train', 6), ('val', 2), ('test', 2)):
        found = {store.patient_of(c) for c in split[name]}
        assert len(found) == patients
        assert {int(p) % 2 for p in found} == {0, 1}
    assert '8-5-x' not in split['train'] + split['val'] + split['test']
    assert len(split['pretrain']) == 16 + (
        '8' not in {store.patient_of(c) for c in split['test']}
    )


def test_other_splits_may_be_stratified(folder):
    importer = MadeImporter()
    result = run(folder, importer)
    write_splits(importer, result, holdout=0.4, folds=5, stratified=True)
    names = [s.protocol for s in result.splits]
    assert names[:2] == ['made-patients', 'holdout-40-seed0-stratified']
    for split in result.splits:
        check_no_leak(split, result.store.patient_of)
        assert {int(c.split('-')[0]) % 2 for c in split['test']} == {0, 1}
    with pytest.raises(UserError, match='--stratified needs --holdout'):
        write_splits(importer, result, stratified=True)


def test_few_patients_and_empty_classes_are_told(folder):
    for path in folder.glob('*.png'):
        if path.name[0] not in '024':
            path.unlink()
    importer = MadeImporter()
    result = run(folder, importer)
    write_splits(importer, result)
    assert not result.splits
    notes = ' '.join(result.notes)
    assert '3 labelled patient(s) are too few' in notes
    assert 'no image of the class(es) yes' in notes


def test_lists_over_images_that_are_there(folder):
    importer = MadeImporter()
    result = run(folder, importer)
    lists = {
        'good': dict(
            train=['1-0-1', 'gone'], val=['2-0-0'], test=['3-0-1'], pretrain=['1-0-1']
        ),
        'bare': dict(train=['gone'], val=['2-0-0'], test=['3-0-1'], pretrain=['gone']),
    }
    result.found = replace(result.found, lists=lists)
    write_splits(importer, result)
    assert [s.protocol for s in result.splits] == ['made-patients', 'good']
    assert result.splits[1]['train'] == ('1-0-1',)
    notes = ' '.join(result.notes)
    assert 'split good: 1 listed image(s) are not in the set' in notes
    assert 'train, pretrain would be empty' in notes


def test_a_list_that_leaks_is_refused(folder):
    importer = MadeImporter()
    result = run(folder, importer)
    lists = {
        'leaky': dict(
            train=['1-0-1'], val=['2-0-0'], test=['1-1-1'], pretrain=['1-0-1']
        )
    }
    result.found = replace(result.found, lists=lists)
    with pytest.raises(UserError, match="leaks: patient '1'"):
        write_splits(importer, result)


def test_workers_are_not_sent_the_lists():
    importer = make_importer('nih-cxr14', size=99)
    cases = [importer.image_case(f'{n:08d}', 'p', 'x.png', None) for n in range(999)]
    found = importer.found(
        cases, notes=['x' * 999], lists={'x': dict(train=['name'] * 100000)}
    )
    sent = pickle.dumps((importer, found.without_cases()))
    assert len(sent) < 1200
    importer, facts = pickle.loads(sent)
    assert importer.side == facts.size == 99
    assert facts.classes == found.classes and facts.task == 'multi-label'
