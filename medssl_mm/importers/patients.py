"""Whose scan it is: by a table, as the source says, or as its names are usual.

Nobody is taken for somebody else without a word: what is guessed, what is left open
and what looks like one person under several names is a line with a count.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError
from medssl_mm.importers.readers.table import read_rows

CASE_COLUMNS = ('case', 'case_id', 'image', 'image_id', 'file', 'path')
PATIENT_COLUMNS = ('patient', 'patient_id', 'subject', 'subject_id')
SHOWN = 3  # examples in a line
# Layouts whose names say the patient: title, expression on the path.
LAYOUTS = (
    ('BIDS (sub-XX)', re.compile(r'(?:^|[/_])(sub-[A-Za-z0-9]+)(?=[/_.]|$)')),
    ('ACDC (patientNNN_frameFF)', re.compile(r'(?:^|/)(patient\d+)(?=_frame\d+|_4d)')),
    (
        'TCIA',
        re.compile(
            r'(?:^|[/_])(TCGA-\w{2}-\w{4}|LIDC-IDRI-\d{4}|C3[LN]-\d{5}|LUNG1-\d{3})'
            r'(?![A-Za-z0-9])'
        ),
    ),
    # COLLECTION/PATIENT/DATE-STUDY/SERIES
    ('TCIA', re.compile(r'(?:^|/)([^/]+)/\d{2}-\d{2}-\d{4}-[^/]+/')),
)
CHANNEL = re.compile(r'(.+)_(\d{4})')
# What headers and tables say for want of a patient.
PLACEHOLDERS = frozenset(
    'anon anonym anonymous anonymized anonymised deidentified unknown none nan null '
    'n/a na 0 00 000 0000 - -- ? x xx xxx patient test'.split()
)
_NUMBERED = (
    'ses|session|visit|vis|frame|fr|phase|ph|timepoint|time|tp|t|v|scan|series|'
    'exam|study|day|week|wk|month|mo|year|yr|fu|follow-?up|run|acq|part|view|img|'
    'image|echo|rep'
)
_WORDS = (
    'left|right|l|r|od|os|lt|rt|baseline|bl|follow-?up|fu|pre|post|pre-?op|post-?op|'
    'before|after|ed|es|arterial|venous|portal|delayed|native|early|late|nc|art|pv|'
    'ap|pa|lat|lateral|frontal|cc|mlo|flair|t1w?|t1ce|t1gd|t2w?|adc|dwi|pd|swi|prone|'
    'supine|insp|exp|inspiration|expiration|first|second'
)
_DATES = (
    r'(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?:[T_-]?\d{4,6})?|'
    r'[0-3]?\d[-_.][0-3]?\d[-_.](?:19|20)\d\d'
)
_EDGE = r'[_\-./ ]'
_SCAN = re.compile(
    rf'(?:^|(?<={_EDGE}))(?:(?:{_NUMBERED})[-_]?\d+|{_WORDS}|{_DATES})(?=$|{_EDGE})',
    re.I,
)
_SHORT_NUMBER = re.compile(rf'{_EDGE}\d{{1,2}}$')


@dataclass(frozen=True)
class Person:
    """A case, and who is said to be on it.

    Args:
        case_id (str): The case.
        path (str): Its file.
        said (str, optional): Patient as the source says. Defaults to None: it does
            not.
        name (str): What the source calls the case. Defaults to '': as its id.
    """

    case_id: str
    path: str
    said: str | None = None
    name: str = ''


def name_patients(
    people: Sequence[Person],
    notes: list[str],
    table: str | None = None,
    pattern: str | None = None,
    guess: bool = False,
    unit: str = 'case',
) -> dict[str, str]:
    """Decide on the patient of every case; those left out are their own.

    Args:
        people (Sequence[Person]): The cases.
        notes (list[str]): Gets what was guessed, and what is doubtful.
        table (str, optional): CSV file that names the patient of every case.
            Defaults to None.
        pattern (str, optional): Expression that told what is ``said``; nothing is
            asked then. Defaults to None.
        guess (bool): Whether names of usual layouts tell the patient, and what is
            doubtful is told. Defaults to False.
        unit (str): What a case is called. Defaults to 'case'.

    Raises:
        UserError: The table is none, or lacks a case.
    """
    if table is not None:
        if pattern is not None:
            notes.append(f'{table} names the patients (--patients), no pattern does')
        return read_patients(table, people, notes, unit)
    said = {p.case_id: p.said for p in people if p.said is not None}
    if pattern is not None or not guess or len(people) < 2:
        return said
    if said:
        notes += doubtful_patients(said, [p.case_id for p in people], unit)
        return said
    guessed = _by_layout(people, notes, unit)
    notes += _look_alike([p for p in people if p.case_id not in guessed], unit)
    return guessed


def patients_of(
    importer: Any, people: Sequence[Person], notes: list[str], unit: str = 'case'
) -> dict[str, str]:
    """Decide on patients as the options of an importer say, see the above."""
    return name_patients(
        people,
        notes,
        getattr(importer, 'patients', None),
        getattr(importer, 'patient_pattern', None),
        importer.guesses_patients,
        unit,
    )


def read_patients(
    table: str, people: Sequence[Person], notes: list[str], unit: str = 'case'
) -> dict[str, str]:
    """Read the patient of every case from a CSV file.

    A case is named by its id, by what the source calls it, or by its file (name, or
    end of the path).

    Args:
        table (str): File with the columns case and patient.
        people (Sequence[Person]): The cases.
        notes (list[str]): Gets what the table names besides.
        unit (str): What a case is called. Defaults to 'case'.

    Raises:
        UserError: No such file or columns, an empty patient, a case with two
            patients, or one that is not listed.
    """
    rows = read_rows(Path(table))
    case_column = _column(table, rows[0][1], CASE_COLUMNS)
    patient_column = _column(table, rows[0][1], PATIENT_COLUMNS)
    listed: dict[str, tuple[int, str]] = {}
    for line, row in rows:
        case, patient = row[case_column].strip(), row[patient_column].strip()
        if not case or not patient:
            raise UserError(
                f'{table}, line {line}: expected a {unit} and its patient, found '
                f'{case!r} and {patient!r}; fill in both'
            )
        first = listed.setdefault(case, (line, patient))
        if first[1] != patient:
            raise UserError(
                f'{table}, line {line}: {case!r} is of patient {patient!r}, but of '
                f'{first[1]!r} in line {first[0]}; correct one of them'
            )
    names = _names_of(people)
    found, used = {}, set()
    for person in people:
        name = next((n for n in names[person.case_id] if n in listed), None)
        if name is not None:
            found[person.case_id] = listed[name][1]
            used.add(name)
    lost = sorted({p.case_id for p in people} - set(found))
    unknown = sorted(set(listed) - used)
    if lost:
        raise UserError(
            f'{table} lacks {len(lost)} of {len(people)} {unit}s, {_some(lost)}; every '
            f'{unit} must be listed'
            + (f'. It names what is none: {_some(unknown)}' if unknown else '')
        )
    if unknown:
        notes.append(
            f'{table} names {len(unknown)} {unit}(s) that are not in the source, '
            f'{_some(unknown)}'
        )
    notes.append(
        f'{len(found)} {unit}(s) are of {len(set(found.values()))} patients, as '
        f'{table} says'
    )
    return found


def _column(table: str, row: Mapping[str, str], names: Sequence[str]) -> str:
    for column in row:
        if column.strip().lower() in names:
            return column
    raise UserError(
        f'{table} has no column {names[0]!r}; its columns are '
        f'{", ".join(map(repr, row))}, expected case and patient'
    )


def _names_of(people: Sequence[Person]) -> dict[str, list[str]]:
    """What each case may be called, the surest first; what several share is none."""
    count: dict[str, set[str]] = defaultdict(set)
    names = {}
    ids = {person.case_id for person in people}
    for person, path in zip(people, _inner_paths(people)):
        parts = path.split('/')
        ends = ['/'.join(parts[start:]) for start in range(len(parts))]
        stems = [_stem(end) for end in ends]
        others = [n for n in (person.name, *ends, *stems) if n and n not in ids]
        names[person.case_id] = [person.case_id, *others]
        for name in names[person.case_id]:
            count[name].add(person.case_id)
    return {
        case_id: [name for name in known if len(count[name]) == 1]
        for case_id, known in names.items()
    }


def doubtful_patients(
    said: Mapping[str, str],
    cases: Sequence[str],
    unit: str = 'case',
    where: str = 'the source',
    alone: str = 'each',
) -> list[str]:
    """Say which patients of headers or of a column are none, or are everybody.

    Args:
        said (Mapping): Patient by case, as it is written there.
        cases (Sequence[str]): All cases.
        unit (str): What a case is called. Defaults to 'case'.
        where (str): What says it. Defaults to 'the source'.
        alone (str): What counts as a patient where none is said. Defaults to 'each'.
    """
    notes = []
    remedy = '--patients FILE.csv (columns case,patient) tells who is who'
    open_ = [case for case in cases if case not in said]
    if open_:
        notes.append(
            f'{len(open_)} of {len(cases)} {unit}s have no patient in {where}, '
            f'{_some(open_)}: {alone} counts as a patient of its own, and a split may '
            f'part those of one person; {remedy}'
        )
    groups = _groups(said)
    if len(groups) == 1 and len(said) > 1:
        notes.append(
            f'all {len(said)} {unit}s are of one patient in {where} '
            f'({next(iter(groups))!r}): they are kept together, so no split can be '
            f'drawn among them. If they are several people, {remedy}'
        )
        return notes
    for patient, members in groups.items():
        if len(members) > 1 and patient.strip().lower() in PLACEHOLDERS:
            notes.append(
                f'{len(members)} {unit}s are of the patient {patient!r} in {where}, '
                f'{_some(members)}: that is no name, and they are kept together as one '
                f'person. If they are several, {remedy}'
            )
    return notes


def _by_layout(people: Sequence[Person], notes: list[str], unit: str) -> dict[str, str]:
    """Patients by the names of usual layouts, with a line for each."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for person, path in zip(people, _inner_paths(people)):
        for title, expression in LAYOUTS:
            match = expression.search(path) or expression.search(person.name)
            if match:
                found[title][person.case_id] = match[1]
                break
    if not found:
        channels = _by_channel(people)
        if channels:
            found['nnU-Net (_0000, _0001: channels)'] = channels
    guessed = {}
    for title, patients in found.items():
        groups = _groups(patients)
        if len(groups) == 1 and len(people) > 1 and len(patients) == len(people):
            notes.append(
                f'all {len(people)} {unit}s are of one patient by their names, as '
                f'{title} writes them ({next(iter(groups))!r}): no split can be drawn '
                'among them. --patient-pattern or --patients FILE.csv says otherwise'
            )
        elif any(case != patient for case, patient in patients.items()):
            example = max(groups, key=lambda p: len(groups[p]))
            notes.append(
                f'{len(patients)} of {len(people)} {unit}s are of {len(groups)} '
                f'patients by their names, as {title} writes them, e.g. {example!r}: '
                f'{", ".join(groups[example][:SHOWN])}. --patient-pattern or '
                '--patients FILE.csv says otherwise'
            )
        guessed.update(patients)
    return guessed


