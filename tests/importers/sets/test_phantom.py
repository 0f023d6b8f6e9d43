import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.phantom import PhantomImporter
from medssl_mm.importers.splits import write_splits
from medssl_mm.phantom import CLASSES, make_phantom_case


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    out = tmp_path_factory.mktemp('phantom') / 'store'
    options = dict(num_patients=5, seed=3, size=40)
    importer = PhantomImporter(**options)
    result = import_dataset(importer, f'{out}-source', out)
    write_splits(importer, result)
    return result, out, options


def test_phantom_is_made_and_imported(imported):
    result, _, _ = imported
    store = result.store
    assert store.case_ids == tuple(f'case000{n}' for n in range(1, 6))
    assert (store.modality, store.units) == ('CT', 'HU')
    assert tuple(store.classes) == CLASSES
    assert not any(case.problems for case in result.results)


def test_stored_voxels_are_those_of_the_patient(imported):
    store = imported[0].store
    for index in (0, 4):  # the fifth is oblique
        image, label, affine = make_phantom_case(3, index, size=40)
        case = store.case(store.case_ids[index])
        volume = store.read_volume(case.case_id)
        mask = store.read_label_volume(case.case_id)
        rng = np.random.default_rng(0)
        inverse = np.linalg.inv(affine)
        for _ in range(50):
            z, y, x = (int(rng.integers(n)) for n in case.shape)
            world = np.asarray(case.affine) @ (x, y, z, 1)
            place = tuple(np.rint((inverse @ world)[:3]).astype(int))
            assert volume[z, y, x] == image[place]
            assert mask[z, y, x] == label[place]


def test_second_import_does_nothing(imported):
    _, out, options = imported
    again = import_dataset(PhantomImporter(**options), f'{out}-source', out)
    assert again.count('unchanged') == 5


def test_splits_leave_most_labels_unused(imported):
    few, everything = imported[0].splits
    assert (few.protocol, everything.protocol) == ('phantom-5', 'phantom-5-all')
    assert set(few['train']) < set(few['pretrain'])
    assert everything['train'] == few['pretrain'] == everything['pretrain']
    assert few['test'] == everything['test']
    assert not set(few['test']) & set(few['pretrain'] + few['val'])


def test_a_folder_of_other_settings_is_refused(imported):
    _, out, _ = imported
    with pytest.raises(UserError, match='holds a phantom made with'):
        PhantomImporter(num_patients=5, seed=4, size=40).discover(f'{out}-source')


def test_the_shipped_set_has_the_documented_sizes():
    class Case:
        labelled = True

        def __init__(self, number):
            self.case_id = self.patient_id = f'case{number:04d}'

    split = PhantomImporter().splits(None, [Case(n) for n in range(1, 25)])[0][0]
    assert split.protocol == 'phantom-24'
    assert {name: len(split[name]) for name in split.subsets} == {
        'pretrain': 16,
        'train': 6,
        'val': 2,
        'test': 6,
    }
