"""Folders of volumes in any format: pairing, digests, dataset.json."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medssl_mm.errors import InstallError, UserError
from medssl_mm.importers.base import CaseError
from medssl_mm.importers.readers import optional
from medssl_mm.importers.run import ImportFailed, import_dataset
from medssl_mm.importers.sets.dicom import DICOMImporter
from medssl_mm.importers.sets.nifti import NIfTIImporter
from medssl_mm.importers.sets.volumes import VolumesImporter
from tests.conftest import make_ct, write_nifti
from tests.importers.dicom_files import write_enhanced, write_series
from tests.importers.volume_files import (
    SPACING,
    make_values,
    write_itk,
    write_nifti_volume,
)

SUFFIXES = ('.nii', '.nii.gz', '.nrrd', '.nhdr', '.mha', '.mhd', '.tif')


def write_volume(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    if '.nii' in path.name:
        return write_nifti_volume(path, values)
    pytest.importorskip('SimpleITK')
    return write_itk(path, values)


def stored(importer, src, out):
    result = import_dataset(importer, src, out)
    assert not any(r.problems for r in result.results if r.status != 'imported')
    (case_id,) = result.store.case_ids
    return result.store, result.store.case(case_id)


def test_one_volume_in_every_format_is_one_content(tmp_path):
    values = make_values()
    label = (values > 500).astype(np.uint8)
    digests, labels = {}, {}
    for suffix in SUFFIXES:
        src = tmp_path / suffix
        write_volume(src / 'images' / f'a{suffix}', values)
        write_volume(src / 'labels' / f'a{suffix}', label)
        store, case = stored(
            VolumesImporter(classes='organ'), src, tmp_path / f'out{suffix}'
        )
        np.testing.assert_array_equal(store.read_volume('a'), values)
        np.testing.assert_array_equal(store.read_label_volume('a'), label)
        digests[suffix], labels[suffix] = case.content_sha256, case.class_voxels
        if suffix == '.tif':
            assert case.spacing is None
        else:
            assert case.spacing == pytest.approx(SPACING[::-1])
    # Single slices and one enhanced object, with the same grid.
    slices = tmp_path / 'slices' / 'a'
    write_series(
        slices,
        (values.astype(int) + 1024).astype(np.uint16),
        PixelSpacing=[SPACING[1], SPACING[0]],
    )
    digests['slices'] = stored(DICOMImporter(), slices, tmp_path / 'o1')[1]
    write_enhanced(tmp_path / 'frames' / 'a' / 'x', slices, (2, 0, 4, 3, 1))
    digests['frames'] = stored(DICOMImporter(), tmp_path / 'frames', tmp_path / 'o2')[1]
    for name in ('slices', 'frames'):
        assert digests[name].spacing == pytest.approx(SPACING[::-1])
        digests[name] = digests[name].content_sha256
    assert len(set(digests.values())) == 1
    assert set(map(str, labels.values())) == {str({'1': int(label.sum())})}


def test_formats_and_spellings_may_be_mixed(tmp_path):
    """Label and image in other formats, suffixes in any case."""
    names = {
        'c1': ('c1.nii.gz', 'c1.nii'),
        'c2': ('c2.NII', 'c2.nii.gz'),
        'c3': ('c3.MHA', 'c3.nrrd'),
        'c4': ('c4.nii.gz', None),
    }
    for seed, (image, label) in enumerate(names.values()):
        values = make_values(seed=seed)
        write_volume(tmp_path / 'images' / image.lower(), values)
        (tmp_path / 'images' / image.lower()).rename(tmp_path / 'images' / image)
        if label:
            write_volume(tmp_path / 'labels' / label, (values > 0).astype(np.uint8))
    importer = VolumesImporter(classes='organ')
    found = importer.discover(tmp_path)
    assert {c.case_id: bool(c.label) for c in found.cases} == {
        'c1': True,
        'c2': True,
        'c3': True,
        'c4': False,
    }
    for case in found.cases[:3]:
        loaded = importer.load(case)
        assert loaded.problems == []
        np.testing.assert_array_equal(loaded.label, loaded.image > 0)
    # The other importer takes NIfTI alone.
    found = NIfTIImporter(classes='organ').discover(tmp_path)
    assert [c.case_id for c in found.cases] == ['c1', 'c2', 'c4']


def test_two_files_of_one_name_are_refused(tmp_path):
    write_volume(tmp_path / 'images' / 'a.nii', make_values())
    write_volume(tmp_path / 'images' / 'a.nii.gz', make_values())
    write_volume(tmp_path / 'images' / 'b.nii', make_values(seed=1))
    result = import_dataset(VolumesImporter(), tmp_path, tmp_path / 'store')
    assert [r.status for r in result.results] == ['rejected', 'imported']
    (problem,) = result.results[0].problems
    assert problem.code == 'same-name'
    assert re.search("a.nii and .*a.nii.gz cannot be told.*'a'", problem.message)


def test_globs_choose_among_formats(tmp_path):
    for name in ('p1/ct.mha', 'p1/ct.nii', 'p2/ct.mha'):
        write_volume(tmp_path / name, make_values())
    found = VolumesImporter(images='*/*.mha').discover(tmp_path)
    assert [c.case_id for c in found.cases] == ['p1_ct', 'p2_ct']


def test_geometry_on_one_side_alone_is_an_error(tmp_path):
    write_volume(tmp_path / 'images' / 'a.nii', make_values())
    write_volume(tmp_path / 'labels' / 'a.tif', make_values().astype(np.uint8))
    importer = VolumesImporter(classes='organ')
    (case,) = importer.discover(tmp_path).cases
    problems = importer.load(case).problems
    assert [(p.severity, p.code) for p in problems] == [('error', 'affine-mismatch')]
    assert 'the label is of a format without geometry' in problems[0].message


def test_files_that_macos_adds_are_passed_over(tmp_path):
    write_volume(tmp_path / 'images' / 'a.nii', make_values())
    (tmp_path / 'images' / '._a.nii').write_bytes(b'Mac OS X')
    other = tmp_path / '__MACOSX' / 'images'
    other.mkdir(parents=True)
    (other / 'a.nii').write_bytes(b'Mac OS X')
    for options in ({}, dict(images='**/*.nii')):
        (case,) = VolumesImporter(**options).discover(tmp_path).cases
        assert case.image == str(tmp_path / 'images' / 'a.nii')


def test_a_changed_data_file_is_noticed(tmp_path):
    """The voxels of a detached header are in a file of their own."""
    path = write_volume(tmp_path / 'src' / 'images' / 'a.mhd', make_values())
    importer = VolumesImporter()
    import_dataset(importer, tmp_path / 'src', tmp_path / 'out')
    path.with_suffix('.raw').write_bytes((make_values() + 1).tobytes())
    result = import_dataset(importer, tmp_path / 'src', tmp_path / 'out')
    assert result.count('imported') == 1
    np.testing.assert_array_equal(result.store.read_volume('a'), make_values() + 1)


def test_an_absent_library_ends_the_search(tmp_path, monkeypatch):
    write_volume(tmp_path / 'images' / 'a.nii', make_values())
    (tmp_path / 'images' / 'b.mha').write_bytes(b'')

    def absent(package):
        return None

    monkeypatch.setattr(optional.importlib.util, 'find_spec', absent)
    with pytest.raises(InstallError, match=r'SimpleITK.*medssl_mm\[readers\]'):
        VolumesImporter().discover(tmp_path)
    NIfTIImporter().discover(tmp_path)


def describe(folder, **content):
    (folder / 'dataset.json').write_bytes(
        b'\xef\xbb\xbf' + json.dumps(content).encode()  # with a byte order mark
    )


@pytest.mark.parametrize(
    'names, modality, units',
    [
        (dict(modality={'0': 'CT'}), 'CT', 'HU'),
        (dict(modality={'0': 'MRI'}), 'MR', 'arbitrary'),
        (dict(channel_names={'0': 'FLAIR'}), 'MR', 'arbitrary'),
        (dict(channel_names={'0': 'noNorm'}), 'other', 'arbitrary'),
        ({}, 'CT', 'HU'),
    ],
)
def test_modality_of_dataset_json(tmp_path, names, modality, units):
    write_nifti(tmp_path / 'imagesTr' / 'a_0000.nii.gz', make_ct(0)[0].T)
    describe(tmp_path, labels={'background': 0, 'organ': 1}, **names)
    found = NIfTIImporter().discover(tmp_path)
    assert (found.modality, found.units) == (modality, units)
    found = NIfTIImporter(modality='other').discover(tmp_path)
    assert (found.modality, found.units) == ('other', 'arbitrary')


def two_channels(folder, **names):
    """Three cases as nnU-Net has them; returns their channels."""
    volumes = {}
    for seed in range(3):
        one, two = make_values(seed=seed), make_values(seed=seed + 50) * 2
        write_volume(folder / 'imagesTr' / f'c{seed}_0000.nii.gz', one)
        write_volume(folder / 'imagesTr' / f'c{seed}_0001.nii.gz', two)
        label = (one > 0).astype(np.uint8)
        write_volume(folder / 'labelsTr' / f'c{seed}.nii.gz', label)
        volumes[f'c{seed}'] = np.stack([one, two], 1)
    describe(folder, labels={'background': 0, 'organ': 1}, **names)
    return volumes


@pytest.mark.parametrize('key', ['channel_names', 'modality'])
def test_channels_of_nnunet(tmp_path, key):
    volumes = two_channels(tmp_path / 'src', **{key: {'0': 'T2', '1': 'ADC'}})
    importer = NIfTIImporter()
    result = import_dataset(importer, tmp_path / 'src', tmp_path / 'out')
    store = result.store
    assert (store.modality, store.units) == ('MR', 'arbitrary')
    assert tuple(store.channels) == ('T2', 'ADC')
    for case_id, wanted in volumes.items():
        volume = store.read_volume(case_id)
        np.testing.assert_array_equal(volume, wanted)
        np.testing.assert_array_equal(
            store.read_label_volume(case_id), wanted[:, 0] > 0
        )
    assert not any(r.problems for r in result.results)
    again = import_dataset(importer, tmp_path / 'src', tmp_path / 'out')
    assert again.count('unchanged') == 3
    # Any channel that changes makes the case new.
    write_volume(tmp_path / 'src' / 'imagesTr' / 'c1_0001.nii.gz', make_values())
    again = import_dataset(importer, tmp_path / 'src', tmp_path / 'out')
    assert [r.case_id for r in again.results if r.status == 'imported'] == ['c1']


def test_channels_that_are_missing_or_elsewhere(tmp_path):
    two_channels(tmp_path / 'src', channel_names={'0': 'T2', '1': 'ADC'})
    images = tmp_path / 'src' / 'imagesTr'
    (images / 'c0_0001.nii.gz').unlink()
    write_nifti(images / 'c1_0001.nii.gz', make_values().T, np.diag([9, 0.8, 3, 1]))
    result = import_dataset(NIfTIImporter(), tmp_path / 'src', tmp_path / 'out')
    problems = {r.case_id: r.problems for r in result.results}
    assert [p.code for p in problems['c0']] == ['missing']
    assert 'c0_0001.nii.gz' in problems['c0'][0].message
    assert 'spacing-mismatch' in [p.code for p in problems['c1']]
    assert 'channel ADC voxels' in problems['c1'][0].message
    assert problems['c2'] == []
    write_volume(images / 'c2_0001.nii.gz', make_values() * 0)
    with pytest.raises(ImportFailed) as caught:
        import_dataset(NIfTIImporter(), tmp_path / 'src', tmp_path / 'new')
    assert 'channel ADC is empty' in caught.value.results[2].problems[0].message


def test_channels_by_glob(tmp_path):
    for patient in ('p1', 'p2'):
        for seed, name in enumerate(('t1', 'flair')):
            write_volume(tmp_path / patient / f'{name}.nii', make_values(seed=seed))
    images = '*/{channel}.nii'
    importer = VolumesImporter(images=images, channels='flair, t1')
    found = importer.discover(tmp_path)
    assert found.channels == ('flair', 't1') and found.modality == 'MR'
    loaded = importer.load(found.cases[0])
    assert found.cases[0].case_id == 'p1'
    np.testing.assert_array_equal(loaded.image[:, 1], make_values(seed=0))
    (tmp_path / 'p2' / 't1.nii').unlink()
    result = import_dataset(importer, tmp_path, tmp_path / 'store')
    assert [r.status for r in result.results] == ['imported', 'rejected']
    (problem,) = result.results[1].problems
    assert "'p2' has no file for */t1.nii" in problem.message
    with pytest.raises(UserError, match='needs --channels'):
        VolumesImporter(images=images).discover(tmp_path)
    with pytest.raises(UserError, match='must differ'):
        VolumesImporter(images=images, channels='t1,t1').discover(tmp_path)


def test_channels_on_a_fourth_axis(tmp_path):
    """As the Medical Segmentation Decathlon has them."""
    one, two = make_values(), make_values(seed=9)
    affine = np.diag([-1.0, -1, 1, 1])
    for name in ('a', 'b'):
        write_nifti(
            tmp_path / 'imagesTr' / f'{name}.nii.gz',
            np.stack([one.T, two.T], -1),
            affine,
        )
    write_nifti(
        tmp_path / 'labelsTr' / 'a.nii.gz', (one.T > 0).astype(np.uint8), affine
    )
    describe(
        tmp_path,
        labels={'background': 0, 'x': 1},
        modality={'0': 'MRI', '1': 'MRI'},
    )
    importer = NIfTIImporter()
    found = importer.discover(tmp_path)
    assert found.channels == ('MRI 0', 'MRI 1')
    loaded = importer.load(found.cases[0])
    np.testing.assert_array_equal(loaded.image, np.stack([one, two], 1))
    np.testing.assert_array_equal(loaded.label, one > 0)
    assert loaded.problems == []
    for names, text in (('a,b,c', 'fourth axis of 3'), ('a', 'expected 3 axes')):
        importer = NIfTIImporter(channels=names)
        with pytest.raises(CaseError, match=text):
            importer.load(importer.discover(tmp_path).cases[0])


def test_second_channels_without_a_name_are_told(tmp_path):
    two_channels(tmp_path)
    found = NIfTIImporter().discover(tmp_path)
    assert found.channels == ()
    assert '3 file(s) of further channels (_0001)' in found.notes[0]
    assert 'c0_0001.nii.gz: name all channels by --channels' in found.notes[0]


def test_cases_that_dataset_json_lists(tmp_path):
    src, values = tmp_path / 'src', make_values()
    elsewhere = write_volume(tmp_path / 'elsewhere' / 'two.nii.gz', values + 1)
    write_volume(src / 'scans' / 'one.nii.gz', values)
    write_volume(src / 'masks' / 'one.nii.gz', (values > 0).astype(np.uint8))
    content = dict(
        channel_names={'0': 'CT'},
        labels={'background': 0, 'liver': 1},
        dataset={
            'first': dict(images=['scans/one.nii.gz'], label='./masks/one.nii.gz'),
            'second': dict(images=[str(elsewhere)]),
            'third': dict(images=['scans/gone.nii.gz']),
            'fourth': dict(images=['scans/one.nii.gz', 'scans/one.nii.gz']),
        },
    )
    (src / 'dataset.json').write_text(json.dumps(content))
    result = import_dataset(NIfTIImporter(), src, tmp_path / 'out')
    assert result.store.case_ids == ('first', 'second')
    assert result.store.case('first').labelled and result.store.classes[1] == 'liver'
    assert not result.store.case('second').labelled
    found = {r.case_id: [p.code for p in r.problems] for r in result.results}
    assert found['third'] == found['fourth'] == ['missing']


def test_a_folder_without_cases_is_described(tmp_path):
    (tmp_path / 'images').mkdir()
    for name in ('a.hdr', 'a.img', 'b.img'):
        (tmp_path / 'images' / name).touch()
    with pytest.raises(UserError, match='2 x .img, e.g. images/a.img; 1 x .hdr'):
        NIfTIImporter().discover(tmp_path)


def test_names_of_any_script_length_and_case(tmp_path):
    names = ['Müller_1', 'Möller_1', '患者一', 'Case', 'case', 'x' * 240, '(=1+1)']
    for seed, name in enumerate(names):
        path = tmp_path / 'src' / 'images' / f'{name}.nii'
        write_volume(path, make_values(seed=seed))
    result = import_dataset(NIfTIImporter(), tmp_path / 'src', tmp_path / 'store')
    assert {r.status for r in result.results} == {'imported'} and not result.notes
    infos = {Path(i.source_file).stem: i for i in result.store.infos()}
    assert set(infos) == set(names)
    folders = [i.case_id for i in infos.values()]
    assert len({name.casefold() for name in folders}) == len(names)
    assert max(len(name.encode()) for name in folders) < 200
    for name, info in infos.items():
        assert info.source_name == ('' if info.case_id == name else name)
        assert info.patient_id == info.case_id
    assert infos['患者一'].case_id == '患者一'
    again = import_dataset(NIfTIImporter(), tmp_path / 'src', tmp_path / 'store')
    assert {r.status for r in again.results} == {'unchanged'}
