"""Patient-wise splits: the one reader, writer and leak check.

A split file is ``<store>/splits/<protocol>.json``. Its hash has two parts: the
first covers protocol, data set, seed and case ids, the second the images and
labels of these cases. Two results with the same hash were made on the same data.
Files of before have the first part only, and keep it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from medssl_mm.errors import UserError
from medssl_mm.files import write_json
from medssl_mm.store.opening import open_store

PatientOf = Mapping[str, str] | Callable[[str], str]  # of a case
ClassesOf = Callable[[str], Iterable[int]]  # indices, of a case
SUBSETS = ('pretrain', 'train', 'val', 'test')
PATIENT, IMAGE = 'patient', 'image'  # what a split keeps on one side
SPLIT_VERSION = 2  # of files that say the content; those without are of version 1


@dataclass(frozen=True)
class Split:
    """Which cases play which part.

    Args:
        protocol (str): Name that every result repeats, e.g. 'btcv-18-12'.
        dataset (str): Name of the data set.
        subsets (Mapping): Subset ('pretrain', 'train', 'val' or 'test') to
            case ids; sorted and kept as tuples.
        seed (int, optional): Seed of a drawn split. Defaults to None.
        description (str): One sentence, not part of the hash.
        by (str): 'patient', or 'image': published comparisons that part the
            images of a patient are repeated so; only an image must not be on
            both sides. Defaults to 'patient'.
        content (str, optional): Digest of the images and labels of the cases, see
            :func:`with_content`. Defaults to None: not known.

    Raises:
        UserError: Unknown subset, or a case twice in a subset.
    """

    protocol: str
    dataset: str
    subsets: Mapping[str, Sequence[str]]
    seed: int | None = None
    description: str = ''
    by: str = PATIENT
    content: str | None = None

    def __post_init__(self) -> None:
        if self.by not in (PATIENT, IMAGE):
            raise UserError(
                f'split {self.protocol!r}: by must be {PATIENT!r} or {IMAGE!r}, got '
                f'{self.by!r}'
            )
        subsets = {}
        for name, cases in self.subsets.items():
            if name not in SUBSETS:
                raise UserError(
                    f'split {self.protocol!r}: unknown subset {name!r}, '
                    f'expected one of {SUBSETS}'
                )
            ids = tuple(sorted(cases))
            if len(set(ids)) != len(ids):
                twice = sorted({c for c in ids if ids.count(c) > 1})
                raise UserError(
                    f'split {self.protocol!r}: subset {name!r} names '
                    f'{twice[:3]} more than once'
                )
            subsets[name] = ids
        object.__setattr__(self, 'subsets', MappingProxyType(subsets))

    def __reduce__(self) -> tuple:  # a mapping proxy cannot be pickled
        return type(self), (
            self.protocol,
            self.dataset,
            dict(self.subsets),
            self.seed,
            self.description,
            self.by,
            self.content,
        )

    def __getitem__(self, subset: str) -> Sequence[str]:
        if subset not in self.subsets:
            raise UserError(
                f'split {self.protocol!r} has no subset {subset!r}; it has '
                f'{list(self.subsets)}'
            )
        return self.subsets[subset]

    @property
    def case_ids(self) -> list[str]:
        """Cases of all subsets, sorted."""
        return sorted({c for cases in self.subsets.values() for c in cases})

    @property
    def hash(self) -> str:
        """'<cases>-<content>': who is where, and with which images and labels.

        Without the second part where the content is not known.
        """
        return f'{self.cases_hash}-{self.content}' if self.content else self.cases_hash

    @property
    def cases_hash(self) -> str:
        """First 12 hex digits of the SHA-256 of protocol, seed and case ids."""
        content = dict(
            protocol=self.protocol,
            dataset=self.dataset,
            seed=self.seed,
            subsets={k: list(v) for k, v in sorted(self.subsets.items())},
            **self._unit,
        )
        text = json.dumps(content, sort_keys=True, separators=(',', ':'))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict:
        """Content of the JSON file."""
        known = self.content is not None
        return dict(
            protocol=self.protocol,
            dataset=self.dataset,
            seed=self.seed,
            description=self.description,
            **self._unit,
            subsets={k: list(v) for k, v in self.subsets.items()},
            **({'version': SPLIT_VERSION, 'content': self.content} if known else {}),
            hash=self.hash,
        )

    @property
    def _unit(self) -> dict[str, str]:
        """What is parted, where not patients: older files do not say it."""
        return {} if self.by == PATIENT else dict(by=self.by)


def with_content(split: Split, fingerprint_of: Callable[[str], str]) -> Split:
    """Let the hash of a split cover the images and labels of its cases.

    Args:
        split: The split.
        fingerprint_of: Case id to the digest of its image and label, of the store.
    """
    lines = '\n'.join(f'{name}\t{fingerprint_of(name)}' for name in split.case_ids)
    return replace(split, content=hashlib.sha256(lines.encode()).hexdigest()[:12])


def _lookup(patient_of: PatientOf) -> Callable[[str], str]:
    return patient_of if callable(patient_of) else patient_of.__getitem__


def check_no_leak(split: Split, patient_of: PatientOf) -> None:
    """Refuse a split with one patient on both sides.

    train, val and test must be disjoint by patient; pretrain must hold no
    test patient. Of a split by image the same is asked of images.

    Args:
        split: The split.
        patient_of: Case id to patient id.

    Raises:
        UserError: Names the patient and one case of it on either side.
    """
    lookup = _lookup(patient_of) if split.by == PATIENT else str
    owner: dict[str, dict[str, str]] = {}
    for name, cases in split.subsets.items():
        owner[name] = {}
        for case_id in cases:
            owner[name].setdefault(lookup(case_id), case_id)
    pairs = [('train', 'val'), ('train', 'test'), ('val', 'test'), ('pretrain', 'test')]
    for one, other in pairs:
        shared = sorted(set(owner.get(one, ())) & set(owner.get(other, ())))
        if shared:
            patient = shared[0]
            raise UserError(
                f'split {split.protocol!r} leaks: {split.by} {patient!r} is in '
                f'{one!r} (case {owner[one][patient]!r}) and in {other!r} '
                f'(case {owner[other][patient]!r}); {len(shared)} {split.by}(s) '
                f'are shared. Split by {split.by}, not by case or slice.'
            )


def save_split(root: str | Path, split: Split) -> Path:
    """Write ``<root>/splits/<protocol>.json``."""
    path = Path(root) / 'splits' / f'{split.protocol}.json'
    write_json(path, split.to_dict())
    return path


def _file_of(root: str | Path | None, name_or_path: str) -> Path:
    if name_or_path.endswith('.json'):
        path = Path(name_or_path)
    elif root is None:
        raise UserError(
            f'split {name_or_path!r} is a protocol name; it needs the store, or '
            'give the path of a .json file'
        )
    else:
        path = Path(root) / 'splits' / f'{name_or_path}.json'
    if not path.is_file():
        have = (
            ', '.join(sorted(p.stem for p in path.parent.glob('[!.]*.json'))) or 'none'
        )
        raise UserError(
            f'split file {path} does not exist; available there: {have}. '
            'tools/prepare_data.py makes splits by --holdout or --folds.'
        )
    return path


def _read(path: Path) -> tuple[Split, str]:
    """Split of a file, and the hash that stands in it."""
    try:
        content = json.loads(path.read_text())
        if content.get('version', 1) not in (1, SPLIT_VERSION):
            raise UserError(
                f'split file of version {content["version"]}; this package reads '
                f'1 and {SPLIT_VERSION}. Update it, or make the split anew with '
                'tools/prepare_data.py'
            )
        split = Split(
            content['protocol'],
            content['dataset'],
            content['subsets'],
            content.get('seed'),
            content.get('description', ''),
            content.get('by', PATIENT),
            content.get('content'),
        )
        return split, content['hash']
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} is no split file ({type(error).__name__}: {error}); '
            'expected the keys protocol, dataset, seed, description, subsets '
            'and hash'
        ) from None


def load_split(
    root: str | Path | None, name_or_path: str | Path, verify_cases: bool = True
) -> Split:
    """Read a split by protocol name or file path, and verify it.

    Args:
        root: Store; may be None for a file path, then only the hash is
            verified.
        name_or_path: 'btcv-18-12' or a path ending in .json.
        verify_cases: Whether to check that the store has every case and that no
            patient leaks.

    Raises:
        UserError: File missing or damaged, hash wrong, case missing, other images or
            labels than when it was made, leak.
    """
    path = _file_of(root, str(name_or_path))
    split, stored_hash = _read(path)
    if stored_hash != split.hash:
        raise UserError(
            f'{path} was changed by hand: its content has hash {split.hash}, '
            f'the file says {stored_hash}. Give the new split a protocol name '
            f'of its own and "hash": "{split.cases_hash}" for the cases as they are, '
            'without "content", or import again to restore it.'
        )
    if root is not None and verify_cases:
        _check_cases(root, split, path)
    return split


def _check_cases(root: str | Path, split: Split, path: Path) -> None:
    store = open_store(root)
    known = set(store.case_ids)
    for name, cases in split.subsets.items():
        missing = [c for c in cases if c not in known]
        if missing:
            raise UserError(
                f'{path}: subset {name!r} names {len(missing)} case(s) that '
                f'{store.root} does not have, e.g. {missing[0]!r}; import '
                'them, or make the splits anew with tools/prepare_data.py'
            )
    if split.content and split != with_content(split, store.fingerprint_of):
        raise UserError(
            f'{path} was made for other images or labels: since then cases of '
            f'{store.root} have changed, or the file comes from another data set. '
            'Run tools/prepare_data.py again on this store: it gives the split the '
            'hash of what is there now, and results of before keep theirs.'
        )
    check_no_leak(split, store.patient_of)


def saved_splits(root: str | Path) -> dict[str, Split]:
    """Splits of a store by protocol; damaged files are passed over."""
    found = {}
    for path in sorted((Path(root) / 'splits').glob('[!.]*.json')):
        try:
            split = load_split(None, path)
        except UserError:
            continue  # says so when it is used
        if split.protocol == path.stem:
            found[split.protocol] = split
    return found


def describe_changes(old: Split, new: Split, unit: str = 'case') -> str:
    """Say which cases came, which went, and which changed sides.

    Args:
        old: The split as it is.
        new: As it would be.
        unit: What a case is called. Defaults to 'case'.
    """
    before, after = _sides(old), _sides(new)
    moved = [c for c in before if c in after and before[c] != after[c]]
    parts = [
        _counted(len(after.keys() - before.keys()), unit, 'came', after, before),
        _counted(len(before.keys() - after.keys()), unit, 'went', before, after),
    ]
    if moved:
        case = moved[0]
        parts.append(
            f'{len(moved)} of the others change sides (e.g. {case!r}: '
            f'{before[case]} -> {after[case]})'
        )
    return ', '.join(parts)


def _sides(split: Split) -> dict[str, str]:
    """Subset of every case; 'pretrain' where it is in no other."""
    return {
        case: subset
        for subset in SUBSETS
        if subset in split.subsets
        for case in split[subset]
    }


def _counted(number: int, unit: str, verb: str, these: dict, those: dict) -> str:
    if not number:
        return f'none {verb}'
    return f'{number} {unit}(s) {verb} (e.g. {min(these.keys() - those.keys())!r})'


def _patients(case_ids: Iterable[str], patient_of: PatientOf) -> dict[str, list[str]]:
    """Group cases by patient, both sorted: the draw depends on names only."""
    lookup = _lookup(patient_of)
    groups: dict[str, list[str]] = {}
    for case_id in sorted(case_ids):
        groups.setdefault(lookup(case_id), []).append(case_id)
    return dict(sorted(groups.items()))


def _shuffled(patients: Iterable[str], seed: int) -> list[str]:
    names = sorted(patients)
    return [names[i] for i in np.random.default_rng(seed).permutation(len(names))]


def rarest_classes(
    groups: Mapping[str, Iterable[str]], classes_of: ClassesOf
) -> dict[str, int | None]:
    """Name the stratum of every patient: the rarest class among its cases.

    Rare means: found in few patients; of equally rare classes the first. A
    patient without any class has the stratum None.

    Args:
        groups: Patient to case ids.
        classes_of: Case id to the indices of its classes.
    """
    present = {
        patient: {c for case_id in cases for c in classes_of(case_id)}
        for patient, cases in groups.items()
    }
    count = Counter(c for classes in present.values() for c in classes)
    return {
        patient: min(classes, key=lambda c: (count[c], c), default=None)
        for patient, classes in present.items()
    }


def _strata(
    groups: Mapping[str, Iterable[str]], seed: int, classes_of: ClassesOf | None
) -> list[list[str]]:
    """Shuffle the patients and part them by their rarest class.

    Without ``classes_of`` all patients are one stratum.
    """
    order = _shuffled(groups, seed)
    if classes_of is None:
        return [order]
    rarest = rarest_classes(groups, classes_of)
    strata: dict[int, list[str]] = {}
    for patient in order:  # -1: no class at all
        stratum = rarest[patient]
        strata.setdefault(-1 if stratum is None else stratum, []).append(patient)
    return [strata[key] for key in sorted(strata)]


def _spread(strata: list[list[str]], seed: int) -> list[str]:
    """Order in which every first part has the strata in proportion.

    Each stratum is spread evenly over the order, from a random start.
    """
    rng = np.random.default_rng((seed, 1))
    placed = []
    for stratum in strata:
        start = rng.random() if len(strata) > 1 else 0.0
        placed += [
            ((number + start) / len(stratum), patient)
            for number, patient in enumerate(stratum)
        ]
    return [patient for _, patient in sorted(placed, key=lambda p: p[0])]


def _seats(sizes: list[int], room: list[int], total: int) -> list[int]:
    """Share out ``total`` patients over the strata, in proportion to size.

    Each stratum gets one first, as long as there are any, the large ones
    before the small; then whichever lacks most. ``room`` is the most that a
    stratum can give.
    """
    seats = [0] * len(sizes)
    largest = sorted(range(len(sizes)), key=lambda n: (-sizes[n], n))
    for number in largest[:total]:
        seats[number] = int(room[number] > 0)
    share = total / sum(sizes)
    while sum(seats) < total:
        number = max(
            (n for n in largest if seats[n] < room[n]),
            key=lambda n: share * sizes[n] - seats[n],
        )
        seats[number] += 1
    return seats


def _divide(
    strata: list[list[str]], num_test: int, num_val: int
) -> dict[str, list[str]]:
    """Cut every stratum into test, val and train.

    Test goes first, then validation; each stratum keeps a patient to train
    on as long as the others can give enough.
    """
    sizes = [len(stratum) for stratum in strata]
    keep = [1] * len(sizes)
    if sum(sizes) - sum(keep) < num_test + num_val:
        keep = [0] * len(sizes)
    room = [size - kept for size, kept in zip(sizes, keep)]
    tests = _seats(sizes, room, num_test)
    room = [left - taken for left, taken in zip(room, tests)]
    vals = _seats(sizes, room, num_val) if num_val else [0] * len(sizes)
    parts: dict[str, list[str]] = dict(test=[], val=[], train=[])
    for stratum, test, val in zip(strata, tests, vals):
        parts['test'] += stratum[:test]
        parts['val'] += stratum[test : test + val]
        parts['train'] += stratum[test + val :]
    return parts


def take_fraction(
    split: Split,
    subset: str,
    fraction: float,
    seed: int,
    patient_of: PatientOf,
    classes_of: ClassesOf | None = None,
) -> Sequence[str]:
    """Take a share of the patients of a subset; smaller ones are nested.

    With one seed, the 10 % are part of the 20 %, which are part of the
    50 %. At least one patient is taken.

    Args:
        split: The split.
        subset: Subset to draw from.
        fraction: Share of the patients, above 0, at most 1.
        seed: Seed of the draw.
        patient_of: Case id to patient id.
        classes_of: Case id to its class indices; the patients are then drawn in
            proportion by their rarest class (see :func:`rarest_classes`).
            Defaults to None: not stratified.

    Returns:
        tuple[str]: Case ids, sorted.

    Raises:
        UserError: Fraction out of range, or unknown subset.
    """
    if not 0 < fraction <= 1:
        raise UserError(f'fraction must be above 0 and at most 1, got {fraction}')
    cases = split[subset]
    if fraction == 1:
        return cases
    groups = _patients(cases, patient_of)
    count = max(1, int(np.floor(fraction * len(groups) + 0.5)))
    strata = _strata(groups, seed, classes_of)
    chosen = _spread(strata, seed)[:count]
    return tuple(sorted(c for p in chosen for c in groups[p]))


def _pretrain(
    groups: Mapping[str, Iterable[str]],
    all_cases: Iterable[str] | None,
    patient_of: PatientOf,
    test_patients: Iterable[str],
) -> list[str]:
    """Everything that is no test patient, the unlabelled cases included."""
    everyone = groups if all_cases is None else _patients(all_cases, patient_of)
    return [c for p, cases in everyone.items() if p not in test_patients for c in cases]


def _drawn_name(way: str, seed: int, classes_of: ClassesOf | None) -> str:
    return f'{way}-seed{seed}' + ('-stratified' if classes_of else '')


def make_holdout(
    case_ids: Iterable[str],
    patient_of: PatientOf,
    dataset: str,
    test: float = 0.2,
    val: float = 0.0,
    seed: int = 0,
    pretrain_ids: Iterable[str] | None = None,
    protocol: str | None = None,
    classes_of: ClassesOf | None = None,
) -> Split:
    """Draw a patient-wise hold-out split.

    Args:
        case_ids: Labelled cases to divide.
        patient_of: Case id to patient id.
        dataset: Name of the data set.
        test: Share of the patients held out.
        val: Share for model selection.
        seed: Seed of the draw.
        pretrain_ids: Cases for pretraining, e.g. unlabelled ones too; test
            patients are taken out. Defaults to None: ``case_ids``.
        protocol: Name. Defaults to None: made from the shares and the seed.
        classes_of: Case id to its class indices. Each class then gets its share
            of every part, going by the rarest class of each patient, and of few
            patients at least one is tested and one trained on.

    Raises:
        UserError: Shares out of range or too few patients.
    """
    if not (0 < test < 1 and 0 <= val < 1 and test + val < 1):
        raise UserError(
            'the held-out shares must lie between 0 and 1 and leave training '
            f'patients, got test={test} and val={val}'
        )
    groups = _patients(case_ids, patient_of)
    count = len(groups)
    num_test = max(1, round(test * count))
    num_val = max(1, round(val * count)) if val else 0
    if num_test + num_val >= count:
        raise UserError(
            f'cannot hold out {num_test} test and {num_val} val of {count} '
            f'patient(s) of {dataset!r}: none is left for training'
        )
    parts = _divide(_strata(groups, seed, classes_of), num_test, num_val)
    subsets = {
        name: [c for p in parts[name] for c in groups[p]]
        for name in ('train', 'val', 'test')
        if parts[name]
    }
    subsets['pretrain'] = _pretrain(
        groups, pretrain_ids, patient_of, set(parts['test'])
    )
    kind = 'Stratified patient-wise' if classes_of else 'Patient-wise'
    shares = f'{round(100 * test)}' + (f'-val-{round(100 * val)}' if val else '')
    return Split(
        protocol or _drawn_name(f'holdout-{shares}', seed, classes_of),
        dataset,
        subsets,
        seed,
        f'{kind} hold-out: {num_test} of {count} patients for test, '
        f'{num_val} for validation; pretraining on all but the test patients.',
    )


def make_kfold(
    case_ids: Iterable[str],
    patient_of: PatientOf,
    dataset: str,
    folds: int = 5,
    seed: int = 0,
    pretrain_ids: Iterable[str] | None = None,
    protocol: str | None = None,
    classes_of: ClassesOf | None = None,
) -> list[Split]:
    """Draw patient-wise folds; each patient is tested exactly once.

    Args:
        case_ids: Labelled cases to divide.
        patient_of: Case id to patient id.
        dataset: Name of the data set.
        folds: Number of folds.
        seed: Seed of the draw.
        pretrain_ids: As in :func:`make_holdout`.
        protocol: Prefix of the names. Defaults to None:
            'kfold-<folds>-seed<seed>'; '-fold<i>' is appended.
        classes_of: As in :func:`make_holdout`.

    Raises:
        UserError: Fewer patients than folds.
    """
    groups = _patients(case_ids, patient_of)
    if folds < 2 or folds > len(groups):
        raise UserError(
            f'folds must be between 2 and the number of patients '
            f'({len(groups)} in {dataset!r}), got {folds}'
        )
    # Dealt stratum by stratum: each fold gets its share of each.
    order = [p for part in _strata(groups, seed, classes_of) for p in part]
    prefix = protocol or _drawn_name(f'kfold-{folds}', seed, classes_of)
    splits = []
    for fold in range(folds):
        held_out = set(order[fold::folds])
        subsets = dict(
            pretrain=_pretrain(groups, pretrain_ids, patient_of, held_out),
            train=[c for p in groups if p not in held_out for c in groups[p]],
            test=[c for p in groups if p in held_out for c in groups[p]],
        )
        splits.append(
            Split(
                f'{prefix}-fold{fold}',
                dataset,
                subsets,
                seed,
                f'Fold {fold} of {folds}, patient-wise: {len(held_out)} of '
                f'{len(groups)} patients for test.',
            )
        )
    return splits
