import pytest

from medssl_mm.importers.sets.btcv import BTCVImporter


def _btcv_infos(numbers):
    from types import SimpleNamespace

    return [
        SimpleNamespace(
            case_id=f'case{n:04d}', patient_id=f'case{n:04d}', labelled=n <= 40
        )
        for n in numbers
    ]


def test_btcv_protocols():
    importer = BTCVImporter()
    numbers = [*range(1, 11), *range(21, 41), *range(61, 81)]
    made, notes = importer.splits(None, _btcv_infos(numbers))
    splits = {s.protocol: s for s in made}
    one = splits['btcv-18-12']
    assert one['test'] == tuple(
        f'case{n:04d}' for n in (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
    )
    assert len(one['train']) == 18
    other = splits['btcv-24-6']
    assert other['test'] == tuple(f'case{n:04d}' for n in range(35, 41))
    assert len(other['train']) == 24
    for split in splits.values():
        assert split['pretrain'] == split['train']
        assert not set(split['train']) & set(split['test'])
    assert notes == []


def test_btcv_says_what_is_missing():
    importer = BTCVImporter()
    splits, notes = importer.splits(None, _btcv_infos([1, 5, 6, 7, 35]))
    assert [len(s['train']) for s in splits] == [3, 4]
    assert '25 of its 30 labelled cases are missing' in notes[0]


@pytest.mark.parametrize(
    'names',
    [
        ('img/img000{}.nii.gz', 'label/label000{}.nii.gz'),
        ('imagesTr/img000{}.nii.gz', 'labelsTr/label000{}.nii.gz'),
        (
            'RawData/Training/img/img000{}.nii.gz',
            'RawData/Training/label/label000{}.nii.gz',
        ),
    ],
)
def test_btcv_layouts(tiny_nifti, names):
    cases = BTCVImporter().discover(tiny_nifti(2, *names)).cases
    assert [c.case_id for c in cases] == ['case0001', 'case0002']
    assert all(c.label for c in cases)
