"""Splits of repeated imports: none changes without a word."""

import json
import shutil

import numpy as np
import pytest

from medssl_mm.errors import UserError
from medssl_mm.importers.run import exit_if_rejected, import_dataset
from medssl_mm.importers.sets.image_folder import ImageFolderImporter
from medssl_mm.importers.sets.nifti import NIfTIImporter
from medssl_mm.importers.splits import write_splits
from medssl_mm.store.splits import Split, load_split, save_split
from tests.conftest import make_ct, write_nifti
from tests.datasets.images import make_picture, write_picture

NAME = 'holdout-40-seed0'


def run(folder, out, seen=None, **settings):
    """Import and draw; ``seen`` are settings of the import."""
    importer = NIfTIImporter(classes='liver,kidney')
    result = import_dataset(importer, folder, out, **(seen or {}))
    write_splits(importer, result, **{'holdout': 0.4, **settings})
    return result


def add_cases(folder, first, last):
    for number in range(first, last + 1):
        image, label = make_ct(number)
        write_nifti(folder / 'images' / f'case{number}.nii.gz', image.T)
        write_nifti(folder / 'labels' / f'case{number}.nii.gz', label.T)


def test_the_hash_covers_images_and_labels(tiny_nifti, tmp_path):
    folder = tiny_nifti(5)
    (first,) = run(folder, tmp_path / 'one').splits
    assert run(folder, tmp_path / 'two').splits == [first]
    for number in range(1, 6):  # other images under the same names
        write_nifti(
            folder / 'images' / f'case{number}.nii.gz', make_ct(60 + number)[0].T
        )
    (other,) = run(folder, tmp_path / 'other').splits
    assert dict(other.subsets) == dict(first.subsets)
    assert first.hash != other.hash and first.cases_hash == other.cases_hash
    assert first.hash.startswith(f'{first.cases_hash}-')
    # The file of one set does not pass for that of the other.
    path = tmp_path / 'one' / 'splits' / f'{NAME}.json'
    with pytest.raises(UserError, match='made for other images or labels'):
        load_split(tmp_path / 'other', path)
    assert load_split(tmp_path / 'one', NAME) == first


