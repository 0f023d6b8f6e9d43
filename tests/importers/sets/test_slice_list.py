"""16-bit CT slices named by a list."""

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.sets.slice_list import SliceListImporter
from tests.importers.sets.test_png import pixels, save


def save_list(src, volumes, offset=1024, lines=None):
    """Write slices of HU volumes and the list of them."""
    listed = []
    for name, volume in volumes.items():
        for index, image in enumerate(volume):
            relative = f'{name}/slice_{index:03d}.png'
            save(src / relative, (image + offset).astype(np.uint16))
            listed.append(f'{relative} 0')
    (src / 'train.txt').write_text('\n'.join(lines or listed) + '\n')


@pytest.mark.parametrize('offset', [1024, 2000])
def test_listed_slices_become_hounsfield_units(tmp_path, offset):
    rng = np.random.default_rng(0)
    volumes = {
        name: rng.integers(-1000, 2000, (3, 9, 9)) for name in ('s0001', 's0002')
    }
    save_list(tmp_path, volumes, offset)
    importer = SliceListImporter(offset=offset)
    cases = importer.discover(tmp_path).cases
    assert [case.patient_id for case in cases] == ['s0001', 's0002']
    for case in cases:
        loaded = importer.load(case)
        np.testing.assert_array_equal(loaded.image, volumes[case.case_id])
        assert loaded.label is None


def test_the_list_decides_which_slices_are_used(tmp_path):
    volume = np.arange(4 * 81).reshape(4, 9, 9)
    save_list(
        tmp_path,
        {'a/b c': volume},
        lines=['a/b c/slice_003.png 0', '', 'a/b c/slice_001.png'],
    )
    importer = SliceListImporter(patient_pattern='^([^/]+)/')
    (case,) = importer.discover(tmp_path).cases
    assert (case.case_id, case.patient_id) == ('a_b_c', 'a')
    np.testing.assert_array_equal(importer.load(case).image, volume[[1, 3]])


@pytest.mark.parametrize(
    'lines, text',
    [
        (['s/slice_009.png 0'], '1 of 1 listed files are not under.*line 1'),
        (['s/slice_000.jpg 0'], 'line 1: expected "relative/path.png label"'),
        (['s/slice_000.png 0'] * 2, 'line 2: .*already in line 1'),
        ([' '], 'train.txt is empty; expected lines'),
    ],
)
def test_bad_lists_are_refused(tmp_path, lines, text):
    save_list(tmp_path, {'s': np.zeros((1, 9, 9), int)}, lines=lines)
    with pytest.raises(UserError, match=text):
        SliceListImporter().discover(tmp_path)


def test_a_list_must_be_chosen(tmp_path):
    with pytest.raises(UserError, match='Found 0 .txt files; give --list-fi'):
        SliceListImporter().discover(tmp_path)
    with pytest.raises(UserError, match='does not exist'):
        SliceListImporter(list_file='x.txt').discover(tmp_path)


def test_eight_bit_slices_are_no_hounsfield_units(tmp_path):
    save(tmp_path / 's' / 'slice_000.png', pixels())
    (tmp_path / 'l.txt').write_text('s/slice_000.png 0\n')
    importer = SliceListImporter()
    (case,) = importer.discover(tmp_path).cases
    with pytest.raises(CaseError, match='8-bit pixels; expected 16-bit'):
        importer.load(case)
