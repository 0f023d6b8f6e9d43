"""NIH ChestX-ray14: the published folders, and a thousand reduced images."""

from __future__ import annotations

import re
from pathlib import Path

from medssl_mm.errors import UserError
from medssl_mm.importers.base import SourceCase, check_unique
from medssl_mm.importers.images import (
    ImageImporter,
    folder_of_lists,
    need_columns,
    read_rows,
)
from medssl_mm.importers.pictures import find_pictures
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


def read_data_entry(path: Path) -> dict[str, tuple[int, ...]]:
    """Read ``Data_Entry_2017.csv``: image name to 0/1 per finding.

    Raises:
        UserError: Names file, line and what was expected.
    """
    rows = read_rows(path)
    need_columns(path, rows, ('Image Index', 'Finding Labels', 'Patient ID'))
    labels = {}
    for line, row in rows:
        where = f'{path}, line {line}'
        name = row['Image Index'].strip()
        patient = patient_of(name, where)
        if row['Patient ID'].strip().lstrip('0') != patient.lstrip('0'):
            raise UserError(
                f'{where}: image {name} is of patient {int(patient)} by its '
                f'name, of {row["Patient ID"]!r} by the column Patient ID; '
                'fetch the list again.'
            )
        if name in labels:
            raise UserError(f'{where}: {name} is listed twice.')
        labels[name] = parse_findings(row['Finding Labels'], where)
    return labels


def read_label_list(path: Path) -> dict[str, tuple[int, ...]]:
    """Read a list of lines ``<name>.png 0 1 0 ...`` with 14 columns.

    The order of the columns is :data:`FINDINGS`.

    Raises:
        UserError: Names file, line and what was expected.
    """
    labels = {}
    for line, text in _lines(path):
        where = f'{path}, line {line}'
        name, *values = text.split()
        patient_of(name, where)
        if len(values) != len(FINDINGS):
            raise UserError(
                f'{where}: expected a file name and {len(FINDINGS)} columns '
                f'of 0 or 1 ({FINDINGS[0]} ... {FINDINGS[-1]}), found '
                f'{len(values)} columns.'
            )
        if set(values) - {'0', '1'}:
            raise UserError(
                f'{where}: labels must be 0 or 1, found '
                f'{", ".join(sorted(set(values) - {"0", "1"})[:4])}.'
            )
        if name in labels:
            raise UserError(f'{where}: {name} is listed twice.')
        labels[name] = tuple(map(int, values))
    return labels


def read_names(path: Path) -> list[str]:
    """Read a list of image names, one a line.

    Raises:
        UserError: Names file, line and what was expected.
    """
    names = []
    for line, name in _lines(path):
        patient_of(name, f'{path}, line {line}')
        names.append(name)
    return names