def test_corrected_labels_give_another_hash(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(5), tmp_path / 'out'
    (first,) = run(folder, out).splits
    write_nifti(folder / 'labels' / 'case2.nii.gz', make_ct(2)[1].T * 0 + 1)
    result = run(folder, out, holdout=None)
    split = load_split(out, NAME)  # though it was not asked for
    assert dict(split.subsets) == dict(first.subsets)
    assert split.hash != first.hash and split.cases_hash == first.cases_hash
    (note,) = [n for n in result.notes if NAME in n]
    assert "'case2'" in note and first.hash in note and split.hash in note
    assert run(folder, out).splits == [split]


def test_other_cases_do_not_replace_a_split(tiny_nifti, tmp_path, capsys):
    folder, out = tiny_nifti(5), tmp_path / 'out'
    (first,) = run(folder, out).splits
    add_cases(folder, 6, 8)
    (folder / 'images' / 'case1.nii.gz').unlink()
    result = run(folder, out)
    assert result.splits == [] and load_split(out, NAME) == first
    (refused,) = result.refused
    for text in (
        f'split {NAME} is there already',
        "3 case(s) came (e.g. 'case6')",
        "1 case(s) went (e.g. 'case1')",
        '--redraw',
        f'--beside draws another, {NAME}-of7',
    ):
        assert text in refused
    with pytest.raises(SystemExit) as ended:
        exit_if_rejected(result)
    assert ended.value.code == 2 and refused in capsys.readouterr().err
    (beside,) = run(folder, out, beside=True).splits
    assert beside.protocol == f'{NAME}-of7' and len(beside.case_ids) == 7
    assert load_split(out, NAME) == first
    assert run(folder, out, beside=True).splits == [beside]
    result = run(folder, out, redraw=True)
    assert result.splits[0].case_ids == beside.case_ids
    assert load_split(out, NAME) == result.splits[0]
    assert any('was drawn anew (--redraw): 3 case(s) came' in n for n in result.notes)


def test_folds_are_replaced_all_or_none(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(4), tmp_path / 'out'
    settings = dict(holdout=None, folds=2)
    old = run(folder, out, **settings).splits
    add_cases(folder, 5, 5)
    assert len(run(folder, out, **settings).refused) == 1
    assert [load_split(out, s.protocol) for s in old] == old
    names = [s.protocol for s in run(folder, out, beside=True, **settings).splits]
    assert names == ['kfold-2-seed0-of5-fold0', 'kfold-2-seed0-of5-fold1']
    (folder / 'images' / 'case1.nii.gz').unlink()
    add_cases(folder, 6, 6)  # five again, but others
    names = [s.protocol for s in run(folder, out, beside=True, **settings).splits]
    assert len(set(names)) == 2
    assert all(n.startswith('kfold-2-seed0-of5-') and n[-1] in '01' for n in names)
    assert names[0] != 'kfold-2-seed0-of5-fold0'


def test_a_split_of_before_keeps_its_hash(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(5), tmp_path / 'out'
    (new,) = run(folder, out).splits
    path = out / 'splits' / f'{NAME}.json'
    old = Split(NAME, new.dataset, new.subsets, new.seed, new.description)
    save_split(out, old)
    assert json.loads(path.read_text())['hash'] == new.cases_hash
    assert 'content' not in json.loads(path.read_text())
    assert load_split(out, NAME).hash == new.cases_hash
    assert run(folder, out).splits == [old] and load_split(out, NAME) == old
    # Once its cases change it is no longer what results of before were made on.
    write_nifti(folder / 'labels' / 'case2.nii.gz', make_ct(2)[1].T * 0 + 1)
    (changed,) = run(folder, out).splits
    assert changed.cases_hash == old.hash and changed.content


def test_overwriting_says_that_a_split_was_drawn_anew(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(5), tmp_path / 'out'
    run(folder, out)
    add_cases(folder, 6, 6)
    result = run(folder, out, dict(overwrite=True))
    assert len(result.splits[0].case_ids) == 6 and not result.refused
    assert any('drawn anew (--overwrite): 1 case(s) came' in n for n in result.notes)


def renamed(folder):
    for path in sorted(folder.glob('*/case*')):
        path.rename(path.with_name(path.name.replace('case', 'patient_')))


def test_renamed_cases_are_in_a_new_split_once(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(5), tmp_path / 'out'
    (first,) = run(folder, out).splits
    renamed(folder)
    result = run(folder, out)
    assert not result.refused  # the same scans on the same sides
    assert len(result.store.case_ids) == 10
    (split,) = result.splits
    assert split.case_ids == [f'patient_{n}' for n in range(1, 6)]
    text = '\n'.join(result.notes)
    assert f'its hash is {split.hash}, no longer {first.hash}' in text
    assert '5 case(s) of the store are no longer in the source' in text
    assert '5 of these are cases of the source under another name' in text
    assert "'case1' is 'patient_1' now" in text
    save_split(out, first)  # what was trained before can still be tested
    assert load_split(out, NAME) == first
    result = run(folder, out, dict(prune=True))
    assert result.store.case_ids == tuple(f'patient_{n}' for n in range(1, 6))
    assert any('5 case(s) of the store' in n and '--prune' in n for n in result.notes)
    assert load_split(out, NAME) == result.splits[0] == split
    (folder / 'images' / 'patient_1.nii.gz').unlink()
    result = run(folder, out, dict(prune=True), holdout=None)
    assert any('names 1 case(s) that the store has no' in n for n in result.notes)
    with pytest.raises(UserError, match="does not have, e.g. 'patient_1'"):
        load_split(out, NAME)


def test_a_second_run_prunes_nothing_of_a_limited_one(tiny_nifti, tmp_path):
    folder, out = tiny_nifti(4), tmp_path / 'out'
    run(folder, out)
    result = run(folder, out, dict(limit=2, prune=True))
    assert len(result.store.case_ids) == 4 and not result.notes


@pytest.mark.parametrize(
    'change, how',
    [
        (lambda x: x[:, ::-1], 'mirrored along'),
        (lambda x: x.astype(np.float32), 'as float32 instead of int16'),
        (lambda x: x * np.float32(0.25) + 3, 'times 0.25 plus 3'),
        (lambda x: x[::-1, ::-1].astype(np.float32), 'mirrored along'),
    ],
)
def test_copies_are_known_whatever_their_form(tiny_nifti, tmp_path, change, how):
    folder, out = tiny_nifti(3), tmp_path / 'out'
    shutil.rmtree(folder / 'labels')
    image, _ = make_ct(2)
    write_nifti(folder / 'images' / 'copy.nii.gz', change(image.T))
    result = import_dataset(NIfTIImporter(modality='MR'), folder, out)
    found = {
        r.case_id: [(p.code, p.message) for p in r.problems] for r in result.results
    }
    ((code, message),) = found.pop('copy')
    assert code == 'duplicate' and "case 'case2'" in message and how in message
    assert found == dict(case1=[], case2=[], case3=[])
    # Both are there; a split has one of them.
    assert result.copies == {'copy': 'case2'} and 'copy' in result.store.case_ids
    assert any("'copy' is 'case2': they are in no new" in n for n in result.notes)
    write_splits(NIfTIImporter(modality='MR'), result, holdout=0.34)
    assert set(result.splits[0].case_ids) == {'case1', 'case2', 'case3'}
    # A case of the store that left the source is known as well.
    (folder / 'images' / 'case2.nii.gz').unlink()
    result = import_dataset(NIfTIImporter(modality='MR'), folder, out)
    assert 'copy' in result.store.case_ids
    assert any("'case2' is 'copy' now" in note for note in result.notes)


def test_images_that_left_the_source(tmp_path):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    for seed in range(12):
        write_picture(folder / 'ab'[seed % 2] / f'{seed}.png', make_picture(seed, 16))
    importer = ImageFolderImporter()
    result = import_dataset(importer, folder, out)
    write_splits(importer, result)
    (first,) = result.splits
    (folder / 'a' / '0.png').rename(folder / 'a' / 'x0.png')
    (folder / 'b' / '1.png').unlink()
    result = import_dataset(importer, folder, out)
    write_splits(importer, result)  # comes with the set: told, no failure
    assert not result.refused and load_split(out, first.protocol) == first
    text = '\n'.join(result.notes)
    assert '2 image(s) of the store are no longer in the source' in text
    assert "'a/0.png' is 'a/x0.png' now" in text
    assert f'split {first.protocol} is there already and would change' in text
    result = import_dataset(importer, folder, out, prune=True)
    write_splits(importer, result, redraw=True)
    assert len(result.store.case_ids) == 11
    assert set(result.splits[0].case_ids) == set(result.store.case_ids)
