"""Counts, report files and the table of findings."""

import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console

from medssl_mm.importers.report import (
    print_problems,
    print_result,
    summarize,
    write_report,
)
from medssl_mm.importers.run import ImportResult, import_dataset
from medssl_mm.importers.sets.idc import IDCImporter
from medssl_mm.importers.sets.nifti import NIfTIImporter
from tests.conftest import make_ct, write_nifti, writer_at
from tests.datasets.images import make_picture, write_picture


@pytest.fixture
def result(tiny_nifti, tmp_path):
    folder = tiny_nifti(3)
    (folder / 'labels' / 'case2.nii.gz').unlink()
    (folder / 'images' / 'case3.nii.gz').write_bytes(b'[bold]')
    write_nifti(folder / 'labels' / 'case1.nii.gz', make_ct(1)[1].T * 0)
    return import_dataset(
        NIfTIImporter(classes='liver,kidney'), folder, tmp_path / 'out'
    )


def test_summary_equals_a_count_by_hand(tiny_store):
    summary = summarize(tiny_store)
    labels = [tiny_store.read_label_volume(c) for c in tiny_store.case_ids]
    assert summary['patients'] == summary['cases'] == 4
    assert summary['slices'] == summary['labelled_slices'] == 24
    for index, name in enumerate(tiny_store.classes[1:], 1):
        assert summary['classes'][name] == dict(
            cases=sum(bool((v == index).any()) for v in labels),
            slices=sum(int((s == index).any()) for v in labels for s in v),
            voxels=sum(int((v == index).sum()) for v in labels),
        )
    assert summary['spacing'] == dict(z=[5.0, 5.0], y=[1.25, 1.25], x=[1.5, 1.5])
    size = sum(p.stat().st_size for p in (tiny_store.root / 'cases').glob('*/*'))
    assert summary['bytes'] == size


def test_channels_are_named(tmp_path):
    writer = writer_at(tmp_path / 's', channels=('T1', 'T2'))
    image = np.arange(2 * 2 * 16 * 16, dtype=np.int16).reshape(2, 2, 16, 16)
    writer.add_case('a', image)
    store = writer.finish()
    assert summarize(store)['channels'] == ['T1', 'T2']
    console = Console(file=io.StringIO(), width=100)
    print_result(ImportResult(store, NIfTIImporter().found([]), []), console)
    assert 'T1, T2' in console.file.getvalue()


def test_report_files_list_every_case(result):
    write_report(result)
    root = result.store.root
    content = json.loads((root / 'import_report.json').read_text())
    assert [c['status'] for c in content['cases']] == [
        'imported',
        'imported',
        'rejected',
    ]
    assert content['summary']['labelled_cases'] == 1
    with open(root / 'import_report.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(r['case_id'], r['severity'], r['code']) for r in rows] == [
        ('case1', 'warning', 'label-empty'),
        ('case2', '', ''),
        ('case3', 'error', 'unreadable'),
    ]
    assert rows[2]['source'].endswith('case3.nii.gz')


def test_screen_shows_errors_first_with_their_file(result):
    console = Console(file=io.StringIO(), width=120)
    print_result(result, console)
    text = console.file.getvalue()
    assert text.index('images/case3.nii.gz') < text.index('labels/case1.nii.gz')
    assert '2 imported, 0 unchanged, 1 rejected' in text


def test_nothing_found_is_said():
    console = Console(file=io.StringIO(), width=120)
    print_problems([], console)
    assert 'nothing found' in console.file.getvalue()


@pytest.fixture
def images(tmp_path):
    """Six patches of three patients, one of them damaged."""
    folder = tmp_path / 'source'
    for seed in range(6):
        patient, label = 10 + seed // 2, seed % 2
        write_picture(
            folder / f'{patient}/{label}/{patient}_idx5_x1_y{seed}_class{label}.png',
            make_picture(seed, 50),
        )
    next(folder.glob('12/1/*.png')).write_bytes(b'[bold]')
    return import_dataset(IDCImporter(), folder, tmp_path / 'out')


def test_summary_of_images(images):
    size = (images.store.root / 'images.b2nd').stat().st_size
    assert summarize(images.store) == dict(
        patients=3,
        images=5,
        labelled_images=5,
        classes=dict(
            negative=dict(images=3, patients=3), positive=dict(images=2, patients=2)
        ),
        size=[50, 50],
        bytes=size,
    )


def test_reports_list_the_images_with_findings(images):
    write_report(images)
    root = images.store.root
    content = json.loads((root / 'import_report.json').read_text())
    assert content['summary']['images'] == 5
    (case,) = content['cases']
    assert case['status'] == 'rejected'
    with open(root / 'import_report.csv', newline='') as file:
        (row,) = csv.DictReader(file)
    assert row['code'] == 'unreadable' and row['patient_id'] == '12'


def test_screen_counts_images(images):
    console = Console(file=io.StringIO(), width=120)
    print_result(images, console)
    text = console.file.getvalue()
    assert '5 imported, 0 unchanged, 1 rejected' in text
    for words in ('labelled images', '50 x 50', 'positive', '12/1/12_idx5'):
        assert words in text
    assert 'spacing' not in text and 'slices' not in text