def _by_channel(people: Sequence[Person]) -> dict[str, str]:
    """Patients of files ``CASE_0000``, ``CASE_0001`` ... that are a case each."""
    numbers: dict[str, list[int]] = defaultdict(list)
    stems = {}
    for person, path in zip(people, _inner_paths(people)):
        match = CHANNEL.fullmatch(_stem(path))
        if not match:
            return {}
        stems[person.case_id] = match[1]
        numbers[match[1]].append(int(match[2]))
    whole = all(sorted(n) == list(range(len(n))) for n in numbers.values())
    if not whole or len(numbers) < 2 or max(map(len, numbers.values())) < 2:
        return {}
    return {case_id: stem.rpartition('/')[2] for case_id, stem in stems.items()}


def _look_alike(people: Sequence[Person], unit: str) -> list[str]:
    """Warn of cases that share all but a session, date, phase, side or the like."""
    texts = [_stem(person.name or person.case_id) for person in people]
    last = [text.rpartition('/')[2] for text in texts]
    if len(set(last)) == len(last):
        texts = last
    groups: dict[str, list[str]] = defaultdict(list)
    numbered: dict[str, list[str]] = defaultdict(list)
    for person, text in zip(people, texts):
        rest = re.sub(rf'{_EDGE}+', '_', _SCAN.sub('', text)).strip('_')
        groups[rest].append(person.case_id)
        short = _SHORT_NUMBER.sub('', text)
        if short != text and re.search(r'\d', short):
            numbered[short].append(person.case_id)
    same = {k: v for k, v in groups.items() if k and len(v) > 1}
    if len(same) < 2:  # one word and many dates need not be one person
        same = {k: v for k, v in same.items() if re.search(r'\d', k)}
    if not same:
        same = {k: v for k, v in numbered.items() if len(v) > 1}
        if len(same) < 2:
            return []
    example = max(same, key=lambda key: len(same[key]))
    return [
        f'no patients are named, and {sum(map(len, same.values()))} of {len(people)} '
        f'{unit}s look like several scans of {len(same)} person(s), e.g. '
        f'{", ".join(same[example][:SHOWN])}: each counts as a patient of its own, and '
        "a split may part them. --patient-pattern REGEX ('^(.+)$': they are right as "
        'they are) or --patients FILE.csv (columns case,patient) says who they are'
    ]


def _inner_paths(people: Sequence[Person]) -> list[str]:
    """Paths below the folder that all share."""
    folders = {os.path.dirname(person.path) for person in people}
    try:
        root = os.path.commonpath(folders)
    except ValueError:  # none, or relative and absolute ones
        root = ''
    return [p.path[len(root) :].lstrip('/') for p in people]


def _stem(path: str) -> str:
    """A path without the suffix of its file."""
    return re.sub(r'(\.(nii|nrrd|csv))?\.[A-Za-z][A-Za-z0-9]{0,4}$', '', path)


def _groups(patients: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for case_id, patient in patients.items():
        groups[patient].append(case_id)
    return groups


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return f'e.g. {", ".join(map(repr, shown[:SHOWN]))}'