def _lines(path: Path):
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'list {path} cannot be read: {error}') from None
    lines = [
        (number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not lines:
        raise UserError(f'list {path} is empty')
    return lines


class NIHChestXray14Importer(ImageImporter):
    """NIH ChestX-ray14 as distributed, or with 14-column lists.

    Labels come from ``Data_Entry_2017*.csv`` where it is there, else from
    the 14-column lists. Splits: 'nih-cxr14-patients' (drawn),
    'nih-cxr14-official' from ``train_val_list.txt`` and ``test_list.txt``
    (an eighth of the training patients for validation, seed 0), and
    'nih-cxr14-lists' from ``*{train,val,test}_list.txt`` with 14 columns.
    Options of :meth:`discover`:

        lists (str): Folder of the lists. Default: the source folder.
        size (int): Side of the stored images, pixels. Default: 512.
    """

    name = 'nih-cxr14'
    task = MULTI_LABEL
    channels = 1
    classes = FINDINGS
    size = 512
    pad = True
    options = ('size', 'lists')
    layout = """\
    <src>/Data_Entry_2017.csv    <src>/train_val_list.txt, test_list.txt
    <src>/**/00000001_000.png (in one folder or in images_001 ... images_012)
or, instead of the CSV file, 14-column lists in <src> or --lists DIR:
    chest_xray_14_{train,val,test}_list.txt: "00000001_000.png 0 1 0 ... 0\""""

    def discover(
        self, src: Path, size: int | None = None, lists: str | None = None
    ) -> list[SourceCase]:
        """List the images of the label lists."""
        self.set_size(size)
        src, folder = Path(src), folder_of_lists(Path(src), lists)
        self.notes, self.lists = [], {}
        labels = self._read_labels(src, folder)
        self._read_official(src, folder, labels)
        files, strange = self._find_files(src)
        extra = sorted(set(files) - set(labels))
        if extra:
            self.notes = [
                *self.notes,
                (
                    f'{len(extra)} image(s) are in no label list and were left '
                    f'out, e.g. {files[extra[0]]}'
                ),
            ]
        cases = [
            self.image_case(
                name.removesuffix('.png'), name[:8], files.get(name, src / name), label
            )
            for name, label in labels.items()
        ]
        if not set(files) & set(labels):
            raise self.nothing_found(
                src, f'None of the {len(labels)} listed images is there.'
            )
        return check_unique([*cases, *strange])

    def _find_files(self, src: Path):
        """Image files by name, and cases for those with another name."""
        files, strange = {}, []
        for path in find_pictures(src):
            if not NAME.fullmatch(path.name):
                relative = path.relative_to(src).as_posix()
                strange.append(
                    self.image_case(
                        relative,
                        relative,
                        path,
                        None,
                        (
                            'file-name',
                            f'{path}: expected <8 digits of the '
                            'patient>_<3 digits>.png; rename or remove the file.',
                        ),
                    )
                )
                continue
            other = files.setdefault(path.name, path)
            if other != path:
                raise UserError(f'{other} and {path} have one name; keep one of them.')
        return files, strange

    def _read_labels(self, src: Path, folder: Path) -> dict:
        entries = sorted(
            {*src.glob('Data_Entry_2017*.csv'), *folder.glob('Data_Entry_2017*.csv')}
        )
        listed = self._read_fourteen(folder)
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
            self.notes = [
                *self.notes,
                (
                    f'{len(different)} image(s) have other labels in the '
                    f'14-column lists than in {entries[0].name}, which is used, '
                    f'e.g. {different[0]}'
                ),
            ]
        return labels

    def _read_fourteen(self, folder: Path) -> dict:
        """The 14-column lists; remembers them as a split."""
        paths = {}
        for subset in ('train', 'val', 'test'):
            found = [
                path
                for path in sorted(folder.glob(f'*{subset}_list.txt'))
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
        labels: dict = {}
        for name, content in lists.items():
            twice = sorted(set(labels) & set(content))
            if twice:
                raise UserError(
                    f'{paths[name]}: {len(twice)} image(s) are in another '
                    f'list as well, e.g. {twice[0]}'
                )
            labels.update(content)
        subsets = {name: [_stem(n) for n in content] for name, content in lists.items()}
        self.lists['nih-cxr14-lists'] = dict(subsets, pretrain=subsets['train'])
        return labels

    def _read_official(self, src: Path, folder: Path, labels: dict) -> None:
        """The official lists; an eighth of the patients is for validation."""
        for place in dict.fromkeys((folder, src)):
            paths = place / 'train_val_list.txt', place / 'test_list.txt'
            if paths[0].is_file():
                break
        else:
            return
        if not paths[1].is_file():
            raise UserError(
                f'{paths[0]} is there, {paths[1]} is not; fetch it, or remove the first'
            )
        train_val, test = ([_stem(n) for n in read_names(path)] for path in paths)
        # The draw gives the validation patients; its "test" is the list's.
        drawn = make_holdout(
            train_val, lambda image_id: image_id[:8], self.name, test=1 / 8, seed=0
        )
        self.lists['nih-cxr14-official'] = dict(
            pretrain=train_val, train=drawn['train'], val=drawn['test'], test=test
        )


def _stem(name: str) -> str:
    return name.removesuffix('.png')


class NIH1000Importer(ImageImporter):
    """A thousand images of ChestX-ray14 at 64 px, with 14 labels.

    The three folders of the source share patients; the set is split anew,
    by patient ('nih1000-patients').
    """

    name = 'nih1000'
    task = MULTI_LABEL
    channels = 1
    classes = FINDINGS
    size = 64
    pad = True
    layout = """\
    <src>/labels14_from_CheXNet_lists.csv (split, folder, Image Index,
        Patient ID and 14 columns)
    <src>/NIH1000/{train,valid,test}/{0_normal,1_abnormal}/00000002_000.png"""
    label_file = 'labels14_from_CheXNet_lists.csv'

    def discover(self, src: Path, size: int | None = None) -> list[SourceCase]:
        """List the images of the label file."""
        self.set_size(size)
        src = Path(src)
        path = src / self.label_file
        if not path.is_file():
            raise self.nothing_found(src, f'There is no {self.label_file}.')
        rows = read_rows(path)
        need_columns(
            path, rows, ('split', 'folder', 'Image Index', 'Patient ID', *FINDINGS)
        )
        cases, subsets = [], {}
        for line, row in rows:
            cases.append(self._case(src, f'{path}, line {line}', row))
            subsets.setdefault(cases[-1].patient_id, set()).add(row['split'])
        shared = sum(len(names) > 1 for names in subsets.values())
        self.notes = []
        if shared:
            self.notes = [
                f'{shared} of {len(subsets)} patients are in more than one '
                "of the source's folders (train, valid, test): that split is "
                'not used; nih1000-patients parts the patients.'
            ]
        return check_unique(cases)

    def _case(self, src: Path, where: str, row: dict) -> SourceCase:
        name = row['Image Index'].strip()
        patient = patient_of(name, where)
        values = [row[finding].strip() for finding in FINDINGS]
        if set(values) - {'0', '1'}:
            raise UserError(
                f'{where}: labels must be 0 or 1, found '
                f'{", ".join(sorted(set(values) - {"0", "1"})[:4])}.'
            )
        label = tuple(map(int, values))
        file = src / 'NIH1000' / row['split'] / row['folder'] / name
        problem = None
        if (row['folder'] == '0_normal') == any(label):
            found = [n for n, v in zip(FINDINGS, label) if v]
            problem = (
                'class-mismatch',
                (
                    f'{file}: in folder {row["folder"]!r}, but its labels are '
                    f'{", ".join(found) or NO_FINDING}; correct one of them.'
                ),
            )
        return self.image_case(_stem(name), patient, file, label, problem)
