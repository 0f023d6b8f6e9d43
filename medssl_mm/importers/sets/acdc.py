"""ACDC cine MR as HDF5 files, one per slice or one per volume."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import read_text
from medssl_mm.importers.base import CaseError, Discovery, LoadedCase, SourceCase
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers.hdf5 import read_hdf5
from medssl_mm.importers.slices import stack_slices
from medssl_mm.importers.volumes import VolumeDiscovery, VolumeImporter
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import Split

_VOLUME = re.compile(r'(patient\d+)_frame\d+')
_SLICE = re.compile(r'((patient\d+)_frame\d+)_slice_(\d+)')


class ACDCImporter(VolumeImporter):
    """ACDC: files with the keys ``image`` and ``label``.

    A case is one frame of one patient; both frames share the patient id.
    Slice files are put together by their slice number, which must run from 1
    without a gap. Where a case exists as volume and as slices, the volume is
    taken. The files carry no geometry, so spacing and affine stay unknown.
    """

    name = 'acdc'
    modality = KNOWN[name].modality
    units = KNOWN[name].units
    classes = KNOWN[name].classes
    palette = [[0, 0, 0], [64, 120, 220], [90, 190, 90], [220, 70, 60]]
    layout = """\
    <src>/slices/patientNNN_frameFF_slice_K.h5     (2-D, training patients)
    <src>/volumes/patientNNN_frameFF.h5            (3-D; or directly in <src>)
    <src>/{train,val,test}.list                    (also as original_*.list)"""

    def discover(self, src: Path) -> VolumeDiscovery:
        """List the cases and read the patient lists."""
        src = Path(src)
        volumes, slices, strangers = _find_parts(src)
        if not volumes and not slices:
            raise self.nothing_found(src, f'{len(strangers)} other .h5 file(s).')
        notes = []
        if strangers:
            notes.append(
                f'{len(strangers)} .h5 file(s) with other names are not used, '
                f'e.g. {strangers[0].name}'
            )
        both = sorted(set(volumes) & set(slices))
        if both:
            notes.append(
                f'{len(both)} case(s) exist as volume and as slices; the '
                f'volumes are used, e.g. {both[0]}'
            )
        lists = {subset: _read_list(src, subset) for subset in ('train', 'val', 'test')}
        cases = [
            SourceCase(case_id, case_id.split('_')[0], str(path), str(path))
            for case_id, path in volumes.items()
        ]
        for case_id in sorted(set(slices) - set(volumes)):
            numbers = sorted(slices[case_id])
            files = [str(slices[case_id][number]) for number in numbers]
            cases.append(
                SourceCase(
                    case_id,
                    case_id.split('_')[0],
                    files[0],
                    files[0],
                    dict(image_files=files, label_files=files, slice_numbers=numbers),
                )
            )
        return self.found(cases, notes=notes, lists={self.name: lists})

    def load(self, case: SourceCase) -> LoadedCase:
        """Read one frame."""
        files = case.extra.get('image_files')
        if files is None:
            image, label = read_hdf5(case.image, 3)
            return LoadedCase(image=image, label=label, source_shape=tuple(image.shape))
        numbers = case.extra['slice_numbers']
        lost = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
        if lost:
            raise CaseError(
                'missing-slices',
                f'{case.case_id}: slice number(s) '
                f'{", ".join(map(str, lost[:10]))} missing between 1 and '
                f'{numbers[-1]} in {Path(case.image).parent}; copy them, or '
                'remove the case.',
            )
        parts = [read_hdf5(path, 2) for path in files]
        image = stack_slices(
            [(path, part[0]) for path, part in zip(files, parts)],
            'One of them belongs to another case.',
        )
        labels = [label for _, label in parts]
        known = tuple(i for i, label in enumerate(labels) if label is not None)
        label = None
        if known:
            label = np.stack(
                [
                    np.zeros(image.shape[1:], np.uint8) if part is None else part
                    for part in labels
                ]
            )
        return LoadedCase(
            image=image,
            label=label,
            source_shape=tuple(image.shape),
            labelled_slices=known if 0 < len(known) < len(labels) else None,
        )

    def splits(
        self, found: Discovery, cases: Sequence[Any]
    ) -> tuple[list[Split], list[str]]:
        """Make the published division of the patients, named by its train.

        ``acdc-20`` has 20 training patients. Pretraining sees train and val,
        never test.
        """
        lists, notes = found.lists[self.name], []
        if not all(lists.values()):
            notes.append(
                'no train/val/test list files (original_train.list, ...) in '
                'the source: no published split; make one with --holdout or '
                '--folds'
            )
            return [], notes
        subsets: dict[str, Any] = {
            subset: [
                case.case_id
                for case in cases
                if case.labelled and case.patient_id in patients
            ]
            for subset, patients in lists.items()
        }
        there = {
            subset: {case.patient_id for case in cases}.intersection(patients)
            for subset, patients in lists.items()
        }
        for subset in ('val', 'test'):
            lost = len(lists[subset]) - len(there[subset])
            if lost:
                notes.append(
                    f'{lost} of {len(lists[subset])} {subset} '
                    'patients are not in the source; results do not compare '
                    'with those on the whole list'
                )
        if not all(subsets.values()):
            return [], notes
        seen = there['train'] | there['val']
        subsets['pretrain'] = [c.case_id for c in cases if c.patient_id in seen]
        count = {subset: len(patients) for subset, patients in there.items()}
        split = Split(
            f'acdc-{count["train"]}',
            self.name,
            subsets,
            None,
            f'Patients of the published lists: {count["train"]} train, {count["val"]} '
            f'val, {count["test"]} test; pretraining on train and val.',
        )
        return [split], notes


def _find_parts(
    src: Path,
) -> tuple[dict[str, Path], dict[str, dict[int, Path]], list[Path]]:
    """Volumes by case, slices by case and number, and files of other names.

    Raises:
        UserError: Two files hold one part.
    """
    volumes: dict[str, Path] = {}
    slices: dict[str, dict[int, Path]] = defaultdict(dict)
    strangers = []
    for path in find_files(src):
        if path.suffix.lower() != '.h5':
            continue
        volume = _VOLUME.fullmatch(path.stem)
        part = _SLICE.fullmatch(path.stem)
        if volume:
            other = volumes.setdefault(path.stem, path)
            key = path.stem
        elif part:
            key, number = part[1], int(part[3])
            other = slices[key].setdefault(number, path)
        else:
            strangers.append(path)
            continue
        if other != path:
            raise UserError(
                f'{other} and {path} hold the same part of {key}; keep one.'
            )
    return volumes, slices, strangers


def _read_list(src: Path, subset: str) -> frozenset[str]:
    """Patients named in ``original_<subset>.list`` or ``<subset>.list``."""
    for name in (f'original_{subset}.list', f'{subset}.list'):
        path = src / name
        if path.is_file():
            break
    else:
        return frozenset()
    patients = set()
    for number, line in enumerate(read_text(path, 'list').split(), 1):
        match = _VOLUME.match(line)
        if not match:
            raise UserError(
                f'{path}, entry {number}: expected a name such as '
                f'patient001_frame01, found {line!r}'
            )
        patients.add(match[1])
    return frozenset(patients)
