"""What lies in a source folder and is not taken."""

import os

from medssl_mm.importers.leftovers import left_out
from medssl_mm.importers.run import import_dataset
from medssl_mm.importers.sets.nifti import NIfTIImporter


def test_every_kind_of_rest_is_counted_with_an_example(tmp_path):
    used = [str(tmp_path / name) for name in ('images/a.png', 'images/b.PNG')]
    rest = ('images/a.bmp', 'images/b.bmp', 'masks/z.nii.gz', 'README', 'notes.txt')
    for name in (*rest, 'list.csv.gz', '._a.png', '__MACOSX/a.png', 'images/.x.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for path in used:
        open(path, 'w').close()
    (tmp_path / 'images' / 'lost.png').symlink_to('nowhere')
    os.mkfifo(tmp_path / 'images' / 'pipe.png')
    (line,) = left_out(tmp_path, used)
    assert line == (
        f'6 file(s) below {tmp_path} were not taken: 2 x .bmp, e.g. images/a.bmp; '
        '1 x .nii.gz, e.g. masks/z.nii.gz; 1 x broken link, e.g. images/lost.png; '
        '1 x no regular file, e.g. images/pipe.png; 1 x without ending, e.g. README'
    )


def test_a_file_that_is_taken_by_another_path_is_no_rest(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'real' / 'a.png').touch()
    (tmp_path / 'images').symlink_to('real')
    assert left_out(tmp_path, [str(tmp_path / 'images' / 'a.png')]) == []
    assert left_out(tmp_path, [str(tmp_path / 'real' / 'a.png')]) == []
    assert len(left_out(tmp_path, [])) == 1


def test_an_import_says_what_it_left(tiny_nifti, tmp_path):
    folder = tiny_nifti()
    for name in ('images/case7.nii.bz2', 'imagesTs/t.nii.gz'):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    importer = NIfTIImporter(classes='a,b')
    result = import_dataset(importer, folder, tmp_path / 'store', limit=1)
    (line,) = [note for note in result.notes if 'not taken' in note]
    assert line.startswith('2 file(s)')
    assert 'images/case7.nii.bz2' in line and 'imagesTs/t.nii.gz' in line
