import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.sets.breakhis import BreakHisImporter
from tests.datasets.images import make_picture, write_picture
from tests.importers.sets.test_idc import prepare, problems

BREAKHIS = [
    ('benign', 'SOB_B_A-14-22549AB-40-{:03d}.png'),
    ('benign', 'SOB_B_F-14-14134-100-{:03d}.png'),
    ('benign', 'SOB_B_F-14-14134E-100-{:03d}.png'),
    ('benign', 'SOB_B_TA_14-16184_{}.png'),
    ('malignant', 'SOB_M_DC-14-10926-40-{:03d}.png'),
    ('malignant', 'SOB_M_LC-14-12204-40-{:03d}.png'),
    ('malignant', 'SOB_M_MC_14-12773_{}.png'),
]


@pytest.fixture
def breakhis(tmp_path):
    folder = tmp_path / 'source'
    for seed, (place, name) in enumerate(BREAKHIS):
        for number in range(2):
            write_picture(
                folder / place / 'SOB' / name.format(number),
                make_picture(10 * seed + number, 32),
            )
    return folder


def test_breakhis(breakhis, tmp_path):
    result, splits = prepare(BreakHisImporter, breakhis, tmp_path, size=16)
    store = result.store
    patients = dict(zip(store.image_ids.tolist(), store.patient_ids.tolist()))
    assert len(store) == 14 and len(set(patients.values())) == 6
    # Parts of one biopsy stay together.
    assert patients['SOB_B_F-14-14134-100-000'] == '14-14134'
    assert patients['SOB_B_F-14-14134E-100-000'] == '14-14134'
    assert store.labels.tolist() == [0] * 8 + [1] * 6
    split = splits['breakhis-patients']
    assert {patients[c] for c in split['train']}.isdisjoint(
        patients[c] for c in split['test']
    )


def test_breakhis_class_must_agree_with_the_folder(breakhis, tmp_path):
    name = BREAKHIS[0][1].format(0)
    (breakhis / 'benign/SOB' / name).rename(breakhis / 'malignant/SOB' / name)
    result, _ = prepare(BreakHisImporter, breakhis, tmp_path, size=16)
    assert list(problems(result).values()) == ['class-mismatch']
    message = result.results[0].problems[0].message
    assert "in a folder 'malignant', but its name says benign" in message


def test_real_images(realdata, tmp_path):
    result, splits = prepare(BreakHisImporter, realdata / 'breakhis_sample', tmp_path)
    store = result.store
    assert len(store) == 78 and not problems(result)
    assert store.labels.tolist().count(0) == 30
    assert len(set(store.patient_ids.tolist())) == 12
    for name in ('train', 'val', 'test'):
        assert {store.classes_of(c) for c in splits['breakhis-patients'][name]} == {
            (0,),
            (1,),
        }


def test_another_layout(tmp_path):
    write_picture(tmp_path / 'a.png', make_picture(0))
    with pytest.raises(UserError, match=r'1 image\(s\) have another name'):
        BreakHisImporter().discover(tmp_path)
