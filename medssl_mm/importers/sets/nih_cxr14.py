"""NIH ChestX-ray14: the published folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl_mm.datasets.image_sets import CHESTX7, IMAGE_SETS
from medssl_mm.errors import UserError
from medssl_mm.importers.images import (
    ImageDiscovery,
    ImageFiles,
    folder_of_lists,
    lists_option,
)
from medssl_mm.importers.naming import find_files
from medssl_mm.importers.readers.table import (
    by_name,
    join_lists,
    read_lines,
    read_rows,
    whole_number,
    zeros_and_ones,
)
from medssl_mm.store.compat_splits import compat_lists
from medssl_mm.store.images import MULTI_LABEL
from medssl_mm.store.known import KNOWN
from medssl_mm.store.splits import make_holdout

# The order of the 14-column lists, which have no header.
FINDINGS = KNOWN['nih-cxr14'].classes
NO_FINDING = 'No Finding'
NAME = re.compile(r'(\d{8})_\d{3}\.png')


def patient_of(name: str, where: str) -> str:
    """Patient of an image by its file name.

    Raises:
        UserError: When the name does not have the form of the data set.
    """
    found = NAME.fullmatch(name)
    if not found:
        raise UserError(
            f'{where}: {name!r} is no file name of ChestX-ray14; expected '
            '<8 digits of the patient>_<3 digits>.png, e.g. '
            '00000013_005.png'
        )
    return found[1]


def _png(name: str) -> str:
    """A listed name with the suffix of the files, whatever the list has."""
    return f'{re.sub(r"(?i)[.](png|jpe?g)$", "", name.strip())}.png'


def parse_findings(text: str, where: str) -> tuple[int, ...]:
    """Turn 'Mass|Nodule' into one 0/1 per finding.

    Raises:
        UserError: Unknown finding.
    """
    names = {name.strip() for name in text.split('|')} - {NO_FINDING}
    unknown = sorted(names - set(FINDINGS))
    if unknown:
        raise UserError(
            f'{where}: unknown finding {", ".join(map(repr, unknown))}; '
            f'known are {NO_FINDING!r} and {", ".join(FINDINGS)}, joined '
            "by '|'"
        )
    return tuple(int(name in names) for name in FINDINGS)


def is_single(label: Sequence[int]) -> bool:
    """Whether one of the seven findings of ChestX-7 is there, and no other."""
    names = [name for name, value in zip(FINDINGS, label) if value == 1]
    return len(names) == 1 and names[0] in CHESTX7


def read_data_entry(path: Path) -> dict[str, tuple[int, ...]]:
    """Read ``Data_Entry_2017.csv``: image name to 0/1 per finding.

    Raises:
        UserError: Names file, line and what was expected.
    """

    def parse(where: str, row: dict[str, str]) -> tuple[str, tuple[int, ...]]:
        name = _png(row['Image Index'])
        patient = patient_of(name, where)
        if whole_number(row['Patient ID']) != int(patient):
            raise UserError(
                f'{where}: image {name} is of patient {int(patient)} by its '
                f'name, of {row["Patient ID"]!r} by the column Patient ID; '
                'fetch the list again.'
            )
        return name, parse_findings(row['Finding Labels'], where)

    columns = ('Image Index', 'Finding Labels', 'Patient ID')
    return by_name(path, read_rows(path, columns), parse)


def read_label_list(path: Path) -> dict[str, tuple[int, ...]]:
    """Read a list of lines ``<name>.png 0 1 0 ...`` with 14 columns.

    The order of the columns is :data:`FINDINGS`.

    Raises:
        UserError: Names file, line and what was expected.
    """

    def parse(where: str, line: str) -> tuple[str, tuple[int, ...]]:
        name, *values = re.split(r'[\s,;]+', line)
        name = _png(name)
        patient_of(name, where)
        if len(values) != len(FINDINGS):
            raise UserError(
                f'{where}: expected a file name and {len(FINDINGS)} columns '
                f'of 0 or 1 ({FINDINGS[0]} ... {FINDINGS[-1]}), found '
                f'{len(values)} columns.'
            )
        return name, zeros_and_ones(where, values)

    return by_name(path, read_lines(path), parse)


def read_names(path: Path) -> list[str]:
    """Read a list of image names, one a line, without their suffix.

    Raises:
        UserError: Names file, line and what was expected.
    """
    names = []
    for line, name in read_lines(path):
        name = _png(name)
        patient_of(name, f'{path}, line {line}')
        names.append(_stem(name))
    return names


@dataclass(frozen=True)
class NIHChestXray14Importer(ImageFiles):
    """NIH ChestX-ray14 as distributed, or with 14-column lists.

    Labels come from ``Data_Entry_2017*.csv`` where it is there, else from
    the 14-column lists. Splits: 'nih-cxr14-patients' (drawn),
    'nih-cxr14-official' from ``train_val_list.txt`` and ``test_list.txt``
    (an eighth of the training patients for validation, seed 0),
    'nih-cxr14-lists' from ``*{train,val,test}_list.txt`` with 14 columns, and
    'nih-cxr14-compat' (by image, as published: the images of ChestX-7 alone).
    """

    lists: str | None = lists_option()

    name = 'nih-cxr14'
    task = MULTI_LABEL
    channels = 1
    classes = FINDINGS
    default_size = 512
    pad = True
    layout = """\
    <src>/Data_Entry_2017.csv    <src>/train_val_list.txt, test_list.txt
    <src>/**/00000001_000.png (in one folder or in images_001 ... images_012)
