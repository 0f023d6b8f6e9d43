"""What a network has seen: which cases or images, in which stage, of which split.

A checkpoint, and whatever is made of it, has an entry ``provenance`` of plain
types: for every stage (``pretrain``, ``train``, ``choice``) and split the digests
of the cases that the network was shown, so that they are known under any name
and in any store. ``choice`` are those that chose the weights: a validation that
picked the best. Patients are digests of data set and patient, so that no id
leaves with weights. A network made of another takes over what that one has seen.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medssl_mm.errors import UserError

__all__ = [
    'KEY',
    'Cases',
    'Overlap',
    'Seen',
    'attach',
    'join_facts',
    'require_unseen',
    'result_entry',
    'seen_of',
    'sentences',
]

KEY = 'provenance'
VERSION = 1
PRETRAIN, TRAIN, CHOICE = 'pretrain', 'train', 'choice'
STAGES = {PRETRAIN: 'pretraining', TRAIN: 'training', CHOICE: 'model choice'}
TEST, VALIDATION = 'test', 'validation'
# Hex digits kept of a digest: of 10 million images two are equal by chance once
# in 400 000 such sets, and 100 000 images take 1.6 MB.
DIGITS = 16
_SHOWN = 6  # cases that a message names


def patient_digest(dataset: str, patient: str) -> str:
    """Digest of a patient, as an entry holds it."""
    return hashlib.sha256(f'{dataset}\t{patient}'.encode()).hexdigest()[:DIGITS]


@dataclass(frozen=True, eq=False)
class Cases:
    """Cases or images that a network is shown.

    Args:
        dataset (str): Name of the data set.
        protocol (str): Name of the split; 'all-cases' or the like without one.
        split_hash (str): Hash of the split; '' without one.
        subsets (Sequence[str]): Subsets of the split.
        ids (Sequence[str]): Names, for messages.
        contents (Sequence[str]): SHA-256 of what is stored of each, at least its
            first 16 hex digits; '' where it is not known, as of a constant image.
        patients (Sequence[str]): Patient of each.
        kind (str): 'case' or 'image'. Defaults to 'case'.
        by_image (bool): Whether the split parts images, not patients. Defaults to
            False.
        keeps_test_apart (bool): Whether the split has a subset to pretrain on,
            which never holds a test patient. Defaults to False.
        published (bool): Whether the name is that of one published set, and so
            its patients are known by their ids. Otherwise it may be that of a
            kind of files, which many sets have. Defaults to True.
        whole (Callable, optional): Gives the digests of everything in the store:
            of two sets of such a name, those with a case in common are one.
            Defaults to None.
    """

    dataset: str
    protocol: str
    split_hash: str
    subsets: Sequence[str]
    ids: Sequence[str]
    contents: Sequence[str]
    patients: Sequence[str]
    kind: str = 'case'
    by_image: bool = False
    keeps_test_apart: bool = False
    published: bool = True
    whole: Callable[[], Iterable[str]] | None = None

    @property
    def role(self) -> str:
        """What it is for if it is scored: 'test', or 'validation'."""
        return TEST if TEST in self.subsets else VALIDATION

    def __str__(self) -> str:
        return _split_text(self.dataset, self.protocol, self.split_hash, self.subsets)


def _split_text(
    dataset: str, protocol: str, split_hash: str, subsets: Iterable[str]
) -> str:
    parts = [protocol, f'split {split_hash}' if split_hash else '', '+'.join(subsets)]
    return f'{dataset} ({", ".join(part for part in parts if part)})'


@dataclass(frozen=True)
class Shown:
    """What one stage has seen of one split.

    Args:
        stage (str): 'pretrain', 'train' or 'choice'.
        dataset (str): Name of the data set.
        protocol (str): Name of the split.
        split_hash (str): Hash of the split; '' without one.
        subsets (tuple[str]): Subsets of the split.
        contents (frozenset[str]): Digests of the cases.
        patients (frozenset[str]): Digests of the patients.
    """

    stage: str
    dataset: str
    protocol: str
    split_hash: str
    subsets: tuple[str, ...]
    contents: frozenset[str]
    patients: frozenset[str]

    @classmethod
    def of(cls, stage: str, cases: Cases) -> Shown:
        """What a stage sees that is shown cases."""
        return cls(
            stage,
            cases.dataset,
            cases.protocol,
            cases.split_hash,
            tuple(cases.subsets) if cases.split_hash else (),
            frozenset(content[:DIGITS] for content in cases.contents if content),
            frozenset(patient_digest(cases.dataset, p) for p in set(cases.patients)),
        )

    @property
    def key(self) -> tuple:
        """What entries that are joined have in common."""
        return self.stage, self.dataset, self.protocol, self.split_hash, self.subsets

    def __str__(self) -> str:
        split = _split_text(self.dataset, self.protocol, self.split_hash, self.subsets)
        return f'{STAGES[self.stage]} on {split}'

    def to_plain(self) -> dict[str, Any]:
        """Plain types; digests in one string, sorted."""
        return dict(
            stage=self.stage,
            dataset=self.dataset,
            protocol=self.protocol,
            split_hash=self.split_hash,
            subsets=list(self.subsets),
            contents=''.join(sorted(self.contents)),
            patients=''.join(sorted(self.patients)),
        )

    @classmethod
    def from_plain(cls, content: Mapping) -> Shown:
        """Read what ``to_plain`` gave."""
        return cls(
            **{name: str(content[name]) for name in _NAMES},
            subsets=tuple(content['subsets']),
            contents=_cut(content['contents']),
            patients=_cut(content['patients']),
        )


_NAMES = ('stage', 'dataset', 'protocol', 'split_hash')


def _cut(text: str) -> frozenset[str]:
    return frozenset(
        text[start : start + DIGITS] for start in range(0, len(text), DIGITS)
    )


@dataclass(frozen=True)
class Seen:
    """All that a network has seen, through all its stages.

    Args:
        shown (tuple[Shown]): By stage and split. Defaults to ().
        unknown (tuple[str]): Weights or data that went into the network of which
            it is not known what they have seen, or are. Defaults to ().
    """

    shown: tuple[Shown, ...] = ()
    unknown: tuple[str, ...] = ()

    def __or__(self, other: Seen) -> Seen:
        joined: dict[tuple, Shown] = {}
        for one in (*self.shown, *other.shown):
            known = joined.get(one.key)
            if known is not None:
                one = replace(
                    one,
                    contents=known.contents | one.contents,
                    patients=known.patients | one.patients,
                )
            joined[one.key] = one
        unknown = tuple(dict.fromkeys((*self.unknown, *other.unknown)))
        return Seen(tuple(joined.values()), unknown)

    def __bool__(self) -> bool:
        return bool(self.shown or self.unknown)

    def to_plain(self) -> dict[str, Any]:
        """Entry of a checkpoint: plain types, which JSON keeps as well."""
        return dict(
            version=VERSION,
            shown=[one.to_plain() for one in self.shown],
            unknown=list(self.unknown),
        )

    def words(self) -> list[str]:
        """A line for each stage and split: how many cases and patients."""
        return [
            f'{one}: {_number(len(one.contents), "case")}, '
            f'{_number(len(one.patients), "patient")}'
            for one in self.shown
        ] + [f'{what}: what it has seen is not known' for what in self.unknown]


def seen_of(content: object, source: str) -> Seen:
    """Read what the weights in a file have seen.

    Args:
        content (object): What the file holds: a mapping with an entry, or one with
            an attribute, of that name; or the entry as JSON text.
        source (str): Name of the file, for what is not known.

    Returns:
        Seen: Without an entry, the source is in ``unknown``.

    Raises:
        UserError: The entry is of a newer version, or damaged.
    """
    entry = content.get(KEY) if isinstance(content, Mapping) else None
    if entry is None:
        entry = getattr(content, KEY, None)
    if isinstance(entry, str):
        entry = _from_json(entry)
    if not isinstance(entry, Mapping) or 'version' not in entry:
        # Its name only: folders of a machine are no business of who gets weights.
        return Seen(unknown=(Path(source).name or source,))
    if entry['version'] != VERSION:
        raise UserError(
            f'{source}: what the network has seen is written in version '
            f'{entry["version"]!r}, '
            f'this package reads {VERSION}; use the version that wrote it, or a newer '
            'one'
        )
    try:
        shown = tuple(map(Shown.from_plain, entry['shown']))
        return Seen(shown, tuple(map(str, entry['unknown'])))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{source}: its entry {KEY!r} is damaged ({type(error).__name__}: '
            f'{error}); it was not written by this package'
        ) from None


def attach(content: dict, seen: Seen) -> dict:
    """Put the entry into a checkpoint that is about to be saved.

    Args:
        content (dict): With the key ``state_dict``; or names and tensors alone.
        seen (Seen): What the weights have seen.

    Returns:
        dict: With the entry. Of tensors alone it is an attribute: libraries that
        read such a file expect nothing else in it.
    """
    if 'state_dict' in content:
        return {**content, KEY: seen.to_plain()}
    tensors = OrderedDict(content)
    vars(tensors)[KEY] = seen.to_plain()
    return tensors


def _from_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:  # of another library, under the same name
        return None


@dataclass(frozen=True, eq=False)
class Overlap:
    """What a network has seen of cases that are scored.

    Args:
        cases (Cases): They.
        role (str): 'test' or 'validation': what they are scored for.
        shared (Mapping[str, list[str]]): Stage to names of cases it has seen.
        patients (Mapping[str, list[str]]): Stage to names of further cases, of a
            patient whose other cases it has seen.
        places (Mapping[str, list[str]]): Stage to the splits in which it has.
        perhaps (list[str]): Cases of patients with the ids of seen ones, in a data
            set that is perhaps another. Defaults to none.
        twice (list[str]): Cases whose content is in another subset of their split.
            Defaults to none.
        unknown (tuple[str]): Weights of which it is not known. Defaults to ().
    """

    cases: Cases
    role: str
    shared: Mapping[str, list[str]]
    patients: Mapping[str, list[str]]
    places: Mapping[str, list[str]]
    perhaps: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    unknown: tuple[str, ...] = ()

    @classmethod
    def find(cls, seen: Seen, cases: Cases, role: str = TEST) -> Overlap:
        """Compare cases with what a network has seen.

        Cases of the very split that the network was trained on, and of another
        subset, are not compared by patient again: a split has checked that. If
        their content is equal all the same, the data set holds it twice.
        """
        contents = [content[:DIGITS] for content in cases.contents]
        patients = [patient_digest(cases.dataset, p) for p in cases.patients]
        shared: dict[str, set[str]] = {}
        alike: dict[str, set[str]] = {}
        places: dict[str, list[str]] = {}
        twice, perhaps = set[str](), set[str]()
        for one in seen.shown:
            same = {i for i, c in zip(cases.ids, contents) if c in one.contents}
            same_data = one.dataset == cases.dataset
            if same_data and _parted(one, cases):
                twice |= same
                continue
            of_patient = set[str]()
            if same_data and not cases.by_image:
                of_patient = {
                    i for i, p in zip(cases.ids, patients) if p in one.patients
                }
            if of_patient - same and not _one_set(one, cases):
                perhaps |= of_patient - same
                of_patient = same
            if same or of_patient:
                shared.setdefault(one.stage, set()).update(same)
                alike.setdefault(one.stage, set()).update(of_patient)
                places.setdefault(one.stage, []).append(str(one))
        return cls(
            cases,
            role,
            {stage: sorted(names) for stage, names in shared.items()},
            {stage: sorted(alike[stage] - shared[stage]) for stage in shared},
            places,
            sorted(perhaps - set().union(*shared.values(), *alike.values())),
            sorted(twice),
            seen.unknown,
        )

    @property
    def refused(self) -> tuple[str, ...]:
        """Stages that must not have seen such cases, and have."""
        wrong = [TRAIN]
        if self.role == TEST:
            wrong.append(CHOICE)
            if self.cases.keeps_test_apart and self.cases.role == TEST:
                wrong.append(PRETRAIN)
        return tuple(
            stage for stage in STAGES if stage in wrong and stage in self.shared
        )

    @property
    def facts(self) -> dict[str, Any]:
        """For a result: numbers and names, plain types."""
        what = dict(kind=self.cases.kind, role=self.role, of=len(set(self.cases.ids)))
        found = {
            stage: dict(
                cases=len(self.shared[stage]),
                further_of_seen_patients=len(self.patients[stage]),
                names=[*self.shared[stage], *self.patients[stage]][:_SHOWN],
            )
            for stage in STAGES
            if stage in self.shared and (stage == TRAIN or self.role == TEST)
        }
        if self.perhaps:
            found['perhaps_of_seen_patients'] = dict(
                cases=len(self.perhaps), names=self.perhaps[:_SHOWN]
            )
        if self.twice:
            found['twice_in_the_split'] = dict(
                cases=len(self.twice), names=self.twice[:_SHOWN]
            )
        return {**what, **found, 'not_known': list(self.unknown)}

    def message(self, source: str, refused: Sequence[str]) -> str:
        """What is wrong with scoring cases that these stages have seen."""
        kind, total = self.cases.kind, len(set(self.cases.ids))
        parts = []
        for stage in refused:
            same, alike = self.shared[stage], self.patients[stage]
            names = [*same, *alike]
            more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
            counted = f'{len(names)} of {total} {self.role} {kind}s'
            text = f'{counted} ({", ".join(names[:_SHOWN])}{more}) were seen'
            if alike and same:
                text += f', or {len(alike)} of them another {kind} of the patient,'
            elif alike:
                text = (
                    f'{counted} ({", ".join(names[:_SHOWN])}{more}) are of patients '
                    f'of whom other {kind}s were seen'
                )
            parts.append(f'{text} in {"; ".join(self.places[stage])}')
        return (
            f'{source}: {". ".join(parts)}. Scored now: {self.cases}. Scores on what '
            f'a network has seen say nothing about new {kind}s: '
            + (
                'pretrain without the test patients (the subset pretrain of the split '
                'that is scored)'
                if list(refused) == [PRETRAIN]
                else f'score {kind}s that it has not seen (the split of its training)'
            )
            + ', or add --allow-seen, which writes it into the result'
        )


def _one_set(one: Shown, cases: Cases) -> bool:
    """Whether two data sets of one name are the same, so that ids mean the same."""
    if cases.published or cases.whole is None:
        return cases.published
    return any(content[:DIGITS] in one.contents for content in cases.whole())


def _parted(one: Shown, cases: Cases) -> bool:
    """Whether a split itself keeps two sets of cases apart."""
    if not one.split_hash or one.split_hash != cases.split_hash:
        return False
    subsets = set(one.subsets), set(cases.subsets)
    if any(PRETRAIN in part for part in subsets) and {TEST} not in subsets:
        return False  # it overlaps with all but the test cases
    return not subsets[0] & subsets[1]


def _number(count: int, noun: str) -> str:
    return f'{count} {noun}{"s" * (count != 1)}'


def sentences(facts: Mapping | None, unknown: bool = True) -> list[str]:
    """Say in words what ``Overlap.facts`` say; nothing where nothing was seen.

    Args:
        facts (Mapping, optional): Of a result; None: it has none.
        unknown (bool): Whether to say of what it is not known. Defaults to True.
    """
    if not facts:
        return []
    of = f'{facts["of"]} {facts["role"]} {facts["kind"]}s'
    found = []
    for stage, name in STAGES.items():
        if stage in facts:
            further = facts[stage]['further_of_seen_patients']
            found.append(
                f'seen in {name}: {facts[stage]["cases"]} of {of}'
                + (f', and other {facts["kind"]}s of the patients of {further}')
                * bool(further)
                + f' ({", ".join(facts[stage]["names"])}'
                + (', ...' * (facts[stage]['cases'] + further > _SHOWN))
                + ')'
            )
    if perhaps := facts.get('perhaps_of_seen_patients'):
        found.append(
            f'{perhaps["cases"]} of {of} ({", ".join(perhaps["names"])}'
            f'{", ..." * (perhaps["cases"] > _SHOWN)}) are of patients with the ids of '
            'seen ones, in another data set of that kind: scores are too high if they '
            'are the same persons'
        )
    if twice := facts.get('twice_in_the_split'):
        found.append(
            f'the split has the content of {twice["cases"]} of {of} in another subset, '
            f'too, under another name ({", ".join(twice["names"])}'
            f'{", ..." * (twice["cases"] > _SHOWN)})'
        )
    if unknown and facts['not_known']:
        found.append(
            f'whether any of the {of} was seen is not known: no record of what was '
            f'seen comes with {", ".join(facts["not_known"])}'
        )
    return found


def result_entry(facts: Mapping | None) -> dict[str, Any]:
    """Entry of a result with facts; none where nothing was compared."""
    return {} if facts is None else dict(seen=facts)


def join_facts(parts: Sequence[Mapping | None]) -> dict[str, Any] | None:
    """Join the facts of several evaluations, of the splits of one data set."""
    known = [part for part in parts if part]
    if not known:
        return None
    joined: dict[str, Any] = dict(
        kind=known[0]['kind'], role=known[0]['role'], of=sum(p['of'] for p in known)
    )
    for stage in (*STAGES, 'perhaps_of_seen_patients', 'twice_in_the_split'):
        found = [part[stage] for part in known if stage in part]
        if found:
            joined[stage] = {
                key: sum(one[key] for one in found)
                for key in found[0]
                if key != 'names'
            }
            names = [name for one in found for name in one['names']]
            joined[stage]['names'] = names[:_SHOWN]
    unknown = [name for part in known for name in part['not_known']]
    return {**joined, 'not_known': list(dict.fromkeys(unknown))}


def require_unseen(
    seen: Seen,
    cases: Cases,
    source: str,
    role: str = TEST,
    allow: bool = False,
    told: Sequence[str] = (),
) -> dict[str, Any]:
    """Refuse to score cases that a network was trained on or chosen by.

    Test cases that the pretraining has seen are refused where the split has a
    subset to pretrain on, which holds none; otherwise that is told in the facts.

    Args:
        seen (Seen): What the network has seen.
        cases (Cases): What is to be scored.
        source (str): Name of the network, for the message.
        role (str): 'test', or 'validation', which pretraining and an earlier
            choice may have seen. Defaults to 'test'.
        allow (bool): Whether to go on all the same. Defaults to False.
        told (Sequence[str]): Stages that are told, and refuse nothing. Defaults to
            ().

    Returns:
        dict: For the result; :func:`sentences` has it in words.

    Raises:
        UserError: Names the cases, and where they were seen.
    """
    overlap = Overlap.find(seen, cases, role)
    refused = [stage for stage in overlap.refused if stage not in told]
    if refused and not allow:
        raise UserError(overlap.message(source, refused))
    return overlap.facts