or, instead of the CSV file, 14-column lists in <src> or --lists DIR:
    chest_xray_14_{train,val,test}_list.txt: "00000001_000.png 0 1 0 ... 0\""""

    def discover(self, src: Path) -> ImageDiscovery:
        """List the images of the label lists."""
        src = Path(src)
        folder = folder_of_lists(src, self.lists)
        notes: list[str] = []
        fourteen = _read_fourteen(folder)
        entries = _data_entries(src, folder)
        labels = self._read_labels(src, entries, fourteen, notes)
        lists = {}
        if fourteen:
            subsets = {name: [*map(_stem, fourteen[name])] for name in fourteen}
            lists['nih-cxr14-lists'] = dict(subsets, pretrain=subsets['train'])
        official = self._read_official(src, folder)
        if official:
            lists['nih-cxr14-official'] = official
        files, strange = self.named_pictures(
            src,
            lambda path: path.name if NAME.fullmatch(path.name) else '',
            '<8 digits of the patient>_<3 digits>.png',
        )
        extra = sorted(set(files) - set(labels))
        if extra:
            notes.append(
                f'{len(extra)} image(s) are in no label list and were left '
                f'out, e.g. {files[extra[0]]}'
            )
        cases = [
            self.image_case(_stem(name), name[:8], files.get(name, src / name), label)
            for name, label in labels.items()
        ]
        if not set(files) & set(labels):
            raise self.nothing_found(
                src, f'None of the {len(labels)} listed images is there.'
            )
        single = {_stem(name) for name, found in labels.items() if is_single(found)}
        share = IMAGE_SETS[self.name].compat
        compat = compat_lists(self.name, [*map(_stem, labels)], share, kept=single)
        return self.found(
            [*cases, *strange],
            notes=notes,
            lists=lists,
            compat=compat if entries else {},
        )

    def _read_labels(
        self, src: Path, entries: Sequence[Path], fourteen: dict, notes: list[str]
    ) -> dict:
        listed = {k: v for content in fourteen.values() for k, v in content.items()}
        if not entries:
            if not listed:
                raise self.nothing_found(
                    src, 'Found neither Data_Entry_2017*.csv nor 14-column lists.'
                )
            return listed
        if len(entries) > 1:
            raise UserError(
                f'{entries[0]} and {entries[1]} are both there; keep the one '
                'whose labels are to be used.'
            )
        labels = read_data_entry(entries[0])
        different = [
            name for name, label in listed.items() if labels.get(name, label) != label
        ]
        if different:
            notes.append(
                f'{len(different)} image(s) have other labels in the '
                f'14-column lists than in {entries[0].name}, which is used, '
                f'e.g. {different[0]}'
            )
        return labels

    def _read_official(self, src: Path, folder: Path) -> dict[str, list[str]]:
        """The official lists; an eighth of the patients is for validation."""
        for place in dict.fromkeys((folder, src)):
            paths = place / 'train_val_list.txt', place / 'test_list.txt'
            if paths[0].is_file():
                break
        else:
            return {}
        if not paths[1].is_file():
            raise UserError(
                f'{paths[0]} is there, {paths[1]} is not; fetch it, or remove the first'
            )
        train_val, test = map(read_names, paths)
        # The draw gives the validation patients; its "test" is the list's.
        drawn = make_holdout(
            train_val, lambda image_id: image_id[:8], self.name, test=1 / 8, seed=0
        )
        return dict(
            pretrain=train_val,
            train=[*drawn['train']],
            val=[*drawn['test']],
            test=test,
        )


def _data_entries(src: Path, folder: Path) -> list[Path]:
    """The label files of the NIH, as such or compressed."""
    patterns = ('Data_Entry_2017*.csv', 'Data_Entry_2017*.csv.gz')
    return sorted(
        {
            path
            for place in (src, folder)
            for pattern in patterns
            for path in find_files(place, pattern)
        }
    )


def _read_fourteen(folder: Path) -> dict[str, dict]:
    """The 14-column lists by subset; empty where there are none."""
    paths = {}
    for subset in ('train', 'val', 'test'):
        found = [
            path
            for path in find_files(folder, f'*{subset}_list.txt')
            if path.name not in ('train_val_list.txt', 'test_list.txt')
            or path.name == 'test_list.txt'
            and not (folder / 'train_val_list.txt').is_file()
        ]
        if len(found) > 1:
            raise UserError(
                f'{found[0]} and {found[1]} are both {subset} lists; '
                'keep one, or put the lists into a folder of their own '
                'and give --lists'
            )
        if found:
            paths[subset] = found[0]
    if not paths:
        return {}
    if len(paths) < 3:
        missing = sorted({'train', 'val', 'test'} - set(paths))
        raise UserError(
            f'{folder}: found the 14-column list(s) '
            f'{", ".join(p.name for p in paths.values())}, but none for '
            f'{", ".join(missing)} (*{missing[0]}_list.txt)'
        )
    lists = {name: read_label_list(path) for name, path in paths.items()}
    join_lists({paths[name]: content for name, content in lists.items()})
    return lists


def _stem(name: str) -> str:
    return name.removesuffix('.png')
